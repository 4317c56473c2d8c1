//! What keeps scripts within limits, and finds everything that they started. Resource limits do not
//! bind root's processes in number, and `setsid` leaves a process group: so the runner of a script
//! becomes the parent of all that loses its own (a child subreaper), looks at the tree below it while
//! the script runs, and kills until nothing is left of it. A control group does the same more
//! strictly, where one was delegated (`cgroup.rs`).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getpid, nice, pidfd_open, pidfd_send_signal,
    set_child_subreaper, setrlimit, setsid,
};

/// Address space of one process.
const ADDRESS_SPACE: u64 = 4 << 30;
/// The largest file that a script may write.
const FILE_SIZE: u64 = 4 << 30;
const NICENESS: i32 = 10;

/// Prepares this process, which runs scripts: they inherit its limits and its priority, and it
/// inherits their orphans. `holds_memory`: the kernel does so for all of them. Who reserves much address
/// space (Go, Java, sanitizers) need not be kept from that then.
pub fn prepare_runner(holds_memory: bool) -> io::Result<()> {
    adopt_orphans()?;
    let address_space = (!holds_memory).then_some((Resource::As, ADDRESS_SPACE));
    let others = [(Resource::Fsize, FILE_SIZE), (Resource::Core, 0)];
    for (resource, limit) in address_space.into_iter().chain(others) {
        // Never more than there is.
        let present = rustix::process::getrlimit(resource);
        let limit = present.maximum.map_or(limit, |most| most.min(limit));
        let both = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, both)?;
    }
    let _ = nice(NICENESS);
    // When memory ends, scripts go before anything else.
    let _ = fs::write("/proc/self/oom_score_adj", "500");
    Ok(())
}

/// Makes this process the parent of descendants that lose theirs.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Makes this process the head of a session of its own: what is typed on a terminal is for the one
/// who started it.
pub fn leave_terminal() {
    // It may be the head of a group already: then it has one of its own.
    let _ = setsid();
}

/// A script in memory that nobody can change. Its interpreter opens it as a file of this process, which
/// root alone may; nothing inherits it. It is there as long as this.
pub struct ScriptFile(OwnedFd);

impl ScriptFile {
    pub fn new(script: &[u8]) -> io::Result<Self> {
        let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
        // A system may refuse all others (vm.memfd_noexec); one before Linux 6.3 does not know them.
        let file = match memfd_create("script", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create("script", flags)?,
            made => made?,
        };
        let mut rest = script;
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest)?;
            rest = &rest[written..];
        }
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(Self(file))
    }

    /// As the interpreter finds it.
    pub fn path(&self) -> PathBuf {
        let (own, file) = (std::process::id(), self.0.as_raw_fd());
        PathBuf::from(format!("/proc/{own}/fd/{file}"))
    }
}

/// Tells when a child ended.
pub struct ChildEnd(OwnedFd);

impl ChildEnd {
    pub fn of(child: Pid) -> io::Result<Self> {
        Ok(Self(pidfd_open(child, PidfdFlags::empty())?))
    }
}

impl AsFd for ChildEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// All processes below this one. While they fork, some may be missing: who kills them looks again.
pub fn descendants() -> Vec<Pid> {
    descendants_of(&[getpid()])
}

/// The children of this process, with those that ended and that nobody took note of.
pub fn own_children() -> Vec<Pid> {
    let own = getpid();
    children(own).unwrap_or_else(|| {
        let of_own = parents().into_iter().filter(|(_, parent)| *parent == own);
        of_own.map(|(child, _)| child).collect()
    })
}

/// All processes below these.
pub fn descendants_of(ancestors: &[Pid]) -> Vec<Pid> {
    let mut found: Vec<Pid> = Vec::new();
    let mut open = ancestors.to_vec();
    while let Some(parent) = open.pop() {
        let Some(children) = children(parent) else {
            return descendants_by_parents(ancestors);
        };
        found.extend(&children);
        open.extend(children);
    }
    found
}

/// None where the kernel does not list children (CONFIG_PROC_CHILDREN).
fn children(parent: Pid) -> Option<Vec<Pid>> {
    let folder = format!("/proc/{}/task", parent.as_raw_nonzero());
    // One that ended meanwhile has no children.
    let Ok(threads) = fs::read_dir(folder) else {
        return Some(Vec::new());
    };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(
                list.split_whitespace()
                    .filter_map(|id| Pid::from_raw(id.parse().ok()?)),
            ),
            Err(_) if !thread.path().exists() => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// The same, out of every process's parent.
fn descendants_by_parents(ancestors: &[Pid]) -> Vec<Pid> {
    let parents = parents();
    let mut found = Vec::new();
    let mut open = ancestors.to_vec();
    while let Some(parent) = open.pop() {
        for (id, _) in parents.iter().filter(|(_, of)| *of == parent) {
            found.push(*id);
            open.push(*id);
        }
    }
    found
}

/// Each process and its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let ids = process_ids().filter_map(Pid::from_raw);
    ids.filter_map(|id| Some((id, parent_of(id)?))).collect()
}

fn parent_of(process: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // The name in brackets may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}

fn process_ids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Bytes of memory of a process that are in no file: its own, what it shares, and what of it was
/// moved to a swap. What several share counts for each of them.
pub fn own_memory(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero()));
    kilobytes(
        &status.unwrap_or_default(),
        &["RssAnon:", "RssShmem:", "VmSwap:"],
    )
}

/// The same, and what several share counts once. The kernel works longer for that.
pub fn share_of_memory(process: Pid) -> u64 {
    let file = format!("/proc/{}/smaps_rollup", process.as_raw_nonzero());
    match fs::read_to_string(file) {
        Ok(maps) => kilobytes(&maps, &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => own_memory(process),
        // It ended.
        Err(_) => 0,
    }
}

/// The sum of these lines (proc_pid_status(5), proc_pid_smaps(5)), in bytes.
fn kilobytes(text: &str, names: &[&str]) -> u64 {
    let values = names.iter().filter_map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    values.sum::<u64>() * 1024
}

/// A process that stays the same, whoever gets its number after it.
pub struct Marked(OwnedFd);

impl Marked {
    pub fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = pidfd_send_signal(&self.0, signal);
    }
}

/// Processes that were started with `marker` in their environment, on this system: one that is seen in
/// here from a container has an agent of its own. Never this process, or one that it comes from.
pub fn marked(marker: &str) -> Vec<Marked> {
    let mut own = vec![getpid()];
    while let Some(parent) = own.last().and_then(|last| parent_of(*last)) {
        own.push(parent);
    }
    let system = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    let own_system = system("self");
    let is_marked = |id: Pid| {
        let id = id.as_raw_nonzero();
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == marker.as_bytes())
            && system(&id.to_string()) == own_system
    };
    let found = process_ids().filter_map(Pid::from_raw);
    found
        .filter(|id| !own.contains(id) && is_marked(*id))
        .filter_map(|id| {
            let opened = pidfd_open(id, PidfdFlags::empty()).ok()?;
            // Another one may have got the number meanwhile.
            is_marked(id).then_some(Marked(opened))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_with_what_is_shared_and_swapped() {
        let status = "Name:\tx\nVmRSS:\t  900 kB\nRssAnon:\t  100 kB\nRssFile:\t  700 kB\n\
            RssShmem:\t   20 kB\nVmSwap:\t    3 kB\n";
        let sum = kilobytes(status, &["RssAnon:", "RssShmem:", "VmSwap:"]);
        assert_eq!(sum, 123 * 1024);
        assert!(own_memory(getpid()) > 0);
        assert!(share_of_memory(getpid()) > 0);
    }

    #[test]
    fn children_are_found_in_both_ways() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("it runs");
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let id = id.expect("an id");
        assert!(own_children().contains(&id));
        assert!(descendants().contains(&id));
        assert!(descendants_by_parents(&[getpid()]).contains(&id));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
}

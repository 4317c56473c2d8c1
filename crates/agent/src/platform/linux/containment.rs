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
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, getpid, nice, pidfd_open, set_child_subreaper, setrlimit,
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

/// A script in memory that nobody can change, for an interpreter that this process starts.
pub struct ScriptFile(OwnedFd);

impl ScriptFile {
    pub fn new(script: &[u8]) -> io::Result<Self> {
        // Not closed at exec: the interpreter reads it. This process starts nothing else meanwhile.
        let file = memfd_create("script", MemfdFlags::ALLOW_SEALING)?;
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
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
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
    let mut found: Vec<Pid> = Vec::new();
    let mut open = vec![getpid()];
    while let Some(parent) = open.pop() {
        let Some(children) = children(parent) else {
            return descendants_by_parents();
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
fn descendants_by_parents() -> Vec<Pid> {
    let parents: Vec<(i32, i32)> = process_ids()
        .filter_map(|id| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // The name in brackets may hold anything.
            let (_, rest) = stat.rsplit_once(')')?;
            Some((id, rest.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = Vec::new();
    let mut open = vec![getpid().as_raw_nonzero().get()];
    while let Some(parent) = open.pop() {
        for (id, _) in parents.iter().filter(|(_, of)| *of == parent) {
            found.extend(Pid::from_raw(*id));
            open.push(*id);
        }
    }
    found
}

fn process_ids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Bytes of memory that a process has for itself.
pub fn own_memory(process: Pid) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{}/statm", process.as_raw_nonzero()));
    let statm = statm.unwrap_or_default();
    let mut pages = statm
        .split_whitespace()
        .map(|pages| pages.parse().unwrap_or(0_u64));
    let resident = pages.nth(1).unwrap_or(0);
    let shared = pages.next().unwrap_or(0);
    resident.saturating_sub(shared) * rustix::param::page_size() as u64
}

/// Processes that were started with `marker` in their environment.
pub fn marked(marker: &str) -> Vec<Pid> {
    let is_marked = |id: &i32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == marker.as_bytes())
    };
    process_ids()
        .filter(is_marked)
        .filter_map(Pid::from_raw)
        .collect()
}

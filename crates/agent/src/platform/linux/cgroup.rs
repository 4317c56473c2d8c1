//! Control groups (cgroups(7), version 2), where systemd delegated one to the agent's service
//! (`Delegate=`). Each runner of scripts gets a group of its own below it: the kernel then holds the
//! limits on memory and processes, and knows every member, whatever it did to get away.
//!
//! ```text
//! perennial-agent.service/            delegated
//! perennial-agent.service/agent/      the daemon and the evaluating process
//! perennial-agent.service/runner-…/   a runner, its script, and all that this started
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, getpid};

/// Where the daemon is, beside its runners: a group with members has no groups with limits below it.
const AGENT: &str = "agent";
const RUNNER: &str = "runner-";

/// Makes room for groups of runners, when this process's own group is one that was delegated.
pub fn prepare_service() -> io::Result<()> {
    let Some(own) = own_group().filter(|own| is_delegated(own)) else {
        return Ok(());
    };
    let agent = own.join(AGENT);
    make(&agent)?;
    put_in(&agent, getpid())?;
    // Each alone: a system may have one and not the other. Then the runner looks for itself.
    for controller in ["+memory", "+pids"] {
        if let Err(error) = fs::write(own.join("cgroup.subtree_control"), controller) {
            tracing::debug!(event = "no-controller", controller, %error);
        }
    }
    Ok(())
}

/// The group of this runner.
static OWN: OnceLock<PathBuf> = OnceLock::new();

/// What the kernel did to the members of a group to keep its limits, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enforced {
    /// Processes that it killed, as there was no memory left.
    pub killed: u64,
    /// Processes that it did not let start.
    pub not_started: u64,
}

/// In this runner's group. Nothing where there is none.
pub fn enforced() -> Enforced {
    OWN.get()
        .map_or_else(Enforced::default, |own| enforced_in(own))
}

fn enforced_in(group: &Path) -> Enforced {
    let count = |file: &str, name: &str| {
        let text = fs::read_to_string(group.join(file)).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let count = lines.find_map(|(key, count)| (key == name).then(|| count.parse().ok())?);
        count.unwrap_or(0)
    };
    Enforced {
        killed: count("memory.events", "oom_kill"),
        not_started: count("pids.events", "max"),
    }
}

/// Puts this process into a group of its own, where one may be made. True when the kernel then holds
/// the limit on memory.
pub fn enter(most_memory: u64, most_processes: usize) -> bool {
    let Some(service) = service() else {
        return false;
    };
    let group = service.join(format!("{RUNNER}{}", getpid().as_raw_nonzero()));
    let mut holds_memory = true;
    let entered = make(&group).and_then(|()| {
        for (limit, value) in [
            ("memory.max", most_memory.to_string()),
            ("memory.swap.max", "0".to_owned()),
            // The runner, too.
            ("pids.max", (most_processes + 1).to_string()),
        ] {
            if let Err(error) = fs::write(group.join(limit), value) {
                tracing::debug!(event = "no-limit", limit, %error);
                holds_memory &= limit != "memory.max";
            }
        }
        put_in(&group, getpid())
    });
    match entered {
        Ok(()) => {
            let _ = OWN.set(group);
            holds_memory
        }
        Err(error) => {
            tracing::debug!(event = "no-control-group", %error);
            false
        }
    }
}

/// The other members of this runner's group. None where there is no group.
pub fn members() -> Vec<Pid> {
    let Some(group) = OWN.get() else {
        return Vec::new();
    };
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        .filter(|member| *member != getpid())
        .collect()
}

/// Removes the group of a runner that ended, with all that may be in it.
pub fn remove(runner: u32) {
    if let Some(service) = service() {
        remove_group(&service.join(format!("{RUNNER}{runner}")));
    }
}

/// Removes what runners of earlier evaluations left behind.
pub fn remove_all() {
    let Some(service) = service() else { return };
    for entry in fs::read_dir(service).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(RUNNER) {
            remove_group(&entry.path());
        }
    }
}

fn remove_group(group: &Path) {
    for _ in 0..200 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let _ = fs::write(group.join("cgroup.kill"), "1");
                std::thread::sleep(Duration::from_millis(5));
            }
            _ => return,
        }
    }
    tracing::warn!(event = "scripts-left-behind", group = %group.display());
}

/// The delegated group in which this process's one is [`AGENT`].
fn service() -> Option<PathBuf> {
    let own = own_group()?;
    let service = own.parent()?;
    let is_agents = own.file_name()? == AGENT && is_delegated(service);
    is_agents.then(|| service.to_owned())
}

fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount_point()?.join(path))
}

/// Of the one hierarchy (proc_pid_mountinfo(5)).
fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_ours = after.starts_with("cgroup2 ");
        is_ours.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// systemd marks what it delegated.
fn is_delegated(group: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(group, *name, &mut value).is_ok_and(|_| value == *b"1")
    })
}

fn make(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn put_in(group: &Path, process: Pid) -> io::Result<()> {
    fs::write(
        group.join("cgroup.procs"),
        process.as_raw_nonzero().to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_enforced_is_counted() {
        let group = tempfile::tempdir().expect("a folder");
        let group = group.path();
        assert_eq!(enforced_in(group), Enforced::default());
        let events = "low 0\nhigh 0\nmax 17\noom 3\noom_kill 2\noom_group_kill 0\n";
        fs::write(group.join("memory.events"), events).expect("written");
        fs::write(group.join("pids.events"), "max 5\n").expect("written");
        let expected = Enforced {
            killed: 2,
            not_started: 5,
        };
        assert_eq!(enforced_in(group), expected);
    }
}

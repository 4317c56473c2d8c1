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

/// Puts this process into a group of its own, where one may be made.
pub fn enter(most_memory: u64, most_processes: usize) {
    let Some(service) = service() else { return };
    let group = service.join(format!("{RUNNER}{}", getpid().as_raw_nonzero()));
    let entered = make(&group).and_then(|()| {
        for (limit, value) in [
            ("memory.max", most_memory.to_string()),
            ("memory.swap.max", "0".to_owned()),
            // The runner, too.
            ("pids.max", (most_processes + 1).to_string()),
        ] {
            if let Err(error) = fs::write(group.join(limit), value) {
                tracing::debug!(event = "no-limit", limit, %error);
            }
        }
        put_in(&group, getpid())
    });
    match entered {
        Ok(()) => drop(OWN.set(group)),
        Err(error) => tracing::debug!(event = "no-control-group", %error),
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

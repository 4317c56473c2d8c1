//! What Linux counted for a process since it started: take a figure before and after the work,
//! the difference is the work's.

use std::fs;
use std::io::{self, ErrorKind};
use std::thread::available_parallelism;

/// Ticks a second in `/proc`, the kernel's `USER_HZ`: 100 on every architecture that Debian
/// releases for, whatever the kernel's own timer.
const TICKS_A_SECOND: f64 = 100.0;

/// Seconds of CPU, user and system, of all threads of the processes, ended threads included. Its
/// steps are 0.01 s for each process and kind, so measure whole seconds. Processes that they
/// started are not included.
///
/// # Errors
/// If one of the processes has ended: its work would be missing from the sum.
pub fn cpu_seconds(pids: &[u32]) -> io::Result<f64> {
    let mut ticks = 0;
    for &pid in pids {
        let stat = read(pid, "stat")?;
        ticks += ticks_in_stat(&stat).ok_or_else(|| unreadable(pid, "stat"))?;
    }
    Ok(ticks as f64 / TICKS_A_SECOND)
}

/// Bytes of memory that are resident, shared pages (a program's text) included. Counted page by
/// page: the cheaper `VmRSS` lags by some hundred KiB on many cores.
///
/// # Errors
/// If the process has ended or belongs to another user.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let rollup = read(pid, "smaps_rollup")?;
    let kibibytes = number_after(&rollup, "Rss:").ok_or_else(|| unreadable(pid, "smaps_rollup"))?;
    Ok(kibibytes * 1024)
}

/// How often the process's threads gave up the CPU to wait for something: for a process that is
/// idle, the number of its wake-ups. The count of a thread that ended is lost, so the sum can
/// fall.
///
/// # Errors
/// If the process has ended.
pub fn voluntary_switches(pid: u32) -> io::Result<u64> {
    let mut switches = 0;
    for thread in threads(pid)? {
        let name = format!("task/{thread}/status");
        match read(pid, &name) {
            Ok(status) => {
                switches += number_after(&status, "voluntary_ctxt_switches:")
                    .ok_or_else(|| unreadable(pid, &name))?;
            }
            Err(error) if has_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(switches)
}

/// Bytes that the process has caused to be written to a disk: whole pages, journals and logs
/// included. Always 0 for files in memory (tmpfs).
///
/// # Errors
/// If the process has ended or belongs to another user.
pub fn write_bytes(pid: u32) -> io::Result<u64> {
    let counters = read(pid, "io")?;
    number_after(&counters, "write_bytes:").ok_or_else(|| unreadable(pid, "io"))
}

/// The processes that a process has started and that still run.
///
/// # Errors
/// If the process has ended.
pub fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for thread in threads(pid)? {
        match read(pid, &format!("task/{thread}/children")) {
            Ok(list) => children.extend(
                list.split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            ),
            Err(error) if has_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

/// The machine in one line: CPU model, cores that this process may use, kernel.
#[must_use]
pub fn machine() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == "model name")
        .map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    let cores = available_parallelism().map_or("unknown".to_owned(), |cores| cores.to_string());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// The sum of `utime` and `stime`, fields 14 and 15 (proc(5)). The second field is the name of the
/// program, in parentheses, and may contain spaces and parentheses itself.
fn ticks_in_stat(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The number that follows a label at the start of a line.
fn number_after(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let folder = format!("/proc/{pid}/task");
    let mut threads = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|error| at(&folder, &error))? {
        threads.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|id| id.parse::<u32>().ok()),
        );
    }
    Ok(threads)
}

fn read(pid: u32, name: &str) -> io::Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).map_err(|error| at(&path, &error))
}

fn has_ended(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// The error with its path. A process or thread that ends between the opening and the reading
/// gives ESRCH, one that ended before gives ENOENT: both become `NotFound`.
fn at(path: &str, error: &io::Error) -> io::Error {
    const ESRCH: i32 = 3;
    let kind = if error.raw_os_error() == Some(ESRCH) {
        ErrorKind::NotFound
    } else {
        error.kind()
    };
    io::Error::new(kind, format!("cannot read {path}: {error}"))
}

fn unreadable(pid: u32, name: &str) -> io::Error {
    io::Error::other(format!("/proc/{pid}/{name} has not the form of proc(5)"))
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn ticks_are_found_behind_any_program_name() {
        for (stat, ticks) in [
            (
                "7 (cfssl) S 1 7 7 0 -1 4194560 9 0 0 0 31 11 5 5 20 0 8 0 99",
                Some(42),
            ),
            (
                "7 (a) b (c) R 1 7 7 0 -1 4194560 9 0 0 0 1 2 5 5 20 0 8 0 99",
                Some(3),
            ),
            ("7 (short) S 1 7 7", None),
            ("", None),
        ] {
            assert_eq!(ticks_in_stat(stat), ticks, "{stat}");
        }
    }

    #[test]
    fn a_label_is_a_whole_beginning_of_a_line() {
        let status = "nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t4\n";
        assert_eq!(number_after(status, "voluntary_ctxt_switches:"), Some(4));
        assert_eq!(number_after(status, "Rss:"), None);
    }

    #[test]
    fn work_of_this_process_is_counted() -> io::Result<()> {
        let pid = process::id();
        let before = cpu_seconds(&[pid])?;
        let mut rounds = 0_u64;
        while cpu_seconds(&[pid])? - before < 0.05 {
            rounds += 1;
        }
        assert!(rounds > 0);
        assert!(rss_bytes(pid)? > 100 * 1024);
        voluntary_switches(pid)?;
        write_bytes(pid)?;
        assert!(machine().contains("Linux"));
        Ok(())
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error() {
        // Above the kernel's PID_MAX_LIMIT of 2^22.
        let nobody = 1 << 23;
        assert!(cpu_seconds(&[process::id(), nobody]).is_err());
        assert!(voluntary_switches(nobody).is_err());
        assert!(children(nobody).is_err());
    }
}

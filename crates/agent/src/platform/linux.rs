//! Linux.

pub mod cgroup;
mod containment;
mod file_place;
mod mounts;
mod seat;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use clock::SystemClock;
use domain::{DeviceFacts, Timestamp};
use jiff::SignedDuration;
use process_wrap::std::{CommandWrap, ProcessSession};
use rustix::fs::{Mode, OFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::platform::Layout;

use super::Process;

pub use containment::{
    ChildEnd, ScriptFile, adopt_orphans, descendants, descendants_of, leave_terminal, marked,
    own_children, own_memory, prepare_runner, share_of_memory,
};
pub use file_place::FilePlace;
pub use mounts::{mounted_below, remove_folder};
pub use seat::Seat;

/// Where scripts find programs, after the agent's own tools.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Root's.
pub const HOME: &str = "/root";
pub const LANG: &str = "C.UTF-8";

pub fn facts() -> DeviceFacts {
    let (os_name, os_version) = os_release();
    let hardware = |name: &str| {
        fs::read_to_string(format!("/sys/class/dmi/id/{name}"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    DeviceFacts {
        os_name,
        os_version,
        model: hardware("product_name"),
        hardware_uuid: hardware("product_uuid").to_uppercase(),
        hardware_serial: hardware("product_serial"),
        ..DeviceFacts::default()
    }
}

/// `Linux`, and the distribution with its version.
fn os_release() -> (String, String) {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    ("Linux".to_owned(), value("PRETTY_NAME"))
}

/// The distribution's version as a number, which rules compare with.
pub fn os_version_number() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_ID="))?;
    Some(line.trim_matches('"').to_owned())
}

/// The distribution's own description of itself, and the kernel.
pub fn version() -> io::Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let kernel = rustix::system::uname();
    Ok(format!(
        "{}\n{} {} {} {}\n",
        release.trim_end(),
        kernel.sysname().to_string_lossy(),
        kernel.release().to_string_lossy(),
        kernel.version().to_string_lossy(),
        kernel.machine().to_string_lossy()
    ))
}

/// The processes that run now, by their number.
pub fn processes() -> io::Result<Vec<Process>> {
    let users = users();
    let mut processes: Vec<Process> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            // One that ended meanwhile is no error.
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let value = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap_or_default().trim().to_owned()
            };
            let user = value("Uid:");
            let user = user.split_whitespace().next().unwrap_or_default();
            Some(Process {
                id,
                name: value("Name:"),
                user: users.get(user).cloned().unwrap_or_else(|| user.to_owned()),
            })
        })
        .collect();
    processes.sort_by_key(|process| process.id);
    Ok(processes)
}

/// The names of this machine's own users, by their numbers.
fn users() -> HashMap<String, String> {
    let table = fs::read_to_string("/etc/passwd").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.to_owned(), name))
        })
        .collect()
}

/// Names this run of the machine.
pub fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Writes a notice to the terminals of all who are logged in (as `wall` does), but for those that
/// belong to users who are told in another way.
pub fn tell_terminals(layout: &Layout, notice: &str, but: &[u32]) {
    // A terminal that is slow, or was left in the middle of an escape, stops nobody.
    let text = format!("\r\n\x07Perennial\r\n{}\r\n", notice.replace('\n', "\r\n"));
    for terminal in terminals(&fs::read(layout.log_ins()).unwrap_or_default()) {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let path = layout.devices().join(&terminal);
        let told = rustix::fs::open(&path, flags, Mode::empty()).and_then(|opened| {
            // Below another root stand files for terminals.
            if layout.is_machine() && !rustix::termios::isatty(&opened) {
                return Err(rustix::io::Errno::NOTTY);
            }
            if but.contains(&rustix::fs::fstat(&opened)?.st_uid) {
                return Ok(0);
            }
            rustix::io::write(&opened, text.as_bytes())
        });
        if let Err(error) = told {
            tracing::debug!(event = "terminal-not-told", terminal, %error);
        }
    }
}

/// The terminals of users who are logged in, out of the records of utmp(5) as glibc lays them out.
fn terminals(records: &[u8]) -> Vec<String> {
    const RECORD: usize = 384;
    const USER_PROCESS: i16 = 7;
    let mut found: Vec<String> = records
        .chunks_exact(RECORD)
        .filter(|record| i16::from_ne_bytes([record[0], record[1]]) == USER_PROCESS)
        .filter_map(|record| {
            let line = record[8..40].split(|byte| *byte == 0).next()?;
            Some(std::str::from_utf8(line).ok()?.to_owned())
        })
        // The file can be written by more than root on some systems: terminals, and nothing else.
        .filter(|line| {
            let all = |name: &str, is: fn(&u8) -> bool| {
                !name.is_empty() && name.as_bytes().iter().all(is)
            };
            let pseudo = line.strip_prefix("pts/");
            let real = line.strip_prefix("tty");
            pseudo.is_some_and(|number| all(number, u8::is_ascii_digit))
                || real.is_some_and(|name| all(name, u8::is_ascii_alphanumeric))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Tells when the machine's network changes: an interface, an address. Nothing is polled.
pub struct NetworkWatch(AsyncFd<OwnedFd>);

impl NetworkWatch {
    /// None where the system does not tell. Must run inside a tokio runtime.
    pub fn start() -> Option<Self> {
        use rustix::net::netlink::SocketAddrNetlink;
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
        // RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR (rtnetlink(7)).
        const GROUPS: u32 = 0x1 | 0x10 | 0x100;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).ok()?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS)).ok()?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, and an owned descriptor is what it asks for"
        )]
        AsyncFd::new(socket).ok().map(Self)
    }

    /// Ends at the first change.
    pub async fn changed(&self) {
        if self.0.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Wakes at a moment of the machine's clock. That clock goes on while the machine is suspended, and
/// setting it wakes the waiter too: no timer runs between due times.
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    clock: SystemClock,
}

impl Alarm {
    /// Must run inside a tokio runtime.
    pub fn new(clock: SystemClock) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, and an owned descriptor is what it asks for"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, clock })
    }

    /// How long the machine has slept since its start.
    pub fn asleep(&self) -> SignedDuration {
        use rustix::time::{ClockId, clock_gettime};
        let seconds = |clock| {
            let time = clock_gettime(clock);
            SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or_default())
        };
        seconds(ClockId::Boottime) - seconds(ClockId::Monotonic)
    }

    /// Waits until it is `at`, or until the clock was set, whichever comes first.
    pub async fn wait_until(&mut self, at: Timestamp) -> io::Result<()> {
        let at = self.clock.machine_time(at);
        let value = Timespec {
            tv_sec: at.as_second().max(0),
            // Zero would disarm the timer.
            tv_nsec: i64::from(at.subsec_nanosecond()).max(1),
        };
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let set = timerfd_settime(
            self.timer.get_ref(),
            flags,
            &Itimerspec {
                it_interval: zero,
                it_value: value,
            },
        );
        match set {
            Ok(_) => {}
            // The clock was set while nobody waited (timerfd_create(2), NOTES).
            Err(rustix::io::Errno::CANCELED) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        loop {
            let mut ready = self.timer.readable().await?;
            let mut ticks = [0; 8];
            match rustix::io::read(self.timer.get_ref(), &mut ticks) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                // Cancelled: the clock was set.
                Ok(_) | Err(rustix::io::Errno::CANCELED) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The user at the other end of a connection.
pub fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

/// Starts the installed service, where systemd runs. Returns what could not be done.
pub fn start_service() -> Option<String> {
    let service = "perennial-agent.service";
    // A service that runs already is to run the program that was just installed.
    systemctl(&["daemon-reload"])
        .or_else(|| systemctl(&["enable", service]))
        .or_else(|| systemctl(&["restart", service]))
}

/// Stops the service, where systemd runs.
pub fn stop_service() -> Option<String> {
    systemctl(&["disable", "--now", "perennial-agent.service"])
}

/// Starts the removal of this agent in a process that outlives it: stopping a service ends all that
/// is in it.
pub fn start_uninstalling(program: &Path, layout: &Layout) -> io::Result<()> {
    let mut command = match layout.is_machine() && fs::exists("/run/systemd/system")? {
        true => {
            let mut command = Command::new("systemd-run");
            command.args(["--collect", "--quiet"]).arg(program);
            command
        }
        false => Command::new(program),
    };
    command
        .arg("--root")
        .arg(layout.root())
        .arg("uninstall")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    CommandWrap::from(command).wrap(ProcessSession).spawn()?;
    Ok(())
}

fn systemctl(words: &[&str]) -> Option<String> {
    if !fs::exists("/run/systemd/system").unwrap_or(false) {
        return None;
    }
    match Command::new("systemctl").args(words).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("systemctl: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of utmp(5).
    pub fn record(kind: i16, line: &str) -> Vec<u8> {
        let mut record = vec![0; 384];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[8..8 + line.len()].copy_from_slice(line.as_bytes());
        record
    }

    #[test]
    fn terminals_of_users_are_found_and_nothing_else() {
        let records = [
            record(7, "pts/1"),
            record(8, "pts/2"),
            record(7, "tty1"),
            record(7, "pts/1"),
            record(7, "../../etc/passwd"),
            record(7, "/etc/passwd"),
            record(7, ""),
            record(7, "sda"),
            record(7, "watchdog"),
            record(7, "pts/1/../../sda"),
            record(7, "tty1/../sda"),
            vec![7; 100],
        ];
        assert_eq!(terminals(&records.concat()), ["pts/1", "tty1"]);
    }
}

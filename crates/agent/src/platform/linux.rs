//! Linux.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;

use clock::SystemClock;
use domain::{DeviceFacts, Timestamp};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

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
        timerfd_settime(
            self.timer.get_ref(),
            flags,
            &Itimerspec {
                it_interval: zero,
                it_value: value,
            },
        )?;
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

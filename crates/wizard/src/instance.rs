//! One window at a time in a session: a lock on a file, which the system lets go when the program ends, and
//! a socket beside it, on which whoever comes second tells the first one what was wanted.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::window::Purpose;

/// How this program was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub purpose: Purpose,
    /// Else the session part did it, for a reminder.
    pub by_person: bool,
}

impl Start {
    const REMINDER: &str = "remind";

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self.by_person {
            true => self.purpose.name(),
            false => Self::REMINDER,
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        let by_person = name != Self::REMINDER;
        let purpose = if by_person {
            Purpose::named(name)?
        } else {
            Purpose::Renew
        };
        Some(Self { purpose, by_person })
    }
}

/// Held as long as the window is open.
pub struct Instance {
    _lock: File,
    starts: Option<UnixListener>,
}

impl Instance {
    /// None when another one is open: it was told.
    pub fn take(start: Start) -> io::Result<Option<Self>> {
        Self::take_in(&folder()?, &display(), start)
    }

    fn take_in(folder: &Path, display: &str, start: Start) -> io::Result<Option<Self>> {
        let named = |end: &str| folder.join(format!("perennial-wizard-{display}.{end}"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(named("lock"))?;
        let socket = named("sock");
        let mut tries = 30;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    // Left behind by one that was killed: the lock is ours.
                    let _ = std::fs::remove_file(&socket);
                    return Ok(Some(Self {
                        _lock: file,
                        starts: UnixListener::bind(&socket).ok(),
                    }));
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {}
            }
            let told = UnixStream::connect(&socket)
                .and_then(|mut first| first.write_all(start.name().as_bytes()));
            tries -= 1;
            if told.is_ok() || tries == 0 {
                return Ok(None);
            }
            // It just starts, or just ends.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What later starts wanted, one after the other, for ever. Waits.
    pub fn starts(&self) -> impl Iterator<Item = Start> + '_ {
        let starts = self.starts.iter().flat_map(UnixListener::incoming);
        starts.filter_map(|start| {
            let mut name = String::new();
            let mut start = start.ok()?.take(64);
            start.read_to_string(&mut name).ok()?;
            Start::named(&name)
        })
    }
}

/// Of this user alone, and of this machine. (On a Mac the temporary folder is the user's own.)
fn folder() -> io::Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    match runtime {
        Some(folder) => Ok(PathBuf::from(folder)),
        None if cfg!(target_os = "macos") => Ok(std::env::temp_dir()),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// A user may have several, each before another screen.
fn display() -> String {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = set("WAYLAND_DISPLAY").or_else(|| set("DISPLAY"));
    let name = name.unwrap_or_default();
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_tells_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = |name| Start::named(name).expect("a start");
        let take = |name| Instance::take_in(folder.path(), "0", start(name)).expect("a lock");
        let first = take("preferences").expect("nobody else");
        for name in ["renew", "remind"] {
            assert!(take(name).is_none());
        }
        // Who says nothing that is understood is passed over.
        let socket = folder.path().join("perennial-wizard-0.sock");
        let mut other = UnixStream::connect(socket).expect("it listens");
        other.write_all(b"format-disk").expect("written");
        drop(other);
        assert!(take("enroll").is_none());
        let told: Vec<_> = first.starts().take(3).map(Start::name).collect();
        assert_eq!(told, ["renew", "remind", "enroll"]);
        // Before another screen there is another one.
        let other = Instance::take_in(folder.path(), "1", start("renew"));
        assert!(other.expect("a lock").is_some());
        drop(first);
        assert!(take("renew").is_some());
    }
}

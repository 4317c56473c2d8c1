//! Whether a person sits before this session, as far as the system tells.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use crate::platform::Layout;

/// This session's place on the machine.
pub struct Seat {
    /// logind's file of the session, where there is one.
    session: Option<PathBuf>,
    /// The socket of its display.
    display: Option<PathBuf>,
    watch: Option<OwnedFd>,
}

impl Seat {
    /// As the environment of this process tells.
    pub fn own(layout: &Layout) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        // What systemd starts for a user has no variable of the session, or one of its manager.
        let named = variable("XDG_SESSION_ID").filter(|name| is_of_person(layout, name));
        let session = named.or_else(|| session_of_user(layout));
        let display = match variable("WAYLAND_DISPLAY") {
            Some(name) => variable("XDG_RUNTIME_DIR").map(|folder| Path::new(&folder).join(name)),
            None => variable("DISPLAY").and_then(|display| x_socket(&display)),
        };
        Self::new(layout, session, display)
    }

    fn new(layout: &Layout, session: Option<String>, display: Option<PathBuf>) -> Self {
        let session = session
            .and_then(|name| session_file(layout, &name))
            .filter(|file| file.exists());
        // Where logind knows the session, it knows when that ends.
        let display = display.filter(|socket| session.is_none() && socket.exists());
        let mut seat = Self {
            session,
            display,
            watch: None,
        };
        seat.watch = seat.watched(layout).ok().flatten();
        seat
    }

    fn watched(&self, layout: &Layout) -> rustix::io::Result<Option<OwnedFd>> {
        if self.session.is_none() && self.display.is_none() {
            return Ok(None);
        }
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags)?;
        if self.session.is_some() {
            // logind replaces a session's file: what is watched is the folder.
            let events = inotify::WatchFlags::MOVED_TO
                | inotify::WatchFlags::CLOSE_WRITE
                | inotify::WatchFlags::DELETE;
            inotify::add_watch(&watch, layout.sessions(), events)?;
        }
        if let Some(display) = &self.display {
            // Its name goes, however long somebody holds it.
            let events = inotify::WatchFlags::ATTRIB | inotify::WatchFlags::DELETE_SELF;
            inotify::add_watch(&watch, display, events)?;
        }
        Ok(Some(watch))
    }

    fn says(&self, line: &str) -> bool {
        let text = self
            .session
            .as_ref()
            .and_then(|file| fs::read_to_string(file).ok());
        text.is_some_and(|text| text.lines().any(|found| found == line))
    }

    /// True before the active session of its seat, and where the system does not tell.
    pub fn is_active(&self) -> bool {
        !self.says("ACTIVE=0") && !self.has_ended()
    }

    /// The person logged out.
    pub fn has_ended(&self) -> bool {
        let is_gone = |file: &Option<PathBuf>| file.as_ref().is_some_and(|file| !file.exists());
        is_gone(&self.session) || is_gone(&self.display) || self.says("STATE=closing")
    }

    /// Is readable when sessions changed.
    pub fn watch(&self) -> Option<&OwnedFd> {
        self.watch.as_ref()
    }

    /// Waits, and no longer than until sessions changed.
    pub fn wait(&self, most: Duration) {
        match (&self.watch, Timespec::try_from(most)) {
            (Some(watch), Ok(most)) => {
                let _ = poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&most));
                self.drain();
            }
            _ => std::thread::sleep(most),
        }
    }

    /// Takes away what [`Self::watch`] has.
    pub fn drain(&self) {
        let mut news = [0; 4096];
        while let Some(Ok(1..)) = self
            .watch
            .as_ref()
            .map(|watch| rustix::io::read(watch, &mut news))
        {}
    }
}

fn session_file(layout: &Layout, name: &str) -> Option<PathBuf> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_name.then(|| layout.sessions().join(name))
}

/// One before which somebody sits, and not that of a service manager.
fn is_of_person(layout: &Layout, name: &str) -> bool {
    let text = session_file(layout, name).and_then(|file| fs::read_to_string(file).ok());
    text.is_some_and(|text| {
        let class = text.lines().find_map(|line| line.strip_prefix("CLASS="));
        class.is_none_or(|class| class.starts_with("user"))
    })
}

/// The session of this user's desktop, as logind has it.
fn session_of_user(layout: &Layout) -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let user = fs::read_to_string(layout.logged_in_users().join(uid)).ok()?;
    let session = user.lines().find_map(|line| line.strip_prefix("DISPLAY="));
    session.map(str::to_owned)
}

/// Of a display of this machine: `:0`, `:0.1`.
fn x_socket(display: &str) -> Option<PathBuf> {
    let number = display.strip_prefix(':')?.split('.').next()?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Path::new("/tmp/.X11-unix").join(format!("X{number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_active_session_is_known_and_a_change_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        fs::create_dir_all(layout.sessions()).expect("made");
        let file = layout.sessions().join("c2");
        for (text, is_active, has_ended) in [
            ("UID=1000\nACTIVE=1\nTYPE=x11\n", true, false),
            ("UID=1000\nACTIVE=0\nIS_DISPLAY=1\n", false, false),
            ("UID=1000\nACTIVE=0\nSTATE=closing\n", false, true),
            ("UID=1000\n", true, false),
        ] {
            fs::write(&file, text).expect("written");
            let seat = Seat::new(&layout, Some("c2".to_owned()), None);
            assert_eq!(seat.is_active(), is_active, "{text}");
            assert_eq!(seat.has_ended(), has_ended, "{text}");
        }
        assert!(is_of_person(&layout, "c2"));
        fs::write(layout.sessions().join("9"), "CLASS=manager\n").expect("written");
        fs::write(layout.sessions().join("3"), "CLASS=user\n").expect("written");
        for (name, is_one) in [("9", false), ("3", true), ("4", false), ("../3", false)] {
            assert_eq!(is_of_person(&layout, name), is_one, "{name}");
        }
        // Where nothing tells, it is.
        for name in [None, Some(""), Some("../c2"), Some("c7")] {
            let seat = Seat::new(&layout, name.map(str::to_owned), None);
            assert!(seat.is_active() && seat.watch().is_none(), "{name:?}");
        }
        let seat = Seat::new(&layout, Some("c2".to_owned()), None);
        let watch = seat.watch().expect("watched");
        assert!(!is_news(watch));
        fs::write(layout.sessions().join(".c2"), "ACTIVE=0\n").expect("written");
        fs::rename(layout.sessions().join(".c2"), &file).expect("moved");
        assert!(is_news(watch));
        assert!(!seat.is_active() && !seat.has_ended());
        seat.drain();
        fs::remove_file(&file).expect("removed");
        assert!(is_news(watch));
        assert!(!seat.is_active() && seat.has_ended());
    }

    fn is_news(watch: &OwnedFd) -> bool {
        rustix::io::read(watch, &mut [0; 4096]).is_ok()
    }

    #[test]
    fn a_session_ends_with_its_display() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let socket = folder.path().join("wayland-0");
        // Somebody holds it open, as compositors do for a moment.
        let _display = std::os::unix::net::UnixListener::bind(&socket).expect("listens");
        let seat = Seat::new(&layout, None, Some(socket.clone()));
        let watch = seat.watch().expect("watched");
        assert!(!is_news(watch) && !seat.has_ended());
        fs::remove_file(&socket).expect("removed");
        assert!(is_news(watch) && seat.has_ended());
        for (display, socket) in [
            (":0", Some("/tmp/.X11-unix/X0")),
            (":12.1", Some("/tmp/.X11-unix/X12")),
            ("far:0", None),
            (":", None),
            (":../x", None),
        ] {
            assert_eq!(x_socket(display), socket.map(PathBuf::from), "{display}");
        }
    }
}

//! Whether a person sits before this session, as far as the system tells.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::inotify;

use crate::platform::Layout;

/// This session's place on the machine.
pub struct Seat {
    /// logind's file of the session, where there is one.
    file: Option<PathBuf>,
    watch: Option<OwnedFd>,
}

impl Seat {
    pub fn new(layout: &Layout, session: Option<String>) -> Self {
        let is_name = |name: &String| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        let file = session
            .filter(is_name)
            .map(|name| layout.sessions().join(name))
            .filter(|file| file.exists());
        let watch = file.as_ref().and_then(|_| watch(layout));
        Self { file, watch }
    }

    /// True before the active session of its seat, and where the system does not tell.
    pub fn is_active(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let text = fs::read_to_string(file).unwrap_or_default();
        !text.lines().any(|line| line == "ACTIVE=0")
    }

    /// Is readable when sessions changed.
    pub fn watch(&self) -> Option<&OwnedFd> {
        self.watch.as_ref()
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

/// logind replaces a session's file: what is watched is the folder.
fn watch(layout: &Layout) -> Option<OwnedFd> {
    let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
    let watch = inotify::init(flags).ok()?;
    let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&watch, layout.sessions(), events).ok()?;
    Some(watch)
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
        for (text, is_active) in [
            ("UID=1000\nACTIVE=1\nTYPE=x11\n", true),
            ("UID=1000\nACTIVE=0\nIS_DISPLAY=1\n", false),
            ("UID=1000\n", true),
        ] {
            fs::write(&file, text).expect("written");
            let seat = Seat::new(&layout, Some("c2".to_owned()));
            assert_eq!(seat.is_active(), is_active, "{text}");
        }
        // Where nothing tells, it is.
        for name in [None, Some(""), Some("../c2"), Some("c3")] {
            let seat = Seat::new(&layout, name.map(str::to_owned));
            assert!(seat.is_active() && seat.file.is_none(), "{name:?}");
        }
        let seat = Seat::new(&layout, Some("c2".to_owned()));
        let watch = seat.watch().expect("watched");
        let news = |watch: &OwnedFd| rustix::io::read(watch, &mut [0; 4096]);
        assert!(news(watch).is_err());
        fs::write(layout.sessions().join(".c2"), "ACTIVE=0\n").expect("written");
        fs::rename(layout.sessions().join(".c2"), &file).expect("moved");
        assert!(news(watch).is_ok());
        assert!(!seat.is_active());
    }
}

//! The session part as a program, with a script in the wizard's place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::local::Bounds;

use crate::local::{Served, reminded};
use crate::place::program;

/// A session part, and what its wizard did. Killed when dropped.
struct Session {
    child: Child,
    opened: PathBuf,
    close: PathBuf,
}

impl Session {
    fn start(served: &Served, name: Option<&str>) -> Self {
        let root = served.place.root();
        let (opened, close) = (root.join("opened"), root.join("close"));
        let script = format!(
            "#!/bin/sh\necho \"$*\" >>{}\nuntil [ -e {} ] || [ ! -e {} ]; do sleep 0.05; done\n",
            opened.display(),
            close.display(),
            opened.display()
        );
        let wizard = root.join("perennial-wizard");
        fs::write(&wizard, script).expect("written");
        fs::set_permissions(&wizard, fs::Permissions::from_mode(0o755)).expect("set");
        let mut command = Command::new(program());
        command
            .arg("session")
            .arg("--root")
            .arg(root)
            .env("PERENNIAL_WIZARD", &wizard)
            .env_remove("DISPLAY")
            .env_remove("XDG_SESSION_ID")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(name) = name {
            command.env("XDG_SESSION_ID", name);
        }
        Self {
            child: command.spawn().expect("it starts"),
            opened,
            close,
        }
    }

    fn opened(&self) -> usize {
        fs::read_to_string(&self.opened).map_or(0, |text| text.lines().count())
    }

    fn until_opened(&self, times: usize) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.opened() < times {
            assert!(Instant::now() < end, "opened {} times", self.opened());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Time in which a wizard would open that should not.
    fn pass_a_moment() {
        std::thread::sleep(Duration::from_millis(500));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        fs::write(&self.close, "").expect("written");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_reminder_waits_for_a_session_and_opens_one_wizard_there() {
    let mut served = Served::new();
    // Nobody is logged in, for two reminders.
    reminded(&served, served.place.clock.real());
    served.place.clock.pass(86_400);
    reminded(&served, served.place.clock.real());
    let session = Session::start(&served, None);
    session.until_opened(1);
    let text = fs::read_to_string(&session.opened).expect("opened");
    let socket = served.place.machine.layout.socket();
    assert_eq!(text, format!("remind --socket {}\n", socket.display()));
    // The next one comes while the wizard is open.
    served.place.clock.pass(86_400);
    reminded(&served, served.place.clock.real());
    Session::pass_a_moment();
    assert_eq!(session.opened(), 1);
    // The person closes it without an answer; the agent is upgraded.
    fs::write(&session.close, "").expect("written");
    Session::pass_a_moment();
    served.stop();
    served.start(Bounds::default());
    session.until_opened(2);
}

#[test]
fn nothing_opens_before_a_session_that_is_not_active() {
    let served = Served::new();
    let sessions = served.place.machine.layout.sessions();
    fs::create_dir_all(&sessions).expect("made");
    let switch = |active: u8| {
        let part = sessions.join(".c2");
        fs::write(&part, format!("UID=0\nACTIVE={active}\n")).expect("written");
        fs::rename(part, sessions.join("c2")).expect("moved");
    };
    switch(0);
    let session = Session::start(&served, Some("c2"));
    reminded(&served, served.place.clock.real());
    Session::pass_a_moment();
    assert_eq!(session.opened(), 0);
    switch(1);
    session.until_opened(1);
}

#[test]
fn without_a_wizard_nobody_listens() {
    let served = Served::new();
    let ended = Command::new(program())
        .arg("session")
        .arg("--root")
        .arg(served.place.root())
        .env("PERENNIAL_WIZARD", served.place.root().join("none"))
        .output()
        .expect("it starts");
    assert!(ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("reminders come on terminals"), "{said}");
}

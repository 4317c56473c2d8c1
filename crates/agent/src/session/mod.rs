//! `session`: a user's part of the agent, without privileges and without a window. It listens to the
//! agent's events and opens the Renew Certificate Wizard when a reminder is due and this session is
//! the one before which a person sits. It waits in the kernel: nothing is polled.

mod listening;

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::Timestamp;
use protocol::LocalEvent;

use crate::platform::{self, Layout, Seat};
use crate::tools::install::WIZARD;

use listening::{Heard, Listening};

/// Lies beside the agent's own.
pub const PROGRAM: &str = "perennial-session";

/// The first wait for an agent that is not there; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The wizard's exit code where there is no display, or nothing that draws.
const NO_WINDOW: i32 = 1;

/// Puts it in the place of this process. Returns only where that is not possible.
pub fn become_it(program: &Path, root: &Path) -> io::Error {
    Command::new(program).arg(root).exec()
}

/// Runs until the session ends, or at once to its end where there is no wizard: then reminders go on
/// coming to terminals, which nobody is told on while such a program listens.
pub fn main(layout: &Layout) {
    let mut part = Part {
        layout,
        wizard: wizard(),
        seat: Seat::own(layout),
        waits: None,
        shown: None,
        is_open: Arc::default(),
    };
    let mut wait = FIRST_WAIT;
    while !part.seat.has_ended() {
        if !part.wizard.exists() {
            let wizard = part.wizard.display();
            eprintln!("there is no {wizard}: reminders come on terminals");
            return;
        }
        if let Ok(listening) = Listening::connect(layout)
            && part.listen(listening)
        {
            wait = FIRST_WAIT;
        }
        // Whatever waited, the agent says it again.
        part.waits = None;
        part.seat.wait(wait);
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Beside this program. Test builds look where `PERENNIAL_WIZARD` points.
fn wizard() -> PathBuf {
    #[cfg(feature = "test-clock")]
    if let Some(path) = std::env::var_os("PERENNIAL_WIZARD") {
        return path.into();
    }
    platform::own_program().with_file_name(WIZARD)
}

struct Part<'a> {
    layout: &'a Layout,
    wizard: PathBuf,
    seat: Seat,
    /// A reminder that is due, while somebody else sits before the screen.
    waits: Option<Timestamp>,
    /// The one that was shown last.
    shown: Option<Timestamp>,
    /// A wizard runs that this one started.
    is_open: Arc<AtomicBool>,
}

impl Part<'_> {
    /// Until the agent goes away. True when it said anything before.
    fn listen(&mut self, mut listening: Listening) -> bool {
        let mut heard = false;
        loop {
            match listening.next(&self.seat) {
                Heard::Event(event) => {
                    heard = true;
                    self.note(event);
                }
                Heard::SeatChanged if self.seat.has_ended() => return heard,
                Heard::SeatChanged => {}
                Heard::End => return heard,
            }
            if self.seat.is_active()
                && let Some(since) = self.waits.take()
            {
                self.remind(since);
            }
        }
    }

    fn note(&mut self, event: LocalEvent) {
        match event {
            LocalEvent::ReminderDue { since, .. } => self.waits = Some(since),
            LocalEvent::ReminderDone | LocalEvent::Renewed { .. } => self.waits = None,
            LocalEvent::SiteReachable(_) => {}
        }
    }

    fn remind(&mut self, since: Timestamp) {
        // The agent, which restarted, may tell of it once more.
        if self.shown == Some(since) || self.is_open.load(Ordering::SeqCst) {
            return;
        }
        self.shown = Some(since);
        let mut command = Command::new(&self.wizard);
        command.arg("remind").stdin(Stdio::null());
        if !self.layout.is_machine() {
            command.arg("--socket").arg(self.layout.socket());
        }
        let is_open = self.is_open.clone();
        is_open.store(true, Ordering::SeqCst);
        std::thread::spawn(move || {
            if let Err(why) = show(&mut command) {
                // While nobody listens, reminders come on terminals.
                eprintln!(
                    "{} {why}: reminders come on terminals",
                    command.get_program().display()
                );
                std::process::exit(0);
            }
            is_open.store(false, Ordering::SeqCst);
        });
    }
}

/// Runs the wizard. One that crashes gets a second chance.
fn show(command: &mut Command) -> Result<(), String> {
    let mut ended = run(command)?;
    if !ended.success() && ended.code() != Some(NO_WINDOW) {
        ended = run(command)?;
    }
    match ended.success() {
        true => Ok(()),
        false => Err(format!("failed ({ended})")),
    }
}

fn run(command: &mut Command) -> Result<ExitStatus, String> {
    command
        .status()
        .map_err(|error| format!("does not start: {error}"))
}

//! `session`: a user's part of the agent, without privileges and without a window. It listens to the
//! agent's events and opens the Renew Certificate Wizard when a reminder is due and this session is
//! the one before which a person sits. It waits in the kernel: nothing is polled.

mod listening;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::LocalEvent;

use crate::platform::{self, Layout, Seat};
use crate::tools::install::WIZARD;

use listening::{Heard, Listening};

/// The first wait for an agent that is not there; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The wizard's exit code where there is no display, or nothing that draws.
const NO_WINDOW: i32 = 1;

/// Runs until the session ends, or at once to its end where there is no wizard: then reminders go on
/// coming to terminals, which nobody is told on while such a program listens.
pub fn main(layout: &Layout) {
    let wizard = wizard();
    if !wizard.exists() {
        eprintln!(
            "there is no {}: reminders come on terminals",
            wizard.display()
        );
        return;
    }
    let seat = Seat::new(layout, std::env::var("XDG_SESSION_ID").ok());
    let mut part = Part {
        layout,
        wizard,
        seat,
        waits: false,
        is_open: Arc::default(),
    };
    let mut wait = FIRST_WAIT;
    loop {
        if let Ok(listening) = Listening::connect(layout)
            && part.listen(listening)
        {
            wait = FIRST_WAIT;
        }
        // Whatever waited, the agent says it again.
        part.waits = false;
        std::thread::sleep(wait);
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
    waits: bool,
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
                Heard::SeatChanged => {}
                Heard::End => return heard,
            }
            if self.waits && self.seat.is_active() {
                self.waits = false;
                self.remind();
            }
        }
    }

    fn note(&mut self, event: LocalEvent) {
        match event {
            LocalEvent::ReminderDue { .. } => self.waits = true,
            LocalEvent::ReminderDone | LocalEvent::Renewed { .. } => self.waits = false,
            LocalEvent::SiteReachable(_) => {}
        }
    }

    fn remind(&self) {
        if self.is_open.load(Ordering::SeqCst) {
            return;
        }
        let mut command = Command::new(&self.wizard);
        command.arg("remind").stdin(Stdio::null());
        if !self.layout.is_machine() {
            command.arg("--socket").arg(self.layout.socket());
        }
        match command.spawn() {
            Ok(mut wizard) => {
                let is_open = self.is_open.clone();
                is_open.store(true, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let ended = wizard.wait();
                    if ended.is_ok_and(|status| status.code() == Some(NO_WINDOW)) {
                        // While nobody listens, reminders come on terminals.
                        std::process::exit(0);
                    }
                    is_open.store(false, Ordering::SeqCst);
                });
            }
            Err(error) => eprintln!("cannot start {}: {error}", self.wizard.display()),
        }
    }
}

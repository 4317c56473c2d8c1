//! `session`: a user's part of the agent, without privileges and without a window. It listens to the
//! agent's events and opens the Renew Certificate Wizard when a reminder is due and this session is
//! the one before which a person sits. It waits in the kernel: nothing is polled.

mod listening;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::Timestamp;
use protocol::LocalEvent;

use crate::platform::{self, Layout, Seat};

use listening::{Heard, Listening};

/// The first wait for an agent that is not there; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

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
        waits: None,
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
        part.waits = None;
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
    platform::own_program().with_file_name("perennial-wizard")
}

struct Part<'a> {
    layout: &'a Layout,
    wizard: PathBuf,
    seat: Seat,
    /// A reminder that is due, while somebody else sits before the screen.
    waits: Option<Timestamp>,
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
            if self.seat.is_active()
                && let Some(not_after) = self.waits.take()
            {
                self.remind(not_after);
            }
        }
    }

    fn note(&mut self, event: LocalEvent) {
        match event {
            LocalEvent::ReminderDue { not_after, .. } => self.waits = Some(not_after),
            LocalEvent::ReminderDone | LocalEvent::Renewed { .. } => self.waits = None,
            LocalEvent::SiteReachable(_) => {}
        }
    }

    fn remind(&self, not_after: Timestamp) {
        if self.is_open.load(Ordering::SeqCst) {
            return;
        }
        // A window would cover what fills the screen. Where a notification cannot be shown either, a
        // window is better than nothing.
        if platform::is_full_screen() && platform::notify(&notice(not_after)) {
            return;
        }
        let mut command = Command::new(&self.wizard);
        command.arg("renew").stdin(Stdio::null());
        if !self.layout.is_machine() {
            command.arg("--socket").arg(self.layout.socket());
        }
        match command.spawn() {
            Ok(mut wizard) => {
                let is_open = self.is_open.clone();
                is_open.store(true, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let _ = wizard.wait();
                    is_open.store(false, Ordering::SeqCst);
                });
            }
            Err(error) => eprintln!("cannot start {}: {error}", self.wizard.display()),
        }
    }
}

fn notice(not_after: Timestamp) -> String {
    format!(
        "This computer's certificate ends on {}. You will be asked again later.",
        not_after.strftime("%Y-%m-%d %H:%M UTC")
    )
}

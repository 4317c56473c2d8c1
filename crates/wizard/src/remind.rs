//! A reminder for somebody who may be busy. The Renew Certificate Wizard would cover what a person
//! presents, so there is a notification instead, and a press on it opens the wizard.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use domain::ReminderStage;
use jiff::tz::TimeZone;
use protocol::{LocalEvent, LocalStatus};

use crate::agent::Agent;
use crate::desktop::{self, Notification};
use crate::words::Words;

/// How long an agent that does not answer is left alone.
const AGAIN: Duration = Duration::from_secs(2);

/// What happens to a notification.
enum Heard {
    Pressed,
    /// The person, or the desktop, took it away.
    Gone,
    /// There is nothing to remind of any more.
    Done,
    /// The next reminder is due.
    Again,
}

/// Waits until the wizard may open. False when it is not wanted, or not now: then the next reminder tells.
pub fn may_open(agent: &Agent, locale: &str, zone: &TimeZone) -> bool {
    if !desktop::is_busy() {
        return true;
    }
    let (tell, heard) = channel();
    let (listener, told) = (agent.clone(), tell.clone());
    thread::spawn(move || listen(&listener, &told));
    loop {
        let Some(status) = status(agent, &heard) else {
            return false;
        };
        // A window is better than nothing.
        let Some(mut shown) = notify(&status, locale, zone.clone()) else {
            return true;
        };
        let pressed = tell.clone();
        shown.tell(move |is_pressed| {
            let heard = if is_pressed {
                Heard::Pressed
            } else {
                Heard::Gone
            };
            let _ = pressed.send(heard);
        });
        match heard.recv() {
            Ok(Heard::Pressed) => return true,
            Ok(Heard::Gone) => return false,
            Ok(Heard::Done) | Err(_) => {
                shown.close();
                return false;
            }
            Ok(Heard::Again) => {
                shown.close();
                if !desktop::is_busy() {
                    return true;
                }
            }
        }
        // The one that was closed says so, too.
        while heard.try_recv().is_ok() {}
    }
}

/// What it is about, once the agent answers. None when there is nothing to remind of any more.
fn status(agent: &Agent, heard: &Receiver<Heard>) -> Option<LocalStatus> {
    loop {
        if let Ok(status) = agent.status() {
            return Some(status);
        }
        match heard.recv_timeout(AGAIN) {
            Ok(Heard::Done) | Err(RecvTimeoutError::Disconnected) => return None,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// None where that is not possible: a window is better than nothing.
fn notify(status: &LocalStatus, locale: &str, zone: TimeZone) -> Option<desktop::Shown> {
    let identity = status.identity.as_ref()?;
    let words = Words::choose(status.look.language.as_deref(), locale, zone);
    let left = status.now.duration_until(identity.not_after);
    let expired = left.is_negative();
    let (title, text) = match expired {
        true => (words.expired_title(), words.expired_on(identity.not_after)),
        false => (words.renew_title(), words.expires_in(left)),
    };
    desktop::notify(&Notification {
        title,
        text: &text,
        action: words.renew_certificate(),
        urgent: expired || identity.stage == Some(ReminderStage::SecondPeriod),
    })
}

/// For as long as this program runs, also over a restart of the agent.
fn listen(agent: &Agent, tell: &Sender<Heard>) {
    loop {
        let mut known = false;
        let _ = agent.events(
            || {
                let waits = |status: LocalStatus| {
                    status
                        .identity
                        .is_some_and(|identity| identity.reminder_waits)
                };
                if agent.status().is_ok_and(|status| !waits(status)) {
                    let _ = tell.send(Heard::Done);
                }
            },
            |event| {
                let heard = match event {
                    // The first one is what is known.
                    LocalEvent::ReminderDue { .. } if !std::mem::replace(&mut known, true) => {
                        return;
                    }
                    LocalEvent::ReminderDue { .. } => Heard::Again,
                    LocalEvent::ReminderDone | LocalEvent::Renewed { .. } => Heard::Done,
                    LocalEvent::SiteReachable(_) => return,
                };
                let _ = tell.send(heard);
            },
        );
        thread::sleep(AGAIN);
    }
}

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

enum Heard {
    /// What happened to a notification, by its number: a person pressed it, or it is gone.
    End { number: usize, pressed: bool },
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
    for number in 0.. {
        let Some(status) = status(agent, &heard) else {
            return false;
        };
        // A window is better than nothing.
        let Some(mut shown) = notify(&status, locale, zone.clone()) else {
            return true;
        };
        let ends = tell.clone();
        shown.tell(move |pressed| {
            let _ = ends.send(Heard::End { number, pressed });
        });
        let again = loop {
            match heard.recv() {
                // The one before says late that it was closed.
                Ok(Heard::End { number: of, .. }) if of != number => {}
                Ok(Heard::End { pressed, .. }) => return pressed,
                Ok(Heard::Again) => break true,
                Ok(Heard::Done) | Err(_) => break false,
            }
        };
        shown.close();
        if !again || !desktop::is_busy() {
            return again;
        }
    }
    false
}

/// What it is about, once the agent answers. None when there is nothing to remind of any more.
fn status(agent: &Agent, heard: &Receiver<Heard>) -> Option<LocalStatus> {
    loop {
        if let Ok(status) = agent.status() {
            return status.reminder_waits().is_some().then_some(status);
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
    let mut known = None;
    loop {
        let _ = agent.events(
            || {
                let is_over = |status: LocalStatus| status.reminder_waits().is_none();
                if agent.status().is_ok_and(is_over) {
                    let _ = tell.send(Heard::Done);
                }
            },
            |event| {
                let heard = match event {
                    LocalEvent::ReminderDue { since, .. } => {
                        match known.replace(since) {
                            // The first one is what this program was started for.
                            None => return,
                            Some(before) if before == since => return,
                            Some(_) => Heard::Again,
                        }
                    }
                    LocalEvent::ReminderDone | LocalEvent::Renewed { .. } => Heard::Done,
                    LocalEvent::SiteReachable(_) => return,
                };
                let _ = tell.send(heard);
            },
        );
        thread::sleep(AGAIN);
    }
}

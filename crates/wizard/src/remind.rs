//! A reminder for somebody who may be busy. The Renew Certificate Wizard would cover what a person
//! presents, so there is a notification instead, and a press on it opens the wizard.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use domain::ReminderStage;
use jiff::tz::TimeZone;
use protocol::{LocalEvent, LocalStatus};

use crate::agent::Agent;
use crate::desktop::{self, Notification};
use crate::words::Words;

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
    while desktop::is_busy() {
        // Whoever cannot say what it is about shows the window, which can.
        let Ok(status) = agent.status() else { break };
        let Some(mut shown) = notify(&status, locale, zone.clone()) else {
            break;
        };
        let (tell, heard) = channel();
        let pressed = tell.clone();
        shown.tell(move |is_pressed| {
            let heard = if is_pressed {
                Heard::Pressed
            } else {
                Heard::Gone
            };
            let _ = pressed.send(heard);
        });
        let listener = agent.clone();
        thread::spawn(move || listen(&listener, &tell));
        match heard.recv() {
            Ok(Heard::Pressed) => return true,
            Ok(Heard::Again) => shown.close(),
            Ok(Heard::Gone) => return false,
            Ok(Heard::Done) | Err(_) => {
                shown.close();
                return false;
            }
        }
    }
    true
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

fn listen(agent: &Agent, tell: &Sender<Heard>) {
    let mut known = false;
    let _ = agent.events(
        || (),
        |event| {
            let heard = match event {
                // The first one is what this notification is about.
                LocalEvent::ReminderDue { .. } if !std::mem::replace(&mut known, true) => return,
                LocalEvent::ReminderDue { .. } => Heard::Again,
                LocalEvent::ReminderDone | LocalEvent::Renewed { .. } => Heard::Done,
                LocalEvent::SiteReachable(_) => return,
            };
            let _ = tell.send(heard);
        },
    );
}

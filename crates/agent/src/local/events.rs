//! What listeners hear: what is so when they come, and what changes. A listener that is slow misses
//! what is not so any more, and nothing piles up for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use domain::{KeyDigest, ReminderStage, Timestamp};
use protocol::LocalEvent;
use tokio::sync::mpsc;

use super::answer::{self, Answer};
use super::{Caller, Local};
use crate::identity::Machine;
use crate::reminder;

/// How things stand, as far as listeners care.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    certificate: Option<(KeyDigest, Timestamp)>,
    reminder: Option<Reminder>,
    site_reachable: bool,
}

/// One that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reminder {
    since: Timestamp,
    stage: ReminderStage,
    not_after: Timestamp,
}

impl Present {
    pub fn of(machine: &Machine) -> Self {
        let state = machine.state();
        let site_reachable = !state.is_offline();
        let Ok(identity) = machine.enrolled() else {
            return Self {
                site_reachable,
                ..Self::default()
            };
        };
        let not_after = identity.certificate.not_after();
        let waiting = reminder::waiting(machine, &state, &identity);
        let reminder = waiting.map(|since| Reminder {
            since,
            stage: ReminderStage::at(machine.now(), not_after, &machine.schedule()),
            not_after,
        });
        Self {
            certificate: Some((identity.certificate.key(), not_after)),
            reminder,
            site_reachable,
        }
    }

    /// What somebody hears who comes now.
    fn events(&self) -> Vec<LocalEvent> {
        let mut events = vec![LocalEvent::SiteReachable(self.site_reachable)];
        events.extend(self.reminder.as_ref().map(Reminder::event));
        events
    }

    /// What somebody hears who knew how it was before.
    fn events_after(&self, before: &Self) -> Vec<LocalEvent> {
        let mut events = Vec::new();
        let key = |present: &Self| present.certificate.as_ref().map(|(key, _)| *key);
        if key(self) != key(before)
            && let Some((_, not_after)) = self.certificate
        {
            events.push(LocalEvent::Renewed { not_after });
        }
        if self.site_reachable != before.site_reachable {
            events.push(LocalEvent::SiteReachable(self.site_reachable));
        }
        match (&before.reminder, &self.reminder) {
            (before, Some(now)) if before.as_ref() != Some(now) => events.push(now.event()),
            (Some(_), None) => events.push(LocalEvent::ReminderDone),
            _ => {}
        }
        events
    }
}

impl Reminder {
    fn event(&self) -> LocalEvent {
        LocalEvent::ReminderDue {
            since: self.since,
            stage: self.stage,
            not_after: self.not_after,
        }
    }
}

/// Who listens: users, and with how many programs.
#[derive(Default)]
pub struct Listeners(RefCell<BTreeMap<u32, usize>>);

impl Listeners {
    pub fn users(&self) -> Vec<u32> {
        self.0.borrow().keys().copied().collect()
    }

    fn add(self: &Rc<Self>, uid: u32) -> Listening {
        *self.0.borrow_mut().entry(uid).or_default() += 1;
        Listening(self.clone(), uid)
    }
}

struct Listening(Rc<Listeners>, u32);

impl Drop for Listening {
    fn drop(&mut self) {
        let mut users = self.0.0.borrow_mut();
        if let Some(count) = users.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.1);
            }
        }
    }
}

pub fn listen(local: &Rc<Local>, caller: Caller) -> Answer {
    let mut present = local.present.subscribe();
    let listening = local.listeners.add(caller.uid);
    let (lines, receiver) = mpsc::channel(4);
    tokio::task::spawn_local(async move {
        let _listening = listening;
        let mut known = present.borrow_and_update().clone();
        let mut events = known.events();
        loop {
            for event in &events {
                if lines.send(answer::line(event)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = present.changed() => if changed.is_err() { return },
                () = lines.closed() => return,
            }
            let now = present.borrow_and_update().clone();
            events = now.events_after(&known);
            known = now;
        }
    });
    answer::stream("application/x-ndjson", receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_and_nothing_else() {
        let at = |second| Timestamp::from_second(second).expect("a moment");
        let certificate = |key, end| Some((KeyDigest::new([key; 32]), at(end)));
        let reminder = |since| {
            Some(Reminder {
                since: at(since),
                stage: ReminderStage::FirstPeriod,
                not_after: at(100),
            })
        };
        let present = |certificate, reminder, site_reachable| Present {
            certificate,
            reminder,
            site_reachable,
        };
        let quiet = present(certificate(1, 100), None, true);
        let due = present(certificate(1, 100), reminder(50), true);
        let again = present(certificate(1, 100), reminder(60), true);
        let renewed = present(certificate(2, 200), None, true);
        let offline = present(certificate(1, 100), None, false);
        let heard = |before: &Present, now: &Present| {
            let events = now.events_after(before);
            let events: Vec<_> = events
                .iter()
                .map(|event| serde_json::to_string(event).expect("JSON"))
                .collect();
            events.join(" ")
        };
        let reminded = r#"{"reminder-due":{"since":"1970-01-01T00:00:50Z","stage":"first-period","not_after":"1970-01-01T00:01:40Z"}}"#;
        let once_more = r#"{"reminder-due":{"since":"1970-01-01T00:01:00Z","stage":"first-period","not_after":"1970-01-01T00:01:40Z"}}"#;
        for (before, now, told) in [
            (&quiet, &quiet, ""),
            (&quiet, &due, reminded),
            (&due, &again, once_more),
            (&due, &quiet, r#""reminder-done""#),
            (
                &due,
                &renewed,
                r#"{"renewed":{"not_after":"1970-01-01T00:03:20Z"}} "reminder-done""#,
            ),
            (&quiet, &offline, r#"{"site-reachable":false}"#),
            (&quiet, &Present::default(), r#"{"site-reachable":false}"#),
        ] {
            assert_eq!(heard(before, now), told);
        }
        assert_eq!(due.events().len(), 2);
    }
}

//! A site does not believe its own clock blindly. When it steps by more than a day, or lies more
//! than a day before what the records say, nothing is issued and nothing purged, and time goes on
//! from where it was, until an administrator accepts the new time: a wrong clock must neither make a
//! fleet look expired nor issue certificates that nobody can use.

use std::sync::{Arc, Mutex};

use domain::{Action, Clock, Timestamp};
use jiff::SignedDuration;
use store::{Actor, Kind, Note, Unavailable};
use tokio::sync::Notify;

use crate::{Administrator, Error, Result, Site};

/// The largest step that is believed.
const LARGEST_STEP: SignedDuration = SignedDuration::from_hours(24);
/// A site that was not there for longer is more likely to have a wrong clock: a machine that starts
/// in another century, before it asks for the time.
const LONGEST_ABSENCE: SignedDuration = SignedDuration::from_hours(180 * 24);

/// The machine's clock, as far as it is believed. Cheap to clone.
#[derive(Clone)]
pub struct GuardedClock(Arc<Guard>);

struct Guard {
    machine: Arc<dyn Clock>,
    accepted: Notify,
    state: Mutex<State>,
}

struct State {
    /// A moment that was believed, and what [`Clock::elapsed`] said then.
    wall: Timestamp,
    elapsed: SignedDuration,
    stepped: bool,
}

/// A clock that stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// What the site goes by.
    pub believed: Timestamp,
    /// What the machine says.
    pub machine: Timestamp,
}

impl GuardedClock {
    /// Believes `machine` unless it lies more than a day before `noted`, the latest moment in the
    /// records (the epoch: there is none), or half a year after it: less is how a site looks that was
    /// switched off.
    pub(crate) fn new(machine: Arc<dyn Clock>, noted: Timestamp) -> Self {
        let now = machine.now();
        let since = now.duration_since(noted);
        let stepped =
            noted > Timestamp::UNIX_EPOCH && (since < -LARGEST_STEP || since > LONGEST_ABSENCE);
        if stepped {
            tell(noted, now);
        }
        let state = State {
            wall: if stepped { noted } else { now },
            elapsed: machine.elapsed(),
            stepped,
        };
        let state = Mutex::new(state);
        Self(Arc::new(Guard {
            machine,
            accepted: Notify::new(),
            state,
        }))
    }

    /// The step that waits for an administrator.
    pub fn step(&self) -> Option<ClockStep> {
        let believed = self.now();
        let state = self.0.state.lock().expect("no holder panics");
        state.stepped.then(|| ClockStep {
            believed,
            machine: self.0.machine.now(),
        })
    }

    /// Ends when an administrator accepted another time: what was made for the old one is to be made
    /// anew.
    pub async fn accepted(&self) {
        self.0.accepted.notified().await;
    }

    fn accept(&self) -> Timestamp {
        let mut state = self.0.state.lock().expect("no holder panics");
        state.wall = self.0.machine.now();
        state.elapsed = self.0.machine.elapsed();
        state.stepped = false;
        self.0.accepted.notify_one();
        state.wall
    }
}

impl Clock for GuardedClock {
    fn now(&self) -> Timestamp {
        let mut state = self.0.state.lock().expect("no holder panics");
        let machine = &self.0.machine;
        // Read around the clock: being put aside by the system in between is no step.
        let before = machine.elapsed();
        let now = machine.now();
        let after = machine.elapsed();
        let expected = |elapsed: SignedDuration| {
            let since = elapsed.saturating_sub(state.elapsed);
            state.wall.saturating_add(since).unwrap_or(state.wall)
        };
        let (earliest, latest) = (expected(before), expected(after));
        let steps = now.duration_since(latest) > LARGEST_STEP
            || earliest.duration_since(now) > LARGEST_STEP;
        if steps && !state.stepped {
            state.stepped = true;
            tell(latest, now);
        }
        if state.stepped {
            return latest;
        }
        state.wall = now;
        state.elapsed = after;
        now
    }

    fn elapsed(&self) -> SignedDuration {
        self.0.machine.elapsed()
    }
}

fn tell(believed: Timestamp, machine: Timestamp) {
    metrics::counter!("site_clock_steps_total").increment(1);
    tracing::error!(
        event = "clock-stepped",
        %believed,
        %machine,
        "nothing is issued or purged until an administrator accepts the time: perennial clock accept"
    );
}

impl Site {
    /// The step of this node's clock that waits for an administrator.
    ///
    /// # Errors
    /// When the role may not.
    pub fn clock_step(&self, by: &Administrator) -> Result<(Timestamp, Option<ClockStep>)> {
        by.require(Action::ReadAlerts)?;
        Ok((self.now(), self.0.clock.step()))
    }

    /// Believes what the machine's clock says now.
    ///
    /// # Errors
    /// When the role may not, or the clock did not step.
    pub async fn accept_clock(&self, by: &Administrator) -> Result<Timestamp> {
        by.require(Action::AcceptClock)?;
        let Some(step) = self.0.clock.step() else {
            return Err(Error::Conflict(
                "this node's clock did not step: there is nothing to accept".to_owned(),
            ));
        };
        let now = self.0.clock.accept();
        self.0.limits.forget();
        self.0.store.record_moment(now, true).await?;
        let note = Note {
            action: "clock-accepted",
            subject: now.to_string(),
            detail: format!("the site went by {} before", step.believed),
        };
        self.commit(by.actor(), Kind::Noted(note)).await?;
        Ok(now)
    }

    /// # Errors
    /// While the clock is not believed.
    pub(crate) fn require_clock(&self) -> Result<()> {
        match self.0.clock.step() {
            None => Ok(()),
            Some(_) => Err(Error::ClockStepped),
        }
    }

    /// Notes now and then what time it is, for the next start.
    pub(crate) async fn keep_moment(&self) {
        loop {
            if let Err(error) = self.note_moment().await {
                tracing::error!(event = "moment-not-noted", %error);
            }
            tokio::time::sleep(std::time::Duration::from_secs(600)).await;
        }
    }

    /// A time that is not believed is not noted.
    pub(crate) async fn note_moment(&self) -> std::result::Result<(), Unavailable> {
        match self.0.clock.step() {
            Some(_) => Ok(()),
            None => self.0.store.record_moment(self.now(), false).await,
        }
    }

    /// Tells in the audit log, once for each step.
    pub(crate) async fn watch_clock(&self) {
        let mut told = false;
        loop {
            match self.0.clock.step() {
                None => told = false,
                Some(step) if !told => {
                    let note = Note {
                        action: "clock-stepped",
                        subject: step.believed.to_string(),
                        detail: format!("the machine's clock says {}", step.machine),
                    };
                    told = self.commit(Actor::site(), Kind::Noted(note)).await.is_ok();
                }
                Some(_) => {}
            }
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock and a time that passes, both set by hand.
    #[derive(Default)]
    struct Hand(Mutex<(i64, i64)>);

    impl Hand {
        /// `passed` seconds go by, and the clock is set by `set` seconds.
        fn go(&self, passed: i64, set: i64) {
            let mut hand = self.0.lock().expect("one thread");
            hand.0 += passed + set;
            hand.1 += passed;
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            at(self.0.lock().expect("one thread").0)
        }

        fn elapsed(&self) -> SignedDuration {
            SignedDuration::from_secs(self.0.lock().expect("one thread").1)
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a moment")
    }

    const DAY: i64 = 86_400;

    #[test]
    fn time_that_passes_and_small_steps_are_believed() {
        let hand = Arc::new(Hand::default());
        let clock = GuardedClock::new(hand.clone(), at(-DAY));
        // A year on, in which nobody asked: that is no step.
        hand.go(365 * DAY, 0);
        assert_eq!(clock.now(), at(365 * DAY));
        for step in [3600, -3600, DAY, -DAY] {
            let before = clock.now();
            hand.go(0, step);
            assert_eq!(clock.now(), before + SignedDuration::from_secs(step));
        }
        assert_eq!(clock.step(), None);
    }

    #[test]
    fn a_large_step_is_not_believed_until_it_is_accepted() {
        for step in [DAY + 1, 365 * DAY, -DAY - 1, -365 * DAY] {
            let hand = Arc::new(Hand::default());
            let clock = GuardedClock::new(hand.clone(), at(0));
            hand.go(10, step);
            assert_eq!(clock.now(), at(10), "time goes on from where it was");
            hand.go(10, 0);
            assert_eq!(clock.now(), at(20));
            let found = clock.step().expect("it stepped");
            assert_eq!((found.believed, found.machine), (at(20), at(20 + step)));
            assert_eq!(clock.accept(), at(20 + step));
            assert_eq!((clock.now(), clock.step()), (at(20 + step), None));
        }
    }

    #[test]
    fn a_step_back_while_the_site_was_off_is_found_at_the_start() {
        let hand = Arc::new(Hand::default());
        assert!(GuardedClock::new(hand.clone(), at(DAY)).step().is_none());
        let clock = GuardedClock::new(hand, at(DAY + 1));
        assert_eq!(clock.step().map(|step| step.believed), Some(at(DAY + 1)));
    }

    #[test]
    fn an_absence_of_years_is_not_believed_at_the_start() {
        let absent = |noted| GuardedClock::new(Arc::new(Hand::default()), noted).step();
        assert!(absent(at(-180 * DAY)).is_none());
        assert!(absent(at(-181 * DAY)).is_some());
        assert!(absent(Timestamp::UNIX_EPOCH).is_none(), "nothing was noted");
    }
}

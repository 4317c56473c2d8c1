//! When a person is reminded that the certificate has to be renewed.
//!
//! ```text
//!            E - P1             E - P2            E (notAfter)
//!  nothing   |  every I1        |  every I2       |  once a day, with the way back
//! ```

use jiff::{SignedDuration, Timestamp};

use super::{RenewalMode, RenewalSchedule, Window};
use crate::state::words;

words! {
    /// What a reminder is about.
    ReminderStage {
        FirstPeriod = "first-period",
        SecondPeriod = "second-period",
        Expired = "expired",
    }
}

/// After expiry the reminder comes once a day.
const EVERY_DAY: SignedDuration = SignedDuration::from_hours(24);

/// What decides about the next reminder, beside the schedule.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    pub now: Timestamp,
    pub mode: RenewalMode,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The silent renewal's window, where it is known.
    pub window: Option<Window>,
    /// A silent renewal was tried since the machine woke, and failed.
    pub silent_attempt_failed: bool,
    pub last_shown: Option<Timestamp>,
}

/// The next reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextReminder {
    /// It is due when this is not later than now.
    pub at: Timestamp,
    /// What it will be about when it is shown at `at`, or now when `at` has passed.
    pub stage: ReminderStage,
}

/// When the next reminder is shown; none when nobody is to be reminded, as far as is known now.
/// However long a machine slept, what it missed is one reminder and not a backlog. A last reminder
/// in the future was noted under a wrong clock and does not count.
pub fn next_reminder(schedule: &RenewalSchedule, situation: &Situation) -> Option<NextReminder> {
    let Situation { now, not_after, .. } = *situation;
    if situation.asks_nobody() {
        return None;
    }
    let mut at = on_schedule(schedule, situation);
    if situation.mode == RenewalMode::Automatic {
        let end = situation.window.map_or(Timestamp::MIN, |window| window.end);
        at = at.max(end).max(situation.not_before);
    }
    let stage = ReminderStage::at(at.max(now), not_after, schedule);
    Some(NextReminder { at, stage })
}

impl ReminderStage {
    /// What a reminder is about that is shown at `moment`.
    pub fn at(moment: Timestamp, not_after: Timestamp, schedule: &RenewalSchedule) -> Self {
        if moment >= not_after {
            Self::Expired
        } else if moment >= not_after - schedule.period_2.effective.duration() {
            Self::SecondPeriod
        } else {
            Self::FirstPeriod
        }
    }
}

impl Situation {
    /// True when nobody is to be reminded, whatever the schedule: a person is asked only when silence
    /// did not help, and never by a policy that says so.
    pub fn asks_nobody(&self) -> bool {
        match self.mode {
            RenewalMode::Manual => true,
            RenewalMode::Prompt => false,
            RenewalMode::Automatic => !self.silent_attempt_failed,
        }
    }
}

fn on_schedule(schedule: &RenewalSchedule, situation: &Situation) -> Timestamp {
    let end = situation.not_after;
    let last = situation.last_shown.filter(|last| *last <= situation.now);
    let second = end - schedule.period_2.effective.duration();
    let periods = [
        (
            end - schedule.period_1.effective.duration(),
            second,
            schedule.interval_1.effective.duration(),
        ),
        (second, end, schedule.interval_2.effective.duration()),
        (end, Timestamp::MAX, EVERY_DAY),
    ];
    for (start, end, interval) in periods {
        let next = match last {
            Some(last) if last >= start => last.saturating_add(interval).unwrap_or(Timestamp::MAX),
            _ => start,
        };
        // An interval longer than its period means one reminder, when the period begins.
        if next < end {
            return next;
        }
    }
    Timestamp::MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ConfiguredValue, PreferenceLevel, RawValue, RenewalKey};

    const DAY: i64 = 86_400;
    const HOUR: i64 = 3_600;
    /// The end of the certificate in these tests.
    const E: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn before_end(seconds: i64) -> Timestamp {
        E - SignedDuration::from_secs(seconds)
    }

    fn prompt(now: Timestamp, last_shown: Option<Timestamp>) -> Situation {
        Situation {
            now,
            mode: RenewalMode::Prompt,
            not_before: before_end(365 * DAY),
            not_after: E,
            window: None,
            silent_attempt_failed: false,
            last_shown,
        }
    }

    fn with(keys: &[(RenewalKey, &str)]) -> RenewalSchedule {
        RenewalSchedule::resolve(|key| {
            let (_, text) = keys.iter().find(|(known, _)| *known == key)?;
            Some(ConfiguredValue {
                value: RawValue::Text((*text).to_owned()),
                level: PreferenceLevel::Root,
            })
        })
    }

    /// All reminders of a machine that is always on, from `start` seconds before the end on, as
    /// seconds before the end.
    fn shown(schedule: &RenewalSchedule, start: i64, until: i64) -> Vec<i64> {
        let (mut now, mut last, mut found) = (before_end(start), None, Vec::new());
        loop {
            let next = next_reminder(schedule, &prompt(now, last)).expect("in this mode");
            now = now.max(next.at);
            let left = E.duration_since(now).as_secs();
            if left < until {
                return found;
            }
            found.push(left);
            last = Some(now);
        }
    }

    #[test]
    fn the_sources_two_examples_hold_exactly() {
        let found = shown(&RenewalSchedule::default(), 365 * DAY, 1);
        let every_day = (0..42).map(|day| (45 - day) * DAY);
        let every_8_hours = (0..9).map(|time| 3 * DAY - time * 8 * HOUR);
        let expected: Vec<i64> = every_day.chain(every_8_hours).collect();
        assert_eq!(found, expected);

        let twenty_days = with(&[(RenewalKey::Period1, "1728000")]);
        let found = shown(&twenty_days, 365 * DAY, 1);
        assert_eq!(found[0], 20 * DAY);
        assert_eq!(found.len(), 17 + 9);
    }

    #[test]
    fn nothing_is_shown_before_the_first_period() {
        let next = next_reminder(
            &RenewalSchedule::default(),
            &prompt(before_end(46 * DAY), None),
        );
        let expected = NextReminder {
            at: before_end(45 * DAY),
            stage: ReminderStage::FirstPeriod,
        };
        assert_eq!(next, Some(expected));
    }

    #[test]
    fn equal_periods_leave_no_first_one() {
        let schedule = with(&[
            (RenewalKey::Period1, "7200"),
            (RenewalKey::Period2, "7200"),
            (RenewalKey::ReminderInterval2, "3600"),
        ]);
        assert_eq!(schedule.interval_2.effective.seconds(), 3600);
        assert_eq!(shown(&schedule, DAY, 1), [7200, 3600]);
        let next = next_reminder(&schedule, &prompt(before_end(DAY), None)).expect("in this mode");
        assert_eq!(next.stage, ReminderStage::SecondPeriod);
    }

    #[test]
    fn an_interval_longer_than_its_period_means_one_reminder() {
        let schedule = with(&[(RenewalKey::Period1, "300")]);
        assert_eq!(shown(&schedule, DAY, 1), [300]);
    }

    #[test]
    fn a_machine_that_slept_shows_one_reminder() {
        let schedule = RenewalSchedule::default();
        let last = Some(before_end(50 * DAY));
        // Asleep across the first period's beginning, the second one's, and the end.
        for (woke, stage) in [
            (40 * DAY, ReminderStage::FirstPeriod),
            (2 * DAY, ReminderStage::SecondPeriod),
            (-10 * DAY, ReminderStage::Expired),
        ] {
            let now = before_end(woke);
            let next = next_reminder(&schedule, &prompt(now, last)).expect("in this mode");
            assert!(next.at <= now, "due at once");
            assert_eq!(next.stage, stage);
            let after = next_reminder(&schedule, &prompt(now, Some(now))).expect("in this mode");
            assert!(after.at > now, "and only once");
        }
    }

    #[test]
    fn after_the_end_once_a_day() {
        assert_eq!(
            shown(&RenewalSchedule::default(), -HOUR, -4 * DAY),
            [-HOUR, -DAY - HOUR, -2 * DAY - HOUR, -3 * DAY - HOUR]
        );
    }

    #[test]
    fn a_clock_that_was_set_does_not_silence_the_reminders() {
        let schedule = RenewalSchedule::default();
        let now = before_end(40 * DAY);
        // Set back one day: the last reminder lies in the future, and one more is shown.
        let future = now + SignedDuration::from_secs(DAY);
        let next = next_reminder(&schedule, &prompt(now, Some(future))).expect("in this mode");
        assert!(next.at <= now);
        // Set forward a year: expired, and shown. Set back again: one is due, then none for a day.
        let year = now + SignedDuration::from_secs(365 * DAY);
        let next = next_reminder(&schedule, &prompt(year, Some(now))).expect("in this mode");
        assert_eq!(
            (next.at <= year, next.stage),
            (true, ReminderStage::Expired)
        );
        let next = next_reminder(&schedule, &prompt(now, Some(year))).expect("in this mode");
        assert_eq!(
            (next.at <= now, next.stage),
            (true, ReminderStage::FirstPeriod)
        );
        let next = next_reminder(&schedule, &prompt(now, Some(now))).expect("in this mode");
        assert_eq!(next.at, now + SignedDuration::from_secs(DAY));
    }

    #[test]
    fn a_person_is_asked_only_when_silence_did_not_help() {
        let schedule = RenewalSchedule::default();
        let now = before_end(40 * DAY);
        let window = Window {
            start: before_end(60 * DAY),
            end: before_end(30 * DAY),
        };
        let automatic = Situation {
            mode: RenewalMode::Automatic,
            window: Some(window),
            ..prompt(now, None)
        };
        assert_eq!(next_reminder(&schedule, &automatic), None, "silent first");
        let failed = Situation {
            silent_attempt_failed: true,
            ..automatic
        };
        let next = next_reminder(&schedule, &failed).expect("it failed");
        assert_eq!(next.at, window.end, "not before the window ended");
        let manual = Situation {
            mode: RenewalMode::Manual,
            ..failed
        };
        assert_eq!(next_reminder(&schedule, &manual), None);
        // A first period longer than the life: not before the certificate is valid.
        let early = Situation {
            window: None,
            not_before: before_end(10 * DAY),
            ..failed
        };
        let next = next_reminder(&schedule, &early).expect("it failed");
        assert_eq!(next.at, before_end(10 * DAY));
    }

    proptest! {
        #[test]
        fn a_shown_reminder_is_not_due_again_at_once(
            offset in -400 * DAY..400 * DAY,
            p1 in 1u64..100_000_000, p2 in 1u64..100_000_000,
            i1 in 1u64..1_000_000, i2 in 1u64..1_000_000,
        ) {
            let texts = [p1, p2, i1, i2].map(|value| value.to_string());
            let keys: Vec<_> = RenewalKey::ALL.iter().copied().zip(texts.iter().map(String::as_str)).collect();
            let schedule = with(&keys);
            let now = before_end(offset);
            let next = next_reminder(&schedule, &prompt(now, Some(now))).expect("in this mode");
            // The shortest interval is 301 s; a period's beginning may come sooner, but not now.
            prop_assert!(next.at > now);
            let first = next_reminder(&schedule, &prompt(now, None)).expect("in this mode");
            prop_assert!(first.at >= E - schedule.period_1.effective.duration());
        }
    }
}

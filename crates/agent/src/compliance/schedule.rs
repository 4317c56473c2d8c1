//! When what is evaluated: the deployments of the list in force, each with its last evaluation. It is
//! remembered apart from the signed list, so that the daemon need not read that to go to sleep again.

use std::fs;
use std::io;
use std::path::PathBuf;

use domain::compliance::EvaluationSchedule;
use domain::{BaselineName, Period, Timestamp};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use protocol::{BodyHash, PolicyList, PolicyVersion};
use serde::{Deserialize, Serialize};

use super::evaluator::Whole;
use super::policy::Owner;
use crate::files;
use crate::platform::Layout;

/// After an evaluation that was cut off: twice as long each time, up to an hour.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(60);
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// What is planned. Losing it costs an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub owner: Owner,
    pub version: PolicyVersion,
    /// Names the list's assignments.
    pub content: String,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub deployments: Vec<Planned>,
    /// Rules left the policy: their results go with the next evaluation, which is due now.
    pub dropped: bool,
    /// An evaluation began and did not end yet.
    pub begun: Option<Begun>,
}

/// One deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub number: i64,
    pub baseline: BaselineName,
    pub items: Vec<BodyHash>,
    pub schedule: EvaluationSchedule,
    pub spread: Period,
    pub evaluated_at: Option<Timestamp>,
    /// In which run of the machine that was.
    pub boot: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    pub at: Timestamp,
    /// How many in a row did not end.
    pub times: u32,
}

/// The clocks of a machine, as a schedule needs them.
pub struct Moment<'a> {
    /// By the machine's own clock: schedules are in local time.
    pub now: Timestamp,
    /// The best knowledge of the time: a list ends by it.
    pub known: Timestamp,
    pub zone: &'a TimeZone,
    /// Names the run of the machine.
    pub boot: &'a str,
    /// When that began.
    pub booted: Timestamp,
}

impl Schedule {
    pub fn read(layout: &Layout) -> Option<Self> {
        let text = fs::read(file(layout)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub fn write(&self, layout: &Layout) -> io::Result<()> {
        files::make_folder(&layout.compliance(), 0o700)?;
        files::replace(&file(layout), &serde_json::to_vec_pretty(self)?, 0o600)
    }

    /// Of a list that comes into force after `before`. What is new or changed in it is due at once.
    pub fn of(list: &PolicyList, owner: Owner, before: Option<Self>) -> Self {
        let before = before.filter(|before| before.owner == owner);
        let known = before.iter().flat_map(|before| &before.deployments);
        let deployments: Vec<Planned> = list
            .deployments
            .iter()
            .map(|deployment| {
                let same = known.clone().find(|planned| {
                    planned.number == deployment.number && planned.items == deployment.items
                });
                Planned {
                    number: deployment.number,
                    baseline: deployment.baseline.clone(),
                    items: deployment.items.clone(),
                    schedule: deployment.schedule.clone(),
                    spread: deployment.spread,
                    evaluated_at: same.and_then(|planned| planned.evaluated_at),
                    boot: same.map(|planned| planned.boot.clone()).unwrap_or_default(),
                }
            })
            .collect();
        let listed = |item: &BodyHash| {
            let mut deployments = deployments.iter();
            deployments.any(|planned| planned.items.contains(item))
        };
        let dropped = known.clone().any(|old| !old.items.iter().all(listed));
        Self {
            dropped: dropped || before.as_ref().is_some_and(|before| before.dropped),
            begun: before.and_then(|before| before.begun),
            owner,
            version: list.version,
            content: list.content.clone(),
            issued_at: list.issued_at,
            expires_at: list.expires_at,
            deployments,
        }
    }

    /// True when the device should ask for a list: the site would give another one, or half of this
    /// one's life is over.
    pub fn is_behind(&self, content: &str, known: Timestamp) -> bool {
        let life = self.expires_at.duration_since(self.issued_at);
        self.content != content || known.duration_since(self.issued_at) >= life / 2
    }

    /// When the next evaluation is due; none while nothing may run.
    pub fn next(&self, moment: &Moment<'_>) -> Option<Timestamp> {
        if moment.known >= self.expires_at {
            return None;
        }
        let planned = self.deployments.iter();
        let planned = planned.filter_map(|planned| planned.next(&self.owner, moment));
        let dropped = self.dropped.then_some(moment.now);
        let next = planned.chain(dropped).min()?;
        Some(next.max(self.may_begin(moment.now)))
    }

    /// The deployments that are due now.
    pub fn due(&self, moment: &Moment<'_>) -> Vec<i64> {
        let is_due = |planned: &&Planned| {
            planned
                .next(&self.owner, moment)
                .is_some_and(|next| next <= moment.now)
        };
        self.deployments
            .iter()
            .filter(is_due)
            .map(|planned| planned.number)
            .collect()
    }

    fn may_begin(&self, now: Timestamp) -> Timestamp {
        match &self.begun {
            Some(begun) if begun.at <= now => {
                let doubled = 2_i32.pow(begun.times.clamp(1, 7) - 1);
                begun.at + (FIRST_WAIT * doubled).min(LONGEST_WAIT)
            }
            _ => Timestamp::MIN,
        }
    }

    /// Notes that an evaluation begins: before it does.
    pub fn begin(&mut self, now: Timestamp) {
        let times = self.begun.as_ref().map_or(0, |begun| begun.times) + 1;
        self.begun = Some(Begun { at: now, times });
    }

    /// Notes that these were evaluated, all items of each. `complete`: so was all that was to be, of the
    /// list in force. Otherwise it is tried again, and waits longer each time.
    pub fn ended(&mut self, evaluated: &[Whole], complete: bool, now: Timestamp, boot: &str) {
        if complete {
            self.begun = None;
            self.dropped = false;
        }
        for planned in &mut self.deployments {
            let is_it = |one: &Whole| one.number == planned.number && one.items == planned.items;
            if evaluated.iter().any(is_it) {
                planned.evaluated_at = Some(now);
                boot.clone_into(&mut planned.boot);
            }
        }
    }
}

impl Planned {
    /// Its schedule, moved by the part of the spread that is this device's own: what was missed is one
    /// evaluation. After a start of the machine it is due, too, in the same part of the spread.
    fn next(&self, owner: &Owner, moment: &Moment<'_>) -> Option<Timestamp> {
        // An evaluation in the future was made under a clock that has been set back since.
        let Some(last) = self.evaluated_at.filter(|last| *last <= moment.now) else {
            return Some(Timestamp::MIN);
        };
        let delay = self.delay(owner);
        let shifted = last.saturating_sub(delay).unwrap_or(last);
        let next = self.schedule.next(shifted, moment.zone);
        let next = next.map(|next| next.saturating_add(delay).unwrap_or(next));
        let at_start = moment.booted.saturating_add(delay).ok();
        let at_start = at_start.filter(|_| self.boot != moment.boot);
        next.into_iter().chain(at_start).min()
    }

    /// The same each time, for this device and deployment.
    fn delay(&self, owner: &Owner) -> SignedDuration {
        let device = owner.device.to_string();
        let digest = x509::sha256(&[device.as_bytes(), &self.number.to_be_bytes()]);
        let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        let fraction = f64::from(number) / (f64::from(u32::MAX) + 1.0);
        SignedDuration::from_secs_f64(self.spread.duration().as_secs_f64() * fraction)
    }
}

fn file(layout: &Layout) -> PathBuf {
    layout.compliance().join("schedule.json")
}

#[cfg(test)]
mod tests {
    use domain::{DeviceId, KeyDigest, Pin};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect(text)
    }

    fn owner(number: u8) -> Owner {
        Owner {
            pin: Pin::new(KeyDigest::new([0; 32])),
            device: DeviceId::from_entropy([number; 16]).smsid(),
        }
    }

    fn whole() -> [Whole; 1] {
        [Whole {
            number: 1,
            items: Vec::new(),
        }]
    }

    fn schedule(text: &str, spread: &str) -> Schedule {
        Schedule {
            owner: owner(1),
            version: PolicyVersion::default(),
            content: "a".to_owned(),
            issued_at: at("2026-11-01T00:00:00Z"),
            expires_at: at("2027-11-01T00:00:00Z"),
            deployments: vec![Planned {
                number: 1,
                baseline: "b".parse().expect("a name"),
                items: Vec::new(),
                schedule: text.parse().expect(text),
                spread: spread.parse().expect(spread),
                evaluated_at: None,
                boot: String::new(),
            }],
            dropped: false,
            begun: None,
        }
    }

    static ZONE: TimeZone = TimeZone::UTC;

    fn moment(now: &str) -> Moment<'static> {
        Moment {
            now: at(now),
            known: at(now),
            zone: &ZONE,
            boot: "boot",
            booted: at("2026-11-10T00:00:00Z"),
        }
    }

    #[test]
    fn what_is_new_is_due_and_then_by_its_schedule() {
        let mut plan = schedule("8h", "0s");
        let now = moment("2026-11-22T10:00:00Z");
        assert_eq!(plan.due(&now), [1]);
        plan.begin(now.now);
        plan.ended(&whole(), true, now.now, "boot");
        assert_eq!(plan.next(&now), Some(at("2026-11-22T18:00:00Z")));
        // Asleep for three days: one evaluation.
        let woke = moment("2026-11-25T11:00:00Z");
        assert_eq!(plan.due(&woke), [1]);
        plan.ended(&whole(), true, woke.now, "boot");
        assert_eq!(plan.next(&woke), Some(at("2026-11-25T19:00:00Z")));
        // A clock that was set back.
        assert_eq!(plan.due(&moment("2026-11-20T00:00:00Z")), [1]);
    }

    #[test]
    fn the_spread_is_stable_and_missed_moments_are_one() {
        let mut plan = schedule("0 9 * * *", "2h");
        plan.ended(&whole(), true, at("2026-11-22T15:00:00Z"), "boot");
        let next = plan
            .next(&moment("2026-11-22T15:00:01Z"))
            .expect("a moment");
        assert!(at("2026-11-23T09:00:00Z") <= next && next < at("2026-11-23T11:00:00Z"));
        assert_eq!(plan.next(&moment("2026-11-22T20:00:00Z")), Some(next));
        // Late by three days, and then in the spread of the next day again.
        plan.ended(&whole(), true, at("2026-11-25T20:00:00Z"), "boot");
        let later = plan
            .next(&moment("2026-11-25T20:00:01Z"))
            .expect("a moment");
        assert_eq!(later, next + SignedDuration::from_hours(72));
        let other = Schedule {
            owner: owner(2),
            ..plan
        };
        assert_ne!(other.next(&moment("2026-11-25T20:00:01Z")), Some(later));
    }

    #[test]
    fn a_start_of_the_machine_makes_it_due() {
        let mut plan = schedule("7d", "2h");
        plan.ended(&whole(), true, at("2026-11-09T00:00:00Z"), "another boot");
        let next = plan
            .next(&moment("2026-11-10T00:00:01Z"))
            .expect("a moment");
        assert!(at("2026-11-10T00:00:00Z") <= next && next < at("2026-11-10T02:00:00Z"));
    }

    #[test]
    fn what_was_not_complete_waits_and_is_due_again() {
        let mut plan = schedule("8h", "0s");
        plan.dropped = true;
        let now = moment("2026-11-22T10:00:00Z");
        plan.begin(now.now);
        plan.ended(&whole(), false, now.now, "boot");
        assert_eq!(plan.next(&now), Some(at("2026-11-22T10:01:00Z")));
        plan.begin(now.now);
        let other = Whole {
            number: 1,
            items: vec![BodyHash::new([1; 32])],
        };
        plan.deployments[0].evaluated_at = None;
        plan.ended(&[other], true, now.now, "boot");
        assert_eq!(plan.due(&now), [1]);
    }

    #[test]
    fn an_expired_list_makes_nothing_due() {
        let plan = schedule("8h", "0s");
        assert_eq!(plan.next(&moment("2027-11-01T00:00:00Z")), None);
    }

    #[test]
    fn what_was_cut_off_waits_longer_each_time() {
        let mut plan = schedule("8h", "0s");
        let now = moment("2026-11-22T10:00:00Z");
        plan.begin(now.now);
        assert_eq!(plan.next(&now), Some(at("2026-11-22T10:01:00Z")));
        plan.begin(now.now);
        assert_eq!(plan.next(&now), Some(at("2026-11-22T10:02:00Z")));
        for _ in 0..20 {
            plan.begin(now.now);
        }
        assert_eq!(plan.next(&now), Some(at("2026-11-22T11:00:00Z")));
    }
}

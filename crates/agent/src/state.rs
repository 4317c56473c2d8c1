//! What the agent remembers between two runs, beside its identity.

use std::fs;
use std::path::Path;

use domain::{Period, RenewalMode, Rng, Timestamp, Window};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::files;

/// Between two attempts that nobody planned.
const SHORTEST_WAIT: SignedDuration = SignedDuration::from_mins(1);

/// The schedule and the last outcomes. Losing it costs a check-in, never an identity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The site's window for the next silent renewal, and the instant picked in it.
    pub window: Option<Window>,
    pub renew_at: Option<Timestamp>,
    pub next_check_in: Option<Timestamp>,
    pub last_check_in: Option<Timestamp>,
    /// How far the site's clock was ahead of ours, in seconds.
    pub skew: Option<i64>,
    pub last_renewal: Option<Timestamp>,
    /// Why the last check-in did nothing; none after a success.
    pub trouble: Option<Trouble>,
    /// Why the last renewal did nothing; check-ins go on meanwhile.
    pub renewal_trouble: Option<Trouble>,
    /// The site's policy.
    pub renewal_mode: RenewalMode,
    /// When the machine woke, or the daemon started.
    pub woke_at: Option<Timestamp>,
    pub last_reminder: Option<Timestamp>,
    /// Since when a reminder waits: it came due, and nobody put it off or renewed.
    pub reminder_waits: Option<Timestamp>,
    /// An identity was taken into use and scripts and services were not told yet; true: it renewed
    /// the one before.
    pub announce: Option<bool>,
    /// How often the reminder was put off in the second period.
    pub put_off: u32,
    pub known_time: Option<KnownTime>,
    /// The site has another policy list for this device, or the one that it has grows old.
    pub policy_wanted: bool,
    /// Why the last list, or a body of it, was refused; none after a good one.
    pub policy_problem: Option<String>,
    /// Why the last command was refused; none after a check-in that brought no such command.
    pub command_problem: Option<String>,
    /// Why the policy did not get through; all else goes on meanwhile.
    pub policy_trouble: Option<Trouble>,
    /// Why results did not get through; check-ins go on meanwhile.
    pub delivery_trouble: Option<Trouble>,
}

/// The site's time, and how to tell what went by since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTime {
    pub time: Timestamp,
    /// The machine's own count of seconds then.
    pub elapsed: i64,
    /// In which run of the machine.
    pub boot: String,
}

/// A failed attempt and when the next one comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub at: Timestamp,
    pub what: String,
    /// The site said no (as opposed to: it was not there).
    pub refused: bool,
    /// How many attempts failed in a row.
    pub failures: u32,
    pub next: Timestamp,
}

impl State {
    const FILE: &str = "state.json";

    /// What is unreadable counts as forgotten.
    pub fn read(state: &Path) -> Self {
        fs::read(state.join(Self::FILE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub fn write(&self, state: &Path) -> std::io::Result<()> {
        files::replace(
            &state.join(Self::FILE),
            &serde_json::to_vec_pretty(self)?,
            0o600,
        )
    }

    /// Takes the site's window. The instant in it is picked once, and anew only when the window
    /// changes.
    pub fn take_window(&mut self, window: Window, rng: &dyn Rng) {
        if self.window == Some(window) && self.renew_at.is_some() {
            return;
        }
        // A window that was moved is no longer what was refused.
        if self.window.is_some() {
            self.renewal_trouble = None;
        }
        let mut bytes = [0; 4];
        rng.fill(&mut bytes);
        let fraction = f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0);
        self.window = Some(window);
        self.renew_at = Some(window.instant(fraction));
    }

    /// When the silent renewal is due. Who is far from the site's time would renew for ever, as each
    /// new certificate looks old again: such a computer renews once a day at most.
    pub fn renewal_due(&self, now: Timestamp) -> Option<Timestamp> {
        const FAR: i64 = 86_400;
        let at = self.renew_at?;
        // The site's time may only bring an attempt forward.
        let ahead = SignedDuration::from_secs(self.skew.unwrap_or(0).max(0));
        let due = at.saturating_sub(ahead).unwrap_or(at);
        // A renewal in the future was made under a wrong clock.
        match (self.last_renewal.filter(|last| *last <= now), self.skew) {
            (Some(last), Some(skew)) if skew.abs() > FAR => {
                Some(due.max(last + Period::from_days(1).duration()))
            }
            _ => Some(due),
        }
    }

    /// True when a silent renewal was tried since the machine woke, and failed. What the site refused
    /// counts until it is asked again.
    pub fn silent_attempt_failed(&self, now: Timestamp) -> bool {
        self.renewal_trouble.as_ref().is_some_and(|trouble| {
            let since_waking = self.woke_at.is_none_or(|woke| trouble.at >= woke);
            since_waking || (trouble.refused && now < trouble.next)
        })
    }

    /// What was not reachable is tried again at once: the machine woke, or the network changed.
    pub fn try_again_at(&mut self, now: Timestamp) {
        for trouble in self.troubles() {
            trouble.next = now;
        }
    }

    /// A check-in got through: what waits for the site has not to wait long any more. How often that
    /// happens is up to users, too, and so it is not at once.
    pub fn try_again_soon(&mut self) {
        for trouble in self.troubles() {
            let soon = trouble.at.saturating_add(SHORTEST_WAIT);
            trouble.next = trouble.next.min(soon.unwrap_or(trouble.next));
        }
    }

    /// Those of a site that did not say no.
    fn troubles(&mut self) -> impl Iterator<Item = &mut Trouble> {
        let all = [
            &mut self.trouble,
            &mut self.renewal_trouble,
            &mut self.policy_trouble,
            &mut self.delivery_trouble,
        ];
        let some = all.into_iter().filter_map(Option::as_mut);
        some.filter(|trouble| !trouble.refused)
    }

    /// The site was not there, whatever was asked of it. Check-ins look whether it is back: soon, and the
    /// next attempt stays as it was planned, as who asks often must not make it late.
    pub fn note_unreachable(&mut self, now: Timestamp, what: String, wait: SignedDuration) {
        let next = now + wait;
        self.trouble.get_or_insert(Trouble {
            at: now,
            what,
            refused: false,
            failures: 1,
            next,
        });
        self.next_check_in = self.next_check_in.map(|at| at.min(next));
    }

    /// The site answered somebody, and be it with a no.
    pub fn note_reachable(&mut self) {
        self.trouble.take_if(|trouble| !trouble.refused);
    }

    /// The skew as the site is told: less than five minutes is the network's doing, and a difference
    /// of seconds is no news.
    pub fn reported_skew(&self) -> Option<i64> {
        let skew = self.skew.filter(|skew| skew.abs() > 300)?;
        Some(skew / 60 * 60)
    }

    /// True when the site was not there, by the last check-in or by what was asked since: people are asked
    /// for nothing that it would have to answer. What else fails says nothing of that.
    pub fn is_offline(&self) -> bool {
        self.trouble
            .as_ref()
            .is_some_and(|trouble| !trouble.refused)
    }

    /// True when another network may help.
    pub fn waits_for_network(&self) -> bool {
        let waits = |trouble: &Option<Trouble>| trouble.as_ref().is_some_and(|t| !t.refused);
        [
            &self.trouble,
            &self.renewal_trouble,
            &self.policy_trouble,
            &self.delivery_trouble,
        ]
        .into_iter()
        .any(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);
    impl Rng for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn the_instant_stays_until_the_window_changes() {
        let at = |second| Timestamp::from_second(second).expect("a moment");
        let first = Window {
            start: at(1000),
            end: at(2000),
        };
        let mut state = State::default();
        state.take_window(first, &Fixed(0));
        assert_eq!(state.renew_at, Some(at(1000)));
        state.take_window(first, &Fixed(128));
        assert_eq!(state.renew_at, Some(at(1000)));
        state.take_window(
            Window {
                start: at(3000),
                end: at(4000),
            },
            &Fixed(128),
        );
        let picked = state.renew_at.expect("picked");
        assert!(at(3400) < picked && picked < at(3600), "{picked}");
    }
}

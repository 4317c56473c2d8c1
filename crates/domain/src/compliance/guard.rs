//! The remediation guard: what comes back again and again is not remediated for ever.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Remediations of one rule in [`GUARD_SPAN`]; after them it is left alone.
pub const GUARD_LIMIT: usize = 3;
/// How far the guard looks back.
pub const GUARD_SPAN: SignedDuration = SignedDuration::from_hours(24);

/// What a client remembers of one rule's remediations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RemediationGuard(Vec<Timestamp>);

impl RemediationGuard {
    /// Whether the rule may be remediated now. A moment in the future was noted under a clock that
    /// has been set back since: it counts, so that no clock frees a rule early.
    pub fn allows(&self, now: Timestamp) -> bool {
        self.recent(now).count() < GUARD_LIMIT
    }

    /// Notes a remediation that begins now: before it runs, so that a crash does not forget it.
    pub fn note(&mut self, now: Timestamp) {
        self.0 = self.recent(now).collect();
        self.0.push(now);
    }

    /// True when nothing needs to be remembered any more.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        self.recent(now).next().is_none()
    }

    fn recent(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.0
            .iter()
            .copied()
            .filter(move |at| now.duration_since(*at) < GUARD_SPAN)
            .take(GUARD_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_day_and_no_more() {
        let hour = |n: i64| Timestamp::from_second(n * 3600).expect("a moment");
        let mut guard = RemediationGuard::default();
        for at in [0, 1, 2] {
            assert!(guard.allows(hour(at)));
            guard.note(hour(at));
        }
        assert!(!guard.allows(hour(3)) && !guard.allows(hour(23)));
        // The first one is a day ago.
        assert!(guard.allows(hour(24)));
        guard.note(hour(24));
        assert!(!guard.allows(hour(24)));
        // A clock that is set back frees nothing.
        assert!(!guard.allows(hour(0)));
        assert!(guard.is_idle(hour(48)));
    }
}

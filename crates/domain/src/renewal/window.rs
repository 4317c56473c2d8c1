//! The window in which a certificate is renewed silently.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Period;

/// `RenewalPeriod1` where nothing else is configured: 45 days (the source's default).
pub const DEFAULT_RENEWAL_PERIOD_1: Period = Period::from_seconds(3_888_000);

/// The time in which a client should renew, in the shape of ACME Renewal Information
/// (RFC 9773 section 4.2: `suggestedWindow`). `end` is always after `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Window {
    /// The window of a certificate: from two thirds to five sixths of its life, counted from the
    /// moment of issue (notBefore is backdated). When the first renewal period begins inside that
    /// span, the window ends there, so that silent renewal comes before any reminder.
    pub fn of_certificate(
        issued: Timestamp,
        not_after: Timestamp,
        renewal_period_1: Period,
    ) -> Self {
        let lifetime = not_after
            .duration_since(issued)
            .max(SignedDuration::from_millis(6));
        let at = |sixths: i32| issued + lifetime / 6 * sixths;
        let (start, mut end) = (at(4), at(5));
        let reminders = not_after - renewal_period_1.duration();
        if reminders > start && reminders < end {
            end = reminders;
        }
        Self { start, end }
    }

    /// The instant in the window at `fraction` (0 ≤ fraction < 1): a client picks it once, uniformly
    /// at random, so that a fleet that enrolled together does not renew together.
    pub fn instant(&self, fraction: f64) -> Timestamp {
        let span = self.end.duration_since(self.start);
        self.start + span.mul_f64(fraction.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ISSUED: Timestamp = Timestamp::constant(1_700_000_000, 0);

    /// Start and end in seconds after the issue.
    fn window(lifetime: u64, period_1: u64) -> (i64, i64) {
        let not_after = ISSUED + Period::from_seconds(lifetime).duration();
        let window = Window::of_certificate(ISSUED, not_after, Period::from_seconds(period_1));
        (
            window.start.as_second() - ISSUED.as_second(),
            window.end.as_second() - ISSUED.as_second(),
        )
    }

    #[test]
    fn the_specifications_rows() {
        const H: u64 = 3600;
        const D: u64 = 86_400;
        let default = DEFAULT_RENEWAL_PERIOD_1.seconds();
        // (lifetime, RenewalPeriod1, start, end)
        let rows = [
            (H, default, 2400, 3000),
            (7 * D, default, 403_200, 504_000),
            // 90 days: reminders begin at day 45, before the start, and are ignored.
            (90 * D, default, (60 * D) as i64, (75 * D) as i64),
            // 134 days: reminders at 89 d, start at 89 d 8 h: ignored.
            (
                134 * D,
                default,
                (134 * D * 2 / 3) as i64,
                (134 * D * 5 / 6) as i64,
            ),
            // 135 days: reminders begin exactly at the start, and an empty window is none.
            (135 * D, default, (90 * D) as i64, (135 * D * 5 / 6) as i64),
            (
                365 * D,
                default,
                (365 * D * 2 / 3) as i64,
                (365 * D * 5 / 6) as i64,
            ),
            // 365 days with 122 days: reminders at 243 d, 8 h before the start.
            (
                365 * D,
                122 * D,
                (365 * D * 2 / 3) as i64,
                (365 * D * 5 / 6) as i64,
            ),
            (365 * D, 100 * D, (365 * D * 2 / 3) as i64, (265 * D) as i64),
            // longer than the lifetime
            (90 * D, 400 * D, (60 * D) as i64, (75 * D) as i64),
        ];
        for (lifetime, period_1, start, end) in rows {
            assert_eq!(
                window(lifetime, period_1),
                (start, end),
                "{lifetime} s, P1 = {period_1} s"
            );
        }
    }

    proptest! {
        #[test]
        fn a_window_is_never_empty_and_ends_before_expiry(
            lifetime in 60u64..200_000_000, period_1 in 0u64..u64::MAX,
        ) {
            let (start, end) = window(lifetime, period_1);
            prop_assert!(start < end && end < lifetime as i64);
        }

        #[test]
        fn an_instant_lies_in_its_window(lifetime in 60u64..200_000_000, fraction in 0.0f64..1.0) {
            let not_after = ISSUED + Period::from_seconds(lifetime).duration();
            let window = Window::of_certificate(ISSUED, not_after, DEFAULT_RENEWAL_PERIOD_1);
            let instant = window.instant(fraction);
            prop_assert!(window.start <= instant && instant <= window.end);
        }
    }
}

//! Lengths of time as administrators write them: `90s`, `15m`, `8h`, `45d`, `2w`.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;

/// A length of time in whole seconds, never negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

/// What was given is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time; write a number and a unit: 90s, 15m, 8h, 45d, 2w")]
pub struct InvalidPeriod(String);

const UNITS: [(char, u64); 5] = [
    ('w', 604_800),
    ('d', 86_400),
    ('h', 3_600),
    ('m', 60),
    ('s', 1),
];

impl Period {
    /// A thousand years: beyond it arithmetic with dates would leave the calendar.
    const MAX_SECONDS: u64 = 1_000 * 366 * 86_400;

    pub const fn from_seconds(seconds: u64) -> Self {
        Self(if seconds > Self::MAX_SECONDS {
            Self::MAX_SECONDS
        } else {
            seconds
        })
    }

    pub const fn from_days(days: u64) -> Self {
        Self::from_seconds(days.saturating_mul(86_400))
    }

    pub const fn seconds(&self) -> u64 {
        self.0
    }

    pub const fn duration(&self) -> SignedDuration {
        // Bounded by MAX_SECONDS, far inside i64.
        SignedDuration::from_secs(self.0 as i64)
    }

    pub const fn std(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(given: &str) -> Result<Self, InvalidPeriod> {
        let invalid = || InvalidPeriod(given.chars().take(40).collect());
        let text = given.trim();
        let unit = text.chars().last().ok_or_else(invalid)?;
        let (_, seconds) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(invalid)?;
        let number: u64 = text[..text.len() - 1]
            .trim()
            .parse()
            .map_err(|_| invalid())?;
        number
            .checked_mul(*seconds)
            .filter(|total| *total <= Self::MAX_SECONDS)
            .map(Self)
            .ok_or_else(invalid)
    }
}

impl fmt::Display for Period {
    /// The largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, seconds) = UNITS
            .iter()
            .find(|(name, seconds)| {
                *name != 'w' && self.0.is_multiple_of(*seconds) && self.0 >= *seconds
            })
            .unwrap_or(&('s', 1));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Period({self})")
    }
}

crate::serde_as_text!(Period);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (given, seconds, written) in [
            ("45d", 3_888_000, "45d"),
            ("2w", 1_209_600, "14d"),
            ("90s", 90, "90s"),
            ("60m", 3600, "1h"),
            ("0s", 0, "0s"),
        ] {
            let period: Period = given.parse().expect(given);
            assert_eq!(
                (period.seconds(), period.to_string().as_str()),
                (seconds, written)
            );
        }
    }

    #[test]
    fn refuses() {
        for given in [
            "",
            "d",
            "45",
            "-1d",
            "1.5h",
            "45 days",
            "99999999999999999999w",
            "9999999w",
            "5ä",
        ] {
            assert!(given.parse::<Period>().is_err(), "{given}");
        }
    }
}

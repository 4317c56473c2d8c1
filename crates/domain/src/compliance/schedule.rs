//! When a deployment's baseline is evaluated.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::tz::TimeZone;

use crate::{Period, Timestamp};

/// Every so often, or by a cron expression in the client's local time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvaluationSchedule {
    Every(Period),
    Cron(CronExpression),
}

/// Five fields: minute, hour, day of the month, month, day of the week.
#[derive(Debug, Clone)]
pub struct CronExpression {
    written: String,
    cron: Box<Cron>,
}

impl PartialEq for CronExpression {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for CronExpression {}

/// What was given is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    #[error(
        "a schedule is a length of time (30m, 8h, 7d), or five fields of cron (`0 9 * * 1-5`): {0}"
    )]
    Neither(String),
    #[error("a baseline is evaluated every 5 minutes at most, and every 366 days at least")]
    Length,
    #[error("`{0}` never happens")]
    Never(String),
}

impl EvaluationSchedule {
    const SHORTEST: Period = Period::from_seconds(300);
    const LONGEST: Period = Period::from_days(366);

    /// The first moment after `last`, which was the last evaluation's planned moment; `zone` is the
    /// client's.
    pub fn next(&self, last: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(period) => last.checked_add(period.duration()).ok(),
            Self::Cron(expression) => {
                let last = last.to_zoned(zone.clone());
                let next = expression.cron.find_next_occurrence(&last, false).ok()?;
                Some(next.timestamp())
            }
        }
    }
}

impl FromStr for EvaluationSchedule {
    type Err = InvalidSchedule;

    fn from_str(given: &str) -> Result<Self, InvalidSchedule> {
        let given = given.trim();
        if given.len() > 200 {
            return Err(InvalidSchedule::Neither("it is too long".to_owned()));
        }
        if !given.contains(' ') {
            let period: Period = given.parse().map_err(|error: crate::InvalidPeriod| {
                InvalidSchedule::Neither(error.to_string())
            })?;
            if !(Self::SHORTEST..=Self::LONGEST).contains(&period) {
                return Err(InvalidSchedule::Length);
            }
            return Ok(Self::Every(period));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
        let cron = parser
            .parse(given)
            .map_err(|error| InvalidSchedule::Neither(error.to_string()))?;
        let expression = Self::Cron(CronExpression {
            written: given.to_owned(),
            cron: Box::new(cron),
        });
        if expression
            .next(Timestamp::UNIX_EPOCH, &TimeZone::UTC)
            .is_none()
        {
            return Err(InvalidSchedule::Never(given.to_owned()));
        }
        Ok(expression)
    }
}

impl fmt::Display for EvaluationSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(period) => period.fmt(f),
            Self::Cron(expression) => f.write_str(&expression.written),
        }
    }
}

crate::serde_as_text!(EvaluationSchedule);

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> EvaluationSchedule {
        text.parse().expect(text)
    }

    #[test]
    fn both_kinds_are_read_and_written() {
        for text in ["30m", "7d", "0 9 * * 1-5", "*/15 * * * *"] {
            assert_eq!(schedule(text).to_string(), text);
        }
        for bad in [
            "",
            "1s",
            "4m",
            "2000d",
            "soon",
            "0 9 * *",
            "61 * * * *",
            "0 0 30 2 *",
            "* * * * * *",
        ] {
            assert!(bad.parse::<EvaluationSchedule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_moment_is_after_the_last() {
        let at = |text: &str| text.parse::<Timestamp>().expect(text);
        let next = |text: &str, last: &str, zone: &TimeZone| {
            schedule(text)
                .next(at(last), zone)
                .expect("a moment")
                .to_string()
        };
        let utc = TimeZone::UTC;
        assert_eq!(
            next("8h", "2026-11-22T10:00:00Z", &utc),
            "2026-11-22T18:00:00Z"
        );
        // Sunday: the next working day.
        assert_eq!(
            next("0 9 * * 1-5", "2026-11-22T10:00:00Z", &utc),
            "2026-11-23T09:00:00Z"
        );
        assert_eq!(
            next("0 9 * * *", "2026-11-22T09:00:00Z", &utc),
            "2026-11-23T09:00:00Z"
        );
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(
            next("0 9 * * *", "2026-11-22T09:00:00Z", &east),
            "2026-11-23T07:00:00Z"
        );
    }
}

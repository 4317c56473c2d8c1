//! Deployments: a baseline for the devices of a collection.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{BaselineName, EvaluationSchedule};
use crate::{CollectionName, Period, Timestamp};

/// What a deployment says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    pub baseline: BaselineName,
    pub collection: CollectionName,
    /// Rules that say so, too, are remediated.
    #[serde(default)]
    pub remediate: bool,
    #[serde(default = "default_schedule")]
    pub schedule: EvaluationSchedule,
    /// Each client waits for a random part of this, the same each time.
    #[serde(default = "default_spread")]
    pub spread: Period,
    /// Nothing is remediated outside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation_window: Option<RemediationWindow>,
    /// A device that has not reported for so long is unknown.
    #[serde(default = "default_stale_after")]
    pub stale_after: Period,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<ComplianceAlert>,
}

/// An alert when too few devices are compliant at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComplianceAlert {
    /// Percent of the devices of the collection, 1 to 100.
    pub below: u8,
    pub at: Timestamp,
}

/// Why something is no deployment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeployment {
    #[error("evaluations spread over 31d at most")]
    Spread,
    #[error("a device is stale after 1h to 366d")]
    StaleAfter,
    #[error("an alert is for less than 1 to 100 percent of the devices")]
    Percent,
}

impl Deployment {
    const LONGEST_SPREAD: Period = Period::from_days(31);
    const STALE: std::ops::RangeInclusive<Period> =
        Period::from_seconds(3600)..=Period::from_days(366);

    /// # Errors
    /// When a length of time or a number is out of its bounds.
    pub fn check(&self) -> Result<(), InvalidDeployment> {
        if self.spread > Self::LONGEST_SPREAD {
            return Err(InvalidDeployment::Spread);
        }
        if !Self::STALE.contains(&self.stale_after) {
            return Err(InvalidDeployment::StaleAfter);
        }
        if self
            .alert
            .is_some_and(|alert| !(1..=100).contains(&alert.below))
        {
            return Err(InvalidDeployment::Percent);
        }
        Ok(())
    }
}

const fn default_spread() -> Period {
    Period::from_seconds(2 * 3600)
}

const fn default_stale_after() -> Period {
    Period::from_days(30)
}

/// The incumbent's: every 7 days.
const fn default_schedule() -> EvaluationSchedule {
    EvaluationSchedule::Every(Period::from_days(7))
}

/// A part of each day in the client's local time, such as `22:00-06:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemediationWindow {
    from: Time,
    to: Time,
}

/// What was given is no part of a day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a part of the day; write it like 22:00-06:00")]
pub struct InvalidWindow(String);

impl RemediationWindow {
    /// Its end does not belong to it.
    pub fn holds(&self, now: Timestamp, zone: &TimeZone) -> bool {
        let now = now.to_zoned(zone.clone()).time();
        if self.from < self.to {
            self.from <= now && now < self.to
        } else {
            self.from <= now || now < self.to
        }
    }
}

impl FromStr for RemediationWindow {
    type Err = InvalidWindow;

    fn from_str(given: &str) -> Result<Self, InvalidWindow> {
        let invalid = || InvalidWindow(given.chars().take(40).collect());
        let (from, to) = given.split_once('-').ok_or_else(invalid)?;
        let time = |text: &str| Time::strptime("%H:%M", text.trim()).map_err(|_| invalid());
        let window = Self {
            from: time(from)?,
            to: time(to)?,
        };
        if window.from == window.to {
            return Err(invalid());
        }
        Ok(window)
    }
}

impl fmt::Display for RemediationWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |time: Time| format!("{:02}:{:02}", time.hour(), time.minute());
        write!(f, "{}-{}", clock(self.from), clock(self.to))
    }
}

crate::serde_as_text!(RemediationWindow);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_go_over_midnight() {
        let at = |text: &str| text.parse::<Timestamp>().expect(text);
        let night: RemediationWindow = "22:00-06:00".parse().expect("a window");
        assert_eq!(night.to_string(), "22:00-06:00");
        for (time, inside) in [
            ("22:00", true),
            ("03:00", true),
            ("06:00", false),
            ("12:00", false),
        ] {
            let now = at(&format!("2026-11-22T{time}:00Z"));
            assert_eq!(night.holds(now, &TimeZone::UTC), inside, "{time}");
        }
        let day: RemediationWindow = "9:00-17:00".parse().expect("a window");
        assert!(day.holds(at("2026-11-22T09:00:00Z"), &TimeZone::UTC));
        assert!(!day.holds(at("2026-11-22T17:00:00Z"), &TimeZone::UTC));
        for bad in ["", "22:00", "22:00-22:00", "25:00-06:00", "a-b"] {
            assert!(bad.parse::<RemediationWindow>().is_err(), "{bad}");
        }
    }
}

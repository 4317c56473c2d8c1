//! The four preference keys that say when people are reminded, and how they are resolved: four
//! optional raw values in, four effective lengths of time and the reasons why a value was not used
//! out.
//!
//! Source: "Renew certificate wizard" in the incumbent's documentation, step 1. The asymmetries
//! (`>=` for periods, `>` for intervals; the second period may equal the first, an interval may not
//! equal its period) are the source's and are kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::words;
use crate::{DEFAULT_RENEWAL_PERIOD_1, Period};

words! {
    /// A key of the preference domain `com.microsoft.ccmclient`: a string of decimal seconds.
    RenewalKey {
        Period1 = "RenewalPeriod1",
        Period2 = "RenewalPeriod2",
        ReminderInterval1 = "RenewalReminderInterval1",
        ReminderInterval2 = "RenewalReminderInterval2",
    }
}

words! {
    /// Where a preference is set, strongest first (the order of CFPreferences for root).
    PreferenceLevel {
        /// By an administrator's device management.
        Managed = "managed",
        /// By root: what `sudo defaults write` writes.
        Root = "root",
        /// For everybody on the machine.
        Machine = "machine",
    }
}

impl PreferenceLevel {
    pub const STRONGEST_FIRST: [Self; 3] = [Self::Managed, Self::Root, Self::Machine];
}

/// A value as a preference list holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawValue {
    Text(String),
    /// Of another type, which is named: such a value is not read.
    Other(&'static str),
}

impl fmt::Display for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Other(kind) => write!(f, "a value of type {kind}"),
        }
    }
}

/// A value, and the level that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredValue {
    pub value: RawValue,
    pub level: PreferenceLevel,
}

/// Why a configured value is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Unused {
    #[error("is not a string")]
    NotAString,
    #[error("is not a plain decimal number of seconds from 1 to 9223372036854775807")]
    NotANumber,
    #[error("has to be at least 300 seconds")]
    PeriodTooShort,
    #[error("has to be more than 300 seconds")]
    IntervalTooShort,
    #[error("is longer than RenewalPeriod1 ({0} s)")]
    LongerThanPeriod1(u64),
    #[error("is not less than RenewalPeriod1 ({0} s)")]
    NotLessThanPeriod1(u64),
    #[error("is longer than RenewalReminderInterval1 ({0} s)")]
    LongerThanInterval1(u64),
    #[error("is longer than RenewalPeriod2 ({0} s)")]
    LongerThanPeriod2(u64),
}

/// One key, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub effective: Period,
    pub configured: Option<ConfiguredValue>,
    /// Why the configured value is not the effective one.
    pub unused: Option<Unused>,
}

/// The effective schedule, and where each part of it comes from. `period_2 <= period_1` always. An
/// interval longer than its period means one reminder, when the period begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalSchedule {
    pub period_1: Resolved,
    pub period_2: Resolved,
    pub interval_1: Resolved,
    pub interval_2: Resolved,
}

const DEFAULT_PERIOD_2: u64 = 259_200;
const DEFAULT_INTERVAL_1: u64 = 86_400;
const DEFAULT_INTERVAL_2: u64 = 28_800;
/// No period is shorter, and every interval is longer.
const LEAST: u64 = 300;

impl RenewalSchedule {
    /// Resolves the keys in the order P1, P2, I1, I2, each condition over the effective values of
    /// those before it.
    pub fn resolve(configured: impl Fn(RenewalKey) -> Option<ConfiguredValue>) -> Self {
        let period_1 = Resolved::of(
            configured(RenewalKey::Period1),
            DEFAULT_RENEWAL_PERIOD_1.seconds(),
            |value| require(value >= LEAST, Unused::PeriodTooShort),
        );
        let p1 = period_1.effective.seconds();

        let period_2 = Resolved::of(
            configured(RenewalKey::Period2),
            DEFAULT_PERIOD_2.min(p1),
            |value| {
                require(value >= LEAST, Unused::PeriodTooShort)?;
                require(value <= p1, Unused::LongerThanPeriod1(p1))
            },
        );
        let p2 = period_2.effective.seconds();

        let interval_1 = Resolved::of(
            configured(RenewalKey::ReminderInterval1),
            DEFAULT_INTERVAL_1,
            |value| {
                require(value > LEAST, Unused::IntervalTooShort)?;
                require(value < p1, Unused::NotLessThanPeriod1(p1))
            },
        );
        let i1 = interval_1.effective.seconds();

        let interval_2 = Resolved::of(
            configured(RenewalKey::ReminderInterval2),
            DEFAULT_INTERVAL_2,
            |value| {
                require(value > LEAST, Unused::IntervalTooShort)?;
                require(value <= i1, Unused::LongerThanInterval1(i1))?;
                require(value <= p2, Unused::LongerThanPeriod2(p2))
            },
        );
        Self {
            period_1,
            period_2,
            interval_1,
            interval_2,
        }
    }

    /// The four keys in their order.
    pub fn parts(&self) -> [(RenewalKey, &Resolved); 4] {
        [
            (RenewalKey::Period1, &self.period_1),
            (RenewalKey::Period2, &self.period_2),
            (RenewalKey::ReminderInterval1, &self.interval_1),
            (RenewalKey::ReminderInterval2, &self.interval_2),
        ]
    }

    /// As it is reported and shown.
    pub fn settings(&self) -> Vec<RenewalSetting> {
        let setting = |(key, part): (RenewalKey, &Resolved)| RenewalSetting {
            key,
            effective: part.effective.seconds(),
            raw: part
                .configured
                .as_ref()
                .map(|found| found.value.to_string()),
            level: part.configured.as_ref().map(|found| found.level),
            notice: part.unused.as_ref().map(ToString::to_string),
        };
        self.parts().map(setting).into()
    }
}

impl Default for RenewalSchedule {
    /// Nothing is configured.
    fn default() -> Self {
        Self::resolve(|_| None)
    }
}

impl Resolved {
    fn of(
        configured: Option<ConfiguredValue>,
        otherwise: u64,
        condition: impl Fn(u64) -> Result<(), Unused>,
    ) -> Self {
        let checked = configured.as_ref().map(|found| {
            let value = seconds(&found.value)?;
            condition(value).map(|()| value)
        });
        let (effective, unused) = match checked {
            None => (otherwise, None),
            Some(Ok(value)) => (value, None),
            Some(Err(unused)) => (otherwise, Some(unused)),
        };
        Self {
            // Beyond a thousand years it saturates.
            effective: Period::from_seconds(effective),
            configured,
            unused,
        }
    }
}

fn require(condition: bool, otherwise: Unused) -> Result<(), Unused> {
    if condition { Ok(()) } else { Err(otherwise) }
}

/// A string of decimal seconds; white space around it is accepted.
fn seconds(value: &RawValue) -> Result<u64, Unused> {
    let text = match value {
        RawValue::Text(text) => text.trim(),
        RawValue::Other(_) => return Err(Unused::NotAString),
    };
    // `parse` alone would accept a sign.
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: Option<u64> = text.parse().ok().filter(|_| plain);
    number
        .filter(|number| (1..=i64::MAX as u64).contains(number))
        .ok_or(Unused::NotANumber)
}

/// One key as a device reports it and as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalSetting {
    pub key: RenewalKey,
    /// In seconds.
    pub effective: u64,
    /// As it is configured; none when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<PreferenceLevel>,
    /// Why the configured value is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

impl fmt::Display for RenewalSetting {
    /// `45d`, then where it comes from, then why a configured value is not used.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effective = Period::from_seconds(self.effective);
        write!(f, "{effective} ({} s), ", self.effective)?;
        match (&self.raw, self.level, &self.notice) {
            (Some(raw), Some(level), Some(notice)) => {
                write!(f, "default: {raw} on level {level} {notice}")
            }
            (Some(_), Some(level), None) => write!(f, "level {level}"),
            _ => f.write_str("default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each key's raw text; none: not configured.
    type Texts<'a> = [Option<&'a str>; 4];

    fn resolved(texts: Texts<'_>) -> RenewalSchedule {
        RenewalSchedule::resolve(|key| {
            let index = RenewalKey::ALL.iter().position(|known| *known == key)?;
            texts[index].map(|text| ConfiguredValue {
                value: RawValue::Text(text.to_owned()),
                level: PreferenceLevel::Root,
            })
        })
    }

    fn effective(schedule: &RenewalSchedule) -> [u64; 4] {
        schedule.parts().map(|(_, part)| part.effective.seconds())
    }

    const P1: u64 = 3_888_000;
    const P2: u64 = 259_200;
    const I1: u64 = 86_400;
    const I2: u64 = 28_800;

    #[test]
    fn the_specifications_rows() {
        const HUGE: &str = "9223372036854775807";
        let most = Period::from_seconds(u64::MAX).seconds();
        // Raw P1, P2, I1, I2; effective; how many values are not used.
        let rows: &[(Texts<'_>, [u64; 4], usize)] = &[
            ([None; 4], [P1, P2, I1, I2], 0),
            ([Some("299"), None, None, None], [P1, P2, I1, I2], 1),
            // The fallback intervals are longer than the periods, and stay.
            ([Some("300"), None, None, None], [300, 300, I1, I2], 0),
            ([Some("301"), None, None, None], [301, 301, I1, I2], 0),
            (
                [Some("259199"), None, None, None],
                [259_199, 259_199, I1, I2],
                0,
            ),
            ([Some("259200"), None, None, None], [259_200, P2, I1, I2], 0),
            (
                [Some("1000"), Some("1000"), None, None],
                [1000, 1000, I1, I2],
                0,
            ),
            (
                [Some("1000"), Some("1001"), None, None],
                [1000, 1000, I1, I2],
                1,
            ),
            ([None, Some("299"), None, None], [P1, P2, I1, I2], 1),
            (
                [Some("1000"), Some("299"), None, None],
                [1000, 1000, I1, I2],
                1,
            ),
            ([None, None, Some("300"), None], [P1, P2, I1, I2], 1),
            ([None, None, Some("301"), None], [P1, P2, 301, I2], 0),
            (
                [Some("2000"), None, Some("2000"), None],
                [2000, 2000, I1, I2],
                1,
            ),
            (
                [Some("2000"), None, Some("1999"), None],
                [2000, 2000, 1999, I2],
                0,
            ),
            ([None, None, None, Some("300")], [P1, P2, I1, I2], 1),
            ([None, None, None, Some("301")], [P1, P2, I1, 301], 0),
            // The second interval against the first one, and against the second period.
            (
                [None, None, Some("5000"), Some("5000")],
                [P1, P2, 5000, 5000],
                0,
            ),
            (
                [None, None, Some("5000"), Some("5001")],
                [P1, P2, 5000, I2],
                1,
            ),
            (
                [None, Some("4000"), None, Some("4000")],
                [P1, 4000, I1, 4000],
                0,
            ),
            (
                [None, Some("4000"), None, Some("4001")],
                [P1, 4000, I1, I2],
                1,
            ),
            // The source's example: 20 days.
            (
                [Some("1728000"), None, None, None],
                [1_728_000, P2, I1, I2],
                0,
            ),
            (
                [Some(" 1728000 "), None, None, None],
                [1_728_000, P2, I1, I2],
                0,
            ),
            // The fallback of the second interval is longer than the first interval, and stays.
            ([None, None, Some("3600"), None], [P1, P2, 3600, I2], 0),
            ([Some(HUGE), None, None, None], [most, P2, I1, I2], 0),
        ];
        for (texts, expected, unused) in rows {
            let schedule = resolved(*texts);
            assert_eq!(effective(&schedule), *expected, "{texts:?}");
            let noticed = schedule
                .parts()
                .map(|(_, part)| usize::from(part.unused.is_some()));
            assert_eq!(noticed.iter().sum::<usize>(), *unused, "{texts:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_configured_and_says_so() {
        for text in [
            "",
            " ",
            "1e6",
            "-5",
            "+5",
            "0",
            "999999999999999999999",
            "9223372036854775808",
            "300.0",
            "٣٠٠",
        ] {
            for (index, key) in RenewalKey::ALL.iter().enumerate() {
                let mut texts = [None; 4];
                texts[index] = Some(text);
                let schedule = resolved(texts);
                assert_eq!(effective(&schedule), [P1, P2, I1, I2], "{key} = {text:?}");
                let unused = &schedule.parts()[index].1.unused;
                assert_eq!(*unused, Some(Unused::NotANumber), "{key} = {text:?}");
            }
        }
    }

    #[test]
    fn another_type_is_not_read_and_says_so() {
        for kind in ["integer", "real", "date", "data"] {
            for key in RenewalKey::ALL {
                let schedule = RenewalSchedule::resolve(|asked| {
                    (asked == *key).then_some(ConfiguredValue {
                        value: RawValue::Other(kind),
                        level: PreferenceLevel::Managed,
                    })
                });
                assert_eq!(effective(&schedule), [P1, P2, I1, I2], "{key} as {kind}");
                let settings = schedule.settings();
                let setting = settings.iter().find(|s| s.key == *key).expect("all four");
                assert_eq!(setting.level, Some(PreferenceLevel::Managed));
                let told = setting.to_string();
                let expected = format!("a value of type {kind} on level managed is not a string");
                assert!(told.ends_with(&expected), "{told}");
            }
        }
    }

    #[test]
    fn people_are_told_where_a_value_comes_from() {
        let told: Vec<_> = resolved([Some("1728000"), Some("100"), None, None])
            .settings()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "20d (1728000 s), level root",
                "3d (259200 s), default: \"100\" on level root has to be at least 300 seconds",
                "1d (86400 s), default",
                "8h (28800 s), default",
            ]
        );
    }

    fn a_value() -> impl Strategy<Value = Option<u64>> {
        prop_oneof![
            Just(None),
            (0u64..1000).prop_map(Some),
            (0u64..10_000_000).prop_map(Some),
            any::<u64>().prop_map(Some)
        ]
    }

    proptest! {
        #[test]
        fn an_effective_value_is_configured_and_allowed_or_the_fallback(
            p1 in a_value(), p2 in a_value(), i1 in a_value(), i2 in a_value()
        ) {
            let raw = [p1, p2, i1, i2];
            let texts = raw.map(|value| value.map(|value| value.to_string()));
            let schedule = resolved([
                texts[0].as_deref(), texts[1].as_deref(), texts[2].as_deref(), texts[3].as_deref(),
            ]);
            let [e1, e2, j1, j2] = effective(&schedule);
            let is = |raw: Option<u64>, value: u64| {
                raw.is_some_and(|raw| Period::from_seconds(raw).seconds() == value)
            };
            prop_assert!(e2 <= e1);
            prop_assert!(e1 == P1 || (is(p1, e1) && e1 >= 300));
            prop_assert!(e2 == P2.min(e1) || (is(p2, e2) && e2 >= 300));
            prop_assert!(j1 == I1 || (is(i1, j1) && j1 > 300 && j1 < e1));
            prop_assert!(j2 == I2 || (is(i2, j2) && j2 > 300 && j2 <= j1 && j2 <= e2));
            for (index, (_, part)) in schedule.parts().iter().enumerate() {
                // Whoever configured something that does nothing is told.
                let used = is(raw[index], part.effective.seconds());
                prop_assert!(raw[index].is_none() || used || part.unused.is_some());
            }
        }
    }
}

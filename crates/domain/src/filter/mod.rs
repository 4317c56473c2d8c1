//! The language in which administrators say which devices they mean. `docs/filter-language.md` has
//! its grammar. A filter is parsed here, evaluated here for one device, and compiled to SQL by the
//! store; both must agree (property test `sql_and_memory_agree` of the store).
//!
//! What is not there: a comparison with it does not hold, whatever the operator, so its `!` does.
//! Only `== null` holds.

mod field;
mod parse;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::compliance::Version;
use crate::{BaselineName, ComplianceState, DeviceFacts, DeviceState, HardwareUuid, Timestamp};

pub use field::{DaysField, Field, FieldHelp, FlagField, TextField, VersionField};
pub use parse::InvalidFilter;

/// Which devices are meant: an expression of the filter language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Expression);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Any(Vec<Expression>),
    All(Vec<Expression>),
    Not(Box<Expression>),
    Is(Condition),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Only [`Comparison::Equal`] and [`Comparison::NotEqual`]: states have no order.
    State(Test<DeviceState>),
    Text(TextField, Test<String>),
    Version(VersionField, Test<Version>),
    Days(DaysField, Test<i64>),
    Flag(FlagField, bool),
    /// How a baseline stands; without an order, too.
    Compliance(BaselineName, Test<ComplianceState>),
    /// `== null`
    Absent(Field),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test<T> {
    Compare(Comparison, T),
    OneOf(Vec<T>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a filter looks at: one device, as the records have it at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    pub state: DeviceState,
    pub user_name: String,
    pub facts: DeviceFacts,
    pub enrolled_at: Timestamp,
    pub last_seen: Option<Timestamp>,
    /// When the certificate in use ends: of the valid ones the one that was used, else the newest.
    pub certificate_end: Option<Timestamp>,
    /// How the baselines stand that are deployed to it: of several deployments of one, the greatest
    /// state.
    pub compliance: BTreeMap<BaselineName, ComplianceState>,
}

/// A number of days at which a field's comparisons change their outcome, by time alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boundary {
    pub field: DaysField,
    pub days: i64,
}

pub const DAY_MILLISECONDS: i64 = 86_400_000;

impl Filter {
    pub fn expression(&self) -> &Expression {
        &self.0
    }

    /// True when the filter means this device at that moment.
    pub fn matches(&self, subject: &Subject, now: Timestamp) -> bool {
        self.0.matches(subject, now)
    }

    /// The baselines whose state it asks for.
    pub fn baselines(&self) -> BTreeSet<BaselineName> {
        let mut found = BTreeSet::new();
        self.0.each_condition(&mut |condition| {
            if let Condition::Compliance(baseline, _)
            | Condition::Absent(Field::Compliance(baseline)) = condition
            {
                found.insert(baseline.clone());
            }
        });
        found
    }

    /// At which numbers of days an outcome changes with time and without an event.
    pub fn boundaries(&self) -> BTreeSet<Boundary> {
        let mut found = BTreeSet::new();
        self.0.each_condition(&mut |condition| {
            if let Condition::Days(field, test) = condition {
                let spans = test.spans();
                let ends = spans.iter().flat_map(|span| [span.from, span.below]);
                let ends = ends.flatten().map(|days| Boundary {
                    field: *field,
                    days,
                });
                found.extend(ends.filter(|boundary| boundary.is_crossed()));
            }
        });
        found
    }
}

impl Expression {
    fn matches(&self, subject: &Subject, now: Timestamp) -> bool {
        match self {
            Self::Any(parts) => parts.iter().any(|part| part.matches(subject, now)),
            Self::All(parts) => parts.iter().all(|part| part.matches(subject, now)),
            Self::Not(part) => !part.matches(subject, now),
            Self::Is(condition) => condition.matches(subject, now),
        }
    }

    fn each_condition(&self, look: &mut impl FnMut(&Condition)) {
        match self {
            Self::Any(parts) | Self::All(parts) => {
                for part in parts {
                    part.each_condition(look);
                }
            }
            Self::Not(part) => part.each_condition(look),
            Self::Is(condition) => look(condition),
        }
    }
}

impl Condition {
    fn matches(&self, subject: &Subject, now: Timestamp) -> bool {
        match self {
            Self::State(test) => test.holds(&subject.state, Ord::cmp),
            Self::Text(field, test) => subject
                .text(*field)
                .is_some_and(|text| test.holds(&text, Ord::cmp)),
            Self::Version(field, test) => subject
                .version(*field)
                .is_some_and(|version| test.holds(&version, Ord::cmp)),
            Self::Days(field, test) => subject
                .days(*field, now)
                .is_some_and(|days| test.holds(&days, Ord::cmp)),
            Self::Flag(field, wanted) => subject.flag(*field) == Some(*wanted),
            Self::Compliance(baseline, test) => subject
                .compliance
                .get(baseline)
                .is_some_and(|state| test.holds(state, Ord::cmp)),
            Self::Absent(field) => match field {
                Field::State => false,
                Field::Text(field) => subject.text(*field).is_none(),
                Field::Version(field) => subject.version(*field).is_none(),
                Field::Days(field) => subject.days(*field, now).is_none(),
                Field::Flag(field) => subject.flag(*field).is_none(),
                Field::Compliance(baseline) => !subject.compliance.contains_key(baseline),
            },
        }
    }
}

impl<T: PartialEq> Test<T> {
    fn holds(&self, value: &T, order: impl Fn(&T, &T) -> std::cmp::Ordering) -> bool {
        match self {
            Self::Compare(comparison, wanted) => comparison.holds(order(value, wanted)),
            Self::OneOf(wanted) => wanted.contains(value),
        }
    }
}

impl Comparison {
    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// Whole numbers from one on and below another; without one, without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Option<i64>,
    pub below: Option<i64>,
}

impl Test<i64> {
    /// The numbers for which it holds.
    pub fn spans(&self) -> Vec<Span> {
        let one = |number: i64| Span {
            from: Some(number),
            below: Some(number + 1),
        };
        let from = |number| Span {
            from: Some(number),
            below: None,
        };
        let below = |number| Span {
            from: None,
            below: Some(number),
        };
        match self {
            Self::Compare(comparison, number) => match comparison {
                Comparison::Equal => vec![one(*number)],
                Comparison::NotEqual => vec![below(*number), from(number + 1)],
                Comparison::Less => vec![below(*number)],
                Comparison::LessOrEqual => vec![below(number + 1)],
                Comparison::Greater => vec![from(number + 1)],
                Comparison::GreaterOrEqual => vec![from(*number)],
            },
            Self::OneOf(numbers) => numbers.iter().map(|number| one(*number)).collect(),
        }
    }
}

impl DaysField {
    /// The moments (milliseconds since 1970) for which the field is at least `days` at `now`, as
    /// the last or the first of them; `Ends::Every` when it always is.
    pub fn at_least(self, days: i64, now: Timestamp) -> Ends {
        let now = now.as_millisecond();
        match self {
            // A moment that lies ahead, by a clock that is ahead, is no day ago.
            Self::EnrolledAgo | Self::LastSeenAgo if days <= 0 => Ends::Every,
            Self::EnrolledAgo | Self::LastSeenAgo => Ends::Until(now - days * DAY_MILLISECONDS),
            Self::CertificateLeft => Ends::From(now + days * DAY_MILLISECONDS),
        }
    }
}

/// Moments without a beginning or without an end, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Every,
    /// This one, too.
    Until(i64),
    From(i64),
}

impl Boundary {
    /// False where time alone changes nothing: whatever happened is at least no day ago.
    fn is_crossed(&self) -> bool {
        match self.field {
            DaysField::CertificateLeft => true,
            DaysField::EnrolledAgo | DaysField::LastSeenAgo => self.days > 0,
        }
    }

    /// The first and the last moment that a device's field has when it crosses this boundary while the
    /// time goes from one moment to another, all in milliseconds since 1970.
    pub fn crossed(self, from: i64, to: i64) -> (i64, i64) {
        let crosses_at_0 = self.crossed_at(0);
        (from.min(to) + 1 - crosses_at_0, from.max(to) - crosses_at_0)
    }

    /// The first moment at which a device's field has crossed this boundary.
    pub fn crossed_at(self, moment: i64) -> i64 {
        match self.field {
            // At the boundary itself there are still so many days left.
            DaysField::CertificateLeft => moment - self.days * DAY_MILLISECONDS + 1,
            DaysField::EnrolledAgo | DaysField::LastSeenAgo => {
                moment + self.days * DAY_MILLISECONDS
            }
        }
    }
}

impl Subject {
    fn text(&self, field: TextField) -> Option<String> {
        self.facts
            .text(field)
            .or_else(|| match field {
                TextField::UserName => Some(self.user_name.clone()),
                _ => None,
            })
            .filter(|text| !text.is_empty())
    }

    fn version(&self, field: VersionField) -> Option<Version> {
        self.facts.version(field)
    }

    fn flag(&self, field: FlagField) -> Option<bool> {
        match field {
            FlagField::TrustVerified => self.facts.trust_verified,
        }
    }

    fn days(&self, field: DaysField, now: Timestamp) -> Option<i64> {
        let now = now.as_millisecond();
        let ago = |at: Timestamp| {
            (now - at.as_millisecond())
                .div_euclid(DAY_MILLISECONDS)
                .max(0)
        };
        match field {
            DaysField::EnrolledAgo => Some(ago(self.enrolled_at)),
            DaysField::LastSeenAgo => self.last_seen.map(ago),
            DaysField::CertificateLeft => self
                .certificate_end
                .map(|end| (end.as_millisecond() - now).div_euclid(DAY_MILLISECONDS)),
        }
    }
}

impl DeviceFacts {
    /// What it has for a filter's field; none when it was not reported, or is no fact.
    pub fn text(&self, field: TextField) -> Option<String> {
        let text = match field {
            TextField::HostName => self.host_name.clone(),
            TextField::Model => self.model.clone(),
            TextField::OsName => self.os_name.clone(),
            TextField::OsRelease => self.os_version.clone(),
            TextField::HardwareSerial => self.hardware_serial.clone(),
            TextField::HardwareUuid => HardwareUuid::matchable(&self.hardware_uuid)?.to_string(),
            TextField::UserName => return None,
        };
        Some(text).filter(|text| !text.is_empty())
    }

    pub fn version(&self, field: VersionField) -> Option<Version> {
        Version::find(match field {
            VersionField::OsVersion => &self.os_version,
            VersionField::AgentVersion => &self.agent_version,
        })
    }
}

/// In the language, as short as it can be: what is printed means the same when it is read.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

crate::serde_as_text!(Filter);

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(parts) => joined(f, parts, " || ", |_| false),
            Self::All(parts) => joined(f, parts, " && ", |part| matches!(part, Self::Any(_))),
            Self::Not(part) => match &**part {
                Self::Is(Condition::Absent(field)) => write!(f, "{field} != null"),
                Self::Is(Condition::Flag(field, true)) => write!(f, "!{field}"),
                Self::Not(_) => write!(f, "!{part}"),
                _ => write!(f, "!({part})"),
            },
            Self::Is(condition) => condition.fmt(f),
        }
    }
}

fn joined(
    f: &mut fmt::Formatter<'_>,
    parts: &[Expression],
    sign: &str,
    needs_parentheses: impl Fn(&Expression) -> bool,
) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            f.write_str(sign)?;
        }
        match needs_parentheses(part) {
            true => write!(f, "({part})")?,
            false => write!(f, "{part}")?,
        }
    }
    Ok(())
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(test) => tested(f, Field::State.name(), test, |state| quoted(state.word())),
            Self::Text(field, test) => tested(f, field.word(), test, |text| quoted(text)),
            Self::Version(field, test) => {
                tested(f, field.word(), test, |version| format!("v\"{version}\""))
            }
            Self::Days(field, test) => tested(f, field.word(), test, i64::to_string),
            Self::Flag(field, true) => write!(f, "{field}"),
            Self::Flag(field, false) => write!(f, "{field} == false"),
            Self::Compliance(baseline, test) => {
                let field = Field::Compliance(baseline.clone()).to_string();
                tested(f, &field, test, |state| quoted(state.word()))
            }
            Self::Absent(field) => write!(f, "{field} == null"),
        }
    }
}

fn tested<T>(
    f: &mut fmt::Formatter<'_>,
    field: &str,
    test: &Test<T>,
    written: impl Fn(&T) -> String,
) -> fmt::Result {
    match test {
        Test::Compare(comparison, value) => {
            write!(f, "{field} {} {}", comparison.sign(), written(value))
        }
        Test::OneOf(values) => {
            let values: Vec<_> = values.iter().map(written).collect();
            write!(f, "{field} in [{}]", values.join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).expect("a moment")
    }

    fn subject(moment: i64) -> Subject {
        Subject {
            state: DeviceState::Active,
            user_name: "ann".to_owned(),
            facts: DeviceFacts::default(),
            enrolled_at: at(moment),
            last_seen: Some(at(moment)),
            certificate_end: Some(at(moment)),
            compliance: BTreeMap::new(),
        }
    }

    #[test]
    fn days_are_whole_and_an_end_in_the_past_is_negative() {
        let day = DAY_MILLISECONDS;
        for (filter, moment, holds) in [
            ("certificate.days_left == 0", 0, true),
            ("certificate.days_left == 0", day - 1, true),
            ("certificate.days_left == 1", day, true),
            ("certificate.days_left == -1", -1, true),
            ("certificate.days_left < 45", 45 * day - 1, true),
            ("certificate.days_left < 45", 45 * day, false),
            ("certificate.days_left != 3", 3 * day, false),
            ("certificate.days_left in [1, 3]", 3 * day, true),
            ("device.enrolled_days_ago == 0", 0, true),
            // By a clock that is ahead.
            ("device.enrolled_days_ago == 0", 5 * day, true),
            ("device.enrolled_days_ago >= 1", -day + 1, false),
            ("device.enrolled_days_ago >= 1", -day, true),
            ("device.last_seen_days_ago > 1", -2 * day, true),
        ] {
            let parsed: Filter = filter.parse().expect("a filter");
            assert_eq!(
                parsed.matches(&subject(moment), at(0)),
                holds,
                "{filter}, {moment}"
            );
        }
    }

    #[test]
    fn what_is_not_there_meets_no_comparison() {
        let nothing = Subject {
            last_seen: None,
            certificate_end: None,
            user_name: String::new(),
            ..subject(0)
        };
        for field in [
            "os.name",
            "user.name",
            "device.last_seen_days_ago",
            "certificate.days_left",
            "os.version",
            "compliance[\"CIS\"]",
        ] {
            let value = match field {
                "os.version" => "v\"1\"",
                name if name.contains("days") => "1",
                name if name.contains("compliance") => "\"error\"",
                _ => "\"a\"",
            };
            for (filter, holds) in [
                (format!("{field} == {value}"), false),
                (format!("{field} != {value}"), false),
                (format!("{field} in [{value}]"), false),
                (format!("!({field} == {value})"), true),
                (format!("!({field} != {value})"), true),
                (format!("{field} == null"), true),
                (format!("{field} != null"), false),
            ] {
                let parsed: Filter = filter.parse().expect("a filter");
                assert_eq!(parsed.matches(&nothing, at(0)), holds, "{filter}");
            }
        }
    }

    proptest! {
        /// Who does not cross a boundary between two moments is meant at both or at neither.
        #[test]
        fn only_who_crosses_a_boundary_changes(
            field in prop_oneof![
                Just("device.enrolled_days_ago"),
                Just("device.last_seen_days_ago"),
                Just("certificate.days_left"),
            ],
            sign in prop_oneof![
                Just("=="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">="),
            ],
            days in -3_i64..4,
            moment in -4_i64..5,
            shift in -2_i64..3,
            from in -2_i64..3,
            length in -3_i64..4,
        ) {
            let filter: Filter = format!("{field} {sign} {days}").parse().expect("a filter");
            let moment = moment * DAY_MILLISECONDS + shift;
            let to = from + length * DAY_MILLISECONDS + shift;
            let device = subject(moment);
            let crosses = filter.boundaries().into_iter().any(|boundary| {
                let (first, last) = boundary.crossed(from, to);
                (first..=last).contains(&moment)
            });
            let (before, after) = (filter.matches(&device, at(from)), filter.matches(&device, at(to)));
            prop_assert!(before == after || crosses, "{before} {after}");
        }
    }
}

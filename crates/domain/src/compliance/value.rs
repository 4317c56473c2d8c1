//! Values of settings, and how they compare.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::Timestamp;
use crate::state::words;

words! {
    /// What a setting's value is. Rules compare in it.
    DataType {
        String = "string",
        Integer = "integer",
        FloatingPoint = "floating-point",
        Version = "version",
        DateAndTime = "date-and-time",
        Boolean = "boolean",
    }
}

/// A value of one of the data types.
#[derive(Debug, Clone, PartialEq)]
pub enum TypedValue {
    String(String),
    Integer(i128),
    /// Never NaN or infinite.
    FloatingPoint(f64),
    Version(Version),
    DateAndTime(Timestamp),
    Boolean(bool),
}

/// A value that is not of its data type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {expected}")]
pub struct NotOfType {
    given: String,
    expected: &'static str,
}

impl DataType {
    /// Reads a value. White space at the ends counts in a string alone.
    ///
    /// # Errors
    /// When it is none of this type.
    pub fn parse(self, given: &str) -> Result<TypedValue, NotOfType> {
        let text = given.trim();
        let value = match self {
            Self::String => Some(TypedValue::String(given.to_owned())),
            Self::Integer => text.parse().ok().map(TypedValue::Integer),
            Self::FloatingPoint => text
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .map(TypedValue::FloatingPoint),
            Self::Version => text.parse().ok().map(TypedValue::Version),
            Self::DateAndTime => date_and_time(text).map(TypedValue::DateAndTime),
            Self::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Some(TypedValue::Boolean(true)),
                "false" | "no" | "0" => Some(TypedValue::Boolean(false)),
                _ => None,
            },
        };
        value.ok_or_else(|| NotOfType {
            given: text.chars().filter(|c| !c.is_control()).take(80).collect(),
            expected: self.described(),
        })
    }

    /// With its article, for sentences.
    pub const fn described(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::FloatingPoint => "a number",
            Self::Version => "a version (numbers and dots, such as 14.4.1)",
            Self::DateAndTime => "a date and time (such as 2026-11-22T10:00:00Z)",
            Self::Boolean => "true or false",
        }
    }

    /// Whether its values have an order that means something.
    pub const fn is_ordered(self) -> bool {
        !matches!(self, Self::Boolean)
    }
}

impl TypedValue {
    /// The order of two values of one type; none for different types.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::FloatingPoint(a), Self::FloatingPoint(b)) => a.partial_cmp(b),
            (Self::Version(a), Self::Version(b)) => Some(a.cmp(b)),
            (Self::DateAndTime(a), Self::DateAndTime(b)) => Some(a.cmp(b)),
            (Self::Boolean(a), Self::Boolean(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// RFC 3339, the form of property lists (`2026-11-22 10:00:00 +0000`), or a date alone. Without an
/// offset it is UTC: a rule must mean the same on every client.
fn date_and_time(text: &str) -> Option<Timestamp> {
    // With a zone's name it is of that zone, also without an offset; where the zone is not known, the
    // offset alone tells.
    if let Ok(zoned) = text.parse::<jiff::Zoned>() {
        return Some(zoned.timestamp());
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment);
    }
    if text.contains('[') {
        return None;
    }
    if let Ok(moment) = Timestamp::strptime("%Y-%m-%d %H:%M:%S %z", text) {
        return Some(moment);
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    civil
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

/// Numbers between dots. What is missing at the end is zero: 14.4 is 14.4.0.
#[derive(Debug, Clone)]
pub struct Version(Vec<u64>);

/// What was given is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a version is 1 to {most} numbers with dots between them, such as 14.4.1", most = Version::MOST_PARTS)]
pub struct InvalidVersion;

impl Version {
    const MOST_PARTS: usize = 8;

    /// The numbers, without zeros at the end.
    pub fn parts(&self) -> &[u64] {
        let end = self
            .0
            .iter()
            .rposition(|part| *part != 0)
            .map_or(0, |at| at + 1);
        &self.0[..end]
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(given: &str) -> Result<Self, InvalidVersion> {
        let mut parts = Vec::new();
        for part in given.split('.') {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !digits || parts.len() == Self::MOST_PARTS {
                return Err(InvalidVersion);
            }
            parts.push(part.parse().map_err(|_| InvalidVersion)?);
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            write!(f, "{dot}{part}")?;
        }
        Ok(())
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Version {}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(other.parts())
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

crate::serde_as_text!(Version);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_takes_its_own() {
        use DataType::*;
        let rows: &[(DataType, &[&str], &[&str])] = &[
            (String, &["", " a ", "\n"], &[]),
            (
                Integer,
                &["0", "-7", "+7", " 12 ", "9223372036854775808"],
                &["", "1.0", "0x10", "one", "1 2"],
            ),
            (
                FloatingPoint,
                &["1", "-0.5", "1e3"],
                &["", "nan", "inf", "1,5"],
            ),
            (
                Version,
                &["1", "14.4.1", "0.0"],
                &[
                    "",
                    ".",
                    "1.",
                    "v1",
                    "1.a",
                    "1.2.3.4.5.6.7.8.9",
                    "99999999999999999999",
                ],
            ),
            (
                DateAndTime,
                &[
                    "2026-11-22T10:00:00Z",
                    "2026-11-22 10:00:00 +0000",
                    "2026-11-22",
                    "2026-11-22T10:00:00",
                ],
                &[
                    "",
                    "today",
                    "22.11.2026",
                    "2026-13-01",
                    "2026-11-22T10:00:00[Nowhere/At_All]",
                ],
            ),
            (Boolean, &["true", "YES", "0", "1 "], &["", "on", "2"]),
        ];
        for (data_type, good, bad) in rows {
            for given in *good {
                assert!(data_type.parse(given).is_ok(), "{data_type} {given:?}");
            }
            for given in *bad {
                assert!(data_type.parse(given).is_err(), "{data_type} {given:?}");
            }
        }
    }

    /// Never read as UTC, whether this computer knows the zone or not.
    #[test]
    fn a_date_with_a_zone_is_of_that_zone() {
        let utc = DataType::DateAndTime.parse("2026-11-22T09:00:00Z");
        let named = DataType::DateAndTime.parse("2026-11-22T10:00:00[Europe/Berlin]");
        assert!(named.is_err() || named == utc, "{named:?}");
        let both = DataType::DateAndTime.parse("2026-11-22T10:00:00+01:00[Europe/Berlin]");
        assert_eq!(both, utc);
    }

    #[test]
    fn values_compare_in_their_type() {
        let less = [
            (DataType::String, "10", "9"),
            (DataType::Integer, "9", "10"),
            (DataType::FloatingPoint, "9.5", "1e1"),
            (DataType::Version, "14.4", "14.10"),
            (
                DataType::DateAndTime,
                "2026-11-22T10:00:00+02:00",
                "2026-11-22T09:00:00Z",
            ),
        ];
        for (data_type, a, b) in less {
            let parsed = |text| data_type.parse(text).expect(text);
            assert_eq!(
                parsed(a).compare(&parsed(b)),
                Some(Ordering::Less),
                "{a} {b}"
            );
        }
        let version = |text: &str| text.parse::<Version>().expect(text);
        assert_eq!(version("14.4"), version("14.4.0"));
        assert_eq!(
            DataType::Integer
                .parse("1")
                .expect("1")
                .compare(&TypedValue::Boolean(true)),
            None
        );
    }
}

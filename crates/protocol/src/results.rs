//! Results of evaluations. A device keeps a set of them, one for each rule, and tells the site what
//! changes. It tells each change until the site took it; the site takes each once.

use data_encoding::HEXLOWER;
use domain::{ComplianceState, Timestamp};
use serde::{Deserialize, Serialize};

use crate::RuleNumber;

/// `POST` takes a [`ResultReport`] and gives a [`ResultReceipt`].
pub const RESULTS_PATH: &str = "/management/v1/results";

/// The largest report, in bytes.
pub const RESULTS_LIMIT: usize = 4 * 1024 * 1024;

/// In a check-in: the set of results that the device has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultsState {
    /// Names the device's memory of results: another one begins with a whole set.
    pub stream: StreamId,
    /// Of the last change; the first one is 1.
    pub sequence: u64,
    /// Of the set.
    pub digest: SetDigest,
    /// When an evaluation ended last.
    pub evaluated_at: Timestamp,
}

/// Declares a type of 16 bytes, which travel as hexadecimal digits.
macro_rules! hexadecimal {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            pub const fn new(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            pub const fn bytes(self) -> [u8; 16] {
                self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotHexadecimal;

            fn try_from(given: String) -> Result<Self, NotHexadecimal> {
                let bytes = HEXLOWER.decode(given.as_bytes()).ok();
                let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or(NotHexadecimal)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                HEXLOWER.encode(&name.0)
            }
        }
    };
}

/// What was given is not 16 bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("32 hexadecimal digits were expected")]
pub struct NotHexadecimal;

hexadecimal! {
    /// Names a device's memory of results: random.
    StreamId
}
hexadecimal! {
    /// The digest of a device's set of results, as the device makes it. Who has the same digest has the
    /// same set; nobody else need know how it is made.
    SetDigest
}

/// The set of results that the site has of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedSet {
    /// Of the last change.
    pub sequence: u64,
    pub digest: SetDigest,
}

/// From the device: changes in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultReport {
    pub stream: StreamId,
    pub changes: Vec<ResultChange>,
    /// When an evaluation ended last.
    pub evaluated_at: Timestamp,
}

impl ResultReport {
    /// Rules in one report, at most: a device sends more in several.
    pub const MOST_RULES: usize = 5_000;
}

/// What one evaluation changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultChange {
    /// One more than the change before it. A whole set may leave numbers out: it stands for all
    /// before it.
    pub sequence: u64,
    pub at: Timestamp,
    /// The device's whole set: rules that are not in it have no result any more.
    #[serde(default)]
    pub whole: bool,
    /// Of the set after the change.
    pub digest: SetDigest,
    /// Of the set before: the change is one of that set, and of no other. A computer whose disk was put
    /// back to an earlier day counts on from there, and would else be taken for the one that it was.
    /// None with a whole set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<SetDigest>,
    pub results: Vec<RuleResult>,
    /// Rules that are not evaluated any more.
    #[serde(default)]
    pub gone: Vec<RuleNumber>,
}

/// How a rule stands. A compliant value that changes to another compliant one is no change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleResult {
    pub rule: RuleNumber,
    pub state: ComplianceState,
    /// What was found; at most [`RuleResult::MOST_TEXT`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Why it is an error, or why the remediation failed; as long at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it became so.
    pub since: Timestamp,
}

impl RuleResult {
    pub const MOST_TEXT: usize = 1024;
}

/// From the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultReceipt {
    /// What the site has of the stream. The device forgets what it queued up to it; when it is another
    /// set than the device had then, it begins another stream.
    pub recorded: Option<RecordedSet>,
    /// The site cannot go on from what it has: the device begins another stream with its whole set.
    #[serde(default)]
    pub wants_whole: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_version_are_read() {
        let text = include_str!("../golden/result-report-1.json");
        let report: ResultReport = serde_json::from_str(text).expect("result report 1");
        let read: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(serde_json::to_value(&report).expect("writes"), read);
        for bad in ["", "00", "zz0102030405060708090a0b0c0d0e0f"] {
            assert!(StreamId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}

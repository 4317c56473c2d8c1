//! Results of evaluations. A device keeps a set of them, one for each rule, and tells the site what
//! changes. It tells each change until the site took it; the site takes each once.

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
    /// When an evaluation ended last.
    pub evaluated_at: Timestamp,
}

/// 16 random bytes in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId(String);

/// What was given names no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stream's name is 32 hexadecimal digits")]
pub struct InvalidStreamId;

impl StreamId {
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn bytes(&self) -> [u8; 16] {
        let bytes = data_encoding::HEXLOWER.decode(self.0.as_bytes());
        let bytes = bytes.ok().and_then(|bytes| bytes.try_into().ok());
        bytes.expect("it was read as 32 digits")
    }
}

impl TryFrom<String> for StreamId {
    type Error = InvalidStreamId;

    fn try_from(given: String) -> Result<Self, InvalidStreamId> {
        let good = given.len() == 32 && data_encoding::HEXLOWER.decode(given.as_bytes()).is_ok();
        if good {
            Ok(Self(given))
        } else {
            Err(InvalidStreamId)
        }
    }
}

impl From<StreamId> for String {
    fn from(stream: StreamId) -> Self {
        stream.0
    }
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
    /// The last change that the site has. The device forgets what it queued up to it.
    pub sequence: u64,
    /// The site cannot go on from what it has: the device sends its whole set next.
    #[serde(default)]
    pub wants_whole: bool,
}

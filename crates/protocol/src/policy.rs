//! What a site tells a device to evaluate, and to do. All of it is signed with the site's policy key,
//! which is under the root that the device pinned: who holds a management point alone can make no
//! device run anything.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use domain::compliance::{
    BaselineName, ComplianceRule, EvaluationSchedule, ItemContent, ItemName, RemediationWindow,
    Script,
};
use domain::{Period, Smsid, Timestamp};
use serde::{Deserialize, Serialize};

/// `GET` gives the device's [`PolicyList`], signed.
pub const POLICY_PATH: &str = "/management/v1/policy";
/// Below it, by its [`BodyHash`]: an [`ItemBody`] of the device's list, signed.
pub const POLICY_BODY_PATH: &str = "/management/v1/policy/bodies";
/// Below it, by its [`CommandId`]: `POST` says what became of a command.
pub const COMMAND_PATH: &str = "/management/v1/commands";

/// The largest answer of these paths, in bytes: an item with its scripts, in base64.
pub const POLICY_LIMIT: usize = 16 * 1024 * 1024;

/// A document with its signature: DSSE 1.0, one signature, with the signer's certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedDocument {
    pub payload_type: PayloadType,
    /// The document's bytes, in base64.
    pub payload: String,
    /// ECDSA with SHA-256 over [`signed_message`], ASN.1, in base64.
    pub signature: String,
    /// The policy certificate, and the root that signed it: DER, in base64.
    pub chain: Vec<String>,
}

/// What a signed document is. One kind is never taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayloadType {
    #[serde(rename = "application/vnd.perennial.policy-list+json;version=1")]
    List,
    #[serde(rename = "application/vnd.perennial.policy-body+json;version=1")]
    Body,
    #[serde(rename = "application/vnd.perennial.command+json;version=1")]
    Command,
}

impl PayloadType {
    const fn word(self) -> &'static str {
        match self {
            Self::List => "application/vnd.perennial.policy-list+json;version=1",
            Self::Body => "application/vnd.perennial.policy-body+json;version=1",
            Self::Command => "application/vnd.perennial.command+json;version=1",
        }
    }
}

/// The bytes that a signature covers: DSSE's pre-authentication encoding.
pub fn signed_message(payload_type: PayloadType, payload: &[u8]) -> Vec<u8> {
    let kind = payload_type.word();
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// All that a device is to evaluate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyList {
    /// The device that it is for.
    pub device: Smsid,
    pub version: PolicyVersion,
    pub issued_at: Timestamp,
    /// Nothing of it runs after.
    pub expires_at: Timestamp,
    /// Names the assignments: [`PolicyNotice::content`] of a check-in's answer.
    pub content: String,
    pub deployments: Vec<AssignedDeployment>,
}

/// A device takes no list that is older than one that it saw. The epoch is raised when a site is
/// restored from a backup, whose counter stepped back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyVersion {
    pub epoch: u64,
    pub counter: u64,
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

/// A deployment, as a device needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssignedDeployment {
    pub number: i64,
    pub baseline: BaselineName,
    /// Bodies of its configuration items, nested baselines resolved.
    pub items: Vec<BodyHash>,
    pub remediate: bool,
    pub schedule: EvaluationSchedule,
    pub spread: Period,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation_window: Option<RemediationWindow>,
}

/// A revision of a configuration item. It never changes, and its hash is its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemBody {
    pub item: ItemName,
    pub revision: u32,
    pub content: ItemContent,
    /// The numbers of `content`'s rules, in their order: what results speak of.
    pub rules: Vec<RuleNumber>,
}

impl ItemBody {
    /// Its rules with their numbers.
    pub fn rules(&self) -> impl Iterator<Item = (RuleNumber, &ComplianceRule)> {
        self.rules.iter().copied().zip(self.content.rules())
    }
}

/// Names a rule for results. A rule whose meaning changes gets another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleNumber(pub i64);

impl fmt::Display for RuleNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 of a body's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BodyHash([u8; 32]);

/// What was given is no hash of a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a body's hash is 64 hexadecimal digits")]
pub struct InvalidHash;

impl BodyHash {
    pub const fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyHash({self})")
    }
}

impl FromStr for BodyHash {
    type Err = InvalidHash;

    fn from_str(given: &str) -> Result<Self, InvalidHash> {
        let bytes = HEXLOWER.decode(given.as_bytes()).map_err(|_| InvalidHash)?;
        bytes.try_into().map(Self).map_err(|_| InvalidHash)
    }
}

domain::serde_as_text!(BodyHash);

/// Something that a device is to do once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub device: Smsid,
    pub id: CommandId,
    pub issued_at: Timestamp,
    /// Not done after.
    pub expires_at: Timestamp,
    pub order: Order,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Renew the certificate.
    Renew,
    /// Evaluate all deployments.
    Evaluate,
    /// Report facts.
    CheckIn,
    /// Leave the site, and remove the client.
    Uninstall,
    /// Run a discovery script, and tell what it printed.
    TestScript { script: Script },
}

/// Names a command: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId([u8; 16]);

impl CommandId {
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for CommandId {
    type Err = InvalidCommandId;

    fn from_str(given: &str) -> Result<Self, InvalidCommandId> {
        let bytes = HEXLOWER.decode(given.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(InvalidCommandId)
    }
}

/// What was given names no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a command's name is 32 hexadecimal digits")]
pub struct InvalidCommandId;

domain::serde_as_text!(CommandId);

/// What became of a command, from the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    pub at: Timestamp,
    pub done: bool,
    /// A sentence; of a script that was tested, its output. At most [`CommandResult::MOST`] bytes.
    pub detail: String,
}

impl CommandResult {
    pub const MOST: usize = 8 * 1024;
}

/// In a check-in's answer: which list the device should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyNotice {
    /// Of the list that the device would be given now. A device that has the same, and whose list is
    /// in the first half of its life, asks for none.
    pub content: String,
}

/// In a check-in: what the device has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyState {
    /// The newest version that it saw.
    pub version: PolicyVersion,
    /// Why it does not run its policy, or the last one that it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    use super::*;
    use crate::{CheckIn, CheckInAnswer};

    /// Reads a message of a released version, and sees that nothing of it is lost.
    fn keeps<T: DeserializeOwned + Serialize>(message: &str) -> T {
        let read: T = serde_json::from_str(message).expect("is read");
        let written = serde_json::to_value(&read).expect("is written");
        fn holds(written: &Value, told: &Value) {
            match told {
                Value::Object(fields) => {
                    for (name, value) in fields {
                        holds(&written[name], value);
                    }
                }
                Value::Array(items) => {
                    for (at, item) in items.iter().enumerate() {
                        holds(&written[at], item);
                    }
                }
                plain => assert_eq!(written, plain),
            }
        }
        holds(
            &written,
            &serde_json::from_str(message).expect("a message in JSON"),
        );
        read
    }

    #[test]
    fn messages_of_every_version_are_read() {
        let list: PolicyList = keeps(include_str!("../golden/policy-list-1.json"));
        assert_eq!(list.version.to_string(), "1.42");
        let body: ItemBody = keeps(include_str!("../golden/policy-body-1.json"));
        let names: Vec<_> = body
            .rules()
            .map(|(number, rule)| format!("{number} {}", rule.name))
            .collect();
        assert_eq!(names, ["11 Remove SMSID for Mac", "12 Idle"]);
        let command: Command = keeps(include_str!("../golden/command-1.json"));
        assert!(matches!(command.order, Order::TestScript { .. }));
        keeps::<CommandResult>(include_str!("../golden/command-result-1.json"));
        let document: SignedDocument = keeps(include_str!("../golden/signed-document-1.json"));
        assert_eq!(document.payload_type, PayloadType::List);
        keeps::<CheckIn>(include_str!("../golden/check-in-policy-1.json"));
        let answer: CheckInAnswer = keeps(include_str!("../golden/check-in-answer-policy-1.json"));
        assert_eq!(answer.commands.len(), 1);
        for (order, word) in [
            (Order::Renew, "renew"),
            (Order::Evaluate, "evaluate"),
            (Order::CheckIn, "check-in"),
            (Order::Uninstall, "uninstall"),
        ] {
            assert_eq!(serde_json::to_value(order).expect("written"), word);
        }
    }

    #[test]
    fn what_is_signed_names_its_kind_and_its_length() {
        assert_eq!(
            signed_message(PayloadType::Body, b"{}"),
            b"DSSEv1 52 application/vnd.perennial.policy-body+json;version=1 2 {}"
        );
    }
}

//! Compliance objects and what devices get of them: changes as data, records as they are read, and the
//! queries.

use async_trait::async_trait;
use domain::compliance::{
    BaselineContent, BaselineName, Deployment, ExemptionReason, ExemptionScope, ItemContent,
    ItemName, RuleName,
};
use domain::{CommandKind, CommandState, DeviceId, Timestamp};
use protocol::{BodyHash, CommandId, PolicyVersion};
use serde_json::{Value, json};

use crate::Unavailable;
use crate::change::Applied;
use crate::model::Page;

/// Configuration items that there can be.
pub const MOST_ITEMS: i64 = 20_000;
/// Bytes of all revisions of one item: they stay for ever.
pub const MOST_REVISED_BYTES: i64 = 64 << 20;
/// Baselines that there can be.
pub const MOST_BASELINES: i64 = 5_000;
/// Deployments that there can be.
pub const MOST_DEPLOYMENTS: i64 = 1_000;
/// Configuration items of one deployment, nested baselines resolved: what a device has to fetch.
pub const MOST_DEPLOYED_ITEMS: usize = 2_000;
/// Rules of one deployment: what a device has to report.
pub const MOST_DEPLOYED_RULES: i64 = 10_000;
/// Exemptions that have not ended.
pub const MOST_EXEMPTIONS: i64 = 10_000;
/// Commands that wait for one device.
pub const MOST_WAITING_COMMANDS: i64 = 10;

/// A change of a configuration item, a baseline, a deployment or an exemption. What is changed by
/// people who looked at it before has a `base`, the revision or version that they saw: when it is
/// another one meanwhile, nothing is changed. None changes it all the same.
#[derive(Debug, Clone)]
pub enum ObjectChange {
    /// Its first revision.
    CreateItem {
        name: ItemName,
        content: ItemContent,
    },
    /// A new revision, unless the latest one says the same.
    ReviseItem {
        name: ItemName,
        content: ItemContent,
        base: Option<u32>,
    },
    /// Not while a baseline uses it. Its revisions stay.
    DeleteItem {
        name: ItemName,
    },
    CreateBaseline {
        name: BaselineName,
        content: BaselineContent,
    },
    SetBaseline {
        name: BaselineName,
        content: BaselineContent,
        base: Option<i64>,
    },
    /// Not while a baseline or a deployment uses it.
    DeleteBaseline {
        name: BaselineName,
    },
    CreateDeployment(Box<Deployment>),
    SetDeployment {
        number: i64,
        deployment: Box<Deployment>,
        base: Option<i64>,
    },
    DeleteDeployment {
        number: i64,
    },
    Exempt(Box<NewExemption>),
    /// It stays in the records.
    EndExemption {
        number: i64,
    },
}

#[derive(Debug, Clone)]
pub struct NewExemption {
    pub item: ItemName,
    pub rule: RuleName,
    pub scope: ExemptionScope,
    pub reason: ExemptionReason,
    /// None: until it is removed.
    pub until: Option<Timestamp>,
}

/// A command, signed.
#[derive(Debug, Clone)]
pub struct NewCommand {
    pub id: CommandId,
    pub device: DeviceId,
    pub kind: CommandKind,
    /// Of a test: the item, its revision and the setting.
    pub about: String,
    /// Of a test: the script's SHA-256.
    pub script: Option<[u8; 32]>,
    /// The signed document, as the device gets it.
    pub document: String,
    pub expires_at: Timestamp,
}

impl ObjectChange {
    /// Action, subject and details for the audit log.
    pub(crate) fn entry(&self, applied: &Applied) -> (&'static str, String, Value) {
        match self {
            Self::CreateItem { name, .. } => ("ci-created", name.to_string(), revised(applied)),
            Self::ReviseItem { name, .. } => ("ci-changed", name.to_string(), revised(applied)),
            Self::DeleteItem { name } => ("ci-deleted", name.to_string(), json!({})),
            Self::CreateBaseline { name, content } => {
                ("baseline-created", name.to_string(), json!(content))
            }
            Self::SetBaseline { name, content, .. } => {
                ("baseline-changed", name.to_string(), json!(content))
            }
            Self::DeleteBaseline { name } => ("baseline-deleted", name.to_string(), json!({})),
            Self::CreateDeployment(deployment) => (
                "deployment-created",
                numbered(applied).to_string(),
                json!(deployment),
            ),
            Self::SetDeployment {
                number, deployment, ..
            } => ("deployment-changed", number.to_string(), json!(deployment)),
            Self::DeleteDeployment { number } => {
                ("deployment-deleted", number.to_string(), json!({}))
            }
            Self::Exempt(new) => (
                "exemption-created",
                numbered(applied).to_string(),
                json!({
                    "item": new.item, "rule": new.rule, "scope": new.scope,
                    "reason": new.reason, "until": new.until,
                }),
            ),
            Self::EndExemption { number } => ("exemption-removed", number.to_string(), json!({})),
        }
    }
}

/// What will run on devices: the revision, and the hash that names its content and its scripts.
fn revised(applied: &Applied) -> Value {
    match applied {
        Applied::Revised { revision, body } => json!({ "revision": revision, "body": body }),
        _ => json!({}),
    }
}

fn numbered(applied: &Applied) -> i64 {
    match applied {
        Applied::Numbered(number) => *number,
        _ => 0,
    }
}

/// A configuration item in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub name: ItemName,
    pub latest: u32,
    /// In words.
    pub platforms: String,
    pub rules: i64,
    pub created_at: Timestamp,
    /// When the latest revision was made, and by whom.
    pub changed_at: Timestamp,
    pub changed_by: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ItemRevision {
    pub item: ItemName,
    pub revision: u32,
    pub created_at: Timestamp,
    pub author: String,
    pub body: BodyHash,
    pub content: ItemContent,
}

/// A revision in an item's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionSummary {
    pub revision: u32,
    pub created_at: Timestamp,
    pub author: String,
    pub body: BodyHash,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    pub name: BaselineName,
    pub content: BaselineContent,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
    pub version: i64,
}

/// A baseline in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineSummary {
    pub name: BaselineName,
    pub enabled: bool,
    pub parts: i64,
    pub deployments: i64,
    pub changed_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentRecord {
    pub number: i64,
    pub deployment: Deployment,
    pub made_at: Timestamp,
    pub changed_at: Timestamp,
    pub version: i64,
    /// What it comes to: none while its baseline is not enabled.
    pub items: i64,
    pub rules: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemption {
    pub number: i64,
    pub item: ItemName,
    pub rule: RuleName,
    pub scope: ExemptionScope,
    /// Of a device.
    pub host_name: String,
    pub reason: String,
    pub until: Option<Timestamp>,
    pub made_at: Timestamp,
    pub made_by: String,
    pub ended_at: Option<Timestamp>,
}

/// A deployment, and the bodies that its devices get.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployedBodies {
    pub number: i64,
    pub deployment: Deployment,
    /// In the order of the items.
    pub bodies: Vec<BodyHash>,
}

/// Where the policy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyPlace {
    pub version: PolicyVersion,
    /// Rises when a deployment, or what it comes to, changes.
    pub objects: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub id: CommandId,
    pub device: DeviceId,
    pub kind: CommandKind,
    pub about: String,
    pub issued_at: Timestamp,
    pub issued_by: String,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub done: Option<bool>,
    /// What the device said; of a test, what the script printed.
    pub detail: Option<String>,
}

impl Command {
    pub fn state(&self, now: Timestamp) -> CommandState {
        match (self.done, self.ended_at) {
            (Some(true), _) => CommandState::Done,
            (Some(false), _) => CommandState::Failed,
            (None, Some(_)) => CommandState::Expired,
            (None, None) if self.expires_at <= now => CommandState::Expired,
            (None, None) => CommandState::Waiting,
        }
    }
}

/// A command that no device ended yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCommand {
    pub expires_at: Timestamp,
    pub document: String,
}

#[derive(Debug, Clone, Default)]
pub struct ExemptionFilter {
    pub device: Option<DeviceId>,
    pub item: Option<ItemName>,
    /// Those that ended, too.
    pub ended: bool,
    pub after: Option<String>,
    pub limit: u32,
}

/// The queries about compliance objects and policy: a part of [`crate::Reads`].
#[async_trait]
pub trait ReadCompliance {
    /// Configuration items by name.
    async fn items(&self, after: Option<&str>, limit: u32) -> Result<Page<Item>, Unavailable>;
    /// A revision of an item; None is the latest.
    async fn item_revision(
        &self,
        item: &ItemName,
        revision: Option<u32>,
    ) -> Result<Option<ItemRevision>, Unavailable>;
    /// An item's revisions, newest first; none of an item that is not there.
    async fn item_history(
        &self,
        item: &ItemName,
        before: Option<u32>,
        limit: u32,
    ) -> Result<Page<RevisionSummary>, Unavailable>;
    /// Baselines by name.
    async fn baselines(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<BaselineSummary>, Unavailable>;
    /// A baseline and all that are in it, itself first; empty when it is not there.
    async fn baseline_tree(&self, name: &BaselineName) -> Result<Vec<Baseline>, Unavailable>;
    async fn deployment(&self, number: i64) -> Result<Option<DeploymentRecord>, Unavailable>;
    /// Deployments by number.
    async fn deployments(
        &self,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<DeploymentRecord>, Unavailable>;
    /// The items of a deployment with their revisions, by name.
    async fn deployed_items(&self, number: i64) -> Result<Vec<(ItemName, u32)>, Unavailable>;
    /// Exemptions, newest first.
    async fn exemptions(&self, filter: &ExemptionFilter) -> Result<Page<Exemption>, Unavailable>;

    async fn policy(&self) -> Result<PolicyPlace, Unavailable>;
    /// What devices of these deployments get, and `objects` at the same moment. Deployments that come
    /// to nothing are left out.
    async fn deployed_bodies(
        &self,
        numbers: &[i64],
    ) -> Result<(PolicyPlace, Vec<DeployedBodies>), Unavailable>;
    /// The bytes that a hash names.
    async fn body(&self, hash: BodyHash) -> Result<Option<Vec<u8>>, Unavailable>;
    /// The oldest first.
    async fn open_commands(&self, device: DeviceId) -> Result<Vec<OpenCommand>, Unavailable>;
    async fn command(
        &self,
        device: DeviceId,
        id: CommandId,
    ) -> Result<Option<Command>, Unavailable>;
    /// A device's commands, newest first.
    async fn commands(
        &self,
        device: DeviceId,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Page<Command>, Unavailable>;
}

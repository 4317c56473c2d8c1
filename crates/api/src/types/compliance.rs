//! Configuration items, baselines, deployments, exemptions, policy and commands on the wire.

use domain::compliance::{
    BaselineContent, BaselineName, Deployment, ExemptionReason, ExemptionScope, ItemContent,
    ItemName, RuleName, SettingName,
};
use domain::{CommandKind, CommandState, DeviceId, Period, Timestamp};
use protocol::{BodyHash, CommandId, PolicyVersion};
use serde::{Deserialize, Serialize};

/// A configuration item in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemSummary {
    pub name: ItemName,
    /// The latest one.
    pub revision: u32,
    pub platforms: String,
    pub rules: i64,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
    pub changed_by: String,
}

impl From<site::Item> for ItemSummary {
    fn from(item: site::Item) -> Self {
        Self {
            name: item.name,
            revision: item.latest,
            platforms: item.platforms,
            rules: item.rules,
            created_at: item.created_at,
            changed_at: item.changed_at,
            changed_by: item.changed_by,
        }
    }
}

/// A revision of a configuration item.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemDetail {
    pub name: ItemName,
    pub revision: u32,
    /// When this revision was made, and by whom.
    pub created_at: Timestamp,
    pub author: String,
    /// What devices fetch it by: SHA-256.
    pub body: BodyHash,
    pub content: ItemContent,
    /// The content as people read it.
    pub written: String,
}

impl From<site::ItemRevision> for ItemDetail {
    fn from(revision: site::ItemRevision) -> Self {
        Self {
            name: revision.item,
            revision: revision.revision,
            created_at: revision.created_at,
            author: revision.author,
            body: revision.body,
            written: revision.content.written(),
            content: revision.content,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    pub name: ItemName,
    pub content: ItemContent,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviseItem {
    pub content: ItemContent,
    /// The latest revision when it was looked at: refused when there is a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevisedItem {
    pub item: ItemDetail,
    /// False when the latest revision said the same.
    pub is_new: bool,
}

/// A revision in an item's history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemRevision {
    pub revision: u32,
    pub created_at: Timestamp,
    pub author: String,
    pub body: BodyHash,
}

impl From<site::RevisionSummary> for ItemRevision {
    fn from(revision: site::RevisionSummary) -> Self {
        Self {
            revision: revision.revision,
            created_at: revision.created_at,
            author: revision.author,
            body: revision.body,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DifferenceQuery {
    pub from: u32,
    pub to: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemDifference {
    pub from: u32,
    pub to: u32,
    /// Lines that went begin with `-`, lines that came with `+`.
    pub text: String,
}

impl From<site::ItemDifference> for ItemDifference {
    fn from(difference: site::ItemDifference) -> Self {
        Self {
            from: difference.from,
            to: difference.to,
            text: difference.text,
        }
    }
}

/// A baseline in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BaselineSummary {
    pub name: BaselineName,
    pub enabled: bool,
    pub parts: i64,
    pub deployments: i64,
    pub changed_at: Timestamp,
}

impl From<site::BaselineSummary> for BaselineSummary {
    fn from(baseline: site::BaselineSummary) -> Self {
        Self {
            name: baseline.name,
            enabled: baseline.enabled,
            parts: baseline.parts,
            deployments: baseline.deployments,
            changed_at: baseline.changed_at,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BaselineDetail {
    pub name: BaselineName,
    pub content: BaselineContent,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
    /// Rises with each change.
    pub version: i64,
    /// The baselines that are in it, at any depth, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<BaselineDetail>,
}

impl From<site::Baseline> for BaselineDetail {
    fn from(baseline: site::Baseline) -> Self {
        Self {
            name: baseline.name,
            content: baseline.content,
            created_at: baseline.created_at,
            changed_at: baseline.changed_at,
            version: baseline.version,
            inside: Vec::new(),
        }
    }
}

impl From<site::BaselineView> for BaselineDetail {
    fn from(view: site::BaselineView) -> Self {
        Self {
            inside: view.inside.into_iter().map(Self::from).collect(),
            ..view.baseline.into()
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBaseline {
    pub name: BaselineName,
    pub content: BaselineContent,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBaseline {
    pub content: BaselineContent,
    /// The version when it was looked at: refused when somebody changed it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeploymentDetail {
    pub number: i64,
    pub deployment: Deployment,
    pub made_at: Timestamp,
    pub changed_at: Timestamp,
    /// Rises with each change.
    pub version: i64,
    /// How many configuration items and rules it comes to; none while its baseline is not enabled.
    pub items: i64,
    pub rules: i64,
    /// The revisions that devices get; not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<DeployedItem>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployedItem {
    pub item: ItemName,
    pub revision: u32,
}

impl From<site::DeploymentRecord> for DeploymentDetail {
    fn from(record: site::DeploymentRecord) -> Self {
        Self {
            number: record.number,
            deployment: record.deployment,
            made_at: record.made_at,
            changed_at: record.changed_at,
            version: record.version,
            items: record.items,
            rules: record.rules,
            revisions: Vec::new(),
        }
    }
}

impl From<site::DeploymentView> for DeploymentDetail {
    fn from(view: site::DeploymentView) -> Self {
        let revisions = view
            .items
            .into_iter()
            .map(|(item, revision)| DeployedItem { item, revision })
            .collect();
        Self {
            revisions,
            ..view.record.into()
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDeployment {
    pub deployment: Deployment,
    /// The version when it was looked at: refused when somebody changed it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExemptionDetail {
    pub number: i64,
    pub item: ItemName,
    pub rule: RuleName,
    pub scope: ExemptionScope,
    /// The scope in words.
    pub covers: String,
    /// Of a device.
    pub host_name: String,
    pub reason: String,
    pub until: Option<Timestamp>,
    pub made_at: Timestamp,
    pub made_by: String,
    pub ended_at: Option<Timestamp>,
}

impl From<site::Exemption> for ExemptionDetail {
    fn from(exemption: site::Exemption) -> Self {
        Self {
            number: exemption.number,
            item: exemption.item,
            rule: exemption.rule,
            covers: exemption.scope.to_string(),
            scope: exemption.scope,
            host_name: exemption.host_name,
            reason: exemption.reason,
            until: exemption.until,
            made_at: exemption.made_at,
            made_by: exemption.made_by,
            ended_at: exemption.ended_at,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewExemption {
    pub item: ItemName,
    pub rule: RuleName,
    pub scope: ExemptionScope,
    pub reason: ExemptionReason,
    /// None: until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Numbered {
    pub number: i64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExemptionQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<ItemName>,
    /// Those that ended, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct PolicyDetail {
    pub version: PolicyVersion,
    /// The end of the policy certificate of the node that answers; none when it does not sign.
    pub certificate_not_after: Option<Timestamp>,
    pub list_lifetime: Period,
}

impl From<site::PolicyView> for PolicyDetail {
    fn from(view: site::PolicyView) -> Self {
        Self {
            version: view.version,
            certificate_not_after: view.certificate_not_after,
            list_lifetime: view.list_lifetime,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RaisedEpoch {
    pub version: PolicyVersion,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandDetail {
    pub id: CommandId,
    pub command: CommandKind,
    /// Of a test: the item, its revision and the setting.
    pub about: String,
    pub state: CommandState,
    pub issued_at: Timestamp,
    pub issued_by: String,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// What the device said; of a test, what the script printed.
    pub detail: Option<String>,
}

impl From<site::CommandView> for CommandDetail {
    fn from(view: site::CommandView) -> Self {
        Self {
            id: view.command.id,
            command: view.command.kind,
            about: view.command.about,
            state: view.state,
            issued_at: view.command.issued_at,
            issued_by: view.command.issued_by,
            expires_at: view.command.expires_at,
            ended_at: view.command.ended_at,
            detail: view.command.detail,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCommand {
    /// renew, evaluate or check-in.
    pub command: CommandKind,
    /// When it is not done any more.
    #[serde(default = "week")]
    pub expires: Period,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uninstall {
    #[serde(default = "week")]
    pub expires: Period,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestScript {
    pub item: ItemName,
    /// None: the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    pub setting: SettingName,
    #[serde(default = "week")]
    pub expires: Period,
}

fn week() -> Period {
    Period::from_days(7)
}

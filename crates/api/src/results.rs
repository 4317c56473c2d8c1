//! Wire types of compliance results.

use domain::{
    BaselineName, CollectionName, ComplianceState, DeviceId, ItemName, Period, RuleName, Severity,
    Smsid, StateCounts, Timestamp,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// How a deployment stands over its collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeploymentStanding {
    pub deployment: i64,
    pub baseline: BaselineName,
    pub collection: CollectionName,
    pub rules: i64,
    /// Members of the collection; `states` adds up to it.
    pub devices: i64,
    pub states: StateCounts,
    /// Percent of the devices that it concerns.
    pub compliant_percent: Option<i64>,
    /// A device that has not evaluated for so long is unknown.
    pub stale_after: Period,
    /// While states are worked out anew: how much of it is done, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worked_out_percent: Option<u8>,
}

impl From<site::DeploymentSummary> for DeploymentStanding {
    fn from(found: site::DeploymentSummary) -> Self {
        Self {
            deployment: found.deployment,
            baseline: found.baseline,
            collection: found.collection,
            rules: found.rules,
            devices: found.devices.total(),
            compliant_percent: found.devices.percent_compliant(),
            states: found.devices,
            stale_after: found.stale_after,
            worked_out_percent: found.worked_out,
        }
    }
}

/// How many devices of a deployment keep a rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleStanding {
    pub rule: i64,
    pub configuration_item: ItemName,
    pub name: RuleName,
    pub severity: Severity,
    pub states: StateCounts,
    pub compliant_percent: Option<i64>,
}

impl From<site::RuleSummary> for RuleStanding {
    fn from(found: site::RuleSummary) -> Self {
        Self {
            rule: found.rule,
            configuration_item: found.item,
            name: found.name,
            severity: found.severity,
            compliant_percent: found.devices.percent_compliant(),
            states: found.devices,
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployedDeviceQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ComplianceState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// How a deployment stands on a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployedDevice {
    pub device: DeviceId,
    pub smsid: Smsid,
    pub host_name: String,
    pub user_name: String,
    pub state: ComplianceState,
    pub since: Option<Timestamp>,
    pub evaluated_at: Option<Timestamp>,
}

impl From<site::DeployedDevice> for DeployedDevice {
    fn from(found: site::DeployedDevice) -> Self {
        Self {
            device: found.device,
            smsid: found.device.smsid(),
            host_name: found.host_name,
            user_name: found.user_name,
            state: found.state,
            since: found.since,
            evaluated_at: found.evaluated_at,
        }
    }
}

/// A deployment that concerns a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceDeployment {
    pub deployment: i64,
    pub baseline: BaselineName,
    pub collection: CollectionName,
    pub state: ComplianceState,
    pub since: Option<Timestamp>,
    pub evaluated_at: Option<Timestamp>,
}

impl From<site::DeviceDeployment> for DeviceDeployment {
    fn from(found: site::DeviceDeployment) -> Self {
        Self {
            deployment: found.deployment,
            baseline: found.baseline,
            collection: found.collection,
            state: found.state,
            since: found.since,
            evaluated_at: found.evaluated_at,
        }
    }
}

/// A rule that concerns a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceRule {
    pub rule: i64,
    pub configuration_item: ItemName,
    pub name: RuleName,
    pub severity: Severity,
    /// Exempt when there is an exemption.
    pub state: ComplianceState,
    /// As it was reported last; unknown when it was not.
    pub reported: ComplianceState,
    pub since: Option<Timestamp>,
    pub value: Option<String>,
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exemption: Option<RuleExemption>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleExemption {
    pub number: i64,
    pub reason: String,
    pub until: Option<Timestamp>,
}

impl From<site::DeviceRule> for DeviceRule {
    fn from(found: site::DeviceRule) -> Self {
        let state = match found.exemption {
            Some(_) => ComplianceState::Exempt,
            None => found.state,
        };
        Self {
            rule: found.rule,
            configuration_item: found.item,
            name: found.name,
            severity: found.severity,
            state,
            reported: found.state,
            since: found.since,
            value: found.value,
            reason: found.reason,
            exemption: found.exemption.map(|exemption| RuleExemption {
                number: exemption.number,
                reason: exemption.reason,
                until: exemption.until,
            }),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// How a rule stood on a device for some time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleInterval {
    /// The record that reported it: the device, or one that it replaced.
    pub device: DeviceId,
    pub rule: i64,
    pub configuration_item: ItemName,
    pub name: RuleName,
    pub state: ComplianceState,
    pub value: Option<String>,
    pub reason: Option<String>,
    pub since: Timestamp,
    /// None: it is so.
    pub until: Option<Timestamp>,
}

impl From<site::RuleInterval> for RuleInterval {
    fn from(found: site::RuleInterval) -> Self {
        Self {
            device: found.device,
            rule: found.rule,
            configuration_item: found.item,
            name: found.name,
            state: found.state,
            value: found.value,
            reason: found.reason,
            since: found.since,
            until: found.until,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtQuery {
    pub moment: Timestamp,
}

/// How a deployment stood at a moment.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct StandingAt {
    pub deployment: i64,
    pub moment: Timestamp,
    pub devices: i64,
    pub states: StateCounts,
    pub compliant_percent: Option<i64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlappingQuery {
    /// Counted in whole days; none: 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A rule whose state changes often.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlappingRule {
    pub rule: i64,
    pub configuration_item: ItemName,
    pub name: RuleName,
    pub severity: Severity,
    /// How often its state changed, on all devices.
    pub changes: i64,
    /// How often it went back to the state before.
    pub returns: i64,
}

impl From<site::FlappingRule> for FlappingRule {
    fn from(found: site::FlappingRule) -> Self {
        Self {
            rule: found.rule,
            configuration_item: found.item,
            name: found.name,
            severity: found.severity,
            changes: found.changes,
            returns: found.returns,
        }
    }
}

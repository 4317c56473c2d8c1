//! The queries about results, and what they answer. The statements are in `sql/result_reads.rs`.

use async_trait::async_trait;
use domain::{
    BaselineName, CollectionName, ComplianceState, DeviceId, ItemName, Period, RuleName, Severity,
    StateCounts, Timestamp,
};

use crate::Unavailable;
use crate::model::Page;

/// The queries about compliance: a part of [`crate::Reads`].
///
/// What is stale counts as unknown, as of `now`: the device evaluated last longer ago than the
/// deployment allows.
#[async_trait]
pub trait ReadResults {
    /// How deployments stand over their collections.
    async fn deployment_summaries(
        &self,
        filter: &DeploymentFilter,
        now: Timestamp,
    ) -> Result<Page<DeploymentSummary>, Unavailable>;
    /// For each rule of a deployment, how many devices are in which state. A device that is unknown
    /// for the deployment is unknown for all of its rules.
    async fn rule_summaries(
        &self,
        deployment: i64,
        now: Timestamp,
    ) -> Result<Vec<RuleSummary>, Unavailable>;
    /// Devices of a deployment, by identifier. A page may be shorter than asked, and have a next one.
    async fn deployed_devices(
        &self,
        filter: &DeployedDevices,
        now: Timestamp,
    ) -> Result<Page<DeployedDevice>, Unavailable>;
    /// The deployments that concern a device.
    async fn device_deployments(
        &self,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<Vec<DeviceDeployment>, Unavailable>;
    /// The rules of the deployments that concern a device, by number.
    async fn device_rules(
        &self,
        device: DeviceId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<DeviceRule>, Unavailable>;
    /// How rules stood on a device and on the records that it replaced, newest first.
    async fn rule_history(&self, filter: &HistoryFilter)
    -> Result<Page<RuleInterval>, Unavailable>;
    /// How a deployment stood at a moment: on the devices that were its members then, by the rules that
    /// it had then, as the site knew it then. What is changed or reported later does not change it.
    /// Unknown are present members that were enrolled and had no state.
    async fn compliance_at(
        &self,
        deployment: i64,
        at: Timestamp,
    ) -> Result<StateCounts, Unavailable>;
    /// Rules whose states went back and forth most since a day, of one deployment or of all.
    async fn flapping_rules(
        &self,
        since: Timestamp,
        deployment: Option<i64>,
        limit: u32,
    ) -> Result<Vec<FlappingRule>, Unavailable>;

    /// Whether a deployment's states have to be worked out.
    async fn deployments_are_due(&self) -> Result<bool, Unavailable>;
    /// Whether an exemption ends until `now`.
    async fn exemptions_end(&self, now: Timestamp) -> Result<bool, Unavailable>;
    /// Alerts whose moment came, and was not acted on.
    async fn compliance_alerts_due(
        &self,
        now: Timestamp,
    ) -> Result<Vec<ComplianceAlertDue>, Unavailable>;

    /// For tests: what is wrong with the sums, each a line. Counts all rows; reads one moment.
    #[doc(hidden)]
    async fn summary_faults(&self) -> Result<Vec<String>, Unavailable>;
    /// For tests and measurements: a baseline of rules, deployed to a collection that is there.
    #[doc(hidden)]
    async fn deploy_sample(
        &self,
        sample: &SampleDeployment,
    ) -> Result<(i64, Vec<i64>), Unavailable>;
    /// For measurements: results and history of devices that are there, in bulk; at the end, of none,
    /// so that the changes are counted.
    #[doc(hidden)]
    async fn write_sample(&self, sample: &[SampleResults]) -> Result<(), Unavailable>;
}

/// What is forgotten of results, in small steps. They are telemetry: the audit log has nothing of it.
#[async_trait]
pub trait ForgetResults {
    /// Removes how rules and deployments stood until then, and how often rules changed. How they stand
    /// now stays. Returns how many rows.
    async fn forget_history(&self, until: Timestamp) -> Result<u64, Unavailable>;
    /// Removes what devices found and nothing refers to any more: also texts that only a forgotten
    /// device had. Reads all results: for once in a while. Returns how many texts.
    async fn forget_values(&self) -> Result<u64, Unavailable>;
}

/// Which deployments: all of them, when nothing is said.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFilter {
    pub deployment: Option<i64>,
    pub baseline: Option<BaselineName>,
    pub after: Option<String>,
    pub limit: u32,
}

/// How a deployment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentSummary {
    pub deployment: i64,
    pub baseline: BaselineName,
    pub collection: CollectionName,
    pub stale_after: Period,
    pub rules: i64,
    /// Adds up to the members of the collection.
    pub devices: StateCounts,
    /// While its devices' states are worked out anew: how much of it is done, in percent.
    pub worked_out: Option<u8>,
}

/// How a rule of a deployment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSummary {
    pub rule: i64,
    pub item: ItemName,
    pub name: RuleName,
    pub severity: Severity,
    pub devices: StateCounts,
}

/// Which devices of a deployment.
#[derive(Debug, Clone, Default)]
pub struct DeployedDevices {
    pub deployment: i64,
    pub state: Option<ComplianceState>,
    pub after: Option<DeviceId>,
    pub limit: u32,
}

/// A device of a deployment, and how the deployment stands on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployedDevice {
    pub device: DeviceId,
    pub host_name: String,
    pub user_name: String,
    pub state: ComplianceState,
    /// Since when it is so; none when that is not known.
    pub since: Option<Timestamp>,
    pub evaluated_at: Option<Timestamp>,
}

/// A deployment of a device, and how it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDeployment {
    pub deployment: i64,
    pub baseline: BaselineName,
    pub collection: CollectionName,
    pub state: ComplianceState,
    pub since: Option<Timestamp>,
    pub evaluated_at: Option<Timestamp>,
}

/// A rule of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    pub rule: i64,
    pub item: ItemName,
    pub name: RuleName,
    pub severity: Severity,
    /// As it was reported last; unknown when it was not.
    pub state: ComplianceState,
    pub since: Option<Timestamp>,
    pub value: Option<String>,
    pub reason: Option<String>,
    /// With one, the rule counts as exempt, whatever its state.
    pub exemption: Option<RuleExemption>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleExemption {
    pub number: i64,
    pub reason: String,
    pub until: Option<Timestamp>,
}

/// Which intervals.
#[derive(Debug, Clone)]
pub struct HistoryFilter {
    pub device: DeviceId,
    pub rule: Option<RuleName>,
    pub after: Option<String>,
    pub limit: u32,
}

/// How a rule stood on a device for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInterval {
    /// The record that it was reported by.
    pub device: DeviceId,
    pub rule: i64,
    pub item: ItemName,
    pub name: RuleName,
    pub state: ComplianceState,
    pub value: Option<String>,
    pub reason: Option<String>,
    pub since: Timestamp,
    /// None while it is so.
    pub until: Option<Timestamp>,
    pub(crate) place: String,
}

/// A rule whose state changes often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlappingRule {
    pub rule: i64,
    pub item: ItemName,
    pub name: RuleName,
    pub severity: Severity,
    /// How often its state changed, on all devices.
    pub changes: i64,
    /// How often to the state before. A rule that many devices came to keep has none.
    pub returns: i64,
}

/// An alert of a deployment whose moment came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComplianceAlertDue {
    pub deployment: i64,
    pub at: Timestamp,
    /// Percent.
    pub below: i64,
}

#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct SampleDeployment {
    pub baseline: BaselineName,
    pub collection: CollectionName,
    pub rules: usize,
    pub stale_after: Period,
    pub alert: Option<(i64, Timestamp)>,
    pub at: Timestamp,
}

#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct SampleResults {
    pub device: DeviceId,
    pub evaluated_at: Timestamp,
    /// Rule, state, since when in seconds.
    pub now: Vec<(i64, ComplianceState, i64)>,
    /// Rule, state, since when and until when.
    pub past: Vec<(i64, ComplianceState, i64, i64)>,
}

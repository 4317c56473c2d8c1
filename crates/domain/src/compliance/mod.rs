//! Compliance settings: what a configuration item asks for, what a baseline and a deployment make of
//! it, and how a discovered value becomes a state. The words are the incumbent's.

mod baseline;
mod deployment;
mod difference;
mod exemption;
mod guard;
mod item;
mod reading;
mod rule;
mod schedule;
mod state;
mod value;
mod written;

pub use baseline::{BaselineContent, BaselinePart, InvalidBaseline, Nesting, NestingCycle};
pub use deployment::{
    ComplianceAlert, Deployment, InvalidDeployment, InvalidWindow, RemediationWindow,
};
pub use difference::line_difference;
pub use exemption::{ExemptionReason, ExemptionScope, InvalidReason};
pub use guard::{GUARD_LIMIT, GUARD_SPAN, RemediationGuard};
pub use item::{
    ApplicationId, InvalidItem, ItemContent, KeyPath, OperatingSystem, Platform, PlatformVersions,
    Script, Setting, SettingSource,
};
pub use reading::{Ended, OUTPUT_LIMIT, Output, Reading};
pub use rule::{
    Comparison, ComplianceRule, Condition, Existence, InvalidComparison, Operator, Verdict,
};
pub use schedule::{CronExpression, EvaluationSchedule, InvalidSchedule};
pub use state::{ComplianceState, Severity, StateCounts};
pub use value::{DataType, InvalidVersion, NotOfType, TypedValue, Version};

crate::name::names! {
    /// The name of a configuration item.
    ItemName = "a configuration item's name",
    /// The name of a configuration baseline.
    BaselineName = "a baseline's name",
    /// The name of a setting, unique in its configuration item.
    SettingName = "a setting's name",
    /// The name of a compliance rule, unique in its configuration item.
    RuleName = "a rule's name",
}

//! The rules of Perennial, as pure functions and types: no IO, no clock, no async, no SQL.
//!
//! What people and devices send becomes one of these types at the edge of the system;
//! inside, no identifier, serial number, duration or state is a bare string.

mod account;
mod clock;
mod collection;
pub mod compliance;
mod device;
pub mod fault;
pub mod filter;
mod hardware;
mod identifier;
mod name;
mod period;
mod renewal;
mod renewal_order;
mod role;
mod state;
mod text;
pub mod wizard;

pub use account::{InvalidUserName, UserName};
pub use clock::{Clock, Rng, Timestamp};
pub use collection::{
    BuiltInCollection, Circle, CollectionName, CollectionRules, Collections, Deployed, Rules,
};
pub use compliance::{
    BaselineName, ComplianceState, ItemName, RuleName, SettingName, Severity, StateCounts,
};
pub use device::DeviceFacts;
pub use filter::{Filter, InvalidFilter};
pub use hardware::{HardwareUuid, InvalidHardwareUuid};
pub use identifier::{
    DeviceId, InvalidIdentifier, KeyDigest, Pin, SerialNumber, Smsid, TokenDigest,
};
pub use name::InvalidName;
pub use period::{InvalidPeriod, Period};
pub use renewal::{
    ConfiguredValue, DEFAULT_RENEWAL_PERIOD_1, NextReminder, PreferenceLevel, RawValue,
    ReminderStage, RenewalKey, RenewalMode, RenewalSchedule, RenewalSetting, Situation, Unused,
    Window, next_reminder,
};
pub use renewal_order::{ExplanationUrl, InvalidExplanationUrl, InvalidOrder, RenewalScope};
pub use role::{Action, Role};
pub use state::{
    AfterExpiry, AlertKind, CertificateState, CommandKind, CommandState, DeviceState,
    DeviceTransition, RevocationReason, TransitionRefused, UnknownWord,
};

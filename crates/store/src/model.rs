//! Records as they are read.

use std::collections::BTreeSet;

use domain::{
    AlertKind, CertificateState, CollectionName, DeviceFacts, DeviceId, DeviceState, Filter,
    HardwareUuid, KeyDigest, RenewalScope, RevocationReason, Role, SerialNumber, Timestamp, Window,
};
use protocol::PolicyState;
use serde_json::Value;

use crate::compliance::PolicyPlace;
use crate::results::RecordedResults;

/// Part of a list, and where the next part begins.
#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Pass it as `after` to get the next page; none at the end.
    pub next: Option<String>,
}

/// A local account: somebody who may enroll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Never changes and is never used again, whatever happens to the name.
    pub id: String,
    pub name: String,
    pub common_name: String,
    /// A PHC string.
    pub password_hash: String,
    pub created_at: Timestamp,
}

/// An administrator's access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub role: Role,
    pub expires_at: Option<Timestamp>,
}

/// What a certificate and its device may do now.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    pub serial: SerialNumber,
    pub device: DeviceId,
    pub owner: String,
    pub device_state: DeviceState,
    pub certificate_state: CertificateState,
    pub key: KeyDigest,
    pub common_name: String,
    pub issued_at: Timestamp,
    pub not_after: Timestamp,
    pub used: bool,
    pub facts: DeviceFacts,
    /// Until when an administrator allows one renewal after expiry.
    pub renewal_allowed_until: Option<Timestamp>,
    /// The record that this device takes the place of, once it is used.
    pub predecessor: Option<DeviceId>,
    pub enrolled_at: Timestamp,
    /// Where an administrator's order moves its renewal.
    pub ordered: Option<OrderedWindow>,
    /// What the device said of its policy last.
    pub policy: Option<PolicyState>,
    /// Where the site's policy is.
    pub place: PolicyPlace,
    /// The deployments to its collections, in the order of their numbers.
    pub deployments: Vec<i64>,
    /// Commands that have not ended wait for it.
    pub has_commands: bool,
    /// Where the records of its results stand; none before its first report.
    pub results: Option<RecordedResults>,
}

/// The window of the newest order that concerns a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedWindow {
    pub window: Window,
    pub explanation_url: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    pub id: DeviceId,
    pub state: DeviceState,
    /// The id of the account that enrolled it.
    pub owner: String,
    /// The user's name as it was typed at the enrollment.
    pub user_name: String,
    pub enrolled_at: Timestamp,
    pub last_seen: Option<Timestamp>,
    pub facts: DeviceFacts,
    /// The record that took this one's place.
    pub successor: Option<DeviceId>,
    /// Until when an administrator allows one renewal after expiry.
    pub renewal_allowed_until: Option<Timestamp>,
    /// What it said of its policy last.
    pub policy: Option<PolicyState>,
}

/// Something that an administrator should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub number: i64,
    pub kind: AlertKind,
    /// What it is about: a device, a deployment, or else the site.
    pub device: Option<DeviceId>,
    pub deployment: Option<i64>,
    pub host_name: String,
    pub detail: String,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    /// How often it happened.
    pub times: i64,
    pub closed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    pub device: Option<DeviceId>,
    /// Closed ones, too.
    pub closed: bool,
    pub after: Option<String>,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub serial: SerialNumber,
    pub device: DeviceId,
    pub key: KeyDigest,
    pub state: CertificateState,
    pub subject: String,
    pub host_name: String,
    pub issued_at: Timestamp,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub first_used_at: Option<Timestamp>,
    pub revoked: Option<(Timestamp, RevocationReason)>,
    pub der: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub serial: SerialNumber,
    pub at: Timestamp,
    pub reason: RevocationReason,
}

/// A signed revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crl {
    pub number: i64,
    pub this_update: Timestamp,
    pub next_update: Timestamp,
    /// How many revocations there were when the list was begun.
    pub revocations: i64,
    pub der: Vec<u8>,
}

/// What an account has used of its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Certificates that are valid now.
    pub live: i64,
    /// Certificates that were got by logging in since the asked moment.
    pub issued: i64,
}

/// A group of devices, and what chooses its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    pub name: CollectionName,
    /// None for the built-ins.
    pub created_at: Option<Timestamp>,
    pub members: i64,
    /// How many devices administrators named (direct rules).
    pub named: i64,
    /// None for two of the built-ins.
    pub limited_to: Option<CollectionName>,
    pub query: Option<Filter>,
    pub include: BTreeSet<CollectionName>,
    pub exclude: BTreeSet<CollectionName>,
    /// While its members are worked out: how many of a hundred devices were looked at.
    pub evaluated: Option<u8>,
}

/// Whom a query means.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionPreview {
    pub devices: i64,
    /// The first few by their names.
    pub first: Vec<Device>,
}

/// What there is to do about memberships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembershipWork {
    /// The moment for which memberships hold that change with time.
    pub swept_until: Timestamp,
    /// Something happened to devices.
    pub devices: bool,
    /// Something happened to rules.
    pub collections: bool,
}

/// An administrator's order about when certificates are renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalOrder {
    pub number: i64,
    pub scope: RenewalScope,
    pub window: Window,
    /// It concerns certificates that were issued before.
    pub made_at: Timestamp,
    pub explanation_url: Option<String>,
}

/// How far an order was followed. The three add up to the active devices in its scope that had a
/// certificate when it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RenewalProgress {
    /// A certificate that was issued since is in use.
    pub renewed: i64,
    /// Seen since, and not renewed yet.
    pub waiting: i64,
    /// Not seen since.
    pub unseen: i64,
}

impl RenewalProgress {
    pub fn covered(&self) -> i64 {
        self.renewed + self.waiting + self.unseen
    }
}

/// Two active devices that claim the same hardware: the same computer twice, a cloned disk, or a
/// lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConflict {
    pub hardware_uuid: HardwareUuid,
    pub older: ClaimedDevice,
    pub newer: ClaimedDevice,
    /// Since when both claim it.
    pub found_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedDevice {
    pub id: DeviceId,
    pub host_name: String,
    pub user_name: String,
    pub enrolled_at: Timestamp,
    pub last_seen: Option<Timestamp>,
}

#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// None: all but the deleted ones.
    pub state: Option<DeviceState>,
    /// Host names that begin like this.
    pub name: Option<String>,
    pub after: Option<String>,
    pub limit: u32,
}

#[derive(Debug, Clone, Default)]
pub struct CertificateFilter {
    pub state: Option<CertificateState>,
    pub device: Option<DeviceId>,
    pub expires_after: Option<Timestamp>,
    pub expires_before: Option<Timestamp>,
    pub after: Option<String>,
    pub limit: u32,
}

/// One writer's lifetime: a hash chain of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub id: [u8; 16],
    pub node: String,
    pub started_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    pub segment: [u8; 16],
    /// From 1, without gaps.
    pub number: i64,
    pub at: Timestamp,
    pub actor: String,
    pub address: String,
    pub action: String,
    pub subject: String,
    /// None once retention has erased it; its digest stays.
    pub payload: Option<Value>,
    pub payload_digest: [u8; 32],
    pub hash: [u8; 32],
}

/// A signature over the heads of all chains: what was there at a moment, whoever has the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub number: i64,
    pub at: Timestamp,
    /// The signed bytes: see [`crate::checkpoint_message`].
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
}

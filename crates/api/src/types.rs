//! What goes over the wire, in both directions.

pub(crate) mod compliance;

use data_encoding::{BASE64, HEXLOWER};
use std::collections::BTreeSet;

use domain::filter::FieldHelp;
use domain::{
    AlertKind, CertificateState, CollectionName, CollectionRules, DeviceFacts, DeviceId,
    DeviceState, ExplanationUrl, Filter, HardwareUuid, Period, RenewalScope, RevocationReason,
    SerialNumber, Smsid, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use site::{
    Alert, AuditEvent, Certificate, ClaimedDevice, Collection, Device,
    DeviceConflict as FoundConflict, MembersChanged, RenewalOrder, RenewalProgress,
};

/// Part of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
    /// `after` of the next page; none at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> List<T> {
    pub(crate) fn of<S>(page: site::Page<S>, view: impl Fn(S) -> T) -> Self {
        Self {
            items: page.items.into_iter().map(view).collect(),
            next: page.next,
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl PageQuery {
    pub(crate) const DEFAULT_LIMIT: u32 = 100;
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeviceState>,
    /// Host names that begin like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<CertificateState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Valid certificates that expire from now until this much later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiring_within: Option<Period>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A user who may enroll.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    pub common_name: String,
    pub created_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    pub password: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Password {
    pub password: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceDetail {
    pub id: DeviceId,
    pub smsid: Smsid,
    pub state: DeviceState,
    pub user_name: String,
    pub enrolled_at: Timestamp,
    pub last_seen: Option<Timestamp>,
    pub facts: DeviceFacts,
    /// The record that took this one's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<DeviceId>,
    /// Until when one renewal after expiry is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_allowed_until: Option<Timestamp>,
    /// The policy that it said it has, and why it does not run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<ReportedPolicy>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportedPolicy {
    /// Epoch and counter.
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl From<Device> for DeviceDetail {
    fn from(device: Device) -> Self {
        Self {
            id: device.id,
            smsid: device.id.smsid(),
            state: device.state,
            user_name: device.user_name,
            enrolled_at: device.enrolled_at,
            last_seen: device.last_seen,
            facts: device.facts,
            renewal_allowed_until: device.renewal_allowed_until,
            successor: device.successor,
            policy: device.policy.map(|policy| ReportedPolicy {
                version: policy.version.to_string(),
                problem: policy.problem,
            }),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRenewal {
    /// How long the permission lasts.
    #[serde(default = "month")]
    pub within: Period,
}

fn month() -> Period {
    Period::from_days(30)
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RenewalAllowed {
    pub until: Timestamp,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Closed ones, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AlertDetail {
    pub number: i64,
    pub kind: AlertKind,
    /// What it is about: a device, a deployment, or else the site.
    pub device: Option<DeviceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<i64>,
    /// The same in words.
    pub about: String,
    pub host_name: String,
    pub detail: String,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    pub times: i64,
    pub closed_at: Option<Timestamp>,
}

impl From<Alert> for AlertDetail {
    fn from(alert: Alert) -> Self {
        Self {
            number: alert.number,
            kind: alert.kind,
            device: alert.device,
            deployment: alert.deployment,
            about: match alert.deployment {
                Some(number) => format!("deployment {number}"),
                None if alert.device.is_none() => "the site".to_owned(),
                None => alert.host_name.clone(),
            },
            host_name: alert.host_name,
            detail: alert.detail,
            first_at: alert.first_at,
            last_at: alert.last_at,
            times: alert.times,
            closed_at: alert.closed_at,
        }
    }
}

/// The clock of the node that answers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ClockDetail {
    /// What the site goes by.
    pub time: Timestamp,
    /// What the machine says, when its clock stepped and nobody accepted it yet.
    pub stepped_to: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateSummary {
    pub serial: SerialNumber,
    pub device: DeviceId,
    pub host_name: String,
    pub subject: String,
    pub state: CertificateState,
    pub issued_at: Timestamp,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub first_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub revocation_reason: Option<RevocationReason>,
}

impl From<&Certificate> for CertificateSummary {
    fn from(certificate: &Certificate) -> Self {
        Self {
            serial: certificate.serial,
            device: certificate.device,
            host_name: certificate.host_name.clone(),
            subject: certificate.subject.clone(),
            state: certificate.state,
            issued_at: certificate.issued_at,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            first_used_at: certificate.first_used_at,
            revoked_at: certificate.revoked.map(|(at, _)| at),
            revocation_reason: certificate.revoked.map(|(_, reason)| reason),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateDetail {
    #[serde(flatten)]
    pub summary: CertificateSummary,
    /// SHA-256 of the public key.
    pub key: String,
    /// DER in base64.
    pub der: String,
}

impl From<&Certificate> for CertificateDetail {
    fn from(certificate: &Certificate) -> Self {
        Self {
            summary: certificate.into(),
            key: certificate.key.to_string(),
            der: BASE64.encode(&certificate.der),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    #[serde(default)]
    pub reason: Option<RevocationReason>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Revoked {
    /// How many certificates were revoked just now.
    pub revoked: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditEntry {
    pub segment: String,
    pub number: i64,
    pub at: Timestamp,
    pub actor: String,
    pub address: String,
    pub action: String,
    pub subject: String,
    pub payload: Option<Value>,
    pub hash: String,
}

impl From<AuditEvent> for AuditEntry {
    fn from(event: AuditEvent) -> Self {
        Self {
            segment: HEXLOWER.encode(&event.segment),
            number: event.number,
            at: event.at,
            actor: event.actor,
            address: event.address,
            action: event.action,
            subject: event.subject,
            payload: event.payload,
            hash: HEXLOWER.encode(&event.hash),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CrlDetail {
    pub number: i64,
    pub this_update: Timestamp,
    pub next_update: Timestamp,
    /// DER in base64.
    pub der: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CollectionDetail {
    pub name: CollectionName,
    /// `built-in`, or what chooses its members, joined by `+`: `direct`, `query`, `include`, `exclude`.
    pub kind: String,
    pub members: i64,
    /// While its members are worked out: how many of a hundred devices were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluated: Option<u8>,
    /// Devices that are named.
    pub direct: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_to: Option<CollectionName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<Filter>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub include: BTreeSet<CollectionName>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<CollectionName>,
    /// None for a built-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

impl From<Collection> for CollectionDetail {
    fn from(collection: Collection) -> Self {
        Self {
            kind: kind(&collection),
            name: collection.name,
            members: collection.members,
            evaluated: collection.evaluated,
            direct: collection.named,
            limited_to: collection.limited_to,
            query: collection.query,
            include: collection.include,
            exclude: collection.exclude,
            created_at: collection.created_at,
        }
    }
}

fn kind(collection: &Collection) -> String {
    if collection.created_at.is_none() {
        return "built-in".to_owned();
    }
    let rules = [
        ("direct", collection.named > 0),
        ("query", collection.query.is_some()),
        ("include", !collection.include.is_empty()),
        ("exclude", !collection.exclude.is_empty()),
    ];
    let words: Vec<_> = rules
        .into_iter()
        .filter_map(|(word, there)| there.then_some(word))
        .collect();
    match words.is_empty() {
        true => "direct".to_owned(),
        false => words.join("+"),
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCollection {
    pub name: CollectionName,
    #[serde(default)]
    pub rules: CollectionRules,
}

/// A query that is tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPreview {
    pub query: Filter,
    /// None: All Devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_to: Option<CollectionName>,
}

/// Whom a query means.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preview {
    pub devices: i64,
    /// The first few by their names.
    pub first: Vec<DeviceDetail>,
}

/// A field of the filter language.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FilterField {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub meaning: String,
    pub example: String,
}

impl From<FieldHelp> for FilterField {
    fn from(help: FieldHelp) -> Self {
        Self {
            name: help.name.to_owned(),
            kind: help.kind.to_owned(),
            meaning: help.meaning.to_owned(),
            example: help.example.to_owned(),
        }
    }
}

/// Devices that join a collection or leave it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Devices {
    pub devices: Vec<DeviceId>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Changed {
    /// How many are named now, or are not any more.
    pub changed: u64,
    /// How many of the named ones are no members all the same: the limiting collection does not have
    /// them, or an excluded one does.
    #[serde(default)]
    pub outside: u64,
}

impl From<MembersChanged> for Changed {
    fn from(members: MembersChanged) -> Self {
        Self {
            changed: members.changed,
            outside: members.outside,
        }
    }
}

/// An order about when certificates are renewed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewalWindow {
    pub number: i64,
    pub scope: RenewalScope,
    /// The scope in words.
    pub covers: String,
    pub start: Timestamp,
    pub end: Timestamp,
    /// It concerns certificates that were issued before.
    pub made_at: Timestamp,
    pub explanation_url: Option<String>,
}

impl From<RenewalOrder> for RenewalWindow {
    fn from(order: RenewalOrder) -> Self {
        Self {
            number: order.number,
            covers: order.scope.to_string(),
            scope: order.scope,
            start: order.window.start,
            end: order.window.end,
            made_at: order.made_at,
            explanation_url: order.explanation_url,
        }
    }
}

/// An order, and how many of its devices followed it. `renewed`, `waiting` and `unseen` add up to
/// `covered`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewalWindowDetail {
    #[serde(flatten)]
    pub window: RenewalWindow,
    pub covered: i64,
    /// A certificate that was issued since is in use.
    pub renewed: i64,
    /// Seen since, and not renewed yet.
    pub waiting: i64,
    /// Not seen since.
    pub unseen: i64,
}

impl From<(RenewalOrder, RenewalProgress)> for RenewalWindowDetail {
    fn from((order, progress): (RenewalOrder, RenewalProgress)) -> Self {
        Self {
            window: order.into(),
            covered: progress.covered(),
            renewed: progress.renewed,
            waiting: progress.waiting,
            unseen: progress.unseen,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRenewalWindow {
    pub scope: RenewalScope,
    /// None: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// None: a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Period>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation_url: Option<ExplanationUrl>,
}

/// Two active devices that claim the same hardware.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceConflict {
    pub hardware_uuid: HardwareUuid,
    pub older: ConflictingDevice,
    pub newer: ConflictingDevice,
    /// Since when both claim it.
    pub found_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConflictingDevice {
    pub id: DeviceId,
    pub smsid: Smsid,
    pub host_name: String,
    pub user_name: String,
    pub enrolled_at: Timestamp,
    pub last_seen: Option<Timestamp>,
}

impl From<FoundConflict> for DeviceConflict {
    fn from(found: FoundConflict) -> Self {
        Self {
            hardware_uuid: found.hardware_uuid,
            older: found.older.into(),
            newer: found.newer.into(),
            found_at: found.found_at,
        }
    }
}

impl From<ClaimedDevice> for ConflictingDevice {
    fn from(device: ClaimedDevice) -> Self {
        Self {
            id: device.id,
            smsid: device.id.smsid(),
            host_name: device.host_name,
            user_name: device.user_name,
            enrolled_at: device.enrolled_at,
            last_seen: device.last_seen,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// The record that stays.
    pub into: DeviceId,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepBoth {
    pub other: DeviceId,
}

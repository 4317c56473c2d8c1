//! Everything that can happen to a site's records. [`Kind`] is the table of contents; each kind
//! says what the audit log keeps of it.

use std::fmt;

use data_encoding::HEXLOWER;
use domain::compliance::NestingCycle;
use domain::{
    AfterExpiry, AlertKind, BaselineName, CollectionName, CollectionRules, DeviceFacts, DeviceId,
    DeviceState, DeviceTransition, ExplanationUrl, KeyDigest, RenewalScope, RevocationReason, Role,
    SerialNumber, Timestamp, TokenDigest, TransitionRefused, Window,
};
use protocol::{BodyHash, CommandId, CommandResult, PolicyState};
use serde_json::{Value, json};

use crate::compliance::{NewCommand, ObjectChange};
use crate::model::Certificate;
use crate::results::NewResults;

/// Something that happens, when, and by whom.
#[derive(Debug, Clone)]
pub struct Change {
    pub at: Timestamp,
    pub by: Actor,
    pub kind: Kind,
}

/// Who did it, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    who: String,
    address: String,
}

impl Actor {
    pub fn site() -> Self {
        Self {
            who: "site".to_owned(),
            address: String::new(),
        }
    }

    pub fn administrator(token: &str, address: impl fmt::Display) -> Self {
        Self {
            who: format!("administrator:{token}"),
            address: address.to_string(),
        }
    }

    pub fn user(name: impl fmt::Display, address: impl fmt::Display) -> Self {
        Self {
            who: format!("user:{name}"),
            address: address.to_string(),
        }
    }

    pub fn device(device: DeviceId, address: impl fmt::Display) -> Self {
        Self {
            who: format!("device:{device}"),
            address: address.to_string(),
        }
    }

    pub fn nobody(address: impl fmt::Display) -> Self {
        Self {
            who: "nobody".to_owned(),
            address: address.to_string(),
        }
    }

    pub(crate) fn who(&self) -> &str {
        &self.who
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

#[derive(Debug, Clone)]
pub enum Kind {
    AddAccount(NewAccount),
    SetPassword {
        name: String,
        password_hash: String,
    },
    RemoveAccount {
        name: String,
    },
    AddToken(NewToken),
    /// A device's first certificate, or one for an enrolled device after a log-in. `device` is kept
    /// when it is there already.
    Enroll {
        device: NewDevice,
        certificate: NewCertificate,
    },
    /// A certificate for a device that proved its current one.
    Renew {
        certificate: NewCertificate,
        replaces: SerialNumber,
        /// Why it may be renewed although it expired; none when it did not.
        after_expiry: Option<AfterExpiry>,
    },
    /// A certificate was used for the first time: older ones of its device are superseded, and what
    /// was waiting for that happens.
    UseCertificate {
        serial: SerialNumber,
        device: DeviceId,
        /// The permission to renew after expiry ends.
        spends_permission: bool,
        /// The record whose place the device takes: it becomes obsolete and its certificates are
        /// revoked.
        takes_place_of: Option<DeviceId>,
    },
    /// One renewal after expiry is allowed until then.
    AllowRenewal {
        device: DeviceId,
        until: Timestamp,
    },
    /// Something that an administrator should look at. While the alert is open, what happens again
    /// is counted.
    RaiseAlert {
        alert: AlertKind,
        device: DeviceId,
        detail: String,
    },
    /// One that is about no device: unless it is open already.
    RaiseSiteAlert {
        alert: AlertKind,
        detail: String,
    },
    CloseAlert {
        number: i64,
    },
    ReportFacts {
        device: DeviceId,
        facts: DeviceFacts,
    },
    /// A device's state changes; its valid certificates are revoked when a reason is given.
    Transition {
        device: DeviceId,
        transition: DeviceTransition,
        revoke: Option<RevocationReason>,
    },
    RevokeCertificate {
        serial: SerialNumber,
        reason: RevocationReason,
    },
    /// Revokes all certificates of a device, and of the records that it replaced, and ends them. What
    /// is left is removed later, by [`Kind::PurgeDevices`].
    DeleteDevice {
        device: DeviceId,
    },
    PublishCrl {
        number: i64,
        this_update: Timestamp,
        next_update: Timestamp,
        /// How many revocations there were when the list was begun.
        revocations: i64,
        der: Vec<u8>,
    },
    /// Nothing changed, but somebody should know: a log-in that was refused, a server's certificate.
    Noted(Note),
    CreateCollection {
        name: CollectionName,
        rules: CollectionRules,
    },
    /// Its members, and those of collections that depend on it, are worked out in the background.
    SetCollectionRules {
        name: CollectionName,
        rules: CollectionRules,
    },
    /// Its devices stay what they are.
    DeleteCollection {
        name: CollectionName,
    },
    /// All of `devices` are named as members, or, when one of them is unknown, none.
    AddMembers {
        collection: CollectionName,
        devices: Vec<DeviceId>,
    },
    RemoveMembers {
        collection: CollectionName,
        devices: Vec<DeviceId>,
    },
    /// Moves the renewal of all certificates of a scope that were issued before it.
    SetRenewalWindow {
        scope: RenewalScope,
        window: Window,
        explanation_url: Option<ExplanationUrl>,
    },
    RemoveRenewalWindow {
        number: i64,
    },
    /// Two records are one computer: the first one ends, its certificates are revoked, and the
    /// second one takes its place in collections.
    MergeDevices {
        from: DeviceId,
        into: DeviceId,
    },
    /// Two records that look like one computer are two.
    KeepBoth {
        a: DeviceId,
        b: DeviceId,
    },
    /// A configuration item, a baseline, a deployment or an exemption changes.
    Object(ObjectChange),
    /// What a device says of its policy.
    ReportPolicy {
        device: DeviceId,
        state: PolicyState,
    },
    IssueCommand(NewCommand),
    /// A device did a command, or could not.
    EndCommand {
        device: DeviceId,
        id: CommandId,
        result: CommandResult,
    },
    /// The commands of a device whose time passed end.
    ExpireCommands {
        device: DeviceId,
    },
    /// Devices take lists of this site again although its counter stepped back.
    RaiseEpoch,
    /// A node is about to sign with a policy key.
    NotePolicyKey {
        key: KeyDigest,
        not_after: Timestamp,
    },
    /// A device reports results. Telemetry: the audit log keeps nothing of it.
    ReportResults(NewResults),
    /// One step of working out how a deployment that changed stands on its devices.
    WorkOutDeployments,
    /// Notices exemptions whose time is over.
    EndExemptions,
    /// The moment `alert_at` of a deployment's alert came. `below` says what is wrong: none when enough
    /// devices are compliant.
    JudgeCompliance {
        deployment: i64,
        alert_at: Timestamp,
        below: Option<String>,
    },
    /// Removes what is left of devices that were deleted until a moment, and their certificates
    /// that no revocation list needs any more. At most [`PURGED_AT_ONCE`] rows of a kind, so that
    /// others do not wait for it long.
    PurgeDevices {
        deleted_until: Timestamp,
        expired_until: Timestamp,
    },
    /// Works out the memberships of devices that something happened to: of no more than `most`.
    EvaluateDevices {
        most: u32,
    },
    /// Works out the members of collections whose rules changed: looks at no more than `most` devices.
    EvaluateCollections {
        most: u32,
    },
    /// Finds the devices whose memberships change because time went on until the change's moment.
    SweepMemberships,
}

/// Rows of each kind that one [`Kind::PurgeDevices`] removes at most.
pub const PURGED_AT_ONCE: u32 = 5_000;

#[derive(Debug, Clone)]
pub struct NewAccount {
    pub id: String,
    pub name: String,
    pub common_name: String,
    pub password_hash: String,
}

#[derive(Debug, Clone)]
pub struct NewToken {
    pub digest: TokenDigest,
    pub name: String,
    pub role: Role,
    pub expires_at: Option<Timestamp>,
    /// An older token of this name ends; otherwise it is a conflict.
    pub replaces: bool,
}

#[derive(Debug, Clone)]
pub struct NewDevice {
    pub id: DeviceId,
    pub owner: String,
    pub user_name: String,
    /// The record that the same computer had, as it proved.
    pub predecessor: Option<DeviceId>,
}

#[derive(Debug, Clone)]
pub struct NewCertificate {
    pub serial: SerialNumber,
    pub device: DeviceId,
    pub owner: String,
    pub key: KeyDigest,
    pub subject: String,
    pub common_name: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub der: Vec<u8>,
    /// What the request asked for and did not get, for the audit log.
    pub differences: Option<Value>,
}

/// An entry of the audit log that goes with no other change.
#[derive(Debug, Clone)]
pub struct Note {
    /// A stable word, such as `log-in-refused`.
    pub action: &'static str,
    pub subject: String,
    pub detail: String,
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// It was so already: nothing was written.
    Unchanged,
    /// The certificate that is recorded for this device and key. `repeated`: it was issued before,
    /// to the same request whose answer was lost.
    Issued {
        certificate: Box<Certificate>,
        repeated: bool,
    },
    /// How many certificates were revoked.
    Revoked {
        certificates: u64,
    },
    /// How many devices were named as members, or are named no more.
    Members {
        changed: u64,
        /// How many of the named ones are no members all the same: beyond the limiting collection, or
        /// in an excluded one.
        outside: u64,
    },
    Evaluated(Evaluated),
    /// The number that it got.
    Numbered(i64),
    /// The revision that a configuration item got, and the hash of what devices fetch.
    Revised {
        revision: u32,
        body: BodyHash,
    },
    Purged(Purged),
    Results {
        /// Something of the report was new.
        applied: bool,
        /// The last change that is recorded of the reporting device's stream, and the digest of its set
        /// after that.
        recorded: Option<(i64, [u8; 16])>,
        /// The device has to send its whole set.
        wants_whole: bool,
    },
    WorkedOut(WorkedOut),
    /// The numbers of exemptions that ended just now.
    ExemptionsEnded(Vec<i64>),
}

/// What one step of working out a deployment's states did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkedOut {
    pub deployment: i64,
    /// Devices that it looked at.
    pub devices: u64,
}

/// What one step of a purge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    pub devices: u64,
    pub certificates: u64,
    /// Entries of the audit log whose details were erased.
    pub entries: u64,
    /// Rows of results, present or past.
    pub results: u64,
    /// There may be more to do.
    pub more: bool,
}

impl Applied {
    /// Of a change that may find nothing to do.
    pub(crate) fn of_rows(rows: u64) -> Self {
        match rows {
            0 => Self::Unchanged,
            _ => Self::Done,
        }
    }
}

/// What one step of working out memberships did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// Devices, about. Of a sweep: those that it found.
    pub looked_at: u64,
    pub joined: u64,
    pub left: u64,
    /// There may be more to do.
    pub more: bool,
}

/// Why a change was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("{0} exists already")]
    Exists(String),
    #[error("there is no {0}")]
    NotFound(String),
    #[error("the device is {0}")]
    DeviceNotActive(DeviceState),
    #[error("this key belongs to a certificate that is no longer valid; make a new key")]
    KeySpent,
    #[error("the device belongs to another user")]
    OtherOwner,
    #[error(transparent)]
    Transition(#[from] TransitionRefused),
    #[error("the certificate that asks was revoked or replaced meanwhile")]
    Replaced,
    #[error("somebody else changed it at the same time; look again")]
    Changed,
    #[error("a newer revocation list is published already")]
    CrlNumber,
    #[error(
        "the collection is used by renewal window {0}; remove that first: perennial renewal-window remove {0}"
    )]
    UsedByRenewalWindow(i64),
    /// What it is, and the baseline.
    #[error("the {0} is used by the baseline `{1}`; take it out of that first")]
    UsedByBaseline(&'static str, BaselineName),
    /// What it is, and the deployment's number.
    #[error(
        "the {0} is used by deployment {1}; delete that first: perennial deployment delete {1}"
    )]
    UsedByDeployment(&'static str, i64),
    #[error(
        "the collection is used by exemption {0}; remove that first: perennial exemption remove {0}"
    )]
    UsedByExemption(i64),
    #[error(transparent)]
    NestingCycle(#[from] NestingCycle),
    #[error("deployment {0} would have more than {1} {2}; deploy less at once")]
    DeploymentTooLarge(i64, i64, &'static str),
    #[error(
        "the revisions of this configuration item would have more than {0} MiB, and they stay for ever; make a new item"
    )]
    RevisedTooMuch(i64),
    #[error("there are {0} {1} already, the most that there can be")]
    TooMany(i64, &'static str),
    #[error("the collection is used by the collection `{0}`; change that first")]
    UsedByCollection(CollectionName),
    #[error("`{0}` is built in: nobody changes it")]
    BuiltIn(CollectionName),
    #[error("the collection's members would depend on themselves: {}", arrows(.0))]
    CollectionCircle(Vec<CollectionName>),
    #[error(
        "the collection's members would come and go: they are chosen by how the baseline `{baseline}` stands, and it is deployed to them: {}",
        arrows(path)
    )]
    ComplianceCircle {
        baseline: BaselineName,
        path: Vec<CollectionName>,
    },
    /// The collection and the exemption.
    #[error(
        "the members of `{0}` are chosen by how they comply, and exemption {1} would change that: they would come and go"
    )]
    ExemptByCompliance(CollectionName, i64),
    #[error("a device cannot be merged into one that is {0}")]
    MergeInto(DeviceState),
    #[error("the device {0} was merged into {1} already")]
    MergedElsewhere(DeviceId, DeviceId),
    #[error("there are {0} renewal windows already, the most that there can be; remove old ones")]
    RenewalWindows(i64),
}

/// A circle: from the first one back to it.
fn arrows(path: &[CollectionName]) -> String {
    let names = path.iter().chain(path.first());
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    names.join(" → ")
}

/// What the audit log keeps of a change.
pub(crate) struct Entry {
    pub action: &'static str,
    pub subject: String,
    pub payload: Value,
}

impl Kind {
    /// True when memberships may have to be worked out after it.
    pub(crate) fn concerns_memberships(&self) -> bool {
        matches!(
            self,
            Kind::Enroll { .. }
                | Kind::UseCertificate { .. }
                | Kind::ReportFacts { .. }
                | Kind::Transition { .. }
                | Kind::RevokeCertificate { .. }
                | Kind::DeleteDevice { .. }
                | Kind::CreateCollection { .. }
                | Kind::SetCollectionRules { .. }
                | Kind::DeleteCollection { .. }
        )
    }

    /// How many ordinary changes it is worth: a batch is bounded by the sum.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Kind::ReportResults(report) => {
                let results = report
                    .changes
                    .iter()
                    .map(|c| c.results.len() + c.gone.len());
                1 + results.sum::<usize>() / 20
            }
            _ => 1,
        }
    }

    /// The audit entry, given what the change did; none when it did nothing worth one.
    pub(crate) fn entry(&self, applied: &Applied) -> Option<Entry> {
        if *applied == Applied::Unchanged {
            return None;
        }
        let revoked = match applied {
            Applied::Revoked { certificates } => *certificates,
            _ => 0,
        };
        let (action, subject, payload) = match self {
            Kind::AddAccount(account) => (
                "account-added",
                account.name.clone(),
                json!({ "id": account.id, "common_name": account.common_name }),
            ),
            Kind::SetPassword { name, .. } => ("password-set", name.clone(), json!({})),
            Kind::RemoveAccount { name } => ("account-removed", name.clone(), json!({})),
            Kind::AddToken(token) => (
                "token-added",
                token.name.clone(),
                json!({ "role": token.role, "expires_at": token.expires_at }),
            ),
            Kind::Enroll {
                device,
                certificate,
            } => issued(
                "enrolled",
                applied,
                certificate,
                json!({
                    "owner": device.owner, "user_name": device.user_name,
                    "takes_place_of": device.predecessor,
                }),
            ),
            Kind::Renew {
                certificate,
                replaces,
                after_expiry: None,
            } => issued(
                "renewed",
                applied,
                certificate,
                json!({ "replaces": replaces }),
            ),
            Kind::Renew {
                certificate,
                replaces,
                after_expiry: Some(basis),
            } => issued(
                "renewed-after-expiry",
                applied,
                certificate,
                json!({ "replaces": replaces, "allowed_by": basis }),
            ),
            Kind::UseCertificate {
                serial,
                device,
                takes_place_of,
                ..
            } => (
                "certificate-used",
                device.to_string(),
                match takes_place_of {
                    None => json!({ "serial": serial }),
                    Some(before) => json!({ "serial": serial, "takes_place_of": before }),
                },
            ),
            Kind::AllowRenewal { device, until } => (
                "renewal-allowed",
                device.to_string(),
                json!({ "until": until }),
            ),
            Kind::RaiseAlert {
                alert,
                device,
                detail,
            } => (
                alert.word(),
                device.to_string(),
                json!({ "detail": detail }),
            ),
            Kind::RaiseSiteAlert { alert, detail } => {
                (alert.word(), String::new(), json!({ "detail": detail }))
            }
            Kind::CloseAlert { number } => ("alert-closed", number.to_string(), json!({})),
            Kind::ReportFacts { device, facts } => (
                "facts-changed",
                device.to_string(),
                json!({ "facts": facts }),
            ),
            Kind::Transition {
                device,
                transition,
                revoke,
            } => (
                match transition {
                    DeviceTransition::Block => "device-blocked",
                    DeviceTransition::Unblock => "device-unblocked",
                    DeviceTransition::Retire => "device-retired",
                    DeviceTransition::Supersede => "device-superseded",
                },
                device.to_string(),
                json!({ "reason": revoke, "certificates_revoked": revoked }),
            ),
            Kind::RevokeCertificate { serial, reason } => (
                "certificate-revoked",
                serial.to_string(),
                json!({ "reason": reason }),
            ),
            Kind::DeleteDevice { device } => (
                "device-deleted",
                device.to_string(),
                json!({ "certificates_revoked": revoked }),
            ),
            Kind::PublishCrl {
                number,
                this_update,
                next_update,
                ..
            } => (
                "crl-published",
                number.to_string(),
                json!({ "this_update": this_update, "next_update": next_update }),
            ),
            Kind::Noted(note) => (
                note.action,
                note.subject.clone(),
                json!({ "detail": note.detail }),
            ),
            Kind::CreateCollection { name, rules } => (
                "collection-created",
                name.to_string(),
                json!({ "rules": rules }),
            ),
            Kind::SetCollectionRules { name, rules } => (
                "collection-rules-set",
                name.to_string(),
                json!({ "rules": rules }),
            ),
            Kind::DeleteCollection { name } => ("collection-deleted", name.to_string(), json!({})),
            Kind::AddMembers {
                collection,
                devices,
            } => (
                "members-added",
                collection.to_string(),
                json!({ "devices": devices }),
            ),
            Kind::RemoveMembers {
                collection,
                devices,
            } => (
                "members-removed",
                collection.to_string(),
                json!({ "devices": devices }),
            ),
            Kind::SetRenewalWindow {
                scope,
                window,
                explanation_url,
            } => (
                "renewal-window-set",
                match applied {
                    Applied::Numbered(number) => number.to_string(),
                    _ => String::new(),
                },
                json!({
                    "scope": scope, "window": window, "explanation_url": explanation_url,
                }),
            ),
            Kind::RemoveRenewalWindow { number } => {
                ("renewal-window-removed", number.to_string(), json!({}))
            }
            // What follows from rules, devices and time is no decision of anybody.
            Kind::EvaluateDevices { .. }
            | Kind::EvaluateCollections { .. }
            | Kind::SweepMemberships => return None,
            Kind::MergeDevices { from, into } => (
                "device-merged",
                from.to_string(),
                json!({ "into": into, "certificates_revoked": revoked }),
            ),
            Kind::KeepBoth { a, b } => ("devices-kept-apart", a.to_string(), json!({ "other": b })),
            Kind::Object(change) => change.entry(applied),
            // Each device says it once after each change: its problem is an alert, with its own entry.
            Kind::ReportPolicy { .. } => return None,
            Kind::IssueCommand(new) => (
                "command-issued",
                new.device.to_string(),
                json!({
                    "command": new.id, "what": new.kind, "about": new.about,
                    "script": new.script.map(|digest| HEXLOWER.encode(&digest)),
                    "expires_at": new.expires_at,
                }),
            ),
            Kind::EndCommand { device, id, result } => (
                "command-ended",
                device.to_string(),
                json!({ "command": id, "done": result.done }),
            ),
            Kind::ExpireCommands { device } => ("commands-expired", device.to_string(), json!({})),
            Kind::NotePolicyKey { key, not_after } => (
                "policy-key-used",
                key.to_string(),
                json!({ "not_after": not_after }),
            ),
            Kind::RaiseEpoch => (
                "policy-epoch-raised",
                match applied {
                    Applied::Numbered(epoch) => epoch.to_string(),
                    _ => String::new(),
                },
                json!({}),
            ),
            Kind::ReportResults(_) | Kind::WorkOutDeployments => return None,
            Kind::EndExemptions => {
                let Applied::ExemptionsEnded(numbers) = applied else {
                    return None;
                };
                (
                    "exemptions-ended",
                    numbers.len().to_string(),
                    json!({ "exemptions": numbers }),
                )
            }
            Kind::JudgeCompliance {
                deployment, below, ..
            } => (
                AlertKind::ComplianceBelow.word(),
                deployment.to_string(),
                json!({ "detail": below }),
            ),
            Kind::PurgeDevices { deleted_until, .. } => {
                let Applied::Purged(purged) = applied else {
                    return None;
                };
                (
                    "devices-purged",
                    purged.devices.to_string(),
                    json!({
                        "deleted_until": deleted_until, "devices": purged.devices,
                        "certificates": purged.certificates, "entries_erased": purged.entries,
                    }),
                )
            }
        };
        Some(Entry {
            action,
            subject,
            payload,
        })
    }
}

fn issued(
    action: &'static str,
    applied: &Applied,
    certificate: &NewCertificate,
    mut payload: Value,
) -> (&'static str, String, Value) {
    let repeated = matches!(applied, Applied::Issued { repeated: true, .. });
    let recorded = match applied {
        Applied::Issued { certificate, .. } => certificate.serial,
        _ => certificate.serial,
    };
    payload["serial"] = json!(recorded);
    if repeated {
        return (
            "certificate-repeated",
            certificate.device.to_string(),
            payload,
        );
    }
    payload["subject"] = json!(certificate.subject);
    payload["not_after"] = json!(certificate.not_after);
    payload["key"] = json!(certificate.key.to_string());
    if let Some(differences) = &certificate.differences {
        payload["asked_for_but_not_given"] = differences.clone();
    }
    (action, certificate.device.to_string(), payload)
}

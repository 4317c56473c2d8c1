//! What devices are given to evaluate: their list of deployments, and the bodies on it, signed with the
//! site's policy key. Who gets which is worked out from memberships at the moment; nothing is written for
//! a device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use authority::PolicySigner;
use data_encoding::{BASE64, HEXLOWER};
use domain::{Action, AlertKind, DeviceId, Period, Timestamp};
use jiff::SignedDuration;
use protocol::{
    AssignedDeployment, BodyHash, POLICY_LIMIT, PayloadType, PolicyList, PolicyNotice,
    PolicyVersion, SignedDocument, signed_message,
};
use store::{Actor, Applied, DeployedBodies, Kind, Note, PolicyPlace};

use crate::{Administrator, DevicePrincipal, Error, Result, Site};

/// Bytes of a list, so that what a device reads (in base64, with its signature) is within its limit.
const LONGEST_LIST: usize = POLICY_LIMIT / 2;

/// Before the end of a policy certificate, an alert is open.
const SOON: Period = Period::from_days(180);
const BETWEEN_LOOKS: std::time::Duration = std::time::Duration::from_secs(3600);

/// Where the site's policy is, and whether this node signs it.
#[derive(Debug, Clone, Copy)]
pub struct PolicyView {
    pub version: PolicyVersion,
    /// The end of the policy certificate; none on a node that does not sign.
    pub certificate_not_after: Option<Timestamp>,
    pub list_lifetime: Period,
}

/// Deployments as devices get them, remembered until one of them changes. As many as there are
/// deployments at most, whatever sets of them devices have.
#[derive(Default)]
pub(crate) struct Assignments(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// Epoch and objects of the [`PolicyPlace`] at which they were read.
    at: (u64, i64),
    /// None: one that comes to nothing.
    deployments: HashMap<i64, Option<Arc<Assigned>>>,
}

struct Assigned {
    deployment: AssignedDeployment,
    digest: [u8; 32],
}

/// The lists that devices fetched lately from this node. Somebody may change the policy while a device
/// fetches the bodies of its list: that is nothing for the audit log.
#[derive(Default)]
pub(crate) struct RecentLists(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    lists: HashMap<DeviceId, (Timestamp, Assignment)>,
    /// Since when: older ones are gone.
    since: Timestamp,
}

/// How long a device may take for the bodies of a list.
const FETCHING: SignedDuration = SignedDuration::from_mins(10);

impl RecentLists {
    fn remember(&self, device: DeviceId, list: &Assignment, now: Timestamp) {
        let mut recent = self.0.lock().expect("no holder panics");
        // Now and then: when the policy changes, every device comes.
        if now.duration_since(recent.since).abs() >= FETCHING {
            let is_recent = |at: Timestamp| now.duration_since(at).abs() < FETCHING;
            recent.lists.retain(|_, (at, _)| is_recent(*at));
            recent.since = now;
        }
        recent.lists.insert(device, (now, list.clone()));
    }

    fn had(&self, device: DeviceId, hash: BodyHash, now: Timestamp) -> bool {
        let recent = self.0.lock().expect("no holder panics");
        recent
            .lists
            .get(&device)
            .is_some_and(|(at, list)| now.duration_since(*at).abs() < FETCHING && list.has(hash))
    }
}

/// All that one device is to evaluate.
#[derive(Clone)]
struct Assignment(Vec<Arc<Assigned>>);

impl Site {
    /// Which list a device should have: what its check-in's answer says.
    pub(crate) async fn policy_notice(&self, device: &DevicePrincipal) -> Result<PolicyNotice> {
        let assignment = self.assignment(device).await?;
        Ok(PolicyNotice {
            content: assignment.content(),
        })
    }

    /// The device's list, signed.
    ///
    /// # Errors
    /// When this node does not sign policy.
    pub async fn policy_list(&self, device: &DevicePrincipal) -> Result<SignedDocument> {
        let now = self.now();
        self.0.limits.count_list(device.device(), now)?;
        let signer = self.policy_signer().await?;
        let assignment = self.assignment(device).await?;
        let life = self.0.settings.policy_lifetime.duration();
        let list = PolicyList {
            device: device.device().smsid(),
            version: device.standing.place.version,
            issued_at: now,
            // A list that outlives the certificate that signed it could not be checked any more.
            expires_at: (now + life).min(signer.not_after()),
            content: assignment.content(),
            deployments: assignment.deployments(),
        };
        let payload = serde_json::to_vec(&list).expect("plain data");
        if payload.len() > LONGEST_LIST {
            return Err(Error::TooLarge(format!(
                "the policy of this device has {} bytes, and {LONGEST_LIST} are the most; deploy less to it",
                payload.len()
            )));
        }
        self.0
            .recent_lists
            .remember(device.device(), &assignment, now);
        metrics::counter!("site_policy_lists_total").increment(1);
        Ok(signed(&signer, PayloadType::List, &payload))
    }

    /// A body of the device's present list, signed.
    ///
    /// # Errors
    /// When it is not on the list, or this node does not sign policy.
    pub async fn policy_body(
        &self,
        device: &DevicePrincipal,
        hash: BodyHash,
    ) -> Result<SignedDocument> {
        let signer = self.policy_signer().await?;
        let assignment = self.assignment(device).await?;
        let body = match assignment.has(hash) {
            true => self.0.store.body(hash).await?,
            false => None,
        };
        let (id, now) = (device.device(), self.now());
        self.0.limits.count_body(id, assignment.bodies(), now)?;
        if body.is_none() && self.0.recent_lists.had(id, hash, now) {
            return Err(not_on_the_list(hash));
        }
        let Some(body) = body else {
            return Err(self.refuse_body(device, hash).await);
        };
        // What somebody changed in the records is not signed.
        if x509::sha256(&[&body]) != *hash.as_bytes() {
            tracing::error!(event = "policy-body-changed", %hash, "it is not given out");
            return Err(self.refuse_body(device, hash).await);
        }
        Ok(signed(&signer, PayloadType::Body, &body))
    }

    async fn refuse_body(&self, device: &DevicePrincipal, hash: BodyHash) -> Error {
        let id = device.device().to_string();
        let refused = not_on_the_list(hash);
        let reason = refused.to_string();
        let key = ("policy-body-refused", id.clone(), device.address);
        self.note(device.actor(), key, &reason, |detail| {
            Kind::Noted(Note {
                action: "policy-body-refused",
                subject: id,
                detail,
            })
        })
        .await;
        refused
    }

    /// # Errors
    /// When the role may not.
    pub async fn policy(&self, by: &Administrator) -> Result<PolicyView> {
        by.require(Action::ReadCompliance)?;
        let signer = match self.policy_key() {
            Ok(signer) => Some(signer),
            Err(Error::NoPolicyKey) => None,
            Err(other) => return Err(other),
        };
        Ok(PolicyView {
            version: self.0.store.policy().await?.version,
            certificate_not_after: signer.map(|signer| signer.not_after()),
            list_lifetime: self.0.settings.policy_lifetime,
        })
    }

    /// After the records were restored from a backup: devices saw lists with higher counters, and take
    /// new ones of a higher epoch.
    ///
    /// # Errors
    /// When the role may not.
    pub async fn raise_policy_epoch(&self, by: &Administrator) -> Result<PolicyVersion> {
        by.require(Action::ManagePolicy)?;
        match self.commit(by.actor(), Kind::RaiseEpoch).await? {
            Applied::Numbered(_) => Ok(self.0.store.policy().await?.version),
            other => unreachable!("an epoch is a number, not {other:?}"),
        }
    }

    /// The key that is in this node's folder.
    fn policy_key(&self) -> Result<Arc<PolicySigner>> {
        let signer = self.0.policy_key.current().map_err(|error| {
            tracing::error!(event = "policy-key-not-read", %error);
            Error::NoPolicyKey
        })?;
        signer.ok_or(Error::NoPolicyKey)
    }

    /// The key that signs policy. Nothing is signed with one that the audit log does not know.
    pub(crate) async fn policy_signer(&self) -> Result<Arc<PolicySigner>> {
        let signer = self.policy_key()?;
        let (key, from, not_after) = (signer.key(), signer.not_before(), signer.not_after());
        // By the clock that the site believes: clients learn the time from it.
        if !(from..not_after).contains(&self.now()) {
            tracing::error!(event = "policy-key-not-valid", %from, %not_after);
            return Err(Error::PolicyKeyNotValid {
                from,
                until: not_after,
            });
        }
        // Whoever comes meanwhile waits until it is noted.
        let mut noted = self.0.policy_key_noted.lock().await;
        if *noted != Some(key) {
            let kind = Kind::NotePolicyKey { key, not_after };
            if self.commit(Actor::site(), kind).await? == Applied::Done {
                tracing::info!(event = "policy-key-used", %key, %not_after);
            }
            *noted = Some(key);
        }
        Ok(signer)
    }

    /// Raises an alert while this node's policy certificate ends soon, or has ended.
    pub(crate) async fn watch_policy_key(&self) {
        loop {
            if let Err(error) = self.warn_of_policy_key().await {
                tracing::error!(event = "policy-key-not-watched", %error);
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// # Errors
    /// When the records cannot be reached.
    pub async fn warn_of_policy_key(&self) -> Result<()> {
        let Ok(signer) = self.policy_key() else {
            return Ok(());
        };
        let until = signer.not_after();
        if until - SOON.duration() > self.now() {
            return Ok(());
        }
        let kind = Kind::RaiseSiteAlert {
            alert: AlertKind::PolicyKeyEnds,
            detail: format!(
                "the policy certificate ends {until}, and nothing that it signed is good after; \
                 make a new key: perennial policy rotate-key"
            ),
        };
        self.commit(Actor::site(), kind).await.map(drop)
    }

    /// Signs a command.
    pub(crate) async fn sign_command(&self, command: &protocol::Command) -> Result<SignedDocument> {
        let payload = serde_json::to_vec(command).expect("plain data");
        let signer = self.policy_signer().await?;
        Ok(signed(&signer, PayloadType::Command, &payload))
    }

    async fn assignment(&self, device: &DevicePrincipal) -> Result<Assignment> {
        let numbers = &device.standing.deployments;
        if let Some(known) = self.0.assignments.of(device.standing.place, numbers) {
            return Ok(known);
        }
        let (place, found) = self.0.store.deployed_bodies(numbers).await?;
        let found: Vec<_> = found.into_iter().map(assigned).map(Arc::new).collect();
        self.0.assignments.remember(place, numbers, &found);
        Ok(Assignment(found))
    }
}

fn not_on_the_list(hash: BodyHash) -> Error {
    Error::NotFound(format!("the body {hash} is not on this device's list"))
}

fn signed(signer: &PolicySigner, payload_type: PayloadType, payload: &[u8]) -> SignedDocument {
    let signature = signer.sign(&signed_message(payload_type, payload));
    SignedDocument {
        payload_type,
        payload: BASE64.encode(payload),
        signature: BASE64.encode(&signature),
        chain: signer.chain().map(|der| BASE64.encode(der)).to_vec(),
    }
}

fn assigned(deployed: DeployedBodies) -> Assigned {
    let deployment = AssignedDeployment {
        number: deployed.number,
        baseline: deployed.deployment.baseline,
        items: deployed.bodies,
        remediate: deployed.deployment.remediate,
        schedule: deployed.deployment.schedule,
        spread: deployed.deployment.spread,
        remediation_window: deployed.deployment.remediation_window,
    };
    let written = serde_json::to_vec(&deployment).expect("plain data");
    let digest = x509::sha256(&[&written]);
    Assigned { deployment, digest }
}

impl Assignments {
    /// What is known of all of `numbers`; none when it is not known of one.
    fn of(&self, place: PolicyPlace, numbers: &[i64]) -> Option<Assignment> {
        let remembered = self.0.lock().expect("no holder panics");
        // What is newer than the question is fine: the device would be told of it next time.
        if remembered.at < key(place) {
            return numbers.is_empty().then(|| Assignment(Vec::new()));
        }
        let mut found = Vec::with_capacity(numbers.len());
        for number in numbers {
            found.extend(remembered.deployments.get(number)?.clone());
        }
        Some(Assignment(found))
    }

    /// Remembers `found`, which is all that `numbers` come to.
    fn remember(&self, place: PolicyPlace, numbers: &[i64], found: &[Arc<Assigned>]) {
        let mut remembered = self.0.lock().expect("no holder panics");
        if remembered.at > key(place) {
            return;
        }
        if remembered.at < key(place) {
            *remembered = Remembered {
                at: key(place),
                deployments: HashMap::new(),
            };
        }
        for number in numbers {
            let one = found
                .iter()
                .find(|assigned| assigned.deployment.number == *number);
            remembered.deployments.insert(*number, one.cloned());
        }
    }
}

fn key(place: PolicyPlace) -> (u64, i64) {
    (place.version.epoch, place.objects)
}

impl Assignment {
    /// Names what it holds.
    fn content(&self) -> String {
        let digests: Vec<&[u8]> = self.0.iter().map(|one| &one.digest[..]).collect();
        HEXLOWER.encode(&x509::sha256(&digests))
    }

    fn has(&self, hash: BodyHash) -> bool {
        self.0
            .iter()
            .any(|assigned| assigned.deployment.items.contains(&hash))
    }

    fn bodies(&self) -> usize {
        let items = self.0.iter().map(|one| one.deployment.items.len());
        items.sum()
    }

    fn deployments(&self) -> Vec<AssignedDeployment> {
        self.0
            .iter()
            .map(|assigned| assigned.deployment.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(epoch: u64, objects: i64) -> PolicyPlace {
        PolicyPlace {
            version: PolicyVersion {
                epoch,
                counter: 900,
            },
            objects,
        }
    }

    fn deployed(number: i64, body: u8) -> Arc<Assigned> {
        let text = r#"{"baseline": "b", "collection": "c"}"#;
        Arc::new(assigned(DeployedBodies {
            number,
            deployment: serde_json::from_str(text).expect("a deployment"),
            bodies: vec![BodyHash::new([body; 32])],
        }))
    }

    #[test]
    fn deployments_are_remembered_until_one_changes() {
        let assignments = Assignments::default();
        let content = |place, numbers: &[i64]| {
            assignments
                .of(place, numbers)
                .map(|assignment| assignment.content())
        };
        let nothing = content(place(1, 0), &[]);
        assert!(nothing.is_some());
        assert_eq!(content(place(1, 1), &[1]), None);
        // The third one comes to nothing.
        let found = [deployed(1, 1), deployed(2, 2)];
        assignments.remember(place(1, 1), &[1, 2, 3], &found);
        let both = content(place(1, 1), &[1, 2]);
        assert!(both.is_some() && both == content(place(1, 1), &[1, 2, 3]));
        let one = content(place(1, 1), &[1]);
        assert!(one.is_some() && one != both);
        assert_eq!(content(place(1, 1), &[3]), nothing);
        assert_eq!(content(place(1, 1), &[4]), None);
        // A membership changed, no object did.
        let mut later = place(1, 1);
        later.version.counter += 1;
        assert_eq!(content(later, &[1]), one);

        assert_eq!(content(place(1, 2), &[1]), None);
        assignments.remember(place(1, 2), &[1], &[deployed(1, 9)]);
        let changed = content(place(1, 2), &[1]);
        assert!(changed.is_some() && changed != one);
        // A slow reader of what was there before changes nothing.
        assignments.remember(place(1, 1), &[1], &[deployed(1, 1)]);
        assert_eq!(content(place(1, 2), &[1]), changed);
        // The records were restored, and the epoch raised.
        assert_eq!(content(place(2, 1), &[1]), None);
    }
}

//! The use cases of a site, one file for each sentence of the administrator's guide.
//! Authorization, transactions, jobs and events live here and nowhere else; the faces (`est`,
//! `management`, `api`, `console`) translate requests into these calls and answers into HTTP.

mod accounts;
mod administrator;
mod alerts;
mod audit;
mod baselines;
mod certificates;
mod check_in;
mod clock_guard;
mod collections;
mod commands;
mod compliance;
mod configuration_items;
mod crl;
mod deployments;
mod device;
mod devices;
mod enroll;
mod error;
mod exemptions;
mod identity;
mod leave;
mod limits;
mod memberships;
mod peer;
mod policy;
mod proof;
mod renew;
mod renew_expired;
mod renewal_windows;
mod results;
mod retention;
mod seen;
mod server_certificate;
mod settings;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use authority::{Authority, AuthorityError, PolicyKey};
use domain::{Clock, KeyDigest, Pin, Rng};
use store::{Actor, Applied, Change, Conflict, Kind, Store, Unavailable};
use tokio::sync::Notify;
use x509::PrivateKey;

pub use accounts::{AccountView, NewPassword};
pub use administrator::{Administrator, add_first_token, new_token_secret};
pub use authority::ServerKey;
pub use baselines::BaselineView;
pub use clock_guard::{ClockStep, GuardedClock};
pub use collections::{MOST_MEMBERS_AT_ONCE, MembersChanged};
pub use commands::CommandView;
pub use configuration_items::{ItemDifference, MOST_ITEM_BYTES};
pub use deployments::DeploymentView;
pub use device::DevicePrincipal;
pub use enroll::{Credentials, IssuedCertificate, Record};
pub use error::Error;
pub use peer::Peer;
pub use policy::PolicyView;
pub use renewal_windows::NewRenewalWindow;
pub use settings::{EnrollmentProfile, Settings};
pub use store::{
    Alert, AlertFilter, AuditEvent, AuditProof, Baseline, BaselineSummary, Certificate,
    CertificateFilter, ClaimedDevice, Collection, CollectionPreview, Crl, DeployedDevice,
    DeployedDevices, DeploymentFilter, DeploymentRecord, DeploymentSummary, Device, DeviceConflict,
    DeviceDeployment, DeviceFilter, DeviceRule, Exemption, ExemptionFilter, FlappingRule, Item,
    ItemRevision, NewExemption, Page, RenewalOrder, RenewalProgress, RevisionSummary, RuleInterval,
    RuleSummary,
};

pub type Result<T> = std::result::Result<T, Error>;

/// A site at work. Cheap to clone.
#[derive(Clone)]
pub struct Site(Arc<Inner>);

struct Inner {
    store: Store,
    authority: Authority,
    policy_key: PolicyKey,
    /// The policy key that the audit log is known to have.
    policy_key_noted: tokio::sync::Mutex<Option<KeyDigest>>,
    assignments: policy::Assignments,
    recent_lists: policy::RecentLists,
    audit_key: PrivateKey,
    nonce_key: [u8; 32],
    settings: Settings,
    clock: GuardedClock,
    rng: Arc<dyn Rng>,
    passwords: directory::PasswordHasher,
    limits: limits::Limits,
    seen: seen::Seen,
    evaluated: seen::Seen,
    revoked: Notify,
}

/// Why a site does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    File(#[from] authority::FileError),
    #[error("{0} does not hold a private key in PEM")]
    Key(String),
    #[error(transparent)]
    Store(#[from] Unavailable),
}

impl Site {
    /// Opens the site whose keys are in `keys` and whose records are in `store`.
    ///
    /// # Errors
    /// When a key is missing, exposed or wrong, or the records belong to another site.
    pub async fn open(
        keys: &Path,
        store: Store,
        settings: Settings,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> std::result::Result<Self, OpenError> {
        let authority = Authority::open(keys, settings.crl_url.clone())?;
        let policy_key = PolicyKey::open(keys)?;
        let audit_key = open_audit_key(keys)?;
        store.bind_site(authority.pin()).await?;
        let clock = GuardedClock::new(clock, store.moment().await?);
        Ok(Self(Arc::new(Inner {
            store,
            authority,
            policy_key,
            policy_key_noted: tokio::sync::Mutex::default(),
            recent_lists: policy::RecentLists::default(),
            assignments: policy::Assignments::default(),
            nonce_key: proof::nonce_key(&audit_key),
            audit_key,
            settings,
            passwords: directory::PasswordHasher::new(rng.clone()),
            clock,
            rng,
            limits: limits::Limits::default(),
            seen: seen::Seen::default(),
            evaluated: seen::Seen::default(),
            revoked: Notify::new(),
        })))
    }

    /// What clients pin.
    pub fn pin(&self) -> Pin {
        self.0.authority.pin()
    }

    pub fn name(&self) -> &str {
        &self.0.settings.name
    }

    /// The certificates (DER) that clients are given as trust anchors: issuing CA, root.
    pub fn ca_certificates(&self) -> [&[u8]; 2] {
        [
            self.0.authority.issuing().der(),
            self.0.authority.root().der(),
        ]
    }

    /// True when the records can be read.
    pub async fn is_ready(&self) -> bool {
        self.0.store.ping().await.is_ok()
    }

    /// Runs the site's jobs until `stop` is done, then writes what was kept in memory.
    pub async fn run_jobs(&self, stop: impl Future<Output = ()>) {
        let jobs = async {
            tokio::join!(
                self.publish_crls(),
                self.flush_seen(),
                self.write_checkpoints(),
                self.keep_moment(),
                self.watch_clock(),
                self.watch_policy_key(),
                self.purge_deleted(),
                self.keep_memberships(),
                self.flush_evaluated(),
                self.work_out_deployments(),
                self.watch_compliance()
            )
        };
        tokio::select! {
            _ = jobs => {}
            () = stop => {}
        }
        if let Err(error) = self.close().await {
            tracing::error!(event = "close-failed", %error, "some devices' last-seen times are lost");
        }
    }

    async fn close(&self) -> std::result::Result<(), Unavailable> {
        self.write_seen().await?;
        self.write_evaluated().await?;
        self.note_moment().await?;
        self.write_checkpoint().await
    }

    /// The site's time: what its TLS listeners go by, too.
    pub fn clock(&self) -> GuardedClock {
        self.0.clock.clone()
    }

    fn now(&self) -> domain::Timestamp {
        self.0.clock.now()
    }

    async fn commit(&self, by: Actor, kind: Kind) -> Result<Applied> {
        let change = Change {
            at: self.now(),
            by,
            kind,
        };
        Ok(self.0.store.commit_one(change).await??)
    }

    /// Puts a refusal into the audit log. Refusing must not depend on the log: a failure is only
    /// reported.
    ///
    /// The same refusal from the same address is noted once a minute, and `reason` then tells how
    /// many were not: strangers do not write our log.
    async fn note(
        &self,
        by: Actor,
        key: limits::NoteKey,
        reason: &str,
        entry: impl FnOnce(String) -> Kind,
    ) {
        let (action, subject) = (key.0, key.1.clone());
        metrics::counter!("site_refusals_total", "action" => action).increment(1);
        let detail = match self.0.limits.worth_noting(key, self.now()) {
            None => return,
            Some(0) => reason.to_owned(),
            Some(unnoted) => {
                format!("{reason} (and {unnoted} times more since the last entry)")
            }
        };
        tracing::warn!(event = action, subject);
        if let Err(error) = self.commit(by, entry(detail)).await {
            tracing::error!(event = "audit-failed", %error);
        }
    }
}

/// Makes the keys of a new site in `keys`: root, issuing CA, policy, audit.
///
/// # Errors
/// When a file cannot be written, or is there already.
pub fn create_keys(
    keys: &Path,
    name: &str,
    clock: &dyn Clock,
    rng: &dyn Rng,
) -> std::result::Result<(), OpenError> {
    Authority::create(keys, name, clock, rng)?;
    authority::write_secret(
        &keys.join(AUDIT_KEY),
        PrivateKey::generate().to_pem().as_bytes(),
    )?;
    Ok(())
}

const AUDIT_KEY: &str = "audit.key";

fn open_audit_key(keys: &Path) -> std::result::Result<PrivateKey, OpenError> {
    let file = keys.join(AUDIT_KEY);
    let pem = authority::read_secret(&file)?;
    std::str::from_utf8(&pem)
        .ok()
        .and_then(|pem| PrivateKey::from_pem(pem).ok())
        .ok_or_else(|| OpenError::Key(file.display().to_string()))
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::NotFound(_) => Error::NotFound(conflict.to_string()),
            Conflict::DeviceNotActive(_) | Conflict::OtherOwner | Conflict::Replaced => {
                Error::Forbidden(conflict.to_string())
            }
            Conflict::Exists(_)
            | Conflict::KeySpent
            | Conflict::Changed
            | Conflict::Transition(_)
            | Conflict::MergeInto(_)
            | Conflict::MergedElsewhere(..)
            | Conflict::UsedByRenewalWindow(_)
            | Conflict::UsedByCollection(_)
            | Conflict::BuiltIn(_)
            | Conflict::CollectionCircle(_)
            | Conflict::ComplianceCircle { .. }
            | Conflict::ExemptByCompliance(..)
            | Conflict::RenewalWindows(_)
            | Conflict::UsedByBaseline(..)
            | Conflict::UsedByDeployment(..)
            | Conflict::UsedByExemption(_)
            | Conflict::NestingCycle(_)
            | Conflict::DeploymentTooLarge(..)
            | Conflict::RevisedTooMuch(_)
            | Conflict::TooMany(..)
            | Conflict::CrlNumber => Error::Conflict(conflict.to_string()),
        }
    }
}

/// Where a request came from, for limits and the audit log.
pub type Address = IpAddr;

//! What the site remembers: writes as data ([`Change`]), reads as queries, on SQLite or PostgreSQL.
//! The only crate with SQL.
//!
//! [`Store::commit`] is the only way to write. Whatever is waiting while a transaction runs goes
//! into the next one together (group commit), each change with its audit entry, so that the disk's
//! flush rate is not the rate of the site.

#![expect(
    clippy::duplicate_mod,
    reason = "the statements are written once and compiled for each database"
)]

mod audit;
mod change;
mod compliance;
mod model;
mod notable;
mod postgres;
mod read_results;
mod results;
mod sqlite;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use domain::{
    AlertKind, CollectionName, DeviceId, Filter, HardwareUuid, KeyDigest, Pin, Rng, SerialNumber,
    Timestamp, TokenDigest,
};

pub use audit::{AuditProof, ChainFault, Head, checkpoint_message};
pub use change::{
    Actor, Applied, Change, Conflict, Evaluated, Kind, NewAccount, NewCertificate, NewDevice,
    NewToken, Note, PURGED_AT_ONCE, Purged, WorkedOut,
};
pub use compliance::{
    Baseline, BaselineSummary, Command, DeployedBodies, DeploymentRecord, Exemption,
    ExemptionFilter, Item, ItemRevision, MOST_BASELINES, MOST_DEPLOYED_ITEMS, MOST_DEPLOYED_RULES,
    MOST_DEPLOYMENTS, MOST_EXEMPTIONS, MOST_ITEMS, MOST_REVISED_BYTES, MOST_WAITING_COMMANDS,
    NewCommand, NewExemption, ObjectChange, OpenCommand, PolicyPlace, ReadCompliance,
    RevisionSummary,
};
pub use model::{
    Account, Alert, AlertFilter, AuditEvent, Certificate, CertificateFilter, Checkpoint,
    ClaimedDevice, Collection, CollectionPreview, Crl, Device, DeviceConflict, DeviceFilter,
    MembershipWork, OrderedWindow, Page, RenewalOrder, RenewalProgress, Revocation, Segment,
    Standing, Token, Usage,
};
pub use read_results::{
    ComplianceAlertDue, DeployedDevice, DeployedDevices, DeploymentFilter, DeploymentSummary,
    DeviceDeployment, DeviceRule, FlappingRule, ForgetResults, HistoryFilter, ReadResults,
    RuleExemption, RuleInterval, RuleSummary, SampleDeployment, SampleResults,
};
pub use results::{Finding, NewResult, NewResults, RecordedResults, ResultsChange};

/// Where the records live.
#[derive(Debug, Clone)]
pub enum Location {
    /// A file. One process at a time writes it.
    Sqlite(PathBuf),
    /// A `postgres://` URL. Any number of nodes.
    Postgres(String),
}

/// The database cannot be used. What was acknowledged before is safe; nothing of the failed
/// request was recorded, or, when the connection broke during the commit, asking again finds it.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("the database failed: {0}")]
    Database(sqlx::Error),
    #[error(
        "the database was made by a newer version of this program (schema {0}); upgrade this node"
    )]
    NewerSchema(i64),
    #[error("the database's schema cannot be brought up to date: {0}")]
    Migration(String),
    #[error("the database belongs to another site: its root is {theirs}, ours is {ours}")]
    OtherSite { theirs: String, ours: Pin },
    #[error("the database holds a value that this program cannot read: {0}")]
    Corrupt(String),
    #[error("a page does not begin at {0}")]
    Cursor(String),
    #[error("the store is stopping")]
    Stopping,
}

/// The cause is in the text already, so it is not a source too.
impl From<sqlx::Error> for Unavailable {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The records of a site. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    reads: Arc<dyn Reads>,
    writer: writer::Writer,
}

impl Store {
    /// Opens the records, brings the schema up to date, and starts the writer.
    ///
    /// # Errors
    /// When the database cannot be reached, or is newer than this program.
    pub async fn open(
        location: &Location,
        node: &str,
        rng: Arc<dyn Rng>,
    ) -> Result<Self, Unavailable> {
        let (reads, backend): (Arc<dyn Reads>, Arc<dyn writer::Backend>) = match location {
            Location::Sqlite(file) => {
                let database = Arc::new(sqlite::Database::open(file).await?);
                (database.clone(), database)
            }
            Location::Postgres(url) => {
                let database = Arc::new(postgres::Database::open(url, node).await?);
                (database.clone(), database)
            }
        };
        Ok(Self {
            reads,
            writer: writer::Writer::start(backend, node.to_owned(), rng),
        })
    }

    /// Applies `changes` in their order, durably. Each has its own outcome: a conflict of one never
    /// undoes its neighbours.
    ///
    /// # Errors
    /// When the database failed: then none of them was acknowledged.
    pub async fn commit(
        &self,
        changes: Vec<Change>,
    ) -> Result<Vec<Result<Applied, Conflict>>, Unavailable> {
        self.writer.commit(changes).await
    }

    /// [`Self::commit`] for a single change.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn commit_one(
        &self,
        change: Change,
    ) -> Result<Result<Applied, Conflict>, Unavailable> {
        let mut outcomes = self.commit(vec![change]).await?;
        outcomes.pop().ok_or(Unavailable::Stopping)
    }

    /// Notes when devices were last seen: narrow, without an audit entry, a later time wins.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn record_seen(&self, seen: &[(DeviceId, Timestamp)]) -> Result<(), Unavailable> {
        self.reads.record_seen(seen).await?;
        self.writer.memberships.notify_one();
        Ok(())
    }

    /// Waits until this node wrote something after which memberships may have to be worked out.
    pub async fn memberships_concerned(&self) {
        self.writer.memberships.notified().await;
    }

    /// True while somebody's changes wait: then a job rests longer.
    pub fn is_busy(&self) -> bool {
        self.writer.waiting() > 0
    }

    /// Notes when devices evaluated last, of those that reported: narrow, as last-seen times are.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn record_evaluated(
        &self,
        evaluated: &[(DeviceId, Timestamp)],
    ) -> Result<(), Unavailable> {
        self.reads.record_evaluated(evaluated).await
    }

    /// Stores a signed checkpoint over all audit chains.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn record_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), Unavailable> {
        self.reads.record_checkpoint(checkpoint).await
    }

    /// Ends all connections. SQLite then moves what is in its log into the one file of the records.
    /// Without this nothing is lost: the log is read when the records are opened.
    pub async fn close(&self) {
        self.reads.close().await;
    }

    /// Checks every audit chain from its beginning, and each checkpoint that `signature_holds`
    /// (message, signature) accepts against the chains. Reads in chunks.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn verify_audit(
        &self,
        signature_holds: &(dyn Fn(&[u8], &[u8]) -> bool + Send + Sync),
    ) -> Result<AuditProof, Unavailable> {
        audit::verify(&*self.reads, signature_holds).await
    }
}

impl std::ops::Deref for Store {
    type Target = dyn Reads;

    fn deref(&self) -> &Self::Target {
        &*self.reads
    }
}

/// The queries of a site. Lists are in pages by keyset: a page costs the same at any depth.
#[async_trait]
pub trait Reads:
    ReadCollections
    + ReadCompliance
    + ReadIdentities
    + ReadRenewalOrders
    + ReadResults
    + ForgetResults
    + Send
    + Sync
    + 'static
{
    /// Binds the database to a site the first time, and refuses another site's later.
    async fn bind_site(&self, pin: Pin) -> Result<(), Unavailable>;
    /// The latest moment that a node noted with [`Reads::record_moment`].
    async fn moment(&self) -> Result<Timestamp, Unavailable>;
    /// Notes that it is `now`; sets it back, too, when an administrator accepted an earlier time.
    async fn record_moment(&self, now: Timestamp, accepted: bool) -> Result<(), Unavailable>;
    /// One cheap query: is the database there?
    async fn ping(&self) -> Result<(), Unavailable>;

    async fn account(&self, name: &str) -> Result<Option<Account>, Unavailable>;
    async fn accounts(&self, after: Option<&str>, limit: u32)
    -> Result<Page<Account>, Unavailable>;
    async fn token(&self, digest: &TokenDigest) -> Result<Option<Token>, Unavailable>;

    /// What decides at each request of a device: one indexed read.
    async fn standing(&self, serial: SerialNumber) -> Result<Option<Standing>, Unavailable>;
    async fn device(&self, device: DeviceId) -> Result<Option<Device>, Unavailable>;
    async fn devices(&self, filter: &DeviceFilter) -> Result<Page<Device>, Unavailable>;
    async fn certificate(&self, serial: SerialNumber) -> Result<Option<Certificate>, Unavailable>;
    async fn certificate_of_key(
        &self,
        device: DeviceId,
        key: KeyDigest,
    ) -> Result<Option<Certificate>, Unavailable>;
    async fn certificates(
        &self,
        filter: &CertificateFilter,
    ) -> Result<Page<Certificate>, Unavailable>;
    /// Alerts, newest first.
    async fn has_open_alert(&self, kind: AlertKind, device: DeviceId) -> Result<bool, Unavailable>;
    async fn alerts(&self, filter: &AlertFilter) -> Result<Page<Alert>, Unavailable>;
    /// How much an account has used of its limits.
    async fn usage(
        &self,
        owner: &str,
        now: Timestamp,
        since: Timestamp,
    ) -> Result<Usage, Unavailable>;

    /// Revoked certificates that belong on a list made at `now`: entries stay until one list after
    /// expiry, so `expired_after` lies a list's life before `now`.
    async fn revocations(&self, expired_after: Timestamp) -> Result<Vec<Revocation>, Unavailable>;
    /// How many certificates were revoked, ever. Read before [`Self::revocations`], it tells later
    /// whether the list knows all of them; times would not, clocks differ.
    async fn revocation_count(&self) -> Result<i64, Unavailable>;
    async fn crl(&self) -> Result<Option<Crl>, Unavailable>;

    /// Audit events, newest first.
    async fn audit_events(
        &self,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Page<AuditEvent>, Unavailable>;
    async fn segments(&self) -> Result<Vec<Segment>, Unavailable>;
    /// Events of one segment in order, from `number` on.
    async fn segment_events(
        &self,
        segment: &[u8; 16],
        number: i64,
        limit: u32,
    ) -> Result<Vec<AuditEvent>, Unavailable>;
    async fn checkpoints(&self, after: i64, limit: u32) -> Result<Vec<Checkpoint>, Unavailable>;
    /// The last event of each segment.
    async fn heads(&self) -> Result<Vec<Head>, Unavailable>;
    #[doc(hidden)]
    async fn record_seen(&self, seen: &[(DeviceId, Timestamp)]) -> Result<(), Unavailable>;
    #[doc(hidden)]
    async fn record_evaluated(
        &self,
        evaluated: &[(DeviceId, Timestamp)],
    ) -> Result<(), Unavailable>;
    #[doc(hidden)]
    async fn record_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), Unavailable>;
    #[doc(hidden)]
    async fn close(&self);
}

/// The queries about collections: a part of [`Reads`].
#[async_trait]
pub trait ReadCollections {
    async fn collection(&self, name: &CollectionName) -> Result<Option<Collection>, Unavailable>;
    /// Collections by name.
    async fn collections(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Collection>, Unavailable>;
    /// Members in the order of their identifiers; none of a collection that is not there.
    async fn members(
        &self,
        collection: &CollectionName,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Page<Device>, Unavailable>;
    /// Whom a filter means among the members of a collection: looks at every device. None when there
    /// is no such collection.
    async fn preview(
        &self,
        filter: &Filter,
        limited_to: &CollectionName,
        at: Timestamp,
        limit: u32,
    ) -> Result<Option<CollectionPreview>, Unavailable>;
    /// Whether the members of a collection say what is deployed to whom, or exempt from it: by
    /// themselves, or through collections that depend on this one.
    async fn collection_aims(&self, name: &CollectionName) -> Result<bool, Unavailable>;
    /// The same, of the collections in which somebody named this device.
    async fn named_device_aims(&self, device: DeviceId) -> Result<bool, Unavailable>;
    /// What there is to do about memberships.
    async fn membership_work(&self) -> Result<MembershipWork, Unavailable>;
}

/// The queries about administrators' orders to renew: a part of [`Reads`].
#[async_trait]
pub trait ReadRenewalOrders {
    async fn renewal_order(&self, number: i64) -> Result<Option<RenewalOrder>, Unavailable>;
    /// Orders, newest first.
    async fn renewal_orders(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<RenewalOrder>, Unavailable>;
    /// Looks at every device of the order's scope: for a person who asks, not for every request.
    async fn renewal_progress(&self, order: &RenewalOrder) -> Result<RenewalProgress, Unavailable>;
}

/// The queries about records that may be one computer, or were: a part of [`Reads`].
#[async_trait]
pub trait ReadIdentities {
    /// Active devices that claim the same hardware, each with the nearest older one, by hardware.
    async fn device_conflicts(
        &self,
        excluded: &[HardwareUuid],
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeviceConflict>, Unavailable>;
    /// The records that a device replaced, and those that they replaced, by identifier.
    async fn earlier_records(
        &self,
        of: DeviceId,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Page<Device>, Unavailable>;
    /// Audit events about a device or about one of its certificates, newest first.
    async fn device_events(
        &self,
        of: DeviceId,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Page<AuditEvent>, Unavailable>;
}

//! Group commit: one transaction at a time; whatever queued up while it ran is the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::{Rng, Timestamp};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::Unavailable;
use crate::audit;
use crate::change::{Applied, Change, Conflict};
use crate::model::{AuditEvent, Segment};

type Outcomes = Vec<Result<Applied, Conflict>>;

/// What a database must be able to do for the writer.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// In one durable transaction: applies `changes` in their order, then appends what `record`
    /// makes of their outcomes.
    async fn transact(
        &self,
        changes: &[Change],
        record: &mut (dyn for<'a> FnMut(&'a Outcomes) -> Recorded + Send),
    ) -> Result<Outcomes, Unavailable>;
}

/// Audit records of one transaction.
pub(crate) struct Recorded {
    /// A segment that begins with this transaction.
    pub segment: Option<Segment>,
    pub events: Vec<AuditEvent>,
}

struct Request {
    changes: Vec<Change>,
    reply: oneshot::Sender<Result<Outcomes, Unavailable>>,
}

impl Request {
    fn weight(&self) -> usize {
        self.changes.iter().map(|change| change.kind.weight()).sum()
    }
}

/// Changes of one transaction at most, by their weight: bounds the time that one of them waits for its neighbours.
const BATCH: usize = 512;
/// Requests that may wait; beyond it callers wait to queue.
const QUEUE: usize = 4_096;

#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Request>,
    /// Something was written after which memberships may have to be worked out.
    pub(crate) memberships: Arc<Notify>,
    /// Requests that have no answer yet.
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    /// Starts the writer's task. It ends when the last handle is dropped.
    pub(crate) fn start(backend: Arc<dyn Backend>, node: String, rng: Arc<dyn Rng>) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        let memberships = Arc::new(Notify::new());
        let chain = Chain::new(node, rng);
        tokio::spawn(run(backend, requests, chain, memberships.clone()));
        Self {
            queue,
            memberships,
            waiting: Arc::default(),
        }
    }

    /// How many callers wait for their changes just now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<Outcomes, Unavailable> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        let request = Request { changes, reply };
        let _waiting = Waiting::new(&self.waiting);
        self.queue
            .send(request)
            .await
            .map_err(|_| Unavailable::Stopping)?;
        answer.await.map_err(|_| Unavailable::Stopping)?
    }
}

/// Counts one who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn run(
    backend: Arc<dyn Backend>,
    mut requests: mpsc::Receiver<Request>,
    mut chain: Chain,
    memberships: Arc<Notify>,
) {
    while let Some(first) = requests.recv().await {
        let mut count = first.changes.len();
        let mut weight = first.weight();
        let mut batch = vec![first];
        while weight < BATCH {
            let Ok(next) = requests.try_recv() else { break };
            count += next.changes.len();
            weight += next.weight();
            batch.push(next);
        }
        let mut changes = Vec::with_capacity(count);
        let mut replies = Vec::with_capacity(batch.len());
        for request in batch {
            replies.push((request.changes.len(), request.reply));
            changes.extend(request.changes);
        }
        match write(&*backend, &changes, &mut chain).await {
            Ok(outcomes) => {
                metrics::counter!("store_commits_total").increment(1);
                metrics::counter!("store_changes_total").increment(count as u64);
                if changes
                    .iter()
                    .any(|change| change.kind.concerns_memberships())
                {
                    memberships.notify_one();
                }
                let mut outcomes = outcomes.into_iter();
                for (count, reply) in replies {
                    // A caller that went away has lost only its answer.
                    let _ = reply.send(Ok(outcomes.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                tracing::error!(event = "commit-failed", %error, changes = count);
                metrics::counter!("store_commit_failures_total").increment(1);
                for (_, reply) in replies {
                    let _ = reply.send(Err(Unavailable::Database(sqlx::Error::Protocol(
                        error.to_string(),
                    ))));
                }
            }
        }
    }
}

/// Writes a batch. A transaction that another node made impossible (deadlock, serialization) was
/// rolled back whole, so it is tried again.
async fn write(
    backend: &dyn Backend,
    changes: &[Change],
    chain: &mut Chain,
) -> Result<Outcomes, Unavailable> {
    let mut attempt = 0;
    loop {
        let mut next = chain.clone();
        let outcome = backend
            .transact(changes, &mut |outcomes| next.record(changes, outcomes))
            .await;
        match outcome {
            Ok(outcomes) => {
                *chain = next;
                return Ok(outcomes);
            }
            Err(error) => {
                // Whether the transaction was committed may be unknown: the next one begins a chain
                // of its own.
                chain.segment = None;
                attempt += 1;
                if attempt == 3 || !is_transient(&error) {
                    return Err(error);
                }
                // Two nodes that met do not meet again at once.
                tokio::time::sleep(chain.pause()).await;
            }
        }
    }
}

fn is_transient(error: &Unavailable) -> bool {
    let Unavailable::Database(sqlx::Error::Database(error)) = error else {
        return false;
    };
    // PostgreSQL: serialization_failure, deadlock_detected, lock_not_available.
    matches!(error.code().as_deref(), Some("40001" | "40P01" | "55P03"))
}

/// The end of this writer's chain.
#[derive(Clone)]
struct Chain {
    node: String,
    rng: Arc<dyn Rng>,
    segment: Option<Segment>,
    number: i64,
    hash: [u8; 32],
}

impl Chain {
    fn new(node: String, rng: Arc<dyn Rng>) -> Self {
        Self {
            node,
            rng,
            segment: None,
            number: 0,
            hash: [0; 32],
        }
    }

    fn pause(&self) -> Duration {
        let mut byte = [0];
        self.rng.fill(&mut byte);
        Duration::from_millis(5 + u64::from(byte[0]) / 4)
    }

    fn record(&mut self, changes: &[Change], outcomes: &Outcomes) -> Recorded {
        let mut recorded = Recorded {
            segment: None,
            events: Vec::new(),
        };
        for (change, outcome) in changes.iter().zip(outcomes) {
            let Ok(applied) = outcome else { continue };
            let Some(entry) = change.kind.entry(applied) else {
                continue;
            };
            let segment = match &self.segment {
                Some(segment) => segment.id,
                None => {
                    let segment = self.begin(change.at);
                    let id = segment.id;
                    recorded.segment = Some(segment);
                    id
                }
            };
            self.number += 1;
            let payload = entry.payload.to_string();
            let mut event = AuditEvent {
                segment,
                number: self.number,
                at: millisecond(change.at),
                actor: change.by.who().to_owned(),
                address: change.by.address().to_owned(),
                action: entry.action.to_owned(),
                subject: entry.subject,
                payload_digest: audit::payload_digest(&payload),
                payload: Some(entry.payload),
                hash: [0; 32],
            };
            event.hash = audit::event_hash(&self.hash, &event);
            self.hash = event.hash;
            recorded.events.push(event);
        }
        recorded
    }

    fn begin(&mut self, at: Timestamp) -> Segment {
        let mut id = [0; 16];
        self.rng.fill(&mut id);
        let segment = Segment {
            id,
            node: self.node.clone(),
            started_at: millisecond(at),
        };
        self.hash = audit::genesis(&segment);
        self.number = 0;
        self.segment = Some(segment.clone());
        segment
    }
}

/// As the databases store it.
fn millisecond(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).expect("a moment, rounded")
}

/// Brings a schema up to date.
pub(crate) async fn migrate<'a, A>(
    migrations: &sqlx::migrate::Migrator,
    database: A,
) -> Result<(), Unavailable>
where
    A: sqlx::Acquire<'a>,
    <A::Connection as std::ops::Deref>::Target: sqlx::migrate::Migrate,
{
    migrations.run(database).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::VersionMissing(version) => Unavailable::NewerSchema(version),
        other => Unavailable::Migration(other.to_string()),
    })
}

//! SQLite: one file, one writing connection, readers beside it (WAL).

use std::path::Path;
use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};

use crate::Unavailable;

// The statements are written once, for both databases; what differs is named in this module.
#[path = "../sql/collections.rs"]
mod collections;
#[path = "../sql/commands.rs"]
mod commands;
#[path = "../sql/compliance.rs"]
mod compliance;
#[path = "../sql/compliance_reads.rs"]
mod compliance_reads;
#[path = "../sql/compliance_retention.rs"]
mod compliance_retention;
#[path = "../sql/deployment_states.rs"]
mod deployment_states;
#[path = "../sql/filters.rs"]
mod filters;
#[path = "../sql/identity.rs"]
mod identity;
#[path = "../sql/memberships.rs"]
mod memberships;
#[cfg(test)]
mod plans;
#[path = "../sql/reads.rs"]
mod reads;
#[path = "../sql/renewal_orders.rs"]
mod renewal_orders;
#[path = "../sql/result_reads.rs"]
mod result_reads;
#[path = "../sql/results.rs"]
mod results;
#[path = "../sql/writes.rs"]
mod writes;

type Db = sqlx::Sqlite;
type DbPool = SqlitePool;
type DbConnection = SqliteConnection;
type DbRow = SqliteRow;

/// Takes the write lock at once, so that a transaction never fails half-way for want of it.
const BEGIN: &str = "BEGIN IMMEDIATE";
/// Several reads of what is there at one moment.
const READ_ONE_MOMENT: &str = "BEGIN";
/// The one writer needs no row locks.
const LOCK_DEVICE_ROWS: &str = "";
const LOCK_ROW: &str = "";
const SHARE_ROW: &str = "";
const LOCK_ROW_UNLESS_TAKEN: &str = "";
/// There is one node, and nobody to wait for.
const NODE: &str = "''";
const SHARE_KEY: &str = "";
const SHARE_DEFINITIONS: &str = "";
const CHANGE_DEFINITIONS: &str = "";
const BYTES: &str = "BLOB";
/// The text of a certificate's serial number.
const SERIAL_TEXT: &str = "lower(hex(c.serial))";
/// Numbers of deployments `p` with commas between them.
const DEPLOYMENT_NUMBERS: &str = "group_concat(p.number)";

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/sqlite/migrations");

pub(crate) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    checkpoints: SqlitePool,
    _emptying: AbortOnDrop,
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Database {
    pub(crate) async fn open(file: &Path) -> Result<Self, Unavailable> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged write survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // 64 MiB of log between two checkpoints: a page that changes often is copied once.
            .pragma("wal_autocheckpoint", "16000")
            .pragma("temp_store", "memory")
            .busy_timeout(Duration::from_secs(10))
            .statement_cache_capacity(256);
        let writer = options_of_pool()
            .max_connections(1)
            .connect_with(options.clone().pragma("cache_size", WRITER_CACHE))
            .await?;
        crate::writer::migrate(&MIGRATIONS, &writer).await?;
        collections::keep_built_ins(&writer).await?;
        let readers = options_of_pool()
            .max_connections(4)
            .connect_with(
                options
                    .clone()
                    .pragma("query_only", "1")
                    .pragma("cache_size", READER_CACHE),
            )
            .await?;
        let checkpoints = options_of_pool()
            .max_connections(1)
            .connect_with(options)
            .await?;
        let emptying = tokio::spawn(empty_the_log(checkpoints.clone()));
        Ok(Self {
            writer,
            readers,
            checkpoints,
            _emptying: AbortOnDrop(emptying.abort_handle()),
        })
    }

    async fn close_beside(&self) {
        self.checkpoints.close().await;
    }
}

/// Kibibytes of pages that a connection keeps, negative as SQLite wants it.
const WRITER_CACHE: &str = "-16384";
const READER_CACHE: &str = "-4096";
/// Pages of the log that are copied beside the writer, so that a commit which empties the log has few
/// of them left to copy.
const LOGGED_PAGES: i64 = 4_000;
/// How often the log is looked at.
const LOOK_AT_LOG: Duration = Duration::from_millis(500);

/// Copies pages from the log into the database while the writer goes on, until the pool is closed.
async fn empty_the_log(checkpoints: SqlitePool) {
    loop {
        tokio::select! {
            () = checkpoints.close_event() => return,
            () = tokio::time::sleep(LOOK_AT_LOG) => {}
        }
        if let Err(error) = checkpoint(&checkpoints).await
            && !checkpoints.is_closed()
        {
            tracing::warn!(event = "log-not-emptied", %error);
        }
    }
}

async fn checkpoint(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    let row = sqlx::query("PRAGMA wal_checkpoint(NOOP)")
        .fetch_one(pool)
        .await?;
    let (logged, copied): (i64, i64) = (row.try_get("log")?, row.try_get("checkpointed")?);
    if logged - copied >= LOGGED_PAGES {
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// A file's connections do not break: none is tried before it is used.
fn options_of_pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new().test_before_acquire(false)
}

/// A database of a test's own, and what a plan looks like.
#[cfg(test)]
mod testing {
    use super::Database;

    pub(super) const EXPLAIN: &str = "EXPLAIN QUERY PLAN ";
    pub(super) const PLAN_COLUMN: &str = "detail";
    pub(super) const BEFORE_PLANS: &str = "SELECT 1";

    pub(super) async fn database() -> (Database, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = Database::open(&folder.path().join("site.db")).await;
        (database.expect("opens"), folder)
    }

    /// True for a line of a plan that reads a whole table.
    pub(super) fn reads_all(line: &str) -> bool {
        // Not a list of values, nor a query inside, whose own line follows.
        line.starts_with("SCAN ") && !line.starts_with("SCAN v") && !line.contains("CONSTANT")
    }
}

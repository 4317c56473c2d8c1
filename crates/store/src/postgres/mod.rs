//! PostgreSQL: any number of nodes on one database.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};

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
#[path = "../sql/deployment_states.rs"]
mod deployment_states;
#[path = "../sql/filters.rs"]
mod filters;
#[path = "../sql/identity.rs"]
mod identity;
#[path = "../sql/memberships.rs"]
mod memberships;
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

type Db = sqlx::Postgres;
type DbPool = PgPool;
type DbConnection = PgConnection;
type DbRow = PgRow;

const BEGIN: &str = "BEGIN";
/// Several reads of what is there at one moment.
const READ_ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// A certificate is issued while its device stays as it is: a node that retires the device waits,
/// and then sees the certificate.
const LOCK_DEVICE_ROWS: &str = " FOR SHARE OF d";
/// What is about to end, or to change its place, is not used by another node meanwhile.
const LOCK_ROW: &str = " FOR UPDATE";
/// What is used does not end meanwhile.
const SHARE_ROW: &str = " FOR SHARE";
/// What another node works on is left to it.
const LOCK_ROW_UNLESS_TAKEN: &str = " FOR UPDATE SKIP LOCKED";
/// The node that writes: the connection is called by it.
const NODE: &str = "current_setting('application_name')";
/// What another node works at is left to it.
/// What is referred to is not removed meanwhile.
const SHARE_KEY: &str = " FOR KEY SHARE";
/// What deployments are, for those who work out their states, and for the walk that begins. A lock of
/// its own: unlike rows' locks it is fair.
const SHARE_DEFINITIONS: &str = "SELECT pg_advisory_xact_lock_shared(7370206)";
const CHANGE_DEFINITIONS: &str = "SELECT pg_advisory_xact_lock(7370206)";
const BYTES: &str = "BYTEA";
/// The text of a certificate's serial number.
const SERIAL_TEXT: &str = "encode(c.serial, 'hex')";
/// Numbers of deployments `p` with commas between them.
const DEPLOYMENT_NUMBERS: &str = "string_agg(p.number::text, ',')";

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/postgres/migrations");

pub(crate) struct Database {
    writer: PgPool,
    readers: PgPool,
}

impl Database {
    pub(crate) async fn open(url: &str, node: &str) -> Result<Self, Unavailable> {
        // A node that vanished in the middle of a transaction must not stop the others.
        let connection = url
            .parse::<PgConnectOptions>()?
            .application_name(node)
            .options([
                ("lock_timeout", "3s"),
                ("idle_in_transaction_session_timeout", "10s"),
                ("tcp_user_timeout", "10s"),
                // Our statements are short: compiling one takes longer than running it.
                ("jit", "off"),
            ]);
        // A pool would only say that it waited in vain; a connection says why.
        PgConnection::connect_with(&connection)
            .await?
            .close()
            .await?;
        let options = || PgPoolOptions::new().acquire_timeout(Duration::from_secs(10));
        let writer = options()
            .max_connections(1)
            .connect_with(connection.clone())
            .await?;
        crate::writer::migrate(&MIGRATIONS, &writer).await?;
        collections::keep_built_ins(&writer).await?;
        let readers = options()
            .max_connections(8)
            .connect_with(connection)
            .await?;
        Ok(Self { writer, readers })
    }
}

/// A database of a test's own, and what a plan looks like.
#[cfg(test)]
mod testing {
    use std::sync::OnceLock;

    use acceptance::postgres::Postgres;

    use super::Database;

    pub(super) const EXPLAIN: &str = "EXPLAIN ";
    pub(super) const PLAN_COLUMN: &str = "QUERY PLAN";
    /// Small tables are read whole, whatever indexes they have: here the plan of large ones counts.
    pub(super) const BEFORE_PLANS: &str = "SET enable_seqscan = off";

    pub(super) async fn database() -> (Database, ()) {
        static SERVER: OnceLock<Postgres> = OnceLock::new();
        let server = SERVER.get_or_init(|| Postgres::start().expect("a PostgreSQL server"));
        let url = server.database().expect("a database");
        (Database::open(&url, "node").await.expect("opens"), ())
    }

    /// True for a line of a plan that reads a whole table.
    pub(super) fn reads_all(line: &str) -> bool {
        line.contains("Seq Scan")
    }
}

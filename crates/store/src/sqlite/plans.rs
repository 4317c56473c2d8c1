//! No question about results, and no report, reads a large table from end to end. The statements are
//! listened to while they run, and the database is asked for its plan of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use clock::SystemRng;
use domain::{ComplianceState, DeviceId, Period, Rng, Timestamp};
use sqlx::Row;

use crate::*;

/// Tables that grow with devices or with time.
const LARGE: [&str; 10] = [
    "device",
    "certificate",
    "membership",
    "compliance_device",
    "value",
    "rule_state",
    "rule_state_past",
    "deployment_state",
    "deployment_state_past",
    "rule_change",
];

#[tokio::test]
async fn no_large_table_is_read_from_end_to_end() {
    let heard = Heard::default();
    tracing::subscriber::set_global_default(heard.clone()).expect("the only one");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("site.db");
    let store = Store::open(&Location::Sqlite(file.clone()), "test", Arc::new(SystemRng))
        .await
        .expect("opens");
    heard.0.lock().expect("no panic").clear();
    work(&store).await;
    let heard = std::mem::take(&mut *heard.0.lock().expect("no panic"));
    assert!(heard.len() > 30, "{}", heard.len());

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let mut connection = sqlx::ConnectOptions::connect(&options)
        .await
        .expect("opens");
    // Who is a member is worked out by the rules of memberships, which have a test of their own.
    let asked = |statement: &String| !statement.contains("collection_direct");
    for statement in heard.into_iter().filter(asked) {
        let large = aliases(&statement);
        let explained = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let rows = sqlx::query(explained).fetch_all(&mut connection).await;
        for row in rows.unwrap_or_else(|error| panic!("{error}: {statement}")) {
            let detail: String = row.try_get("detail").expect("a text");
            let scanned = detail
                .strip_prefix("SCAN ")
                .and_then(|rest| rest.split(' ').next());
            // A range of a table or of an index is a SEARCH.
            let whole = scanned.is_some_and(|name| large.contains_key(name));
            assert!(!whole, "{detail}\n{statement}");
        }
    }
}

/// One of each question, and a report that changes something.
async fn work(store: &Store) {
    let now: Timestamp = "2026-11-22T10:00:00Z".parse().expect("a moment");
    let mut bytes = [0; 16];
    SystemRng.fill(&mut bytes);
    let device = NewDevice {
        id: DeviceId::from_entropy(bytes),
        owner: "local:ann".to_owned(),
        user_name: "ann".to_owned(),
        predecessor: None,
    };
    let certificate = NewCertificate {
        serial: domain::SerialNumber::from_entropy(bytes),
        device: device.id,
        owner: device.owner.clone(),
        key: domain::KeyDigest::new([1; 32]),
        subject: "CN=Ann".to_owned(),
        common_name: "Ann".to_owned(),
        not_before: now,
        not_after: now + Period::from_days(1).duration(),
        der: vec![0x30, 0],
        differences: None,
    };
    let (id, serial) = (device.id, certificate.serial);
    let commit = async |kind| {
        let change = Change {
            at: now,
            by: Actor::site(),
            kind,
        };
        store
            .commit_one(change)
            .await
            .expect("commits")
            .expect("applies")
    };
    commit(Kind::Enroll {
        device,
        certificate,
    })
    .await;
    let collection: domain::CollectionName = "Base".parse().expect("a name");
    commit(Kind::CreateCollection {
        name: collection.clone(),
        rules: domain::CollectionRules::default(),
    })
    .await;
    let sample = SampleDeployment {
        baseline: "Base".parse().expect("a name"),
        collection: collection.clone(),
        rules: 2,
        stale_after: Period::from_days(30),
        alert: Some((90, now)),
        at: now,
    };
    let (deployment, rules) = store.deploy_sample(&sample).await.expect("deploys");
    commit(Kind::AddMembers {
        collection,
        devices: vec![id],
    })
    .await;
    for (sequence, state) in (1..).zip([
        ComplianceState::NonCompliant,
        ComplianceState::Error,
        ComplianceState::Compliant,
    ]) {
        let at = now - Period::from_seconds(100 - 10 * sequence as u64).duration();
        let change = ResultsChange {
            sequence,
            at,
            whole: sequence == 1,
            digest: [1; 16],
            follows: Some([1; 16]),
            results: vec![NewResult {
                rule: rules[0],
                state,
                finding: Finding::new(Some("0".to_owned()), None),
                since: at,
            }],
            gone: vec![rules[1]],
        };
        commit(Kind::ReportResults(NewResults {
            device: id,
            stream: [1; 16],
            changes: vec![change],
            evaluated_at: at,
            not_before: at,
        }))
        .await;
    }
    commit(Kind::WorkOutDeployments).await;
    commit(Kind::WorkOutDeployments).await;
    store.record_evaluated(&[(id, now)]).await.expect("records");
    store.standing(serial).await.expect("reads");

    let filter = DeploymentFilter {
        limit: 10,
        ..DeploymentFilter::default()
    };
    store
        .deployment_summaries(&filter, now)
        .await
        .expect("reads");
    store.rule_summaries(deployment, now).await.expect("reads");
    for state in [
        None,
        Some(ComplianceState::Unknown),
        Some(ComplianceState::Error),
    ] {
        let filter = DeployedDevices {
            deployment,
            state,
            after: Some(id),
            limit: 10,
        };
        store.deployed_devices(&filter, now).await.expect("reads");
    }
    store.device_deployments(id, now).await.expect("reads");
    store.device_rules(id, None, 10).await.expect("reads");
    let filter = HistoryFilter {
        device: id,
        rule: None,
        after: None,
        limit: 10,
    };
    store.rule_history(&filter).await.expect("reads");
    store.compliance_at(deployment, now).await.expect("reads");
    store.flapping_rules(now, None, 10).await.expect("reads");
    store.deployments_are_due().await.expect("reads");
    store.exemptions_end(now).await.expect("reads");
    store.compliance_alerts_due(now).await.expect("reads");
}

/// How a statement calls the large tables.
fn aliases(statement: &str) -> BTreeMap<&str, &str> {
    let words: Vec<&str> = statement
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .collect();
    let mut found = BTreeMap::new();
    for at in 0..words.len() {
        if LARGE.contains(&words[at]) && at > 0 && ["FROM", "JOIN"].contains(&words[at - 1]) {
            found.insert(words[at], words[at]);
            let alias = words[at + 1..].iter().find(|word| **word != "AS");
            found.extend(alias.map(|alias| (*alias, words[at])));
        }
    }
    found
}

/// Listens to the statements that the database driver runs.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<BTreeSet<String>>>);

impl tracing::Subscriber for Heard {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut statement = Statement(String::new());
        event.record(&mut statement);
        let statement = statement.0.trim().to_owned();
        let asks = ["SELECT", "WITH", "UPDATE", "DELETE", "INSERT"];
        if asks.iter().any(|word| statement.starts_with(word)) {
            self.0.lock().expect("no panic").insert(statement);
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The longest text of an event.
struct Statement(String);

impl tracing::field::Visit for Statement {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "db.statement" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

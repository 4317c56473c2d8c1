//! What only the statements themselves show: that they mean what the rules mean in memory, and that
//! no hot one reads a whole table. Compiled once for each database.

use std::collections::{BTreeMap, BTreeSet};

use clock::SystemRng;
use domain::filter::{DAY_MILLISECONDS, Field};
use domain::{
    CollectionName, CollectionRules, DeviceFacts, DeviceState, KeyDigest, Rng, SerialNumber,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use sqlx::{Connection, Executor};

use super::super::testing::{BEFORE_PLANS, EXPLAIN, PLAN_COLUMN, database, reads_all};
use super::super::{BEGIN, Database, collections as own};
use super::*;
use crate::change::{Actor, Change, Conflict, Kind, NewCertificate, NewDevice};
use crate::writer::{Backend, Recorded};

const NOW: i64 = 1_800_000_000_000;

fn at(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).expect("a moment")
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRng.fill(&mut bytes);
    bytes
}

fn named(name: &str) -> CollectionName {
    name.parse().expect("a name")
}

impl Database {
    async fn apply(&self, changes: Vec<(i64, Kind)>) -> Vec<Outcome> {
        let changes: Vec<_> = changes
            .into_iter()
            .map(|(millisecond, kind)| Change {
                at: at(millisecond),
                by: Actor::site(),
                kind,
            })
            .collect();
        let mut nothing = |_: &Vec<Outcome>| Recorded {
            segment: None,
            events: Vec::new(),
        };
        self.transact(&changes, &mut nothing)
            .await
            .expect("commits")
    }

    async fn run(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::query(sql).execute(&self.writer).await.expect("runs");
    }

    async fn number(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        let row = sqlx::query(sql)
            .fetch_one(&self.writer)
            .await
            .expect("reads");
        row.try_get(0).expect("a number")
    }

    /// A deployment of the baseline `name` to a collection. Returns its number.
    async fn deploy(&self, name: &str, collection: i64) -> i64 {
        self.run(&format!(
            "INSERT INTO baseline (name, description, enabled, created_at, changed_at, version) \
             VALUES ('{name}', '', 1, 0, 0, 1) ON CONFLICT DO NOTHING"
        ))
        .await;
        let columns = "baseline, collection, remediate, schedule, spread, stale_after, made_at, \
             changed_at, version";
        self.number(&format!(
            "INSERT INTO deployment ({columns}) \
             SELECT id, {collection}, 0, '', 0, 86400, 0, 0, 1 FROM baseline WHERE name = '{name}' \
             RETURNING number"
        ))
        .await
    }

    async fn evaluated(&self, device: DeviceId, at: i64) {
        let sql = "INSERT INTO compliance_device (device, stream, sequence, digest, evaluated_at) \
             VALUES ($1, $1, 1, $1, $2) ON CONFLICT (device) DO UPDATE SET evaluated_at = $2";
        sqlx::query(sql)
            .bind(device.as_bytes().to_vec())
            .bind(at)
            .execute(&self.writer)
            .await
            .expect("inserts");
    }

    async fn collection_number(&self, name: &str) -> i64 {
        self.number(&format!("SELECT id FROM collection WHERE name = '{name}'"))
            .await
    }
}

fn enrollment(device: DeviceId, not_after: i64) -> Kind {
    Kind::Enroll {
        device: NewDevice {
            id: device,
            owner: "local:ann".to_owned(),
            user_name: "ann".to_owned(),
            predecessor: None,
        },
        certificate: certificate(device, not_after),
    }
}

fn certificate(device: DeviceId, not_after: i64) -> NewCertificate {
    NewCertificate {
        serial: SerialNumber::from_entropy(random()),
        device,
        owner: "local:ann".to_owned(),
        key: KeyDigest::new(random()),
        subject: "CN=Ann".to_owned(),
        common_name: "Ann".to_owned(),
        not_before: at(0),
        not_after: at(not_after),
        der: vec![0x30, 0x00],
        differences: None,
    }
}

/// A computer as it may be found.
#[derive(Debug, Clone)]
struct Computer {
    state: DeviceState,
    user_name: &'static str,
    facts: DeviceFacts,
    enrolled_at: i64,
    last_seen: Option<i64>,
    /// End, and whether it was used; the newest one last.
    certificates: Vec<(i64, bool)>,
    /// By deployment: is it a target, and what did it report.
    compliance: [(bool, Option<ComplianceState>); 3],
    evaluated_at: i64,
}

const TEXTS: [&str; 6] = ["", "macOS", "Linux", "ann", "Ärmel", "a \"b\" \\c % _ '"];
const RELEASES: [&str; 6] = [
    "",
    "14.4",
    "14.10.1",
    "macOS 14.4.0",
    "Debian 12 (x)",
    "rolling",
];

/// Moments around numbers of days from now, to the millisecond.
fn moment() -> impl Strategy<Value = i64> {
    (-4_i64..5, -1_i64..2).prop_map(|(days, shift)| NOW + days * DAY_MILLISECONDS + shift)
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(values.to_vec())
}

fn computer() -> impl Strategy<Value = Computer> {
    let facts = (
        one_of(&TEXTS),
        one_of(&TEXTS),
        one_of(&RELEASES),
        one_of(&RELEASES),
        one_of(&[None, Some(true), Some(false)]),
        one_of(&["", "4c4c4544-0042-3510-8052-b3c04f4b4e32", "not one"]),
    )
        .prop_map(|(name, os, release, agent, trust, uuid)| DeviceFacts {
            host_name: name.to_owned(),
            model: name.to_owned(),
            os_name: os.to_owned(),
            os_version: release.to_owned(),
            agent_version: agent.to_owned(),
            hardware_serial: os.to_owned(),
            hardware_uuid: uuid.to_owned(),
            trust_verified: trust,
            ..DeviceFacts::default()
        });
    let target = || {
        (
            any::<bool>(),
            prop::option::of(one_of(ComplianceState::ALL)),
        )
    };
    (
        one_of(DeviceState::ALL),
        one_of(&["ann", "Ärmel"]),
        facts,
        moment(),
        prop::option::of(moment()),
        prop::collection::vec((moment(), any::<bool>()), 0..3),
        [target(), target(), target()],
        moment(),
    )
        .prop_map(
            |(
                state,
                user_name,
                facts,
                enrolled_at,
                last_seen,
                certificates,
                compliance,
                evaluated_at,
            )| {
                Computer {
                    state,
                    user_name,
                    facts,
                    enrolled_at,
                    last_seen,
                    certificates,
                    compliance,
                    evaluated_at,
                }
            },
        )
}

/// Filters over all fields, signs and values that matter.
fn filter() -> impl Strategy<Value = String> {
    let sign = || one_of(&["==", "!=", "<", "<=", ">", ">="]);
    let text = || {
        one_of(&TEXTS[1..])
            .prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
    };
    let version = || one_of(&["0", "12", "14.4", "14.4.0", "14.10", "14.10.1"]);
    let version = move || version().prop_map(|version| format!("v\"{version}\""));
    let days = || (-4_i64..5).prop_map(|days| days.to_string());
    let baseline = || one_of(&["compliance[\"A\"]", "compliance[\"B\"]"]);
    let state = || one_of(ComplianceState::ALL).prop_map(|state| format!("\"{}\"", state.word()));
    let device_state = || one_of(&["\"active\"", "\"blocked\"", "\"obsolete\"", "\"retired\""]);
    let texts = || {
        one_of(&[
            "device.host_name",
            "device.model",
            "os.name",
            "os.release",
            "hardware.serial",
            "user.name",
        ])
    };
    let versions = || one_of(&["os.version", "agent.version"]);
    let ages = || {
        one_of(&[
            "device.enrolled_days_ago",
            "device.last_seen_days_ago",
            "certificate.days_left",
        ])
    };
    let equal = || one_of(&["==", "!="]);
    let condition = prop_oneof![
        (texts(), sign(), text()).prop_map(|(a, b, c)| format!("{a} {b} {c}")),
        (texts(), text(), text()).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
        (versions(), sign(), version()).prop_map(|(a, b, c)| format!("{a} {b} {c}")),
        (versions(), version(), version()).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
        (ages(), sign(), days()).prop_map(|(a, b, c)| format!("{a} {b} {c}")),
        (ages(), days(), days()).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
        (baseline(), equal(), state()).prop_map(|(a, b, c)| format!("{a} {b} {c}")),
        (baseline(), state(), state()).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
        (equal(), device_state()).prop_map(|(a, b)| format!("device.state {a} {b}")),
        one_of(&["true", "false"]).prop_map(|a| format!("device.trust_verified != {a}")),
        equal().prop_map(|a| format!("hardware.uuid {a} \"4C4C4544-0042-3510-8052-B3C04F4B4E32\"")),
        (one_of(Field::PLAIN), equal()).prop_map(|(a, b)| format!("{a} {b} null")),
        (baseline(), equal()).prop_map(|(a, b)| format!("{a} {b} null")),
    ];
    condition.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

/// Records computers, and returns for each what memory has to know of it.
async fn record(
    database: &Database,
    computers: &[Computer],
    deployments: [(i64, i64); 3],
) -> Vec<(
    DeviceId,
    Subject,
    BTreeSet<i64>,
    BTreeMap<i64, ComplianceState>,
    i64,
)> {
    let mut known = Vec::new();
    for computer in computers {
        let device = DeviceId::from_entropy(random());
        let mut changes = vec![(computer.enrolled_at, enrollment(device, NOW))];
        let Kind::Enroll {
            certificate: first, ..
        } = &changes[0].1
        else {
            unreachable!("an enrollment")
        };
        let mut before = first.serial;
        for (end, used) in &computer.certificates {
            let new = certificate(device, *end);
            let serial = new.serial;
            changes.push((
                computer.enrolled_at,
                Kind::Renew {
                    certificate: new,
                    replaces: before,
                    after_expiry: None,
                },
            ));
            if *used {
                changes.push((
                    computer.enrolled_at,
                    Kind::UseCertificate {
                        serial,
                        device,
                        spends_permission: false,
                        takes_place_of: None,
                    },
                ));
                before = serial;
            }
        }
        let facts = computer.facts.clone();
        changes.push((NOW, Kind::ReportFacts { device, facts }));
        // One by one: renewals of one batch are equally new.
        for change in changes {
            for outcome in database.apply(vec![change]).await {
                outcome.expect("is applied");
            }
        }
        let seen: Vec<_> = computer
            .last_seen
            .map(|moment| (device, at(moment)))
            .into_iter()
            .collect();
        crate::Reads::record_seen(database, &seen)
            .await
            .expect("records");
        let id = device.as_bytes().to_vec();
        sqlx::query("UPDATE device SET state = $2, user_name = $3 WHERE id = $1")
            .bind(&id)
            .bind(computer.state.word())
            .bind(computer.user_name)
            .execute(&database.writer)
            .await
            .expect("changes");
        database.evaluated(device, computer.evaluated_at).await;
        let (mut member_of, mut states) = (BTreeSet::new(), BTreeMap::new());
        for ((deployment, collection), (target, state)) in
            deployments.iter().zip(computer.compliance)
        {
            if target {
                member_of.insert(*collection);
                for table in ["collection_direct", "membership"] {
                    let sql = format!("INSERT INTO {table} (collection, device) VALUES ($1, $2)");
                    sqlx::query(sqlx::AssertSqlSafe(sql))
                        .bind(*collection)
                        .bind(&id)
                        .execute(&database.writer)
                        .await
                        .expect("inserts");
                }
            }
            if let Some(state) = state {
                states.insert(*deployment, state);
                let sql = "INSERT INTO deployment_state (deployment, device, state, since, notable) \
                     VALUES ($1, $2, $3, 0, $4)";
                sqlx::query(sql)
                    .bind(*deployment)
                    .bind(&id)
                    .bind(state.code())
                    .bind(Vec::<u8>::new())
                    .execute(&database.writer)
                    .await
                    .expect("inserts");
            }
        }
        let used = computer.certificates.iter().rev().find(|(_, used)| *used);
        let newest = computer.certificates.last();
        let subject = Subject {
            state: computer.state,
            user_name: computer.user_name.to_owned(),
            facts: computer.facts.clone(),
            enrolled_at: at(computer.enrolled_at),
            last_seen: computer.last_seen.map(at),
            certificate_end: Some(at(used.or(newest).map_or(NOW, |(end, _)| *end))),
            compliance: BTreeMap::new(),
        };
        known.push((device, subject, member_of, states, computer.evaluated_at));
    }
    known
}

#[test]
fn sql_and_memory_agree() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut runner = TestRunner::new(Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    });
    let (database, _place) = runtime.block_on(database());
    // A fleet, once; then many filters over it.
    let mut computers = Vec::new();
    for _ in 0..60 {
        let tree = computer().new_tree(&mut runner).expect("a computer");
        computers.push(tree.current());
    }
    // The first certificate is never used, so that a computer without others has a valid one; some
    // have none.
    let (deployments, known) = runtime.block_on(async {
        let mut deployments = [(0, 0); 3];
        for (place, (name, baseline)) in [("X", "A"), ("Y", "A"), ("Z", "B")].iter().enumerate() {
            database
                .run(&format!(
                    "INSERT INTO collection (name, created_at) VALUES ('{name}', 0)"
                ))
                .await;
            let collection = database.collection_number(name).await;
            deployments[place] = (database.deploy(baseline, collection).await, collection);
        }
        let mut known = record(&database, &computers, deployments).await;
        for (device, subject, ..) in known.iter_mut().step_by(7) {
            sqlx::query("UPDATE certificate SET state = 'revoked' WHERE device = $1")
                .bind(device.as_bytes().to_vec())
                .execute(&database.writer)
                .await
                .expect("revokes");
            subject.certificate_end = None;
        }
        (deployments, known)
    });
    let deployed: Vec<_> = deployments
        .iter()
        .zip(["A", "A", "B"])
        .map(|((deployment, collection), baseline)| Deployed {
            deployment: *deployment,
            baseline: baseline.parse::<BaselineName>().expect("a name"),
            collection: *collection,
        })
        .collect();
    let asked = (filter(), moment());
    runner
        .run(&asked, |(text, now)| {
            let query: Filter = text
                .parse()
                .map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
            let plain = |query| Rules {
                limited_to: None,
                query,
                include: Vec::new(),
                exclude: Vec::new(),
            };
            let mut all: BTreeMap<i64, Rules<i64>> = deployments
                .iter()
                .map(|(_, collection)| (*collection, plain(None)))
                .collect();
            let tested = 1_000_000;
            all.insert(tested, plain(Some(query)));
            let rules = all[&tested].clone();
            let all = Collections::new(all, deployed.clone()).expect("no circle");
            let expected: BTreeSet<DeviceId> = known
                .iter()
                .filter(|(_, subject, member_of, states, evaluated_at)| {
                    let nothing = BTreeMap::new();
                    let states = match *evaluated_at >= now - DAY_MILLISECONDS {
                        true => states,
                        false => &nothing,
                    };
                    all.of_device(subject.clone(), member_of, states, at(now))
                        .contains(&tested)
                })
                .map(|(device, ..)| *device)
                .collect();
            let found: BTreeSet<DeviceId> = runtime.block_on(async {
                let mut statement = QueryBuilder::<Db>::new("SELECT d.id FROM device d WHERE ");
                push_member(&mut statement, tested, &rules, at(now));
                let rows = statement.build().fetch_all(&database.readers).await;
                let rows = rows.expect("reads");
                rows.iter()
                    .map(|row| device_id(row, "id").expect("an identifier"))
                    .collect()
            });
            prop_assert_eq!(found, expected, "{}", text);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn members_do_not_depend_on_their_own_deployments() {
    let (database, _place) = database().await;
    let rules = |query: &str| CollectionRules {
        query: Some(query.parse().expect("a filter")),
        ..CollectionRules::default()
    };
    let all_devices = database.collection_number("All Devices").await;
    let deployment = database.deploy("CIS", all_devices).await;
    let failing = "compliance[\"CIS\"] in [\"non-compliant\", \"error\"]";
    let create = Kind::CreateCollection {
        name: named("Failing"),
        rules: rules(failing),
    };
    let unknown = Kind::CreateCollection {
        name: named("Silent"),
        rules: rules("compliance[\"CIS\"] == \"unknown\""),
    };
    let (a, b) = (
        DeviceId::from_entropy(random()),
        DeviceId::from_entropy(random()),
    );
    let evaluate = || {
        [
            (NOW, Kind::EvaluateDevices { most: 100 }),
            (NOW, Kind::EvaluateCollections { most: 100 }),
        ]
    };
    let mut changes = vec![
        (NOW, create),
        (NOW, unknown),
        (NOW, enrollment(a, NOW)),
        (NOW, enrollment(b, NOW)),
    ];
    for _ in 0..20 {
        changes.extend(evaluate());
    }
    for outcome in database.apply(changes).await {
        outcome.expect("is applied");
    }
    let members = async |name: &str| {
        let page = crate::ReadCollections::members(&database, &named(name), None, 9).await;
        let page = page.expect("reads");
        page.items
            .iter()
            .map(|device| device.id)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(members("Silent").await, BTreeSet::from([a, b]));

    // What a device reports changes its memberships.
    sqlx::query(
        "INSERT INTO deployment_state (deployment, device, state, since, notable) \
         VALUES ($1, $2, 6, 0, $3)",
    )
    .bind(deployment)
    .bind(a.as_bytes().to_vec())
    .bind(Vec::<u8>::new())
    .execute(&database.writer)
    .await
    .expect("inserts");
    let mut connection = database.writer.acquire().await.expect("a connection");
    compliance_changed(&mut connection, [a])
        .await
        .expect("marks");
    drop(connection);
    database.evaluated(a, NOW).await;
    database.apply(evaluate().into()).await;
    assert_eq!(members("Failing").await, BTreeSet::from([a]));
    assert_eq!(members("Silent").await, BTreeSet::from([b]));

    // What was reported too long ago does not count: that comes with time alone, and goes with the next
    // evaluation, also when it finds the same.
    for (moment, failing) in [
        (NOW + DAY_MILLISECONDS, true),
        (NOW + DAY_MILLISECONDS + 1, false),
        (NOW + DAY_MILLISECONDS / 2, true),
        (NOW + 3 * DAY_MILLISECONDS, false),
    ] {
        let later = || (moment, Kind::EvaluateDevices { most: 100 });
        let sweep = (moment, Kind::SweepMemberships);
        database.apply(vec![sweep, later()]).await;
        assert_eq!(members("Failing").await.contains(&a), failing, "{moment}");
        assert_eq!(members("Silent").await.contains(&a), !failing, "{moment}");
    }
    let now = NOW + 3 * DAY_MILLISECONDS;
    crate::Reads::record_evaluated(&database, &[(a, at(now))])
        .await
        .expect("records");
    let due = (now, Kind::EvaluateDevices { most: 100 });
    database.apply(vec![due]).await;
    assert_eq!(members("Failing").await, BTreeSet::from([a]));

    // A deployment ends: who is no target any more is not even unknown.
    database.run("DELETE FROM deployment").await;
    let cis: BaselineName = "CIS".parse().expect("a name");
    let mut connection = database.writer.acquire().await.expect("a connection");
    deployments_changed(&mut connection, &cis)
        .await
        .expect("begins");
    drop(connection);
    database
        .apply(evaluate().into_iter().cycle().take(8).collect())
        .await;
    assert!(members("Failing").await.is_empty());
    assert!(members("Silent").await.is_empty());
    database.deploy("CIS", all_devices).await;

    // The same baseline for those who fail it: refused, whichever of the two comes last.
    let failing_number = database.collection_number("Failing").await;
    let mut connection = database.writer.acquire().await.expect("a connection");
    let refused = own::refuse_deployment(&mut connection, &cis, failing_number).await;
    let refused = refused.expect("reads").expect("refused");
    assert_eq!(
        refused.to_string(),
        "the collection's members would come and go: they are chosen by how the baseline `CIS` \
         stands, and it is deployed to them: `Failing` → `Failing`"
    );
    let allowed = own::refuse_deployment(&mut connection, &cis, all_devices).await;
    assert_eq!(allowed.expect("reads"), None);
    drop(connection);
    let labs = Kind::CreateCollection {
        name: named("Labs"),
        rules: CollectionRules::default(),
    };
    database.apply(vec![(NOW, labs)]).await;
    let labs = database.collection_number("Labs").await;
    database.deploy("CIS", labs).await;
    let set = Kind::SetCollectionRules {
        name: named("Labs"),
        rules: CollectionRules {
            include: [named("Failing")].into(),
            ..CollectionRules::default()
        },
    };
    let outcome = database.apply(vec![(NOW, set)]).await.remove(0);
    assert!(
        matches!(outcome, Err(Conflict::ComplianceCircle { .. })),
        "{outcome:?}"
    );
}

/// Twelve thousand devices that cross a boundary within a minute are found in steps.
#[tokio::test]
async fn a_sweep_goes_in_steps() {
    let (database, _place) = database().await;
    let mut connection = database.writer.acquire().await.expect("a connection");
    let mut transaction = connection.begin_with(BEGIN).await.expect("begins");
    for chunk in 0..12_i64 {
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO device (id, state, owner, user_name, enrolled_at) ",
        );
        query.push_values(0..1_000_i64, |mut row, index| {
            row.push_bind(DeviceId::from_entropy(random()).as_bytes().to_vec())
                .push_bind("active")
                .push_bind("local:ann")
                .push_bind("ann")
                .push_bind(NOW + (chunk * 1_000 + index) * 5);
        });
        query
            .build()
            .execute(&mut *transaction)
            .await
            .expect("inserts");
    }
    transaction.commit().await.expect("commits");
    drop(connection);
    let rules = CollectionRules {
        query: "device.enrolled_days_ago < 7".parse().ok(),
        ..CollectionRules::default()
    };
    let create = Kind::CreateCollection {
        name: named("New"),
        rules,
    };
    database.apply(vec![(NOW, create)]).await;
    for (there, back) in [(NOW + 8 * DAY_MILLISECONDS, false), (NOW, true)] {
        let mut found = Vec::new();
        loop {
            match database
                .apply(vec![(there, Kind::SweepMemberships)])
                .await
                .remove(0)
            {
                Ok(Applied::Evaluated(step)) => {
                    found.push(step.looked_at);
                    if !step.more {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
            // The moment stands in the middle of those that cross.
            database.run("DELETE FROM membership_due").await;
        }
        database.run("DELETE FROM membership_due").await;
        assert_eq!(found.iter().sum::<u64>(), 12_000, "back: {back}, {found:?}");
        assert!(
            found.len() == 3 && found.iter().all(|step| *step <= 5_001),
            "{found:?}"
        );
        assert_eq!(
            database.number("SELECT at FROM membership_time").await,
            there
        );
    }
}

/// At a million devices these run for each device, or each minute.
#[tokio::test]
async fn no_hot_statement_reads_a_whole_table() {
    let (database, _place) = database().await;
    let devices = [DeviceId::from_entropy([7; 16])];
    let everything: Vec<_> = Field::all_help()
        .map(|help| format!("({})", help.example))
        .collect();
    let rules = Rules {
        limited_to: Some(1),
        query: Some(everything.join(" || ").parse().expect("a filter")),
        include: vec![2, 3],
        exclude: vec![4],
    };
    let span = Span {
        after: &[1],
        last: Some(devices[0]),
    };
    type Push<'a> = Box<dyn Fn(&mut QueryBuilder<Db>) + 'a>;
    let mut statements: Vec<(String, Push<'_>)> = vec![
        (
            "devices".into(),
            Box::new(|query| push_subjects(query, &devices)),
        ),
        (
            "named".into(),
            Box::new(|query| push_of_devices(query, "collection_direct", &devices)),
        ),
        (
            "members".into(),
            Box::new(|query| push_of_devices(query, "membership", &devices)),
        ),
        (
            "joining".into(),
            Box::new(|query| push_joining(query, 5, &rules, span, at(NOW))),
        ),
        (
            "leaving".into(),
            Box::new(|query| {
                query.push("DELETE FROM membership WHERE ");
                push_leaving(query, 5, &rules, span, at(NOW));
            }),
        ),
        (
            "returned".into(),
            Box::new(|query| super::super::reads::push_returned(query, &[(devices[0], at(NOW))])),
        ),
    ];
    for field in DaysField::ALL {
        for what in ["device", "moment"] {
            let boundary = Boundary {
                field: *field,
                days: 45,
            };
            statements.push((
                format!("{field} {what}"),
                Box::new(move |query| {
                    push_crossing(query, boundary, NOW, NOW + 60_000, what);
                }),
            ));
        }
    }
    let mut connection = database.writer.acquire().await.expect("a connection");
    connection.execute(BEFORE_PLANS).await.expect("prepares");
    for (name, push) in statements {
        let mut query = QueryBuilder::<Db>::new(EXPLAIN);
        push(&mut query);
        let rows = query.build().fetch_all(&mut *connection).await;
        let plan: Vec<String> = rows
            .expect("explains")
            .iter()
            .map(|row| row.try_get(PLAN_COLUMN).expect("a line"))
            .collect();
        assert!(!plan.is_empty());
        let bad = plan.iter().find(|line| reads_all(line));
        assert_eq!(bad, None, "{name}: {plan:#?}");
    }
}

//! What both databases must do with results, deployments' states and their sums.

use std::collections::{BTreeMap, BTreeSet};

use domain::ComplianceState::{
    Compliant, Error, Exempt, NonCompliant, NotApplicable, Remediated, RemediationFailed, Unknown,
};
use domain::compliance::ExemptionScope;
use domain::{ComplianceState, Period, StateCounts};

use super::contract::{add, apply, at, change, create, enrolled, named, random};
use super::*;

const DAY: i64 = 86_400;

/// Statements for what others write: objects of compliance settings.
pub async fn sql(place: &Place, statement: &str) {
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    match &place.location {
        Location::Sqlite(file) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new()
                .filename(file)
                .busy_timeout(std::time::Duration::from_secs(10));
            let mut connection = sqlx::ConnectOptions::connect(&options)
                .await
                .expect("opens");
            let done = sqlx::raw_sql(statement).execute(&mut connection).await;
            done.expect("a good statement");
        }
        Location::Postgres(url) => {
            let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(url)
                .await
                .expect("connects");
            let done = sqlx::raw_sql(statement).execute(&mut connection).await;
            done.expect("a good statement");
        }
    }
}

fn blob(device: DeviceId, place: &Place) -> String {
    let hex: String = device
        .as_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    match place.location {
        Location::Sqlite(_) => format!("x'{hex}'"),
        Location::Postgres(_) => format!("'\\x{hex}'::bytea"),
    }
}

/// A deployment of `rules` rules to a collection that is made for it.
pub async fn deployed(store: &Store, name: &str, rules: usize) -> (i64, Vec<i64>) {
    create(store, name).await.expect("creates");
    let sample = SampleDeployment {
        baseline: name.parse().expect("a name"),
        collection: named(name),
        rules,
        stale_after: Period::from_days(30),
        alert: None,
        at: at(0),
    };
    let deployed = store.deploy_sample(&sample).await.expect("deploys");
    work_out(store).await;
    deployed
}

/// Runs the site's job until there is nothing to do.
pub async fn work_out(store: &Store) {
    work_out_at(store, 0).await;
}

async fn work_out_at(store: &Store, second: i64) {
    while store.deployments_are_due().await.expect("reads") {
        apply(store, second, Kind::WorkOutDeployments)
            .await
            .expect("works out");
    }
}

fn result(rule: i64, state: ComplianceState, since: i64) -> NewResult {
    NewResult {
        rule,
        state,
        finding: None,
        since: at(since),
    }
}

fn changed(sequence: i64, second: i64, results: Vec<NewResult>) -> ResultsChange {
    ResultsChange {
        sequence,
        at: at(second),
        whole: false,
        digest: digest(sequence),
        follows: Some(digest(sequence - 1)),
        results,
        gone: Vec::new(),
    }
}

fn digest(sequence: i64) -> [u8; 16] {
    [sequence.to_le_bytes()[0]; 16]
}

fn whole(sequence: i64, second: i64, results: Vec<NewResult>) -> ResultsChange {
    ResultsChange {
        whole: true,
        ..changed(sequence, second, results)
    }
}

fn reported(device: DeviceId, stream: u8, changes: Vec<ResultsChange>) -> NewResults {
    let evaluated_at = changes.iter().map(|change| change.at).max();
    NewResults {
        device,
        stream: [stream; 16],
        changes,
        evaluated_at: evaluated_at.unwrap_or(at(0)),
        not_before: at(0),
    }
}

/// Reports at `second`; returns what is recorded, and whether the whole set is wanted.
async fn report(store: &Store, second: i64, report: NewResults) -> (bool, i64, bool) {
    match apply(store, second, Kind::ReportResults(report)).await {
        Ok(Applied::Results {
            applied,
            recorded,
            wants_whole,
        }) => (
            applied,
            recorded.map_or(0, |(sequence, _)| sequence),
            wants_whole,
        ),
        other => panic!("{other:?}"),
    }
}

/// A device whose rules are in `states`.
async fn reporting(store: &Store, rules: &[i64], states: &[ComplianceState]) -> DeviceId {
    let device = enrolled(store).await.0.id;
    let results = rules.iter().zip(states);
    let results = results.map(|(rule, state)| result(*rule, *state, 10));
    report(
        store,
        10,
        reported(device, 1, vec![whole(1, 10, results.collect())]),
    )
    .await;
    device
}

async fn summary(store: &Store, deployment: i64, now: i64) -> StateCounts {
    let filter = DeploymentFilter {
        deployment: Some(deployment),
        limit: 1,
        ..DeploymentFilter::default()
    };
    let page = store.deployment_summaries(&filter, at(now)).await;
    page.expect("reads").items.pop().expect("is there").devices
}

fn counts<const N: usize>(of: [(ComplianceState, i64); N]) -> StateCounts {
    let mut counts = StateCounts::default();
    for (state, devices) in of {
        *counts.of(state) = devices;
    }
    counts
}

async fn sound(store: &Store) {
    let faults = store.summary_faults().await.expect("reads");
    assert!(faults.is_empty(), "{faults:?}");
}

async fn history(store: &Store, device: DeviceId) -> Vec<(ComplianceState, i64, Option<i64>)> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let filter = HistoryFilter {
            device,
            rule: None,
            after,
            limit: 2,
        };
        let page = store.rule_history(&filter).await.expect("reads");
        let second = |moment: Timestamp| moment.as_second() - at(0).as_second();
        found.extend(page.items.iter().map(|interval| {
            (
                interval.state,
                second(interval.since),
                interval.until.map(second),
            )
        }));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

pub async fn results_are_applied_once(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 2).await;
    let device = enrolled(&store).await.0.id;
    add(&store, "Base", &[device]).await.expect("adds");
    assert_eq!(summary(&store, deployment, 0).await, counts([(Unknown, 1)]));

    let first = reported(
        device,
        1,
        vec![
            whole(1, 10, vec![result(rules[0], Compliant, 5)]),
            // Rules that nobody knows do not count.
            changed(
                2,
                20,
                vec![result(rules[1], NonCompliant, 20), result(999, Error, 20)],
            ),
        ],
    );
    // In one batch, and twice.
    let kinds =
        [first.clone(), first.clone()].map(|report| change(30, Kind::ReportResults(report)));
    let outcomes = store.commit(kinds.to_vec()).await.expect("commits");
    let outcome = |applied| {
        Ok(Applied::Results {
            applied,
            recorded: Some((2, digest(2))),
            wants_whole: false,
        })
    };
    assert_eq!(outcomes, [outcome(true), outcome(false)]);
    assert_eq!(report(&store, 31, first).await, (false, 2, false));
    assert_eq!(
        summary(&store, deployment, 31).await,
        counts([(NonCompliant, 1)])
    );

    // A gap loses nothing: the device sends its whole set.
    let gap = reported(
        device,
        1,
        vec![changed(4, 40, vec![result(rules[1], Compliant, 40)])],
    );
    assert_eq!(report(&store, 40, gap).await, (false, 2, true));
    let next = reported(
        device,
        1,
        vec![changed(3, 40, vec![result(rules[1], Remediated, 40)])],
    );
    assert_eq!(report(&store, 40, next).await, (true, 3, false));
    assert_eq!(
        summary(&store, deployment, 40).await,
        counts([(Compliant, 1)])
    );
    // So does another stream. It keeps what did not change, and closes what is not in it.
    let other = |change| reported(device, 2, vec![change]);
    let part = changed(4, 50, vec![result(rules[1], Compliant, 50)]);
    assert_eq!(report(&store, 50, other(part)).await, (false, 0, true));
    let all = whole(1, 50, vec![result(rules[0], Compliant, 50)]);
    assert_eq!(report(&store, 50, other(all)).await, (true, 1, false));
    assert_eq!(
        summary(&store, deployment, 50).await,
        counts([(Unknown, 1)])
    );
    assert_eq!(
        history(&store, device).await,
        [
            (Remediated, 40, Some(50)),
            (NonCompliant, 20, Some(40)),
            (Compliant, 5, None),
        ]
    );
    let standing = store.device(device).await.expect("reads");
    assert!(standing.is_some());
    sound(&store).await;

    // Nobody is there: neighbours do not suffer.
    let stranger = DeviceId::from_entropy(random());
    let outcomes = store
        .commit(vec![
            change(
                60,
                Kind::ReportResults(reported(stranger, 1, vec![whole(1, 60, vec![])])),
            ),
            change(
                60,
                Kind::ReportResults(reported(device, 2, vec![changed(2, 60, vec![])])),
            ),
        ])
        .await
        .expect("commits");
    assert!(matches!(outcomes[0], Err(Conflict::NotFound(_))));
    assert!(matches!(
        outcomes[1],
        Ok(Applied::Results {
            recorded: Some((2, _)),
            ..
        })
    ));
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert!(proof.holds(), "{proof:?}");
}

pub async fn what_was_found_is_kept_with_its_time(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 1).await;
    let device = enrolled(&store).await.0.id;
    add(&store, "Base", &[device]).await.expect("adds");
    let found = |state, since, value: &str, reason: Option<&str>| NewResult {
        finding: Finding::new(Some(value.to_owned()), reason.map(str::to_owned)),
        ..result(rules[0], state, since)
    };
    let changes = vec![
        whole(1, 100, vec![found(Compliant, 100, "1", None)]),
        // A clock that was set back claims what cannot be: the change's own moment counts.
        changed(2, 300, vec![found(NonCompliant, 50, "0", None)]),
        // And one that was set forward.
        changed(
            3,
            9_000,
            vec![found(
                RemediationFailed,
                9_000,
                "0",
                Some("keeps coming back"),
            )],
        ),
        changed(4, 350, vec![found(Error, 350, "", Some("killed"))]),
    ];
    report(&store, 400, reported(device, 1, changes)).await;
    assert_eq!(
        history(&store, device).await,
        [
            (Error, 400, None),
            (NonCompliant, 300, Some(400)),
            (Compliant, 100, Some(300)),
        ]
    );
    let page = store.device_rules(device, None, 10).await.expect("reads");
    let rule = &page.items[0];
    assert_eq!((rule.state, rule.since), (Error, Some(at(400))));
    assert_eq!(
        (rule.value.as_deref(), rule.reason.as_deref()),
        (Some(""), Some("killed"))
    );
    let evaluated = store
        .device_deployments(device, at(400))
        .await
        .expect("reads");
    assert_eq!(evaluated[0].deployment, deployment);
    sound(&store).await;
}

pub async fn a_deployment_stands_as_its_worst_rule(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 2).await;
    let rows = [
        ([Compliant, Compliant], Compliant),
        ([Compliant, NotApplicable], Compliant),
        ([NotApplicable, NotApplicable], NotApplicable),
        ([Remediated, Compliant], Compliant),
        ([RemediationFailed, Compliant], NonCompliant),
        ([NonCompliant, Error], Error),
        ([NonCompliant, NotApplicable], NonCompliant),
    ];
    let mut expected = StateCounts::default();
    let mut by_state: BTreeMap<ComplianceState, BTreeSet<DeviceId>> = BTreeMap::new();
    for (states, overall) in rows {
        let device = reporting(&store, &rules, &states).await;
        add(&store, "Base", &[device]).await.expect("adds");
        *expected.of(overall) += 1;
        by_state.entry(overall).or_default().insert(device);
        assert_eq!(
            summary(&store, deployment, 10).await,
            expected,
            "{states:?}"
        );
    }
    // One rule is not reported; another device reports nothing.
    for states in [&[Compliant][..], &[]] {
        let device = reporting(&store, &rules, states).await;
        add(&store, "Base", &[device]).await.expect("adds");
        *expected.of(Unknown) += 1;
        by_state.entry(Unknown).or_default().insert(device);
    }
    assert_eq!(summary(&store, deployment, 10).await, expected);
    sound(&store).await;

    // By state, in pages; by rule.
    for (state, devices) in &by_state {
        let mut found = BTreeSet::new();
        let mut after = None;
        loop {
            let filter = DeployedDevices {
                deployment,
                state: Some(*state),
                after,
                limit: 1,
            };
            let page = store
                .deployed_devices(&filter, at(10))
                .await
                .expect("reads");
            assert!(page.items.iter().all(|device| device.state == *state));
            found.extend(page.items.iter().map(|device| device.device));
            let Some(next) = page.next else { break };
            after = Some(next.parse().expect("an identifier"));
        }
        assert_eq!(&found, devices, "{state}");
    }
    let rules = store
        .rule_summaries(deployment, at(10))
        .await
        .expect("reads");
    assert_eq!(
        rules[0].devices,
        counts([
            (Compliant, 2),
            (NotApplicable, 1),
            (Remediated, 1),
            (RemediationFailed, 1),
            (NonCompliant, 2),
            (Unknown, 2),
        ])
    );
    assert_eq!(
        rules[1].devices,
        counts([(Compliant, 3), (NotApplicable, 3), (Error, 1), (Unknown, 2)])
    );
    // Whoever has not evaluated for long is unknown: everywhere, and when it did again, no more.
    let later = 10 + 30 * DAY;
    assert_eq!(summary(&store, deployment, later).await, expected);
    let stale = later + 1;
    assert_eq!(
        summary(&store, deployment, stale).await,
        counts([(Unknown, 9)])
    );
    let seen = *by_state[&Error].first().expect("one");
    store
        .record_evaluated(&[(seen, at(stale))])
        .await
        .expect("records");
    assert_eq!(
        summary(&store, deployment, stale).await,
        counts([(Error, 1), (Unknown, 8)])
    );
    let rules = store.rule_summaries(deployment, at(stale)).await;
    assert_eq!(
        rules.expect("reads")[0].devices,
        counts([(NonCompliant, 1), (Unknown, 8)])
    );
    let filter = DeployedDevices {
        deployment,
        state: Some(Unknown),
        after: None,
        limit: 100,
    };
    let unknown = store.deployed_devices(&filter, at(stale)).await;
    assert_eq!(unknown.expect("reads").items.len(), 8);
    let all = DeployedDevices {
        state: None,
        ..filter
    };
    let all = store
        .deployed_devices(&all, at(stale))
        .await
        .expect("reads");
    assert_eq!(all.items.len(), 9);
}

pub async fn who_enters_and_who_leaves_counts(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 1).await;
    let a = reporting(&store, &rules, &[Compliant]).await;
    let b = reporting(&store, &rules, &[NonCompliant]).await;
    add(&store, "Base", &[a, b]).await.expect("adds");
    let both = counts([(Compliant, 1), (NonCompliant, 1)]);
    assert_eq!(summary(&store, deployment, 10).await, both);
    let remove = Kind::RemoveMembers {
        collection: named("Base"),
        devices: vec![a],
    };
    apply(&store, 11, remove).await.expect("removes");
    assert_eq!(
        summary(&store, deployment, 11).await,
        counts([(NonCompliant, 1)])
    );
    add(&store, "Base", &[a]).await.expect("adds");
    assert_eq!(summary(&store, deployment, 12).await, both);

    // Many at once are worked out in steps.
    let mut many = Vec::new();
    for _ in 0..150 {
        many.push(reporting(&store, &rules, &[Compliant]).await);
    }
    add(&store, "Base", &many).await.expect("adds");
    sound(&store).await;
    work_out(&store).await;
    assert_eq!(
        summary(&store, deployment, 13).await,
        counts([(Compliant, 151), (NonCompliant, 1)])
    );

    // The rules change; then the collection; then there is no deployment any more.
    let due = format!(
        "INSERT INTO deployment_due (deployment, after) VALUES ({deployment}, NULL) \
         ON CONFLICT (deployment) DO UPDATE SET after = NULL"
    );
    sql(&place, &format!(
        "INSERT INTO rule (item, name, definition, severity) \
         SELECT item, 'New', definition || definition, severity FROM rule WHERE id = {}; \
         INSERT INTO deployment_rule (deployment, rule) SELECT {deployment}, MAX(id) FROM rule; {due}",
        rules[0]
    )).await;
    work_out(&store).await;
    assert_eq!(
        summary(&store, deployment, 14).await,
        counts([(Unknown, 152)])
    );
    sql(
        &place,
        &format!(
            "DELETE FROM deployment_rule WHERE deployment = {deployment} AND rule <> {}; {due}",
            rules[0]
        ),
    )
    .await;
    work_out(&store).await;
    assert_eq!(
        summary(&store, deployment, 15).await,
        counts([(Compliant, 151), (NonCompliant, 1)])
    );
    create(&store, "Other").await.expect("creates");
    add(&store, "Other", &[b]).await.expect("adds");
    sql(
        &place,
        &format!(
            "UPDATE deployment SET collection = (SELECT id FROM collection WHERE name = 'Other') \
         WHERE number = {deployment}; {due}"
        ),
    )
    .await;
    work_out(&store).await;
    sound(&store).await;
    assert_eq!(
        summary(&store, deployment, 16).await,
        counts([(NonCompliant, 1)])
    );
    sql(
        &place,
        &format!(
            "DELETE FROM deployment WHERE number = {deployment}; \
         DELETE FROM deployment_rule WHERE deployment = {deployment}; {due}"
        ),
    )
    .await;
    work_out(&store).await;
    sound(&store).await;
    let page = store
        .deployment_summaries(
            &DeploymentFilter {
                limit: 9,
                ..Default::default()
            },
            at(17),
        )
        .await
        .expect("reads");
    assert!(page.items.is_empty());
}

pub async fn an_exemption_counts_until_its_end(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 2).await;
    let a = reporting(&store, &rules, &[NonCompliant, Compliant]).await;
    let b = reporting(&store, &rules, &[NonCompliant, Error]).await;
    add(&store, "Base", &[a, b]).await.expect("adds");
    create(&store, "Labs").await.expect("creates");
    add(&store, "Labs", &[b]).await.expect("adds");
    let exempt = |who: String, rule: usize| {
        format!(
            "INSERT INTO exemption (item, rule, {who}, until, reason, made_at, made_by) \
             VALUES (1, 'Rule {rule}', %, {}, 'broken', {}, 'ann'); \
             INSERT INTO deployment_due (deployment, after) VALUES ({deployment}, NULL)",
            at(100).as_millisecond(),
            at(20).as_millisecond(),
        )
    };
    sql(
        &place,
        &exempt("device".to_owned(), 1).replace('%', &blob(a, &place)),
    )
    .await;
    work_out_at(&store, 20).await;
    assert_eq!(
        summary(&store, deployment, 20).await,
        counts([(Compliant, 1), (Error, 1)])
    );
    let labs = "(SELECT id FROM collection WHERE name = 'Labs')";
    for rule in [1, 2] {
        sql(
            &place,
            &exempt("collection".to_owned(), rule).replace('%', labs),
        )
        .await;
        work_out_at(&store, 20).await;
    }
    assert_eq!(
        summary(&store, deployment, 20).await,
        counts([(Compliant, 1), (Exempt, 1)])
    );
    let by_rule = store
        .rule_summaries(deployment, at(20))
        .await
        .expect("reads");
    assert_eq!(by_rule[0].devices, counts([(Exempt, 2)]));
    assert_eq!(by_rule[1].devices, counts([(Exempt, 1), (Compliant, 1)]));
    let page = store.device_rules(a, None, 10).await.expect("reads");
    let exemption = page.items[0].exemption.as_ref().expect("exempted");
    assert_eq!(
        (exemption.reason.as_str(), exemption.until),
        ("broken", Some(at(100)))
    );
    assert_eq!(page.items[1].exemption, None);

    // What is new counts at once, and is exempt as well.
    let next = changed(2, 30, vec![result(rules[0], Error, 30)]);
    report(&store, 30, reported(b, 1, vec![next])).await;
    assert_eq!(
        summary(&store, deployment, 30).await,
        counts([(Compliant, 1), (Exempt, 1)])
    );

    // Its end is noticed by a job: once.
    assert!(!store.exemptions_end(at(99)).await.expect("reads"));
    assert!(store.exemptions_end(at(100)).await.expect("reads"));
    let ended = apply(&store, 100, Kind::EndExemptions).await;
    assert_eq!(ended, Ok(Applied::ExemptionsEnded(vec![1, 2, 3])));
    work_out_at(&store, 100).await;
    assert_eq!(
        summary(&store, deployment, 100).await,
        counts([(NonCompliant, 1), (Error, 1)])
    );
    let again = apply(&store, 101, Kind::EndExemptions).await;
    assert_eq!(again, Ok(Applied::Unchanged));
    // How it was while they counted.
    let then = |second| store.compliance_at(deployment, at(second));
    assert_eq!(
        then(20).await.expect("reads"),
        then(25).await.expect("reads")
    );
    assert_eq!(
        then(25).await.expect("reads"),
        counts([(Compliant, 1), (Exempt, 1)])
    );
    assert_eq!(
        then(15).await.expect("reads"),
        counts([(NonCompliant, 1), (Error, 1)])
    );
    sound(&store).await;
}

async fn exempt(store: &Store, second: i64, rule: &str, scope: ExemptionScope) -> Outcome {
    let new = NewExemption {
        item: "Base".parse().expect("a name"),
        rule: rule.parse().expect("a name"),
        scope,
        reason: "broken".parse().expect("a reason"),
        until: None,
    };
    apply(
        store,
        second,
        Kind::Object(ObjectChange::Exempt(Box::new(new))),
    )
    .await
}

type Outcome = Result<Applied, Conflict>;

pub async fn who_is_exempt_changes_at_once(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 2).await;
    let a = reporting(&store, &rules, &[NonCompliant, Compliant]).await;
    let b = reporting(&store, &rules, &[NonCompliant, Compliant]).await;
    add(&store, "Base", &[a, b]).await.expect("adds");
    let stands = async |exempt| {
        let expected = counts([(Compliant, exempt), (NonCompliant, 2 - exempt)]);
        assert_eq!(summary(&store, deployment, 20).await, expected);
        sound(&store).await;
    };
    stands(0).await;
    // A device: without a walk over all.
    let of_a = exempt(&store, 11, "Rule 1", ExemptionScope::Device(a)).await;
    assert!(!store.deployments_are_due().await.expect("reads"));
    stands(1).await;
    let Ok(Applied::Numbered(number)) = of_a else {
        panic!("{of_a:?}")
    };
    let end = Kind::Object(ObjectChange::EndExemption { number });
    apply(&store, 12, end).await.expect("ends");
    stands(0).await;

    // A collection: who comes is exempt, who leaves is so no more, though both stay where the
    // baseline is deployed.
    create(&store, "Labs").await.expect("creates");
    let labs = || ExemptionScope::Collection(named("Labs"));
    exempt(&store, 13, "Rule 1", labs()).await.expect("exempts");
    work_out_at(&store, 13).await;
    stands(0).await;
    add(&store, "Labs", &[a]).await.expect("adds");
    stands(1).await;
    add(&store, "Labs", &[b]).await.expect("adds");
    stands(2).await;
    let remove = Kind::RemoveMembers {
        collection: named("Labs"),
        devices: vec![a],
    };
    apply(&store, 14, remove).await.expect("removes");
    stands(1).await;

    // Into whom an exempt one is merged is exempt.
    let c = reporting(&store, &rules, &[NonCompliant, Compliant]).await;
    add(&store, "Base", &[c]).await.expect("adds");
    let d = enrolled(&store).await.0.id;
    exempt(&store, 15, "Rule 1", ExemptionScope::Device(d))
        .await
        .expect("exempts");
    let merge = Kind::MergeDevices { from: d, into: c };
    apply(&store, 16, merge).await.expect("merges");
    assert_eq!(
        summary(&store, deployment, 20).await,
        counts([(Compliant, 2), (NonCompliant, 1)])
    );
    sound(&store).await;
}

pub async fn who_is_exempt_does_not_depend_on_compliance(place: Place) {
    let store = place.open().await;
    deployed(&store, "Base", 1).await;
    let chosen = |query: &str| CollectionRules {
        query: Some(query.parse().expect("a filter")),
        ..CollectionRules::default()
    };
    let bad = r#"compliance["Base"] == "non-compliant""#;
    let make = Kind::CreateCollection {
        name: named("Bad"),
        rules: chosen(bad),
    };
    apply(&store, 0, make).await.expect("creates");
    let within = CollectionRules {
        include: [named("Bad")].into(),
        ..CollectionRules::default()
    };
    let make = Kind::CreateCollection {
        name: named("Outer"),
        rules: within.clone(),
    };
    apply(&store, 0, make).await.expect("creates");
    for name in ["Bad", "Outer"] {
        let scope = ExemptionScope::Collection(named(name));
        let refused = exempt(&store, 1, "Rule 1", scope).await;
        assert!(
            matches!(refused, Err(Conflict::ExemptByCompliance(..))),
            "{refused:?}"
        );
    }
    // And the other way round.
    create(&store, "Labs").await.expect("creates");
    let scope = ExemptionScope::Collection(named("Labs"));
    exempt(&store, 1, "Rule 1", scope).await.expect("exempts");
    for rules in [chosen(bad), within] {
        let set = Kind::SetCollectionRules {
            name: named("Labs"),
            rules,
        };
        let refused = apply(&store, 2, set).await;
        assert!(
            matches!(&refused, Err(Conflict::ExemptByCompliance(name, _)) if *name == named("Labs")),
            "{refused:?}"
        );
    }
}

/// Two nodes whose clocks are not the same, and memberships that hold for an earlier moment.
pub async fn clocks_that_differ_give_no_overlaps(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 1).await;
    let device = reporting(&store, &rules, &[Compliant]).await;
    add(&store, "Base", &[device]).await.expect("adds");
    let say = async |sequence, second, state| {
        let next = changed(sequence, second, vec![result(rules[0], state, second)]);
        report(&store, second, reported(device, 1, vec![next])).await;
        sound(&store).await;
    };
    say(2, 1000, NonCompliant).await;
    say(3, 990, Compliant).await;
    say(4, 995, NonCompliant).await;
    let member = async |second, is: bool| {
        let (collection, devices) = (named("Base"), vec![device]);
        let kind = match is {
            true => Kind::AddMembers {
                collection,
                devices,
            },
            false => Kind::RemoveMembers {
                collection,
                devices,
            },
        };
        apply(&store, second, kind).await.expect("changes");
        sound(&store).await;
    };
    member(1100, false).await;
    member(1050, true).await;
    say(5, 1060, Compliant).await;
    say(6, 1200, NonCompliant).await;
    for second in [995, 1000, 1050, 1099, 1100, 1150, 1300] {
        let then = store.compliance_at(deployment, at(second)).await;
        assert_eq!(then.expect("reads").total(), 1, "{second}");
    }
}

pub async fn the_past_can_be_asked(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 2).await;
    let device = reporting(&store, &rules, &[Compliant, Compliant]).await;
    let steady = reporting(&store, &rules, &[Compliant, Compliant]).await;
    add(&store, "Base", &[device, steady]).await.expect("adds");
    let days = [
        (2, 1, NonCompliant),
        (3, 1, Remediated),
        (4, 1, NonCompliant),
        (5, 1, Remediated),
        (6, 0, NonCompliant),
    ];
    for (sequence, (day, rule, state)) in (2..).zip(days) {
        let second = day * DAY;
        let next = changed(sequence, second, vec![result(rules[rule], state, second)]);
        report(&store, second, reported(device, 1, vec![next])).await;
    }
    for (day, expected) in [
        (1, counts([(Compliant, 2)])),
        (2, counts([(NonCompliant, 1), (Compliant, 1)])),
        (3, counts([(Compliant, 2)])),
        (4, counts([(NonCompliant, 1), (Compliant, 1)])),
        (5, counts([(Compliant, 2)])),
        (7, counts([(NonCompliant, 1), (Compliant, 1)])),
    ] {
        let then = store.compliance_at(deployment, at(day * DAY + 1)).await;
        assert_eq!(then.expect("reads"), expected, "day {day}");
    }

    let flapping = store.flapping_rules(at(0), None, 10).await.expect("reads");
    let found: Vec<_> = flapping
        .iter()
        .map(|rule| (rule.rule, rule.changes, rule.returns))
        .collect();
    assert_eq!(found, [(rules[1], 4, 2), (rules[0], 1, 0)]);
    let since = store
        .flapping_rules(at(5 * DAY), Some(deployment), 10)
        .await;
    let found: Vec<_> = since.expect("reads").iter().map(|r| r.changes).collect();
    assert_eq!(found, [1, 1]);
    let other = store.flapping_rules(at(0), Some(deployment + 1), 10).await;
    assert!(other.expect("reads").is_empty());

    // What is asked again is answered again in the same way: also when a device leaves, when the rules
    // are others, and when another device comes.
    let remove = Kind::RemoveMembers {
        collection: named("Base"),
        devices: vec![steady],
    };
    apply(&store, 8 * DAY, remove).await.expect("removes");
    sql(
        &place,
        &format!(
            "DELETE FROM deployment_rule WHERE deployment = {deployment} AND rule = {}; \
             INSERT INTO deployment_due (deployment, after) VALUES ({deployment}, NULL)",
            rules[0]
        ),
    )
    .await;
    work_out_at(&store, 9 * DAY).await;
    let late = contract::device();
    let kind = contract::enroll(&late, &contract::certificate(&late));
    apply(&store, 9 * DAY, kind).await.expect("enrolls");
    add(&store, "Base", &[late.id]).await.expect("adds");
    for (second, expected) in [
        (2 * DAY + 1, counts([(NonCompliant, 1), (Compliant, 1)])),
        (7 * DAY, counts([(NonCompliant, 1), (Compliant, 1)])),
        (8 * DAY, counts([(NonCompliant, 1)])),
        (9 * DAY - 1, counts([(NonCompliant, 1)])),
        (9 * DAY, counts([(Compliant, 1), (Unknown, 1)])),
    ] {
        let then = store.compliance_at(deployment, at(second)).await;
        assert_eq!(then.expect("reads"), expected, "second {second}");
    }
    sound(&store).await;
}

pub async fn results_go_with_their_device_and_history_stays_with_the_merged(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 2).await;
    let old = reporting(&store, &rules, &[NonCompliant, Compliant]).await;
    let new = reporting(&store, &rules, &[Compliant, Compliant]).await;
    let other = reporting(&store, &rules, &[Error, Compliant]).await;
    add(&store, "Base", &[old, other]).await.expect("adds");
    let merge = Kind::MergeDevices {
        from: old,
        into: new,
    };
    apply(&store, 20, merge).await.expect("merges");
    assert_eq!(
        summary(&store, deployment, 20).await,
        counts([(Compliant, 1), (Error, 1)])
    );
    sound(&store).await;
    // The earlier record's history is the computer's.
    let states: Vec<_> = history(&store, new)
        .await
        .iter()
        .map(|(state, ..)| *state)
        .collect();
    assert_eq!(states.len(), 4);
    assert!(states.contains(&NonCompliant));
    assert_eq!(history(&store, old).await.len(), 2);

    apply(&store, 30, Kind::DeleteDevice { device: new })
        .await
        .expect("deletes");
    assert_eq!(summary(&store, deployment, 30).await, counts([(Error, 1)]));
    let late = reported(
        new,
        1,
        vec![changed(2, 31, vec![result(rules[0], Error, 31)])],
    );
    let late = apply(&store, 31, Kind::ReportResults(late)).await;
    assert!(matches!(late, Err(Conflict::NotFound(_))), "{late:?}");
    let purge = Kind::PurgeDevices {
        deleted_until: at(400 * DAY),
        expired_until: at(400 * DAY),
    };
    let purged = apply(&store, 400 * DAY, purge).await;
    match purged {
        Ok(Applied::Purged(purged)) => assert_eq!((purged.devices, purged.results), (2, 6)),
        other => panic!("{other:?}"),
    }
    assert!(history(&store, new).await.is_empty());
    assert!(history(&store, old).await.is_empty());
    assert_eq!(history(&store, other).await.len(), 2);
    assert_eq!(summary(&store, deployment, 30).await, counts([(Error, 1)]));
    sound(&store).await;
}

pub async fn what_is_too_old_is_forgotten(place: Place) {
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 1).await;
    let device = enrolled(&store).await.0.id;
    add(&store, "Base", &[device]).await.expect("adds");
    let days = [
        (1, "a", NonCompliant),
        (2, "b", Compliant),
        (3, "c", NonCompliant),
        (4, "d", Compliant),
    ];
    for (day, value, state) in days {
        let found = NewResult {
            finding: Finding::new(Some(value.to_owned()), None),
            ..result(rules[0], state, day * DAY)
        };
        let next = ResultsChange {
            whole: day == 1,
            ..changed(day, day * DAY, vec![found])
        };
        report(&store, day * DAY, reported(device, 1, vec![next])).await;
    }
    // Of the rule, of the deployment and of the days: what ended until then.
    assert_eq!(
        store
            .forget_history(at(3 * DAY + 1))
            .await
            .expect("forgets"),
        2 + 2 + 1
    );
    let kept = [
        (Compliant, 4 * DAY, None),
        (NonCompliant, 3 * DAY, Some(4 * DAY)),
    ];
    assert_eq!(history(&store, device).await, kept);
    let then = store.compliance_at(deployment, at(3 * DAY + 2)).await;
    assert_eq!(then.expect("reads"), counts([(NonCompliant, 1)]));
    assert_eq!(store.forget_values().await.expect("forgets"), 2);
    assert_eq!(store.forget_values().await.expect("forgets"), 0);
    let filter = HistoryFilter {
        device,
        rule: None,
        after: None,
        limit: 9,
    };
    let kept = store.rule_history(&filter).await.expect("reads").items;
    let kept: Vec<_> = kept.iter().filter_map(|one| one.value.as_deref()).collect();
    assert_eq!(kept, ["d", "c"]);
    sound(&store).await;
}

pub async fn too_little_compliance_is_one_alert(place: Place) {
    let store = place.open().await;
    create(&store, "Base").await.expect("creates");
    let sample = SampleDeployment {
        baseline: "Base".parse().expect("a name"),
        collection: named("Base"),
        rules: 1,
        stale_after: Period::from_days(30),
        alert: Some((90, at(100))),
        at: at(0),
    };
    let (deployment, _) = store.deploy_sample(&sample).await.expect("deploys");
    let due = async |second| {
        store
            .compliance_alerts_due(at(second))
            .await
            .expect("reads")
    };
    assert!(due(99).await.is_empty());
    let found = due(100).await;
    let expected = ComplianceAlertDue {
        deployment,
        at: at(100),
        below: 90,
    };
    assert_eq!(found, [expected]);
    let judge = Kind::JudgeCompliance {
        deployment,
        alert_at: at(100),
        below: Some("40 percent".to_owned()),
    };
    // Two nodes at once.
    let outcomes = store
        .commit(vec![change(100, judge.clone()), change(100, judge)])
        .await
        .expect("commits");
    assert_eq!(outcomes, [Ok(Applied::Done), Ok(Applied::Unchanged)]);
    assert!(due(200).await.is_empty());
    let filter = AlertFilter {
        limit: 10,
        ..AlertFilter::default()
    };
    let alerts = store.alerts(&filter).await.expect("reads").items;
    assert_eq!(alerts.len(), 1);
    assert_eq!(
        (alerts[0].kind, alerts[0].device, alerts[0].deployment),
        (AlertKind::ComplianceBelow, None, Some(deployment))
    );
    // Another moment is another alert; enough devices are none.
    sql(
        &place,
        &format!(
            "UPDATE deployment SET alert_at = {} WHERE number = {deployment}",
            at(300).as_millisecond()
        ),
    )
    .await;
    assert_eq!(due(300).await.len(), 1);
    let judge = Kind::JudgeCompliance {
        deployment,
        alert_at: at(300),
        below: None,
    };
    assert_eq!(apply(&store, 300, judge).await, Ok(Applied::Unchanged));
    assert!(due(300).await.is_empty());
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert!(proof.holds(), "{proof:?}");
}

/// A small generator, so that a run can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides as u64) as usize
    }
}

/// What the tables should come to, worked out in the simplest way.
#[derive(Default)]
struct Model {
    members: BTreeMap<usize, BTreeSet<DeviceId>>,
    rules: BTreeMap<usize, BTreeSet<i64>>,
    results: BTreeMap<DeviceId, BTreeMap<i64, ComplianceState>>,
    /// Until when.
    exempted: BTreeMap<(DeviceId, i64), i64>,
}

impl Model {
    fn counts(&self, deployment: usize) -> StateCounts {
        let mut counts = StateCounts::default();
        let rules = &self.rules[&deployment];
        for device in self.members.get(&deployment).into_iter().flatten() {
            let reported = self.results.get(device);
            let states: Option<Vec<_>> = rules
                .iter()
                .map(|rule| {
                    let reported = reported?;
                    if self.exempted.contains_key(&(*device, *rule)) {
                        return Some(Exempt);
                    }
                    Some(match reported.get(rule)? {
                        Remediated => Compliant,
                        RemediationFailed => NonCompliant,
                        state => *state,
                    })
                })
                .collect();
            let worst = states.and_then(|states| states.into_iter().max());
            *counts.of(worst.unwrap_or(Unknown)) += 1;
        }
        counts
    }

    /// For each rule; of devices for which the deployment is unknown, so are its rules.
    fn counts_of_rules(&self, deployment: usize) -> BTreeMap<i64, StateCounts> {
        let rules = &self.rules[&deployment];
        let mut found: BTreeMap<i64, StateCounts> = BTreeMap::new();
        for device in self.members.get(&deployment).into_iter().flatten() {
            let state = |rule: &i64| {
                let reported = self.results.get(device)?;
                match self.exempted.contains_key(&(*device, *rule)) {
                    true => Some(Exempt),
                    false => reported.get(rule).copied(),
                }
            };
            let known = rules.iter().all(|rule| state(rule).is_some());
            for rule in rules {
                let state = state(rule).filter(|_| known).unwrap_or(Unknown);
                *found.entry(*rule).or_default().of(state) += 1;
            }
        }
        found
    }
}

/// Whatever happens in whatever order: the sums are the numbers of rows, and these are what counting
/// from scratch gives; intervals never overlap.
pub async fn sums_are_right_after_whatever_happens(place: Place) {
    const REPORTED: [ComplianceState; 6] = [
        Compliant,
        NonCompliant,
        Error,
        NotApplicable,
        Remediated,
        RemediationFailed,
    ];
    let seed = u64::from_be_bytes(random());
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let store = place.open().await;
    let names = ["One", "Two"];
    let mut model = Model::default();
    let mut deployments = Vec::new();
    let mut all_rules = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let (deployment, rules) = deployed(&store, name, 3).await;
        deployments.push(deployment);
        model.rules.insert(index, rules.iter().copied().collect());
        all_rules.extend(rules);
    }
    let mut devices = Vec::new();
    for _ in 0..6 {
        devices.push(enrolled(&store).await.0.id);
    }
    let mut sequences = vec![(0_u8, 0_i64); devices.len()];
    for step in 1..150 {
        let second = step * 10;
        let index = dice.roll(devices.len());
        let device = devices[index];
        let collection = dice.roll(2);
        match dice.roll(10) {
            0 | 1 => {
                add(&store, names[collection], &[device])
                    .await
                    .expect("adds");
                model.members.entry(collection).or_default().insert(device);
            }
            2 => {
                let remove = Kind::RemoveMembers {
                    collection: named(names[collection]),
                    devices: vec![device],
                };
                apply(&store, second, remove).await.expect("removes");
                model.members.entry(collection).or_default().remove(&device);
            }
            3 => {
                // The deployment has a rule more or less.
                let rule = all_rules[dice.roll(all_rules.len())];
                let rules = model.rules.entry(collection).or_default();
                let deployment = deployments[collection];
                let statement = if rules.remove(&rule) {
                    format!(
                        "DELETE FROM deployment_rule WHERE deployment = {deployment} AND rule = {rule}"
                    )
                } else {
                    rules.insert(rule);
                    format!(
                        "INSERT INTO deployment_rule (deployment, rule) VALUES ({deployment}, {rule})"
                    )
                };
                sql(&place, &format!(
                    "{statement}; INSERT INTO deployment_due (deployment, after) VALUES ({deployment}, NULL)"
                )).await;
                sound(&store).await;
                work_out(&store).await;
            }
            4 => {
                let rule = all_rules[dice.roll(all_rules.len())];
                let until = second + 55;
                if let std::collections::btree_map::Entry::Vacant(none) =
                    model.exempted.entry((device, rule))
                {
                    none.insert(until);
                    sql(&place, &format!(
                        "INSERT INTO exemption (item, rule, device, until, reason, made_at, made_by) \
                         SELECT item, name, {}, {}, 'why', 0, 'ann' FROM rule WHERE id = {rule}; \
                         INSERT INTO deployment_due (deployment, after) SELECT number, NULL FROM deployment",
                        blob(device, &place),
                        at(until).as_millisecond(),
                    )).await;
                    work_out(&store).await;
                }
            }
            5 => {
                apply(&store, second, Kind::EndExemptions)
                    .await
                    .expect("ends");
                work_out(&store).await;
                model.exempted.retain(|_, until| *until > second);
            }
            6 => {
                // A device that forgot: a new stream, the whole set.
                let (stream, sequence) = &mut sequences[index];
                (*stream, *sequence) = (*stream + 1, 1);
                let results: BTreeMap<i64, ComplianceState> = all_rules
                    .iter()
                    .filter(|_| dice.roll(5) > 0)
                    .copied()
                    .collect::<Vec<_>>()
                    .into_iter()
                    .map(|rule| (rule, REPORTED[dice.roll(6)]))
                    .collect();
                let sent = results
                    .iter()
                    .map(|(rule, state)| result(*rule, *state, second));
                let change = whole(1, second, sent.collect());
                report(&store, second, reported(device, *stream, vec![change])).await;
                model.results.insert(device, results);
            }
            _ => {
                let (stream, sequence) = &mut sequences[index];
                if *stream == 0 {
                    continue;
                }
                *sequence += 1;
                let rule = all_rules[dice.roll(all_rules.len())];
                let state = REPORTED[dice.roll(6)];
                // Any clock.
                let since = second - 40 + dice.roll(60) as i64;
                let mut change = changed(*sequence, second, vec![result(rule, state, since)]);
                let results = model.results.entry(device).or_default();
                if dice.roll(6) == 0 {
                    change.results.clear();
                    change.gone = vec![rule];
                    results.remove(&rule);
                } else {
                    results.insert(rule, state);
                }
                let sent = reported(device, *stream, vec![change]);
                let again = sent.clone();
                report(&store, second, sent).await;
                if dice.roll(3) == 0 {
                    assert!(!report(&store, second, again).await.0);
                }
            }
        }
        sound(&store).await;
        for (index, deployment) in deployments.iter().enumerate() {
            assert_eq!(
                summary(&store, *deployment, second).await,
                model.counts(index),
                "step {step}, deployment {deployment}, seed {seed}"
            );
            let rules = store.rule_summaries(*deployment, at(second)).await;
            let rules = rules.expect("reads").into_iter();
            let rules: BTreeMap<_, _> = rules
                .map(|rule| (rule.rule, rule.devices))
                .filter(|(_, devices)| devices.total() > 0)
                .collect();
            assert_eq!(
                rules,
                model.counts_of_rules(index),
                "step {step}, deployment {deployment}, seed {seed}"
            );
        }
    }
}

/// A deployment that changes five times while its devices report: the sums are right at every moment.
pub async fn sums_are_right_while_a_deployment_changes(place: Place) {
    const DEVICES: usize = 10_000;
    let store = place.open().await;
    let (deployment, rules) = deployed(&store, "Base", 4).await;
    let mut devices = Vec::new();
    let mut changes = Vec::new();
    for _ in 0..DEVICES {
        let device = contract::device();
        changes.push(contract::enroll(&device, &contract::certificate(&device)));
        devices.push(device.id);
    }
    for some in changes.chunks(500) {
        let some = some.iter().map(|kind| change(0, kind.clone())).collect();
        store.commit(some).await.expect("commits");
    }
    for some in devices.chunks(1_000) {
        add(&store, "Base", some).await.expect("adds");
    }
    work_out(&store).await;

    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Two nodes where there can be two.
    let other = match place.location {
        Location::Sqlite(_) => store.clone(),
        Location::Postgres(_) => place.open_as("other").await,
    };
    let intake = {
        let (devices, rules) = (devices.clone(), rules.clone());
        let stores = [store.clone(), other.clone()];
        tokio::spawn(async move {
            let mut dice = Dice(7);
            let mut results = BTreeMap::new();
            for (round, some) in devices.chunks(250).enumerate() {
                let mut sent = Vec::new();
                for device in some {
                    let states: Vec<_> = rules
                        .iter()
                        .map(|rule| {
                            result(*rule, [Compliant, NonCompliant, Error][dice.roll(3)], 10)
                        })
                        .collect();
                    let worst = states.iter().map(|result| result.state).collect::<Vec<_>>();
                    results.insert(*device, worst);
                    let report = reported(*device, 1, vec![whole(1, 10, states)]);
                    sent.push(change(10, Kind::ReportResults(report)));
                }
                let outcomes = stores[round % 2].commit(sent).await.expect("commits");
                assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            }
            results
        })
    };
    let job = {
        let (store, stop) = (other, stop.clone());
        tokio::spawn(async move {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                apply(&store, 20, Kind::WorkOutDeployments)
                    .await
                    .expect("works out");
                tokio::task::yield_now().await;
            }
        })
    };
    let mut looked = 0;
    for round in 0..5 {
        let rule = rules[3];
        let statement = match round % 2 {
            0 => format!(
                "DELETE FROM deployment_rule WHERE deployment = {deployment} AND rule = {rule}"
            ),
            _ => format!(
                "INSERT INTO deployment_rule (deployment, rule) VALUES ({deployment}, {rule})"
            ),
        };
        sql(&place, &format!(
            "{statement}; INSERT INTO deployment_due (deployment, after) VALUES ({deployment}, NULL) \
             ON CONFLICT (deployment) DO UPDATE SET after = NULL"
        )).await;
        for _ in 0..4 {
            sound(&store).await;
            assert_eq!(
                summary(&store, deployment, 20).await.total(),
                DEVICES as i64
            );
            looked += 1;
        }
    }
    let results = intake.await.expect("reports");
    while store.deployments_are_due().await.expect("reads") {
        sound(&store).await;
        tokio::task::yield_now().await;
        looked += 1;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    job.await.expect("ends");
    println!("looked {looked} times");
    sound(&store).await;
    // The last change took the fourth rule away.
    let mut expected = StateCounts::default();
    for states in results.values() {
        *expected.of(*states[..3].iter().max().expect("a state")) += 1;
    }
    assert_eq!(summary(&store, deployment, 20).await, expected);
}

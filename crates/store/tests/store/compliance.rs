//! What both databases must do with configuration items, baselines, deployments, exemptions and
//! commands.

use domain::compliance::{
    BaselineContent, BaselineName, BaselinePart, Deployment, ExemptionScope, ItemContent, ItemName,
};
use domain::{CommandKind, CommandState};
use protocol::{CommandId, CommandResult, ItemBody, PolicyState, PolicyVersion};
use store::ObjectChange::*;

use super::contract::{apply, at, change, enrolled, random, tamper};
use super::fleet::{add, create, named};
use super::*;

/// An item with one script setting, whose rule has this value and severity.
fn content(value: &str, severity: &str) -> ItemContent {
    serde_json::from_value(serde_json::json!({
        "platforms": [{"os": "macOS"}],
        "settings": [
            {"name": "s", "data_type": "string", "source": {"script": {"discovery": "echo x"}}},
            {"name": "t", "data_type": "string", "source": {"script": {"discovery": "echo y"}}},
        ],
        "rules": [
            {"name": "r", "setting": "s", "severity": severity, "condition": {"value":
                {"type": "string", "operator": "equals", "operands": [value]}}},
            {"name": "other", "setting": "t", "condition": {"existential": "must-exist"}},
        ],
    }))
    .expect("an item")
}

fn item(name: &str) -> ItemName {
    name.parse().expect("a name")
}

fn base(name: &str) -> BaselineName {
    name.parse().expect("a name")
}

fn of_item(name: &str, revision: Option<u32>) -> BaselinePart {
    BaselinePart::Item {
        name: item(name),
        revision,
    }
}

fn nested(name: &str) -> BaselinePart {
    BaselinePart::Baseline { name: base(name) }
}

fn parts(parts: &[BaselinePart]) -> BaselineContent {
    BaselineContent {
        description: String::new(),
        enabled: true,
        parts: parts.to_vec(),
    }
}

fn deploy(baseline: &str, collection: &str) -> Deployment {
    let text = format!(r#"{{"baseline": "{baseline}", "collection": "{collection}"}}"#);
    serde_json::from_str(&text).expect("a deployment")
}

async fn object(store: &Store, change: ObjectChange) -> Result<Applied, Conflict> {
    apply(store, 10, Kind::Object(change)).await
}

async fn make_item(store: &Store, name: &str) {
    let (name, content) = (item(name), content("x", "none"));
    object(store, CreateItem { name, content })
        .await
        .expect("creates");
}

async fn make_baseline(store: &Store, name: &str, of: &[BaselinePart]) {
    let (name, content) = (base(name), parts(of));
    object(store, CreateBaseline { name, content })
        .await
        .expect("creates");
}

async fn set_parts(store: &Store, name: &str, of: &[BaselinePart]) -> Result<Applied, Conflict> {
    let set = SetBaseline {
        name: base(name),
        content: parts(of),
        base: None,
    };
    object(store, set).await
}

async fn make_deployment(store: &Store, baseline: &str, collection: &str) -> i64 {
    let new = CreateDeployment(Box::new(deploy(baseline, collection)));
    match object(store, new).await {
        Ok(Applied::Numbered(number)) => number,
        other => panic!("{other:?}"),
    }
}

async fn place(store: &Store) -> PolicyPlace {
    store.policy().await.expect("reads")
}

async fn revise(
    store: &Store,
    name: &str,
    content: ItemContent,
    base: Option<u32>,
) -> Result<Applied, Conflict> {
    let name = item(name);
    object(
        store,
        ReviseItem {
            name,
            content,
            base,
        },
    )
    .await
}

fn revision(applied: Result<Applied, Conflict>) -> u32 {
    match applied {
        Ok(Applied::Revised { revision, .. }) => revision,
        other => panic!("{other:?}"),
    }
}

async fn body(store: &Store, name: &str, revision: u32) -> ItemBody {
    let found = store
        .item_revision(&item(name), Some(revision))
        .await
        .expect("reads")
        .expect("is there");
    let body = store.body(found.body).await.expect("reads").expect("there");
    let body: ItemBody = serde_json::from_slice(&body).expect("a body");
    assert_eq!((&body.item, body.revision), (&item(name), revision));
    assert_eq!(body.content, found.content);
    body
}

async fn deployed(store: &Store, number: i64) -> Vec<(String, u32)> {
    let items = store.deployed_items(number).await.expect("reads");
    items
        .into_iter()
        .map(|(name, revision)| (name.to_string(), revision))
        .collect()
}

pub async fn a_revision_never_changes_and_unchanged_rules_keep_their_numbers(place: Place) {
    let store = place.open().await;
    make_item(&store, "a").await;
    let again = CreateItem {
        name: item("a"),
        content: content("x", "none"),
    };
    assert!(matches!(
        object(&store, again).await,
        Err(Conflict::Exists(_))
    ));
    // The same content makes none.
    let same = revise(&store, "a", content("x", "none"), None).await;
    assert_eq!(same, Ok(Applied::Unchanged));
    // Another severity is another revision, and the same rules.
    let second = revise(&store, "a", content("x", "critical"), Some(1)).await;
    assert_eq!(revision(second), 2);
    let (one, two) = (body(&store, "a", 1).await, body(&store, "a", 2).await);
    assert_eq!(one.rules, two.rules);
    // Another value is another rule; its neighbour stays.
    let third = revise(&store, "a", content("z", "critical"), None).await;
    assert_eq!(revision(third), 3);
    let three = body(&store, "a", 3).await;
    assert_ne!(two.rules[0], three.rules[0]);
    assert_eq!(two.rules[1], three.rules[1]);
    // Back again: its first number, too.
    revise(&store, "a", content("x", "none"), None)
        .await
        .expect("revises");
    assert_eq!(body(&store, "a", 4).await.rules, one.rules);
    // Another item's rules are others.
    make_item(&store, "b").await;
    assert_ne!(body(&store, "b", 1).await.rules, one.rules);

    // Whoever saw an older revision is told, and nothing is changed.
    let late = revise(&store, "a", content("late", "none"), Some(3)).await;
    assert_eq!(late, Err(Conflict::Changed));
    let nothing = revise(&store, "no", content("x", "none"), None).await;
    assert!(matches!(nothing, Err(Conflict::NotFound(_))));

    let history = store
        .item_history(&item("a"), None, 3)
        .await
        .expect("reads");
    let numbers: Vec<_> = history.items.iter().map(|found| found.revision).collect();
    assert_eq!(numbers, [4, 3, 2]);
    assert_eq!(history.items[0].author, "site");
    let rest = store
        .item_history(&item("a"), Some(2), 3)
        .await
        .expect("reads");
    assert_eq!((rest.items.len(), rest.next), (1, None));
    let latest = store.item_revision(&item("a"), None).await.expect("reads");
    assert_eq!(latest.expect("there").revision, 4);
    let listed = store.items(None, 1).await.expect("reads");
    assert_eq!((listed.items[0].latest, listed.items[0].rules), (4, 2));
    assert_eq!(listed.items[0].platforms, "macOS");
    let listed = store.items(listed.next.as_deref(), 9).await.expect("reads");
    assert_eq!(listed.items[0].name, item("b"));

    let delete = DeleteItem { name: item("a") };
    assert_eq!(object(&store, delete.clone()).await, Ok(Applied::Done));
    assert!(matches!(
        object(&store, delete).await,
        Err(Conflict::NotFound(_))
    ));
    // Its name is free, and what it was can still be fetched by its hash.
    make_item(&store, "a").await;
    assert_ne!(body(&store, "a", 1).await.rules, one.rules);
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert!(proof.holds());
}

pub async fn what_is_used_is_not_deleted(place: Place) {
    let store = place.open().await;
    create(&store, "Labs").await.expect("creates");
    make_item(&store, "a").await;
    make_baseline(&store, "inner", &[of_item("a", None)]).await;
    make_baseline(&store, "outer", &[nested("inner")]).await;
    let number = make_deployment(&store, "outer", "Labs").await;
    let refused = [
        Kind::Object(DeleteItem { name: item("a") }),
        Kind::Object(DeleteBaseline {
            name: base("inner"),
        }),
        Kind::Object(DeleteBaseline {
            name: base("outer"),
        }),
        Kind::DeleteCollection {
            name: named("Labs"),
        },
    ];
    let told = [
        "the configuration item is used by the baseline `inner`",
        "the baseline is used by the baseline `outer`",
        "the baseline is used by deployment",
        "the collection is used by deployment",
    ];
    for (kind, told) in refused.into_iter().zip(told) {
        let refused = apply(&store, 1, kind).await.expect_err("is used");
        assert!(refused.to_string().starts_with(told), "{refused}");
    }
    for kind in [
        Kind::Object(DeleteDeployment { number }),
        Kind::Object(DeleteBaseline {
            name: base("outer"),
        }),
        Kind::Object(DeleteBaseline {
            name: base("inner"),
        }),
        Kind::Object(DeleteItem { name: item("a") }),
        Kind::DeleteCollection {
            name: named("Labs"),
        },
    ] {
        assert_eq!(apply(&store, 1, kind).await, Ok(Applied::Done));
    }
}

pub async fn no_baseline_is_a_part_of_itself(place: Place) {
    let store = place.open().await;
    make_item(&store, "i").await;
    make_baseline(&store, "a", &[of_item("i", None)]).await;
    make_baseline(&store, "b", &[nested("a")]).await;
    make_baseline(&store, "c", &[nested("b")]).await;
    let cycle = set_parts(&store, "a", &[nested("c"), of_item("i", None)]).await;
    let told = cycle.expect_err("a cycle").to_string();
    assert!(told.ends_with("`a` → `c` → `b` → `a`"), "{told}");
    // Nothing of it was done, and a neighbour in the batch does not suffer.
    let tree = store.baseline_tree(&base("a")).await.expect("reads");
    assert_eq!(tree[0].content.parts, [of_item("i", None)]);
    assert_eq!(tree[0].version, 1);
    let outcomes = store
        .commit(vec![
            change(
                1,
                Kind::Object(CreateBaseline {
                    name: base("d"),
                    content: parts(&[of_item("i", Some(7))]),
                }),
            ),
            change(
                1,
                Kind::Object(CreateBaseline {
                    name: base("self"),
                    content: parts(&[nested("self")]),
                }),
            ),
            change(
                1,
                Kind::Object(CreateBaseline {
                    name: base("e"),
                    content: parts(&[nested("c"), nested("a")]),
                }),
            ),
        ])
        .await
        .expect("commits");
    assert!(
        matches!(&outcomes[0], Err(Conflict::NotFound(what)) if what.starts_with("revision 7")),
        "{outcomes:?}"
    );
    assert!(
        matches!(&outcomes[1], Err(Conflict::NestingCycle(_))),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[2], Ok(Applied::Done));
    let names: Vec<_> = store
        .baselines(None, 9)
        .await
        .expect("reads")
        .items
        .iter()
        .map(|found| found.name.to_string())
        .collect();
    assert_eq!(names, ["a", "b", "c", "e"]);
    let tree = store.baseline_tree(&base("e")).await.expect("reads");
    let names: Vec<_> = tree.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["e", "a", "b", "c"]);
    let late = SetBaseline {
        name: base("a"),
        content: parts(&[]),
        base: Some(7),
    };
    assert_eq!(object(&store, late).await, Err(Conflict::Changed));
}

/// Two nodes, each of which closes one half of a cycle: one of them is refused. The first one's
/// transaction goes on for a while after its check, so that the second one's falls into it.
pub async fn two_nodes_do_not_close_a_cycle_together(place: Place) {
    let one = place.open().await;
    let two = place.open().await;
    make_item(&one, "i").await;
    for round in 0..3 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        make_baseline(&one, &a, &[of_item("i", None)]).await;
        make_baseline(&one, &b, &[of_item("i", None)]).await;
        let set = SetBaseline {
            name: base(&a),
            content: parts(&[nested(&b)]),
            base: None,
        };
        let others = (0..400).map(|n| Kind::CreateCollection {
            name: named(&format!("{round} {n}")),
            rules: domain::CollectionRules::default(),
        });
        let batch = std::iter::once(Kind::Object(set))
            .chain(others)
            .map(|kind| change(1, kind))
            .collect();
        let second = [nested(&a)];
        let (first, second) = tokio::join!(one.commit(batch), set_parts(&two, &b, &second));
        let first = first.expect("commits").remove(0);
        let refused = [&first, &second]
            .iter()
            .filter(|outcome| matches!(outcome, Err(Conflict::NestingCycle(_))))
            .count();
        assert_eq!(refused, 1, "{first:?} {second:?}");
    }
}

pub async fn a_deployment_comes_to_revisions_and_rules(in_place: Place) {
    let store = in_place.open().await;
    create(&store, "Labs").await.expect("creates");
    let (device, certificate) = enrolled(&store).await;
    add(&store, "Labs", &[device.id]).await.expect("adds");
    make_item(&store, "a").await;
    make_item(&store, "b").await;
    assert_eq!(
        place(&store).await,
        PolicyPlace {
            version: PolicyVersion {
                epoch: 1,
                counter: 0
            },
            objects: 0,
        }
    );
    make_baseline(&store, "inner", &[of_item("a", None), of_item("b", None)]).await;
    make_baseline(&store, "outer", &[nested("inner")]).await;
    let number = make_deployment(&store, "outer", "Labs").await;
    let twice = CreateDeployment(Box::new(deploy("outer", "Labs")));
    assert!(matches!(
        object(&store, twice).await,
        Err(Conflict::Exists(_))
    ));
    assert_eq!(place(&store).await.version.counter, 1);
    assert_eq!(
        deployed(&store, number).await,
        [("a".to_owned(), 1), ("b".to_owned(), 1)]
    );
    let standing = store.standing(certificate.serial).await.expect("reads");
    let standing = standing.expect("is there");
    assert_eq!(standing.deployments, [number]);
    assert_eq!(standing.place, place(&store).await);

    // A new revision moves what has no fixed one; the counter rises once.
    revise(&store, "a", content("y", "none"), None)
        .await
        .expect("revises");
    assert_eq!(deployed(&store, number).await[0], ("a".to_owned(), 2));
    assert_eq!(place(&store).await.version.counter, 2);
    let record = store.deployment(number).await.expect("reads");
    let record = record.expect("there");
    assert_eq!((record.items, record.rules), (2, 4));

    // A fixed revision wins over the latest, and a baseline that nobody deploys changes nothing.
    set_parts(&store, "outer", &[nested("inner"), of_item("a", Some(1))])
        .await
        .expect("sets");
    assert_eq!(deployed(&store, number).await[0], ("a".to_owned(), 1));
    assert_eq!(place(&store).await.version.counter, 3);
    make_baseline(&store, "alone", &[of_item("a", None)]).await;
    revise(&store, "a", content("z", "none"), None)
        .await
        .expect("revises");
    assert_eq!(deployed(&store, number).await[0], ("a".to_owned(), 1));
    assert_eq!(place(&store).await.version.counter, 3);

    // What is not enabled is evaluated nowhere.
    let mut off = parts(&[of_item("a", None), of_item("b", None)]);
    off.enabled = false;
    let set = SetBaseline {
        name: base("inner"),
        content: off,
        base: Some(1),
    };
    object(&store, set).await.expect("sets");
    assert_eq!(deployed(&store, number).await, [("a".to_owned(), 1)]);
    let (seen, bodies) = store.deployed_bodies(&[number, 77]).await.expect("reads");
    assert_eq!(seen, place(&store).await);
    assert_eq!((bodies.len(), bodies[0].bodies.len()), (1, 1));

    // Other fields of the deployment.
    let mut changed = deploy("outer", "Labs");
    changed.remediate = true;
    changed.remediation_window = Some("22:00-06:00".parse().expect("a window"));
    changed.alert = Some(domain::compliance::ComplianceAlert {
        below: 90,
        at: at(1_000),
    });
    let set = |base| SetDeployment {
        number,
        deployment: Box::new(changed.clone()),
        base,
    };
    assert_eq!(object(&store, set(Some(9))).await, Err(Conflict::Changed));
    let before = place(&store).await;
    assert_eq!(object(&store, set(Some(1))).await, Ok(Applied::Done));
    assert_eq!(object(&store, set(None)).await, Ok(Applied::Unchanged));
    assert_eq!(
        place(&store).await.version.counter,
        before.version.counter + 1
    );
    let record = store.deployment(number).await.expect("reads");
    assert_eq!(record.expect("there").deployment, changed);
    let listed = store.deployments(None, 9).await.expect("reads");
    assert_eq!(listed.items.len(), 1);

    let before = place(&store).await;
    let delete = DeleteDeployment { number };
    assert_eq!(object(&store, delete.clone()).await, Ok(Applied::Done));
    assert!(matches!(
        object(&store, delete).await,
        Err(Conflict::NotFound(_))
    ));
    assert!(place(&store).await > before);
    assert!(deployed(&store, number).await.is_empty());
    let standing = store.standing(certificate.serial).await.expect("reads");
    assert!(standing.expect("is there").deployments.is_empty());
}

pub async fn a_policy_key_is_noted_once(place: Place) {
    let store = place.open().await;
    let note = |byte| Kind::NotePolicyKey {
        key: domain::KeyDigest::new([byte; 32]),
        not_after: at(900),
    };
    for (byte, applied) in [
        (1, Applied::Done),
        (1, Applied::Unchanged),
        (2, Applied::Done),
        (1, Applied::Unchanged),
    ] {
        assert_eq!(apply(&store, 1, note(byte)).await, Ok(applied));
    }
}

pub async fn an_alert_about_the_site_is_open_once(place: Place) {
    let store = place.open().await;
    let raise = |detail: &str| Kind::RaiseSiteAlert {
        alert: domain::AlertKind::PolicyKeyEnds,
        detail: detail.to_owned(),
    };
    assert_eq!(apply(&store, 1, raise("soon")).await, Ok(Applied::Done));
    assert_eq!(
        apply(&store, 2, raise("sooner")).await,
        Ok(Applied::Unchanged)
    );
    let filter = store::AlertFilter {
        limit: 9,
        ..Default::default()
    };
    let open = store.alerts(&filter).await.expect("reads").items;
    assert_eq!(open.len(), 1);
    assert_eq!((&open[0].device, open[0].deployment), (&None, None));
    let close = Kind::CloseAlert {
        number: open[0].number,
    };
    apply(&store, 3, close).await.expect("closes");
    assert_eq!(apply(&store, 4, raise("now")).await, Ok(Applied::Done));
}

pub async fn the_revisions_of_an_item_are_bounded(place: Place) {
    let store = place.open().await;
    make_item(&store, "a").await;
    // Much more than the site takes for one.
    let large = |mark: &str| -> ItemContent {
        let script = format!("echo {mark} {}", "x".repeat(250_000));
        let names: Vec<String> = (0..140).map(|number| format!("s{number}")).collect();
        let settings: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({"name": name, "data_type": "string",
                    "source": {"script": {"discovery": script}}})
            })
            .collect();
        let rules: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({"name": name, "setting": name,
                    "condition": {"existential": "must-exist"}})
            })
            .collect();
        serde_json::from_value(serde_json::json!({
            "platforms": [{"os": "macOS"}], "settings": settings, "rules": rules,
        }))
        .expect("an item")
    };
    assert!(revise(&store, "a", large("1"), None).await.is_ok());
    assert!(matches!(
        revise(&store, "a", large("2"), None).await,
        Err(Conflict::RevisedTooMuch(64))
    ));
    // Others have their own bound, and what says the same is no revision.
    make_item(&store, "b").await;
    assert_eq!(
        revise(&store, "a", large("1"), None).await,
        Ok(Applied::Unchanged)
    );
}

pub async fn a_revision_is_read_as_devices_get_it(place: Place) {
    let store = place.open().await;
    make_item(&store, "a").await;
    let read = async || store.item_revision(&item("a"), None).await;
    let before = read().await.expect("reads").expect("there");
    // Somebody who writes the database changes the copy that is compared.
    tamper(
        &place.location,
        "UPDATE item_revision SET content = replace(content, 'echo x', 'echo z')",
    )
    .await;
    assert_eq!(read().await.expect("reads").expect("there"), before);
    tamper(&place.location, "UPDATE item_revision SET body = body_hash").await;
    assert!(read().await.is_err());
}

pub async fn each_epoch_is_higher_than_those_before(place: Place) {
    let store = place.open().await;
    let raise = async |second| match apply(&store, second, Kind::RaiseEpoch).await {
        Ok(Applied::Numbered(epoch)) => epoch,
        other => panic!("not raised: {other:?}"),
    };
    // Records that are restored twice from one backup begin twice with the same epoch, and later.
    for restored_at in [1_000, 2_000] {
        tamper(&place.location, "UPDATE policy SET epoch = 1").await;
        assert_eq!(raise(restored_at).await, at(restored_at).as_second());
    }
    // Also under a clock that went back, or twice within a second.
    assert_eq!(raise(1_500).await, at(2_000).as_second() + 1);
    assert_eq!(raise(2_001).await, at(2_000).as_second() + 2);
    let version = store.policy().await.expect("reads").version;
    assert_eq!(version.epoch, raise(0).await.unsigned_abs() - 1);
}

pub async fn a_collection_aims_what_depends_on_its_members(place: Place) {
    let store = place.open().await;
    let (device, _) = enrolled(&store).await;
    for name in ["Limit", "Inner", "Out", "Other"] {
        create(&store, name).await.expect("creates");
    }
    let kind = Kind::CreateCollection {
        name: named("Target"),
        rules: domain::CollectionRules {
            limited_to: named("Limit"),
            include: [named("Inner")].into(),
            exclude: [named("Out")].into(),
            ..Default::default()
        },
    };
    apply(&store, 1, kind).await.expect("creates");
    make_item(&store, "a").await;
    make_baseline(&store, "b", &[of_item("a", None)]).await;
    add(&store, "Inner", &[device.id]).await.expect("adds");
    let aims = async || {
        let mut found = Vec::new();
        for name in ["Limit", "Inner", "Out", "Target", "Other", "no"] {
            if store.collection_aims(&named(name)).await.expect("reads") {
                found.push(name);
            }
        }
        let by_name = store.named_device_aims(device.id).await.expect("reads");
        (found, by_name)
    };
    assert_eq!(aims().await, (vec![], false));
    let Ok(Applied::Numbered(number)) =
        object(&store, CreateDeployment(Box::new(deploy("b", "Target")))).await
    else {
        panic!("not deployed");
    };
    let all = vec!["Limit", "Inner", "Out", "Target"];
    assert_eq!(aims().await, (all.clone(), true));
    object(&store, DeleteDeployment { number })
        .await
        .expect("deletes");
    assert_eq!(aims().await, (vec![], false));
    let exempt = Exempt(Box::new(NewExemption {
        item: item("a"),
        rule: "r".parse().expect("a name"),
        scope: ExemptionScope::Collection(named("Target")),
        reason: "a broken disk".parse().expect("a reason"),
        until: None,
    }));
    let Ok(Applied::Numbered(number)) = object(&store, exempt).await else {
        panic!("not exempted");
    };
    assert_eq!(aims().await, (all, true));
    object(&store, EndExemption { number }).await.expect("ends");
    assert_eq!(aims().await, (vec![], false));
}

pub async fn exemptions_end_and_stay_in_the_records(place: Place) {
    let store = place.open().await;
    create(&store, "Labs").await.expect("creates");
    let (device, _) = enrolled(&store).await;
    make_item(&store, "a").await;
    let new = |scope, rule: &str| {
        Exempt(Box::new(NewExemption {
            item: item("a"),
            rule: rule.parse().expect("a name"),
            scope,
            reason: "a broken disk".parse().expect("a reason"),
            until: Some(at(5_000)),
        }))
    };
    let stranger = DeviceId::from_entropy(random());
    for (scope, rule) in [
        (ExemptionScope::Device(stranger), "r"),
        (ExemptionScope::Device(device.id), "no"),
        (ExemptionScope::Collection(named("no")), "r"),
    ] {
        let refused = object(&store, new(scope, rule)).await;
        assert!(matches!(refused, Err(Conflict::NotFound(_))), "{refused:?}");
    }
    let Ok(Applied::Numbered(first)) =
        object(&store, new(ExemptionScope::Device(device.id), "r")).await
    else {
        panic!("not exempted");
    };
    let labs = ExemptionScope::Collection(named("Labs"));
    object(&store, new(labs.clone(), "r"))
        .await
        .expect("exempts");
    let refused = apply(
        &store,
        1,
        Kind::DeleteCollection {
            name: named("Labs"),
        },
    )
    .await;
    assert!(matches!(refused, Err(Conflict::UsedByExemption(_))));
    let listed = async |ended, device| {
        let filter = ExemptionFilter {
            device,
            ended,
            limit: 9,
            ..ExemptionFilter::default()
        };
        store.exemptions(&filter).await.expect("reads").items
    };
    let all = listed(false, None).await;
    assert_eq!((all.len(), &all[0].scope), (2, &labs));
    assert_eq!(listed(false, Some(device.id)).await.len(), 1);
    assert_eq!(all[1].reason, "a broken disk");
    let end = EndExemption { number: first };
    assert_eq!(object(&store, end.clone()).await, Ok(Applied::Done));
    assert!(matches!(
        object(&store, end).await,
        Err(Conflict::NotFound(_))
    ));
    assert_eq!(listed(false, None).await.len(), 1);
    let all = listed(true, None).await;
    assert_eq!((all.len(), all[1].ended_at), (2, Some(at(10))));
}

pub async fn a_command_is_for_one_device_and_done_once(place: Place) {
    let store = place.open().await;
    let (device, certificate) = enrolled(&store).await;
    let (other, _) = enrolled(&store).await;
    let new = |to: DeviceId, expires: i64| NewCommand {
        id: CommandId::new(random()),
        device: to,
        kind: CommandKind::Renew,
        about: String::new(),
        script: None,
        document: "{}".to_owned(),
        expires_at: at(expires),
    };
    let command = new(device.id, 100);
    let standing = async || {
        let standing = store.standing(certificate.serial).await.expect("reads");
        standing.expect("is there")
    };
    assert!(!standing().await.has_commands);
    apply(&store, 1, Kind::IssueCommand(command.clone()))
        .await
        .expect("issues");
    assert!(standing().await.has_commands);
    let open = store.open_commands(device.id).await.expect("reads");
    assert_eq!((open.len(), open[0].expires_at), (1, at(100)));
    let end = |device, done| Kind::EndCommand {
        device,
        id: command.id.clone(),
        result: CommandResult {
            at: at(2),
            done,
            detail: "renewed".to_owned(),
        },
    };
    assert!(matches!(
        apply(&store, 2, end(other.id, true)).await,
        Err(Conflict::NotFound(_))
    ));
    assert_eq!(
        apply(&store, 2, end(device.id, true)).await,
        Ok(Applied::Done)
    );
    // Told again, since the answer was lost.
    assert_eq!(
        apply(&store, 3, end(device.id, false)).await,
        Ok(Applied::Unchanged)
    );
    assert!(!standing().await.has_commands);
    let found = store
        .command(device.id, command.id.clone())
        .await
        .expect("reads")
        .expect("there");
    assert_eq!(found.state(at(3)), CommandState::Done);
    assert_eq!(found.detail.as_deref(), Some("renewed"));

    // As many as there can be; those whose time passed do not count.
    for _ in 0..MOST_WAITING_COMMANDS {
        apply(&store, 4, Kind::IssueCommand(new(device.id, 200)))
            .await
            .expect("issues");
    }
    assert!(matches!(
        apply(&store, 4, Kind::IssueCommand(new(device.id, 200))).await,
        Err(Conflict::TooMany(..))
    ));
    apply(&store, 300, Kind::IssueCommand(new(device.id, 400)))
        .await
        .expect("issues");
    let open = store.open_commands(device.id).await.expect("reads");
    assert_eq!(open.len(), 1);
    let expire = Kind::ExpireCommands { device: device.id };
    assert_eq!(
        apply(&store, 399, expire.clone()).await,
        Ok(Applied::Unchanged)
    );
    assert_eq!(apply(&store, 400, expire).await, Ok(Applied::Done));
    assert!(!standing().await.has_commands);
    let page = store.commands(device.id, None, 2).await.expect("reads");
    assert_eq!(page.items[0].state(at(400)), CommandState::Expired);
    let rest = store
        .commands(device.id, page.next.as_deref(), 99)
        .await
        .expect("reads");
    assert_eq!(rest.items.len(), 10);
}

pub async fn what_a_device_says_of_its_policy_is_kept(place: Place) {
    let store = place.open().await;
    let (device, certificate) = enrolled(&store).await;
    let (other, _) = enrolled(&store).await;
    let says = |device, counter, problem: Option<&str>| {
        change(
            1,
            Kind::ReportPolicy {
                device,
                state: PolicyState {
                    version: PolicyVersion { epoch: 1, counter },
                    problem: problem.map(str::to_owned),
                },
            },
        )
    };
    store
        .commit(vec![
            says(device.id, 3, None),
            says(other.id, 7, None),
            says(device.id, 4, Some("its signature does not match")),
            says(DeviceId::from_entropy(random()), u64::MAX, None),
        ])
        .await
        .expect("commits");
    let standing = store.standing(certificate.serial).await.expect("reads");
    let policy = standing.expect("there").policy.expect("said");
    assert_eq!(policy.version.counter, 4);
    assert_eq!(
        policy.problem.as_deref(),
        Some("its signature does not match")
    );
    let shown = store.device(other.id).await.expect("reads").expect("there");
    assert_eq!(shown.policy.expect("said").version.counter, 7);
}

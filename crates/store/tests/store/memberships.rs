//! What both databases must do about who is a member of which collection.

use super::contract::{add, apply, at, certificate, change, enroll, enrolled, members, named};
use super::*;

const DAY: i64 = 86_400;

/// Does all that is to be done, as the site's job does. Returns how many devices were looked at
/// because something happened to them.
pub async fn settle(store: &Store, second: i64) -> u64 {
    let mut looked_at = 0;
    loop {
        let mut idle = true;
        for kind in [
            Kind::SweepMemberships,
            Kind::EvaluateDevices { most: 3 },
            Kind::EvaluateCollections { most: 2 },
        ] {
            let of_devices = matches!(kind, Kind::EvaluateDevices { .. });
            match apply(store, second, kind).await {
                Ok(Applied::Evaluated(step)) => {
                    looked_at += if of_devices { step.looked_at } else { 0 };
                    idle &= !of_devices && !step.more && step.looked_at == 0;
                }
                Ok(Applied::Unchanged) => {}
                other => panic!("{other:?}"),
            }
        }
        if idle {
            return looked_at;
        }
    }
}

fn rules(query: &str, include: &[&str], exclude: &[&str]) -> CollectionRules {
    CollectionRules {
        query: (!query.is_empty()).then(|| query.parse().expect("a filter")),
        include: include.iter().map(|name| named(name)).collect(),
        exclude: exclude.iter().map(|name| named(name)).collect(),
        ..CollectionRules::default()
    }
}

async fn create_with(
    store: &Store,
    name: &str,
    rules: CollectionRules,
) -> Result<Applied, Conflict> {
    let name = named(name);
    apply(store, 0, Kind::CreateCollection { name, rules }).await
}

async fn set(store: &Store, name: &str, rules: CollectionRules) -> Result<Applied, Conflict> {
    let name = named(name);
    apply(store, 0, Kind::SetCollectionRules { name, rules }).await
}

async fn reports(store: &Store, second: i64, device: DeviceId, os_name: &str, os_version: &str) {
    let facts = DeviceFacts {
        host_name: "mac".to_owned(),
        os_name: os_name.to_owned(),
        os_version: os_version.to_owned(),
        ..DeviceFacts::default()
    };
    apply(store, second, Kind::ReportFacts { device, facts })
        .await
        .expect("reports");
}

async fn happens(store: &Store, second: i64, device: DeviceId, transition: DeviceTransition) {
    let kind = Kind::Transition {
        device,
        transition,
        revoke: None,
    };
    apply(store, second, kind).await.expect("changes");
}

async fn uses(store: &Store, second: i64, certificate: &NewCertificate) {
    let kind = Kind::UseCertificate {
        serial: certificate.serial,
        device: certificate.device,
        spends_permission: false,
        takes_place_of: None,
    };
    apply(store, second, kind).await.expect("uses");
}

/// The counts that are shown are those of the members that are there.
async fn counts_hold(store: &Store) {
    let page = store.collections(None, 100).await.expect("reads");
    for collection in page.items {
        let found = members(store, collection.name.as_str()).await.len();
        assert_eq!(collection.members, found as i64, "{}", collection.name);
        assert_eq!(collection.evaluated, None, "{}", collection.name);
    }
}

fn sorted<const N: usize>(mut devices: [DeviceId; N]) -> [DeviceId; N] {
    devices.sort();
    devices
}

pub async fn rules_choose_members(place: Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(enrolled(&store).await.0.id);
    }
    let [a, b, c, d] = ids[..] else {
        unreachable!("four devices")
    };
    reports(&store, 1, a, "macOS", "14.4").await;
    reports(&store, 1, b, "macOS", "14.10").await;
    reports(&store, 1, c, "Linux", "Debian GNU/Linux 12 (bookworm)").await;
    create_with(
        &store,
        "New Macs",
        rules("os.name == \"macOS\" && os.version >= v\"14.5\"", &[], &[]),
    )
    .await
    .expect("creates");
    create_with(&store, "Labs", rules("", &[], &[]))
        .await
        .expect("creates");
    create_with(&store, "Both", rules("", &["New Macs", "Labs"], &[]))
        .await
        .expect("creates");
    create_with(&store, "Not b", rules("", &["Both"], &["New Macs"]))
        .await
        .expect("creates");
    let inside = CollectionRules {
        limited_to: named("Both"),
        ..rules("device.state == \"active\"", &[], &[])
    };
    create_with(&store, "Inside", inside)
        .await
        .expect("creates");
    // Named twice as a member: here, and where it is excluded.
    assert_eq!(
        add(&store, "Labs", &[c]).await,
        Ok(Applied::Members {
            changed: 1,
            outside: 0
        })
    );
    assert_eq!(members(&store, "Labs").await, [c], "in the same commit");
    add(&store, "Not b", &[b, d]).await.expect("adds");
    settle(&store, 2).await;

    let all = sorted([a, b, c, d]);
    for (name, expected) in [
        ("All Devices", &all[..]),
        ("All Macs", &sorted([a, b])),
        ("All Linux", &[c]),
        ("Never checked in", &all),
        ("Obsolete", &[]),
        ("Certificate expires within 45 days", &[]),
        ("New Macs", &[b]),
        ("Labs", &[c]),
        ("Both", &sorted([b, c])),
        ("Not b", &sorted([c, d])),
        ("Inside", &sorted([b, c])),
    ] {
        assert_eq!(members(&store, name).await, expected, "{name}");
    }
    counts_hold(&store).await;

    // What depends on a collection follows it.
    set(
        &store,
        "New Macs",
        rules("os.name == \"macOS\" && os.version < v\"14.5\"", &[], &[]),
    )
    .await
    .expect("sets");
    let found = store.collection(&named("Both")).await.expect("reads");
    assert_eq!(found.expect("is there").evaluated, Some(0));
    settle(&store, 3).await;
    for (name, expected) in [
        ("New Macs", &[a][..]),
        ("Both", &sorted([a, c])),
        ("Not b", &sorted([b, c, d])),
        ("Inside", &sorted([a, c])),
    ] {
        assert_eq!(members(&store, name).await, expected, "{name}");
    }
    counts_hold(&store).await;
    // The same again is nothing to do.
    let again = rules("os.name==\"macOS\" && os.version < v\"14.5.0\"", &[], &[]);
    assert_eq!(set(&store, "New Macs", again).await, Ok(Applied::Unchanged));

    // Who is outside of the limiting collection is named and no member, until it is inside.
    happens(&store, 4, d, DeviceTransition::Retire).await;
    assert_eq!(
        add(&store, "Labs", &[a, d]).await,
        Ok(Applied::Members {
            changed: 2,
            outside: 1
        })
    );
    settle(&store, 5).await;
    assert_eq!(members(&store, "Labs").await, sorted([a, c]));
    assert_eq!(members(&store, "Not b").await, sorted([b, c]));
    let shown = store
        .collection(&named("Labs"))
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!((shown.named, shown.members), (3, 2));

    let shown = store
        .collection(&named("Not b"))
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(shown.include, [named("Both")].into());
    assert_eq!(shown.exclude, [named("New Macs")].into());
    assert_eq!(shown.limited_to, Some(named("All Devices")));
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert!(proof.holds(), "{proof:?}");
}

pub async fn rules_that_cannot_hold_are_refused(place: Place) {
    let store = place.open().await;
    create_with(&store, "A", rules("", &[], &[]))
        .await
        .expect("creates");
    create_with(&store, "B", rules("", &["A"], &[]))
        .await
        .expect("creates");
    let inside_b = CollectionRules {
        limited_to: named("B"),
        ..CollectionRules::default()
    };
    create_with(&store, "C", inside_b).await.expect("creates");

    // A circle is named by its path, whatever the kind of the rule that closes it.
    for closing in [rules("", &["C"], &[]), rules("", &[], &["C"])] {
        let path = ["A", "C", "B"].map(named).to_vec();
        let refused = set(&store, "A", closing).await.expect_err("a circle");
        let Conflict::CollectionCircle(found) = &refused else {
            panic!("{refused:?}")
        };
        assert!(
            found.iter().all(|name| path.contains(name)) && found.len() == 3,
            "{refused}"
        );
        assert!(refused.to_string().contains(" → "), "{refused}");
    }
    let own = CollectionRules {
        limited_to: named("A"),
        ..CollectionRules::default()
    };
    assert_eq!(
        set(&store, "A", own).await,
        Err(Conflict::CollectionCircle(vec![named("A")]))
    );

    let missing = Err(Conflict::NotFound("collection `Zoo`".to_owned()));
    assert_eq!(
        create_with(&store, "D", rules("", &["Zoo"], &[])).await,
        missing
    );
    assert_eq!(set(&store, "A", rules("", &[], &["Zoo"])).await, missing);
    assert_eq!(set(&store, "Zoo", rules("", &[], &[])).await, missing);
    let unknown = rules("compliance[\"CIS\"] == \"error\"", &[], &[]);
    assert_eq!(
        create_with(&store, "D", unknown).await,
        Err(Conflict::NotFound("baseline `CIS`".to_owned()))
    );

    // Nobody changes a built-in, and nobody takes away what others need.
    let obsolete = || named("Obsolete");
    let built_in = Err(Conflict::BuiltIn(obsolete()));
    let (device, _) = enrolled(&store).await;
    assert_eq!(set(&store, "Obsolete", rules("", &[], &[])).await, built_in);
    assert_eq!(add(&store, "Obsolete", &[device.id]).await, built_in);
    let delete = |name| Kind::DeleteCollection { name };
    assert_eq!(apply(&store, 1, delete(obsolete())).await, built_in);
    assert!(matches!(
        create_with(&store, "Obsolete", rules("", &[], &[])).await,
        Err(Conflict::Exists(_))
    ));
    for (name, user) in [("A", "B"), ("B", "C")] {
        assert_eq!(
            apply(&store, 1, delete(named(name))).await,
            Err(Conflict::UsedByCollection(named(user)))
        );
    }
    for name in ["C", "B", "A"] {
        apply(&store, 1, delete(named(name)))
            .await
            .expect("deletes");
    }
    settle(&store, 2).await;
    counts_hold(&store).await;

    // A site that is opened again has the same built-ins.
    let before = store.collections(None, 100).await.expect("reads").items;
    drop(store);
    let store = place.open().await;
    assert_eq!(
        store.collections(None, 100).await.expect("reads").items,
        before
    );
    assert_eq!(before.len(), BuiltInCollection::ALL.len());
}

pub async fn what_happens_to_a_device_changes_its_memberships_alone(place: Place) {
    let store = place.open().await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(enrolled(&store).await);
    }
    settle(&store, 1).await;
    let id = |index: usize| all[index].0.id;
    assert_eq!(settle(&store, 1).await, 0, "nothing to do");

    reports(&store, 2, id(0), "macOS", "14").await;
    assert_eq!(settle(&store, 2).await, 1, "one device, all collections");
    assert_eq!(members(&store, "All Macs").await, [id(0)]);
    reports(&store, 3, id(0), "Linux", "12").await;
    assert_eq!(settle(&store, 3).await, 1);
    assert!(members(&store, "All Macs").await.is_empty());

    // Blocked ones stay: they come back. Retired and deleted ones do not.
    happens(&store, 4, id(1), DeviceTransition::Block).await;
    happens(&store, 4, id(2), DeviceTransition::Retire).await;
    let delete = Kind::DeleteDevice { device: id(3) };
    apply(&store, 4, delete).await.expect("deletes");
    assert_eq!(settle(&store, 4).await, 3);
    assert_eq!(
        members(&store, "All Devices").await,
        sorted([id(0), id(1), id(4)])
    );

    // A merged record goes to the obsolete ones at once, and the other one has its rules.
    create_with(&store, "Labs", CollectionRules::default())
        .await
        .expect("creates");
    add(&store, "Labs", &[id(0)]).await.expect("adds");
    let merge = Kind::MergeDevices {
        from: id(0),
        into: id(4),
    };
    apply(&store, 5, merge).await.expect("merges");
    assert_eq!(members(&store, "Labs").await, [id(4)]);
    assert_eq!(members(&store, "Obsolete").await, [id(0)]);
    assert_eq!(members(&store, "All Devices").await, sorted([id(1), id(4)]));
    let shown = store
        .collection(&named("Labs"))
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!((shown.named, shown.members), (1, 1));
    settle(&store, 5).await;

    // What was forgotten is in no collection, whatever was due for it.
    reports(&store, 6, id(4), "macOS", "14").await;
    let delete = Kind::DeleteDevice { device: id(4) };
    apply(&store, 7, delete).await.expect("deletes");
    let purge = Kind::PurgeDevices {
        deleted_until: at(7),
        expired_until: at(0),
    };
    assert!(matches!(
        apply(&store, 8, purge).await,
        Ok(Applied::Purged(_))
    ));
    settle(&store, 8).await;
    assert_eq!(members(&store, "All Devices").await, [id(1)]);
    assert!(
        members(&store, "Obsolete").await.is_empty(),
        "its history went, too"
    );
    counts_hold(&store).await;

    // An alone revoked certificate leaves none in use.
    create_with(
        &store,
        "Without",
        rules("certificate.days_left == null", &[], &[]),
    )
    .await
    .expect("creates");
    settle(&store, 9).await;
    let (device, first) = enrolled(&store).await;
    settle(&store, 10).await;
    assert!(members(&store, "Without").await.is_empty());
    let revoke = Kind::RevokeCertificate {
        serial: first.serial,
        reason: RevocationReason::KeyCompromise,
    };
    apply(&store, 11, revoke).await.expect("revokes");
    settle(&store, 11).await;
    assert_eq!(members(&store, "Without").await, [device.id]);
}

pub async fn memberships_change_with_time_and_without_an_event(place: Place) {
    let store = place.open().await;
    let (device, first) = enrolled(&store).await;
    let (other, _) = enrolled(&store).await;
    uses(&store, 0, &first).await;
    let new = rules("device.enrolled_days_ago < 7", &[], &[]);
    create_with(&store, "New", new).await.expect("creates");
    settle(&store, 0).await;
    let soon = "Certificate expires within 45 days";
    let both = sorted([device.id, other.id]);
    assert_eq!(members(&store, "New").await, both);
    assert!(members(&store, soon).await.is_empty());

    // Nothing crosses a boundary: nobody is looked at.
    assert_eq!(settle(&store, 3 * DAY).await, 0);
    assert_eq!(members(&store, "New").await, both);
    assert_eq!(settle(&store, 7 * DAY).await, 2);
    assert!(members(&store, "New").await.is_empty());

    // The last moment before, and the boundary itself. Certificates end 365 days after the issue.
    assert_eq!(settle(&store, 320 * DAY).await, 0);
    assert!(members(&store, soon).await.is_empty());
    settle(&store, 320 * DAY + 1).await;
    assert_eq!(members(&store, soon).await, both);

    // One renews: it leaves when it uses the new certificate, and not before.
    let mut second = certificate(&device);
    second.not_after = at(700 * DAY);
    let renew = Kind::Renew {
        certificate: second.clone(),
        replaces: first.serial,
        after_expiry: None,
    };
    apply(&store, 330 * DAY, renew).await.expect("renews");
    settle(&store, 330 * DAY).await;
    assert_eq!(members(&store, soon).await, both);
    uses(&store, 330 * DAY, &second).await;
    assert_eq!(settle(&store, 330 * DAY).await, 1);
    assert_eq!(members(&store, soon).await, [other.id]);

    settle(&store, 363 * DAY).await;
    assert_eq!(
        members(&store, "Certificate expires within 3 days").await,
        [other.id]
    );
    settle(&store, 365 * DAY + 1).await;
    assert_eq!(members(&store, "Certificate expired").await, [other.id]);
    assert!(members(&store, soon).await.is_empty());
    assert!(
        members(&store, "Certificate expires within 3 days")
            .await
            .is_empty()
    );

    // Another node's clock is a little behind: nothing goes back. One that was set back counts.
    settle(&store, 365 * DAY - 60).await;
    assert_eq!(members(&store, "Certificate expired").await, [other.id]);
    settle(&store, 300 * DAY).await;
    assert!(members(&store, "Certificate expired").await.is_empty());
    assert!(members(&store, soon).await.is_empty());
    counts_hold(&store).await;
}

pub async fn last_seen_times_change_memberships(place: Place) {
    let store = place.open().await;
    let (device, _) = enrolled(&store).await;
    let away = rules("device.last_seen_days_ago >= 30", &[], &[]);
    create_with(&store, "Away", away).await.expect("creates");
    settle(&store, 0).await;
    assert_eq!(members(&store, "Never checked in").await, [device.id]);
    let seen = async |second| {
        let seen = [(device.id, at(second))];
        store.record_seen(&seen).await.expect("records");
    };
    seen(60).await;
    assert_eq!(settle(&store, 60).await, 1);
    assert!(members(&store, "Never checked in").await.is_empty());
    // A check-in every hour is no news.
    seen(3_660).await;
    assert_eq!(settle(&store, 3_660).await, 0);
    assert_eq!(settle(&store, 29 * DAY).await, 0);
    settle(&store, 30 * DAY + 3_660).await;
    assert_eq!(members(&store, "Away").await, [device.id]);
    seen(31 * DAY).await;
    assert_eq!(settle(&store, 31 * DAY).await, 1);
    assert!(members(&store, "Away").await.is_empty());
}

pub async fn an_evaluation_goes_in_steps_and_begins_anew_when_rules_change(place: Place) {
    let store = place.open().await;
    let mut all = Vec::new();
    for index in 0..40 {
        let device = contract::device();
        all.push((index, device.clone(), certificate(&device)));
    }
    let enrollments = all
        .iter()
        .map(|(_, device, first)| change(0, enroll(device, first)));
    for outcome in store.commit(enrollments.collect()).await.expect("commits") {
        outcome.expect("enrolls");
    }
    settle(&store, 1).await;
    create_with(&store, "All", rules("device.state == \"active\"", &[], &[]))
        .await
        .expect("creates");
    let step = async |most| match apply(&store, 2, Kind::EvaluateCollections { most }).await {
        Ok(Applied::Evaluated(step)) => step,
        other => panic!("{other:?}"),
    };
    let first = step(10).await;
    assert_eq!((first.joined, first.more), (10, true));
    let shown = async || {
        let found = store.collection(&named("All")).await.expect("reads");
        found.expect("is there")
    };
    let evaluated = shown().await.evaluated.expect("goes on");
    assert!((1..=60).contains(&evaluated), "{evaluated}");
    assert_eq!(shown().await.members, 10);

    // A device that changes meanwhile is right at once, wherever the evaluation is.
    let last = all
        .iter()
        .map(|(_, device, _)| device.id)
        .max()
        .expect("some");
    reports(&store, 2, last, "macOS", "14").await;
    let due = apply(&store, 2, Kind::EvaluateDevices { most: 9 }).await;
    assert!(
        matches!(due, Ok(Applied::Evaluated(step)) if step.joined == 2),
        "{due:?}"
    );

    set(&store, "All", rules("os.name == \"macOS\"", &[], &[]))
        .await
        .expect("sets");
    assert_eq!(shown().await.evaluated, Some(0));
    let again = step(15).await;
    assert_eq!((again.joined, again.left), (0, 10));
    settle(&store, 3).await;
    assert_eq!(members(&store, "All").await, [last]);

    // Who is gone leaves nothing behind, a collection of that name begins empty.
    let delete = Kind::DeleteCollection { name: named("All") };
    apply(&store, 4, delete).await.expect("deletes");
    create_with(&store, "All", CollectionRules::default())
        .await
        .expect("creates");
    assert!(members(&store, "All").await.is_empty());
    settle(&store, 5).await;
    assert!(members(&store, "All").await.is_empty());
    counts_hold(&store).await;
}

pub async fn a_preview_counts_and_shows_the_first(place: Place) {
    let store = place.open().await;
    for version in ["13.1", "14.4", "14.10", "15"] {
        let device = enrolled(&store).await.0.id;
        reports(&store, 1, device, "macOS", version).await;
    }
    settle(&store, 1).await;
    let filter = "os.version > v\"14\"".parse().expect("a filter");
    let within = async |name| {
        store
            .preview(&filter, &named(name), at(2), 2)
            .await
            .expect("reads")
    };
    let found = within("All Macs").await.expect("is there");
    assert_eq!((found.devices, found.first.len()), (3, 2));
    assert_eq!(within("Obsolete").await.expect("is there").devices, 0);
    assert_eq!(within("Zoo").await, None);
}

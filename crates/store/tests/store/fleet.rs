//! What both databases must do with collections of devices.

use super::contract::{apply, at, change, enrolled, renewed};
use super::*;

pub fn named(name: &str) -> CollectionName {
    name.parse().expect("a name")
}

pub async fn add(store: &Store, name: &str, devices: &[DeviceId]) -> Result<Applied, Conflict> {
    let kind = Kind::AddMembers {
        collection: named(name),
        devices: devices.to_vec(),
    };
    apply(store, 1, kind).await
}

pub async fn create(store: &Store, name: &str) -> Result<Applied, Conflict> {
    let kind = Kind::CreateCollection {
        name: named(name),
        rules: CollectionRules::default(),
    };
    apply(store, 0, kind).await
}

fn members_changed(changed: u64) -> Applied {
    Applied::Members {
        changed,
        outside: 0,
    }
}

pub async fn members(store: &Store, name: &str) -> Vec<DeviceId> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .members(&named(name), after, 2)
            .await
            .expect("reads a page");
        found.extend(page.items.iter().map(|device| device.id));
        let Some(next) = page.next else { return found };
        after = Some(next.parse().expect("an identifier"));
    }
}

pub async fn collections_have_members(place: Place) {
    let store = place.open().await;
    let mut devices = Vec::new();
    for _ in 0..5 {
        devices.push(enrolled(&store).await.0.id);
    }
    devices.sort();
    assert_eq!(create(&store, "Labs").await, Ok(Applied::Done));
    assert!(matches!(
        create(&store, "Labs").await,
        Err(Conflict::Exists(_))
    ));
    create(&store, "Zoo").await.expect("creates");
    assert_eq!(add(&store, "Labs", &devices).await, Ok(members_changed(5)));
    assert_eq!(
        add(&store, "Labs", &devices[..2]).await,
        Ok(Applied::Unchanged)
    );
    assert_eq!(add(&store, "Labs", &[]).await, Ok(Applied::Unchanged));
    assert_eq!(members(&store, "Labs").await, devices);
    assert!(members(&store, "Zoo").await.is_empty());

    // One unknown device: nobody becomes a member. Neighbours in the batch do not suffer.
    let stranger = DeviceId::from_entropy(contract::random());
    let outcomes = store
        .commit(vec![
            change(
                2,
                Kind::AddMembers {
                    collection: named("Zoo"),
                    devices: vec![devices[0], stranger],
                },
            ),
            change(
                2,
                Kind::AddMembers {
                    collection: named("nothing"),
                    devices: vec![devices[0]],
                },
            ),
            change(2, Kind::DeleteCollection { name: named("no") }),
            change(
                2,
                Kind::AddMembers {
                    collection: named("Zoo"),
                    devices: vec![devices[0], devices[0]],
                },
            ),
        ])
        .await
        .expect("commits");
    for outcome in &outcomes[..3] {
        assert!(matches!(outcome, Err(Conflict::NotFound(_))), "{outcome:?}");
    }
    assert_eq!(outcomes[3], Ok(members_changed(1)));
    assert_eq!(members(&store, "Zoo").await, [devices[0]]);

    let remove = Kind::RemoveMembers {
        collection: named("Labs"),
        devices: vec![devices[0], stranger],
    };
    assert_eq!(
        apply(&store, 3, remove.clone()).await,
        Ok(members_changed(1))
    );
    assert_eq!(apply(&store, 3, remove).await, Ok(Applied::Unchanged));
    assert_eq!(members(&store, "Labs").await, devices[1..]);

    let page = store.collections(Some("Certificate z"), 1).await;
    let page = page.expect("reads");
    assert_eq!(page.items[0].name, named("Labs"));
    assert_eq!(
        (page.items[0].members, page.items[0].created_at),
        (4, Some(at(0)))
    );
    let page = store
        .collections(page.next.as_deref(), 9)
        .await
        .expect("reads");
    let names: Vec<_> = page.items.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["Never checked in", "Obsolete", "Zoo"]);
    assert_eq!((page.items[2].members, page.next), (1, None));

    let delete = Kind::DeleteCollection {
        name: named("Labs"),
    };
    assert_eq!(apply(&store, 4, delete).await, Ok(Applied::Done));
    assert_eq!(store.collection(&named("Labs")).await.expect("reads"), None);
    assert!(store.device(devices[1]).await.expect("reads").is_some());
    // The same name again is another collection: nobody is in it.
    create(&store, "Labs").await.expect("creates");
    assert!(members(&store, "Labs").await.is_empty());
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert!(proof.holds(), "{proof:?}");
}

async fn ordered(store: &Store, serial: SerialNumber) -> Option<(Window, Option<String>)> {
    let standing = store.standing(serial).await.expect("reads");
    let ordered = standing.expect("is there").ordered?;
    Some((ordered.window, ordered.explanation_url))
}

async fn order(store: &Store, second: i64, scope: RenewalScope, window: Window) -> i64 {
    let kind = Kind::SetRenewalWindow {
        scope,
        window,
        explanation_url: None,
    };
    match apply(store, second, kind).await {
        Ok(Applied::Numbered(number)) => number,
        other => panic!("{other:?}"),
    }
}

fn window(start: i64) -> Window {
    Window {
        start: at(start),
        end: at(start + 60),
    }
}

pub async fn an_order_moves_what_was_issued_before_it(place: Place) {
    let store = place.open().await;
    let (device, first) = enrolled(&store).await;
    let (other, other_first) = enrolled(&store).await;
    create(&store, "Labs").await.expect("creates");
    add(&store, "Labs", &[device.id]).await.expect("adds");
    assert_eq!(ordered(&store, first.serial).await, None);

    // The newest order that concerns a certificate counts, whatever its scope.
    order(&store, 10, RenewalScope::All, window(100)).await;
    assert_eq!(
        ordered(&store, first.serial).await,
        Some((window(100), None))
    );
    let labs = RenewalScope::Collection(named("Labs"));
    let of_labs = order(&store, 20, labs.clone(), window(200)).await;
    assert_eq!(
        ordered(&store, first.serial).await,
        Some((window(200), None))
    );
    let elsewhere = ordered(&store, other_first.serial).await;
    assert_eq!(elsewhere, Some((window(100), None)));
    let kind = Kind::SetRenewalWindow {
        scope: RenewalScope::Device(other.id),
        window: window(300),
        explanation_url: Some("https://example.com/why".parse().expect("an address")),
    };
    let of_other = apply(&store, 30, kind).await;
    assert!(matches!(of_other, Ok(Applied::Numbered(_))), "{of_other:?}");
    let why = Some("https://example.com/why".to_owned());
    assert_eq!(
        ordered(&store, other_first.serial).await,
        Some((window(300), why))
    );
    assert_eq!(
        ordered(&store, first.serial).await,
        Some((window(200), None))
    );

    // A certificate that was issued later is free of it.
    let second = renewed(&store, 25, &device, &first).await;
    assert_eq!(ordered(&store, second.serial).await, None);
    order(&store, 40, RenewalScope::All, window(400)).await;
    assert_eq!(
        ordered(&store, second.serial).await,
        Some((window(400), None))
    );

    // Progress: in use counts, issued does not.
    let progress = async |number| {
        let order = store.renewal_order(number).await.expect("reads");
        let order = order.expect("is there");
        store.renewal_progress(&order).await.expect("reads")
    };
    let expect = |renewed, waiting, unseen| RenewalProgress {
        renewed,
        waiting,
        unseen,
    };
    assert_eq!(progress(of_labs).await, expect(0, 0, 1));
    store
        .record_seen(&[(device.id, at(21))])
        .await
        .expect("records");
    assert_eq!(progress(of_labs).await, expect(0, 1, 0));
    let used = Kind::UseCertificate {
        serial: second.serial,
        device: device.id,
        spends_permission: false,
        takes_place_of: None,
    };
    apply(&store, 50, used).await.expect("uses");
    assert_eq!(progress(of_labs).await, expect(1, 0, 0));
    assert_eq!(progress(1).await, expect(1, 0, 1));
    // A blocked device cannot follow.
    let block = Kind::Transition {
        device: other.id,
        transition: DeviceTransition::Block,
        revoke: None,
    };
    apply(&store, 51, block).await.expect("blocks");
    assert_eq!(progress(1).await, expect(1, 0, 0));

    // A collection that an order uses stays.
    let delete = Kind::DeleteCollection {
        name: named("Labs"),
    };
    assert_eq!(
        apply(&store, 60, delete.clone()).await,
        Err(Conflict::UsedByRenewalWindow(of_labs))
    );
    let page = store.renewal_orders(None, 3).await.expect("reads");
    let numbers: Vec<_> = page.items.iter().map(|order| order.number).collect();
    assert_eq!(numbers, [4, 3, 2]);
    assert_eq!(page.items[2].scope, labs);
    let next = page.next.expect("more").parse().expect("a number");
    let page = store.renewal_orders(Some(next), 3).await.expect("reads");
    assert_eq!((page.items.len(), page.items[0].number), (1, 1));

    let remove = Kind::RemoveRenewalWindow { number: of_labs };
    assert_eq!(apply(&store, 61, remove.clone()).await, Ok(Applied::Done));
    assert!(matches!(
        apply(&store, 61, remove).await,
        Err(Conflict::NotFound(_))
    ));
    assert_eq!(apply(&store, 62, delete).await, Ok(Applied::Done));
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert!(proof.holds(), "{proof:?}");
}

pub async fn an_order_concerns_what_was_issued_while_the_clock_was_ahead(place: Place) {
    let store = place.open().await;
    let device = contract::device();
    let first = contract::certificate(&device);
    let ahead = 86_400;
    apply(&store, ahead, contract::enroll(&device, &first))
        .await
        .expect("enrolls");
    let number = order(&store, 10, RenewalScope::All, window(100)).await;
    assert_eq!(
        ordered(&store, first.serial).await,
        Some((window(100), None))
    );

    // Who renewed because of it is free of it, also when the clock went back meanwhile.
    let second = renewed(&store, 5, &device, &first).await;
    assert_eq!(ordered(&store, second.serial).await, None);
    let used = Kind::UseCertificate {
        serial: second.serial,
        device: device.id,
        spends_permission: false,
        takes_place_of: None,
    };
    let order = store.renewal_order(number).await.expect("reads");
    let order = order.expect("is there");
    let progress = async || store.renewal_progress(&order).await.expect("reads");
    assert_eq!(progress().await.renewed, 0);
    apply(&store, 6, used).await.expect("uses");
    assert_eq!(progress().await.renewed, 1);

    // A number is never used again: what was issued before an order was removed obeys the next one.
    let remove = Kind::RemoveRenewalWindow { number };
    apply(&store, 7, remove).await.expect("removes");
    self::order(&store, 4, RenewalScope::All, window(200)).await;
    assert_eq!(
        ordered(&store, second.serial).await,
        Some((window(200), None))
    );
}

pub async fn orders_are_for_what_is_there_and_not_without_number(place: Place) {
    let store = place.open().await;
    let set = |scope| Kind::SetRenewalWindow {
        scope,
        window: window(0),
        explanation_url: None,
    };
    for scope in [
        RenewalScope::Collection(named("nothing")),
        RenewalScope::Device(DeviceId::from_entropy(contract::random())),
    ] {
        let outcome = apply(&store, 0, set(scope)).await;
        assert!(matches!(outcome, Err(Conflict::NotFound(_))), "{outcome:?}");
    }
    let many = (0..201).map(|_| change(0, set(RenewalScope::All)));
    let outcomes = store.commit(many.collect()).await.expect("commits");
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert_eq!(refused, 1);
    assert_eq!(outcomes[200], Err(Conflict::RenewalWindows(200)));
}

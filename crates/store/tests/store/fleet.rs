//! What both databases must do with collections of devices.

use super::contract::{apply, at, change, enrolled};
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
    apply(store, 0, Kind::CreateCollection { name: named(name) }).await
}

async fn members(store: &Store, name: &str) -> Vec<DeviceId> {
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
    assert_eq!(
        add(&store, "Labs", &devices).await,
        Ok(Applied::Members { changed: 5 })
    );
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
    assert_eq!(outcomes[3], Ok(Applied::Members { changed: 1 }));
    assert_eq!(members(&store, "Zoo").await, [devices[0]]);

    let remove = Kind::RemoveMembers {
        collection: named("Labs"),
        devices: vec![devices[0], stranger],
    };
    assert_eq!(
        apply(&store, 3, remove.clone()).await,
        Ok(Applied::Members { changed: 1 })
    );
    assert_eq!(apply(&store, 3, remove).await, Ok(Applied::Unchanged));
    assert_eq!(members(&store, "Labs").await, devices[1..]);

    let page = store.collections(None, 1).await.expect("reads");
    assert_eq!(page.items[0].name, named("Labs"));
    assert_eq!(
        (page.items[0].members, page.items[0].created_at),
        (4, at(0))
    );
    let page = store
        .collections(page.next.as_deref(), 9)
        .await
        .expect("reads");
    assert_eq!(page.items.len(), 1);
    assert_eq!((page.items[0].members, page.next), (1, None));

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

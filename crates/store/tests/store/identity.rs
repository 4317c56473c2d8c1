//! What both databases must do with records that may be one computer, and with those that are to be
//! forgotten.

use super::contract::{
    add, again_of, apply, at, certificate, change, create, enroll, enrolled, named, renewed,
};
use super::*;

const DELL: &str = "4C4C4544-0042-3510-8052-B3C04F4B4E32";

async fn claims(store: &Store, second: i64, device: DeviceId, hardware_uuid: &str) {
    let facts = DeviceFacts {
        host_name: format!("mac-{second}"),
        hardware_uuid: hardware_uuid.to_owned(),
        ..DeviceFacts::default()
    };
    apply(store, second, Kind::ReportFacts { device, facts })
        .await
        .expect("reports");
}

/// Enrolled at `second`, so that there is an older and a newer one.
async fn enrolled_at(store: &Store, second: i64) -> (NewDevice, NewCertificate) {
    let device = contract::device();
    let certificate = certificate(&device);
    apply(store, second, enroll(&device, &certificate))
        .await
        .expect("enrolls");
    (device, certificate)
}

async fn conflicts(store: &Store, excluded: &[HardwareUuid]) -> Vec<(DeviceId, DeviceId)> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .device_conflicts(excluded, after.as_deref(), 1)
            .await
            .expect("reads");
        found.extend(page.items.iter().map(|pair| (pair.older.id, pair.newer.id)));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn device(store: &Store, id: DeviceId) -> Device {
    let found = store.device(id).await.expect("reads");
    found.expect("is there")
}

pub async fn two_devices_that_claim_one_hardware_are_a_conflict(place: Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for second in 0..4 {
        ids.push(enrolled_at(&store, second).await.0.id);
    }
    let [a, b, c, other] = ids[..] else {
        unreachable!("four devices")
    };
    claims(&store, 10, a, DELL).await;
    claims(&store, 11, b, "03000200-0400-0500-0006-000700080009").await;
    claims(&store, 11, c, "03000200-0400-0500-0006-000700080009").await;
    claims(&store, 12, other, "4c4c4544-0042-3510-8052-b3c04f4b4e33").await;
    assert!(conflicts(&store, &[]).await.is_empty(), "nobody's UUID");

    // In whatever letters.
    claims(&store, 20, b, &DELL.to_lowercase()).await;
    assert_eq!(conflicts(&store, &[]).await, [(a, b)]);
    claims(&store, 30, c, DELL).await;
    assert_eq!(conflicts(&store, &[]).await, [(a, b), (b, c)]);
    // The same claim again is no news.
    claims(&store, 40, b, DELL).await;
    let page = store.device_conflicts(&[], None, 9).await.expect("reads");
    assert_eq!(page.items[0].found_at, at(20));
    assert_eq!(page.items[0].hardware_uuid.to_string(), DELL);
    assert_eq!(page.items[0].newer.host_name, "mac-40");
    let excluded = [DELL.parse().expect("a UUID")];
    assert!(conflicts(&store, &excluded).await.is_empty());

    // Kept apart: in either order, once for all. The next older one is looked at then.
    let keep = |a, b| Kind::KeepBoth { a, b };
    assert_eq!(apply(&store, 50, keep(c, b)).await, Ok(Applied::Done));
    assert_eq!(apply(&store, 51, keep(b, c)).await, Ok(Applied::Unchanged));
    assert_eq!(conflicts(&store, &[]).await, [(a, b), (a, c)]);
    apply(&store, 52, keep(a, b)).await.expect("keeps");
    apply(&store, 53, keep(a, c)).await.expect("keeps");
    assert!(conflicts(&store, &[]).await.is_empty());

    // A blocked device is answered.
    claims(&store, 60, other, DELL).await;
    assert_eq!(conflicts(&store, &[]).await, [(c, other)]);
    let block = |device, transition| Kind::Transition {
        device,
        transition,
        revoke: None,
    };
    apply(&store, 61, block(other, DeviceTransition::Block))
        .await
        .expect("blocks");
    assert!(conflicts(&store, &[]).await.is_empty());
    apply(&store, 62, block(other, DeviceTransition::Unblock))
        .await
        .expect("unblocks");
    assert_eq!(conflicts(&store, &[]).await, [(c, other)]);
}

pub async fn merged_records_are_read_from_the_one_that_stays(place: Place) {
    let store = place.open().await;
    let (old, old_certificate) = enrolled_at(&store, 0).await;
    let (middle, _) = enrolled_at(&store, 1).await;
    let (new, new_certificate) = enrolled_at(&store, 2).await;
    create(&store, "Labs").await.expect("creates");
    create(&store, "Both").await.expect("creates");
    add(&store, "Labs", &[old.id]).await.expect("adds");
    add(&store, "Both", &[old.id, new.id]).await.expect("adds");
    let merge = |from: &NewDevice, into: &NewDevice| Kind::MergeDevices {
        from: from.id,
        into: into.id,
    };
    let revoked = |certificates| Ok(Applied::Revoked { certificates });
    assert_eq!(apply(&store, 10, merge(&old, &middle)).await, revoked(1));
    assert_eq!(
        apply(&store, 11, merge(&old, &middle)).await,
        Ok(Applied::Unchanged)
    );
    let found = device(&store, old.id).await;
    assert_eq!(
        (found.state, found.successor),
        (DeviceState::Obsolete, Some(middle.id))
    );
    let revoked_one = store.certificate(old_certificate.serial).await;
    let revoked_one = revoked_one.expect("reads").expect("is there");
    assert_eq!(
        revoked_one.revoked,
        Some((at(10), RevocationReason::Superseded))
    );

    // No loop, no second successor, nobody into what has ended, nobody into itself.
    for kind in [
        merge(&middle, &old),
        merge(&old, &new),
        merge(&new, &old),
        merge(&new, &new),
    ] {
        let outcome = apply(&store, 12, kind).await;
        assert!(
            matches!(
                outcome,
                Err(Conflict::MergeInto(_) | Conflict::MergedElsewhere(..))
            ),
            "{outcome:?}"
        );
    }
    // Two merges in opposite directions in one batch: the second one has no goal.
    let outcomes = store
        .commit(vec![
            change(13, merge(&middle, &new)),
            change(13, merge(&new, &middle)),
        ])
        .await
        .expect("commits");
    assert_eq!(outcomes[0], revoked(1));
    assert_eq!(outcomes[1], Err(Conflict::MergeInto(DeviceState::Obsolete)));

    // The history of both is read from the one that stays; its collections moved along.
    let mut earlier = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .earlier_records(new.id, after, 1)
            .await
            .expect("reads");
        earlier.extend(page.items.iter().map(|device| device.id));
        let Some(next) = page.next else { break };
        after = Some(next.parse().expect("an identifier"));
    }
    let mut expected = [old.id, middle.id];
    expected.sort();
    assert_eq!(earlier, expected);
    for name in ["Labs", "Both"] {
        let members = store.members(&named(name), None, 9).await.expect("reads");
        let ids: Vec<_> = members.items.iter().map(|device| device.id).collect();
        assert_eq!(ids, [new.id], "{name}");
    }
    // The one that stays works on.
    renewed(&store, 20, &new, &new_certificate).await;
    let stranger = contract::device();
    let outcome = apply(&store, 21, merge(&new, &stranger)).await;
    assert!(matches!(outcome, Err(Conflict::NotFound(_))), "{outcome:?}");
    // Deleting it deletes its history.
    let delete = Kind::DeleteDevice { device: new.id };
    assert_eq!(apply(&store, 30, delete).await, revoked(2));
    for id in [old.id, middle.id, new.id] {
        assert_eq!(device(&store, id).await.state, DeviceState::Deleted);
    }
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert!(proof.holds(), "{proof:?}");
}

const DAY: i64 = 86_400;

fn purge(deleted_until: i64, expired_until: i64) -> Kind {
    Kind::PurgeDevices {
        deleted_until: at(deleted_until),
        expired_until: at(expired_until),
    }
}

pub async fn what_was_deleted_is_forgotten_and_the_log_still_holds(place: Place) {
    let store = place.open().await;
    let (gone, first) = enrolled(&store).await;
    claims(&store, 1, gone.id, DELL).await;
    create(&store, "Labs").await.expect("creates");
    add(&store, "Labs", &[gone.id]).await.expect("adds");
    store
        .record_seen(&[(gone.id, at(2))])
        .await
        .expect("records");
    let (kept, _) = enrolled(&store).await;
    claims(&store, 3, kept.id, DELL).await;
    let revoke = Kind::RevokeCertificate {
        serial: first.serial,
        reason: RevocationReason::KeyCompromise,
    };
    apply(&store, 4, revoke).await.expect("revokes");
    let count = store.revocation_count().await.expect("reads");
    let events = async |id| {
        let page = store.device_events(id, None, 100).await.expect("reads");
        page.items
    };
    // The device's own, and its certificate's.
    let about = events(gone.id).await;
    let actions: Vec<_> = about.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(
        actions,
        ["certificate-revoked", "facts-changed", "enrolled"]
    );
    let page = store.device_events(gone.id, None, 2).await.expect("reads");
    let page = store
        .device_events(gone.id, page.next.as_deref(), 2)
        .await
        .expect("reads");
    assert_eq!(
        (page.items.len(), page.items[0].action.as_str()),
        (1, "enrolled")
    );

    let delete = Kind::DeleteDevice { device: gone.id };
    apply(&store, 10, delete).await.expect("deletes");
    assert_eq!(device(&store, gone.id).await.state, DeviceState::Deleted);
    let all = DeviceFilter {
        limit: 10,
        ..DeviceFilter::default()
    };
    let listed = store.devices(&all).await.expect("reads").items;
    assert_eq!(listed.len(), 1, "it is on no list");
    let members = store.members(&named("Labs"), None, 9).await;
    assert!(members.expect("reads").items.is_empty());
    assert_eq!(
        add(&store, "Labs", &[gone.id]).await,
        Err(Conflict::NotFound(format!("device {}", gone.id)))
    );

    // Not yet.
    assert_eq!(
        apply(&store, 11, purge(9, -DAY)).await,
        Ok(Applied::Unchanged)
    );
    // The record goes; its certificate stays for the revocation list.
    match apply(&store, 12, purge(10, -DAY)).await {
        Ok(Applied::Purged(purged)) => assert_eq!(
            purged,
            Purged {
                devices: 1,
                certificates: 0,
                results: 0,
                entries: 4,
                more: false
            }
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        apply(&store, 13, purge(10, -DAY)).await,
        Ok(Applied::Unchanged)
    );
    assert_eq!(store.device(gone.id).await.expect("reads"), None);
    assert_eq!(store.revocations(at(0)).await.expect("reads").len(), 1);
    let collection = store.collection(&named("Labs")).await.expect("reads");
    assert_eq!(collection.expect("is there").members, 0);
    let about = events(gone.id).await;
    assert_eq!(about.len(), 4);
    for event in &about {
        assert_eq!(event.payload, None, "{event:?}");
    }
    assert!(
        events(kept.id)
            .await
            .iter()
            .all(|event| event.payload.is_some())
    );
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert!(proof.holds(), "{proof:?}");

    // Its key does not bring it back, neither now nor when its certificate is gone too.
    let again = enroll(&gone, &again_of(&first));
    assert_eq!(
        apply(&store, 14, again.clone()).await,
        Err(Conflict::KeySpent)
    );
    let year = 365 * DAY;
    match apply(&store, year + 1, purge(10, year)).await {
        Ok(Applied::Purged(purged)) => {
            assert_eq!((purged.devices, purged.certificates), (0, 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        apply(&store, year + 2, purge(10, year)).await,
        Ok(Applied::Unchanged)
    );
    let certificate = store.certificate(first.serial).await.expect("reads");
    assert_eq!(certificate, None);
    assert_eq!(apply(&store, 15, again).await, Err(Conflict::KeySpent));
    // The next revocation is seen, though one is gone: the number never falls.
    assert_eq!(store.revocation_count().await.expect("reads"), count);
    // The live device was touched by none of it.
    assert_eq!(device(&store, kept.id).await.state, DeviceState::Active);
}

pub async fn much_is_forgotten_in_steps(place: Place) {
    let store = place.open().await;
    let mut kinds = Vec::new();
    for n in 0..7 {
        let (device, _) = enrolled(&store).await;
        for second in 0..900 {
            let facts = DeviceFacts {
                host_name: format!("mac-{n}-{second}"),
                ..DeviceFacts::default()
            };
            let device = device.id;
            kinds.push(change(second, Kind::ReportFacts { device, facts }));
        }
        kinds.push(change(1000, Kind::DeleteDevice { device: device.id }));
    }
    for some in kinds.chunks(400) {
        let outcomes = store.commit(some.to_vec()).await.expect("commits");
        assert!(outcomes.iter().all(Result::is_ok));
    }
    let mut steps = Vec::new();
    loop {
        let step = change(2000, purge(1000, 0));
        match store.commit_one(step).await.expect("commits") {
            Ok(Applied::Purged(purged)) => {
                assert!(purged.entries <= 5_000);
                steps.push(purged);
                if !purged.more {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(steps.len(), 2, "{steps:?}");
    let sum: u64 = steps.iter().map(|step| step.entries).sum();
    assert_eq!((sum, steps[0].devices, steps[1].devices), (7 * 902, 0, 7));
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert!(proof.holds(), "{proof:?}");
}

//! What both databases must do.

pub use super::compliance::*;
pub use super::fleet::*;
pub use super::identity::*;
pub use super::memberships::*;
pub use super::results::*;
use super::*;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a moment")
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRng.fill(&mut bytes);
    bytes
}

pub fn change(second: i64, kind: Kind) -> Change {
    Change {
        at: at(second),
        by: Actor::site(),
        kind,
    }
}

pub fn device() -> NewDevice {
    NewDevice {
        id: DeviceId::from_entropy(random()),
        owner: "local:ann".to_owned(),
        user_name: "ann".to_owned(),
        predecessor: None,
    }
}

pub fn certificate(device: &NewDevice) -> NewCertificate {
    NewCertificate {
        serial: SerialNumber::from_entropy(random()),
        device: device.id,
        owner: device.owner.clone(),
        key: KeyDigest::new(random()),
        subject: "CN=Ann".to_owned(),
        common_name: "Ann".to_owned(),
        not_before: at(-3600),
        not_after: at(365 * 86_400),
        der: vec![0x30, 0x00],
        differences: None,
    }
}

pub fn enroll(device: &NewDevice, certificate: &NewCertificate) -> Kind {
    Kind::Enroll {
        device: device.clone(),
        certificate: certificate.clone(),
    }
}

pub async fn apply(store: &Store, second: i64, kind: Kind) -> Result<Applied, Conflict> {
    store
        .commit_one(change(second, kind))
        .await
        .expect("the database works")
}

pub async fn enrolled(store: &Store) -> (NewDevice, NewCertificate) {
    let device = device();
    let certificate = certificate(&device);
    apply(store, 0, enroll(&device, &certificate))
        .await
        .expect("enrolls");
    (device, certificate)
}

pub async fn renewed(
    store: &Store,
    second: i64,
    device: &NewDevice,
    old: &NewCertificate,
) -> NewCertificate {
    let new = certificate(device);
    let renew = Kind::Renew {
        certificate: new.clone(),
        replaces: old.serial,
        after_expiry: None,
    };
    apply(store, second, renew).await.expect("renews");
    new
}

/// The same request, signed anew.
pub fn again_of(certificate: &NewCertificate) -> NewCertificate {
    NewCertificate {
        serial: SerialNumber::from_entropy(random()),
        ..certificate.clone()
    }
}

pub async fn state(store: &Store, serial: SerialNumber) -> CertificateState {
    store
        .certificate(serial)
        .await
        .expect("reads")
        .expect("is there")
        .state
}

pub async fn a_lost_answer_gives_the_same_certificate(place: Place) {
    let store = place.open().await;
    let (device, first) = enrolled(&store).await;
    // The same key again, with another serial number: the site signed anew and must not hand that out.
    let again = NewCertificate {
        serial: SerialNumber::from_entropy(random()),
        ..first.clone()
    };
    for kind in [
        enroll(&device, &again),
        Kind::Renew {
            certificate: again.clone(),
            replaces: first.serial,
            after_expiry: None,
        },
    ] {
        match apply(&store, 1, kind).await {
            Ok(Applied::Issued {
                certificate,
                repeated: true,
            }) => {
                assert_eq!(certificate.serial, first.serial);
                assert_eq!(certificate.der, first.der);
            }
            other => panic!("{other:?}"),
        }
    }
    // Both at once, in one batch.
    let new = certificate(&device);
    let twin = NewCertificate {
        serial: SerialNumber::from_entropy(random()),
        ..new.clone()
    };
    let outcomes = store
        .commit(vec![
            change(
                2,
                Kind::Renew {
                    certificate: new,
                    replaces: first.serial,
                    after_expiry: None,
                },
            ),
            change(
                2,
                Kind::Renew {
                    certificate: twin,
                    replaces: first.serial,
                    after_expiry: None,
                },
            ),
        ])
        .await
        .expect("commits");
    let serials: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(Applied::Issued { certificate, .. }) => certificate.serial,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(serials[0], serials[1]);
    // A key whose certificate was revoked is spent.
    let revoke = Kind::RevokeCertificate {
        serial: first.serial,
        reason: RevocationReason::KeyCompromise,
    };
    apply(&store, 3, revoke).await.expect("revokes");
    assert_eq!(
        apply(&store, 4, enroll(&device, &again)).await,
        Err(Conflict::KeySpent)
    );
    // So is one whose certificate has expired.
    let (late, expired) = enrolled(&store).await;
    let outcome = apply(&store, 366 * 86_400, enroll(&late, &again_of(&expired))).await;
    assert_eq!(outcome, Err(Conflict::KeySpent));
    // Another user's device is not taken over.
    let other = NewDevice {
        owner: "local:bob".to_owned(),
        ..device.clone()
    };
    assert_eq!(
        apply(&store, 5, enroll(&other, &certificate(&device))).await,
        Err(Conflict::OtherOwner)
    );
}

pub async fn a_batch_keeps_what_is_good_and_names_what_is_not(place: Place) {
    let store = place.open().await;
    let (blocked, first) = enrolled(&store).await;
    let block = Kind::Transition {
        device: blocked.id,
        transition: DeviceTransition::Block,
        revoke: None,
    };
    apply(&store, 1, block).await.expect("blocks");
    let (good, good_first) = enrolled(&store).await;
    let stranger = device();
    let account = |name: &str| {
        Kind::AddAccount(NewAccount {
            id: format!("local:{name}"),
            name: name.to_owned(),
            common_name: name.to_owned(),
            password_hash: "x".to_owned(),
        })
    };
    let renew = |device: &NewDevice, old: &NewCertificate| Kind::Renew {
        certificate: certificate(device),
        replaces: old.serial,
        after_expiry: None,
    };
    let kinds = vec![
        account("carol"),
        renew(&blocked, &first),
        renew(&good, &good_first),
        renew(&stranger, &first),
        account("carol"),
        account("dave"),
    ];
    let outcomes = store
        .commit(kinds.into_iter().map(|kind| change(2, kind)).collect())
        .await
        .expect("commits");
    assert_eq!(outcomes[0], Ok(Applied::Done));
    assert_eq!(
        outcomes[1],
        Err(Conflict::DeviceNotActive(DeviceState::Blocked))
    );
    assert!(matches!(
        outcomes[2],
        Ok(Applied::Issued {
            repeated: false,
            ..
        })
    ));
    assert!(matches!(outcomes[3], Err(Conflict::NotFound(_))));
    assert!(matches!(outcomes[4], Err(Conflict::Exists(_))));
    assert_eq!(outcomes[5], Ok(Applied::Done));
    assert!(store.account("dave").await.expect("reads").is_some());
    assert!(store.account("carol").await.expect("reads").is_some());
}

pub async fn a_first_use_supersedes_older_certificates(place: Place) {
    let store = place.open().await;
    let (device, first) = enrolled(&store).await;
    let (other, other_first) = enrolled(&store).await;
    let second = renewed(&store, 10, &device, &first).await;
    assert_eq!(
        state(&store, first.serial).await,
        CertificateState::Valid,
        "until the new one is used"
    );
    let used = Kind::UseCertificate {
        serial: second.serial,
        device: device.id,
        spends_permission: false,
        takes_place_of: None,
    };
    assert_eq!(apply(&store, 11, used.clone()).await, Ok(Applied::Done));
    assert_eq!(apply(&store, 12, used).await, Ok(Applied::Unchanged));
    assert_eq!(
        state(&store, first.serial).await,
        CertificateState::Superseded
    );
    assert_eq!(state(&store, second.serial).await, CertificateState::Valid);
    assert_eq!(
        state(&store, other_first.serial).await,
        CertificateState::Valid
    );
    // A clock that was set back changes nothing about which one is newer.
    let third = renewed(&store, -5_000, &device, &second).await;
    let used = Kind::UseCertificate {
        serial: third.serial,
        device: device.id,
        spends_permission: false,
        takes_place_of: None,
    };
    apply(&store, -4_999, used).await.expect("uses");
    assert_eq!(
        state(&store, second.serial).await,
        CertificateState::Superseded
    );
    assert_eq!(state(&store, third.serial).await, CertificateState::Valid);
    // A certificate that was replaced meanwhile gets no successor.
    let renew = Kind::Renew {
        certificate: certificate(&device),
        replaces: first.serial,
        after_expiry: None,
    };
    assert_eq!(apply(&store, 12, renew).await, Err(Conflict::Replaced));
    // The first use of an older one never supersedes a newer one.
    let fourth = renewed(&store, 20, &other, &other_first).await;
    let used = Kind::UseCertificate {
        serial: other_first.serial,
        device: other.id,
        spends_permission: false,
        takes_place_of: None,
    };
    apply(&store, 21, used).await.expect("uses");
    assert_eq!(state(&store, fourth.serial).await, CertificateState::Valid);
    let standing = store
        .standing(third.serial)
        .await
        .expect("reads")
        .expect("is there");
    assert!(standing.used && standing.certificate_state == CertificateState::Valid);
}

pub async fn a_first_use_spends_the_permission_and_takes_the_place(place: Place) {
    let store = place.open().await;
    let (before, _) = enrolled(&store).await;
    let record = NewDevice {
        predecessor: Some(before.id),
        ..device()
    };
    let first = certificate(&record);
    let enroll = Kind::Enroll {
        device: record.clone(),
        certificate: first.clone(),
    };
    apply(&store, 1, enroll).await.expect("enrolls");
    let until = at(1_000);
    let allow = |device| Kind::AllowRenewal { device, until };
    assert_eq!(apply(&store, 2, allow(record.id)).await, Ok(Applied::Done));
    let stranger = DeviceId::from_entropy(random());
    let refused = apply(&store, 2, allow(stranger)).await;
    assert!(matches!(refused, Err(Conflict::NotFound(_))), "{refused:?}");
    let standing = async || {
        let found = store.standing(first.serial).await.expect("reads");
        found.expect("is there")
    };
    assert_eq!(standing().await.renewal_allowed_until, Some(until));
    assert_eq!(standing().await.predecessor, Some(before.id));
    let old = async || {
        store
            .device(before.id)
            .await
            .expect("reads")
            .expect("is there")
    };
    assert_eq!(
        old().await.state,
        DeviceState::Active,
        "until the new one is used"
    );
    let twice = renewed(&store, 2, &record, &first).await;
    let used = Kind::UseCertificate {
        serial: first.serial,
        device: record.id,
        spends_permission: true,
        takes_place_of: Some(before.id),
    };
    apply(&store, 3, used).await.expect("uses");
    assert_eq!(standing().await.renewal_allowed_until, None);
    assert_eq!(
        state(&store, twice.serial).await,
        CertificateState::Superseded,
        "the permission is for one"
    );
    assert_eq!(old().await.state, DeviceState::Obsolete);
    assert_eq!(old().await.successor, Some(record.id));
    let refused = apply(&store, 4, allow(before.id)).await;
    assert_eq!(
        refused,
        Err(Conflict::DeviceNotActive(DeviceState::Obsolete))
    );
}

pub async fn what_happens_again_is_one_open_alert(place: Place) {
    let store = place.open().await;
    let (device, _) = enrolled(&store).await;
    let raise = |detail: &str| Kind::RaiseAlert {
        alert: AlertKind::SupersededCertificateUsed,
        device: device.id,
        detail: detail.to_owned(),
    };
    let open = async |closed| {
        let filter = AlertFilter {
            device: Some(device.id),
            closed,
            after: None,
            limit: 10,
        };
        store.alerts(&filter).await.expect("reads").items
    };
    apply(&store, 1, raise("first")).await.expect("raises");
    apply(&store, 2, raise("second")).await.expect("raises");
    let alerts = open(false).await;
    assert_eq!(alerts.len(), 1);
    assert_eq!(
        (alerts[0].times, alerts[0].first_at, alerts[0].last_at),
        (2, at(1), at(2))
    );
    assert_eq!(alerts[0].detail, "second");
    let close = Kind::CloseAlert {
        number: alerts[0].number,
    };
    apply(&store, 3, close.clone()).await.expect("closes");
    let again = apply(&store, 3, close).await;
    assert!(matches!(again, Err(Conflict::NotFound(_))), "{again:?}");
    assert_eq!(open(false).await, []);
    apply(&store, 4, raise("later")).await.expect("raises");
    assert_eq!(open(false).await.len(), 1);
    assert_eq!(open(true).await.len(), 2);
}

pub async fn a_moment_goes_back_only_when_it_is_accepted(place: Place) {
    let store = place.open().await;
    let pin = domain::Pin::new(KeyDigest::new(random()));
    store.bind_site(pin).await.expect("binds");
    store.record_moment(at(100), false).await.expect("writes");
    store.record_moment(at(50), false).await.expect("writes");
    assert_eq!(store.moment().await.expect("reads"), at(100));
    store.record_moment(at(50), true).await.expect("writes");
    assert_eq!(store.moment().await.expect("reads"), at(50));
}

pub async fn states_follow_their_diagram(place: Place) {
    use DeviceTransition::{Block, Retire, Supersede, Unblock};
    let store = place.open().await;
    let (device, _) = enrolled(&store).await;
    let go = |transition| Kind::Transition {
        device: device.id,
        transition,
        revoke: None,
    };
    assert_eq!(
        apply(&store, 1, go(Block)).await,
        Ok(Applied::Revoked { certificates: 0 })
    );
    assert_eq!(apply(&store, 2, go(Block)).await, Ok(Applied::Unchanged));
    assert_eq!(
        apply(&store, 3, go(Unblock)).await,
        Ok(Applied::Revoked { certificates: 0 })
    );
    assert!(apply(&store, 4, go(Retire)).await.is_ok());
    assert!(matches!(
        apply(&store, 5, go(Unblock)).await,
        Err(Conflict::Transition(_))
    ));
    let found = store
        .device(device.id)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(found.state, DeviceState::Retired);

    let (device, _) = enrolled(&store).await;
    let go = |transition| Kind::Transition {
        device: device.id,
        transition,
        revoke: None,
    };
    assert!(apply(&store, 6, go(Block)).await.is_ok());
    assert!(apply(&store, 7, go(Supersede)).await.is_ok());
    assert_eq!(
        apply(&store, 8, go(Supersede)).await,
        Ok(Applied::Unchanged)
    );
    assert!(matches!(
        apply(&store, 9, go(Unblock)).await,
        Err(Conflict::Transition(_))
    ));
    let found = store
        .device(device.id)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (found.state, found.successor),
        (DeviceState::Obsolete, None)
    );
}

pub async fn leaving_revokes_and_the_revocations_are_listed(place: Place) {
    let store = place.open().await;
    let (device, first) = enrolled(&store).await;
    renewed(&store, 1, &device, &first).await;
    enrolled(&store).await;
    let retire = Kind::Transition {
        device: device.id,
        transition: DeviceTransition::Retire,
        revoke: Some(RevocationReason::CessationOfOperation),
    };
    assert_eq!(
        apply(&store, 2, retire).await,
        Ok(Applied::Revoked { certificates: 2 })
    );
    let listed = store.revocations(at(0)).await.expect("reads");
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .all(|entry| entry.reason == RevocationReason::CessationOfOperation)
    );
    assert_eq!(
        store
            .revocations(at(366 * 86_400))
            .await
            .expect("reads")
            .len(),
        0
    );

    let publish = |number| Kind::PublishCrl {
        number,
        this_update: at(2),
        next_update: at(3),
        revocations: 2,
        der: vec![number as u8],
    };
    assert_eq!(apply(&store, 3, publish(2)).await, Ok(Applied::Done));
    assert_eq!(apply(&store, 3, publish(1)).await, Err(Conflict::CrlNumber));
    assert_eq!(
        store.crl().await.expect("reads").expect("is there").der,
        vec![2]
    );
}

pub async fn deleting_a_device_keeps_its_revoked_certificates(place: Place) {
    let store = place.open().await;
    let (device, first) = enrolled(&store).await;
    let delete = Kind::DeleteDevice { device: device.id };
    assert_eq!(
        apply(&store, 1, delete.clone()).await,
        Ok(Applied::Revoked { certificates: 1 })
    );
    assert_eq!(apply(&store, 2, delete).await, Ok(Applied::Unchanged));
    let standing = store.standing(first.serial).await.expect("reads");
    assert_eq!(
        standing.expect("is there").device_state,
        DeviceState::Deleted
    );
    assert_eq!(store.revocations(at(0)).await.expect("reads").len(), 1);
    // Its old key does not bring it back.
    let back = enroll(&device, &again_of(&first));
    assert_eq!(apply(&store, 3, back).await, Err(Conflict::KeySpent));
    let unblock = Kind::Transition {
        device: device.id,
        transition: DeviceTransition::Unblock,
        revoke: None,
    };
    assert!(matches!(
        apply(&store, 4, unblock).await,
        Err(Conflict::Transition(_))
    ));
}

pub async fn lists_are_walked_in_pages_without_gap_or_repetition(place: Place) {
    let store = place.open().await;
    let mut kinds = Vec::new();
    for n in 0..23 {
        let device = device();
        kinds.push(change(0, enroll(&device, &certificate(&device))));
        // Names repeat: the page must go on inside of a name.
        let facts = DeviceFacts {
            host_name: format!("mac-{}", n / 5),
            ..DeviceFacts::default()
        };
        kinds.push(change(
            0,
            Kind::ReportFacts {
                device: device.id,
                facts,
            },
        ));
    }
    assert!(
        store
            .commit(kinds)
            .await
            .expect("commits")
            .iter()
            .all(Result::is_ok)
    );

    let mut seen = Vec::new();
    let mut filter = DeviceFilter {
        limit: 4,
        ..DeviceFilter::default()
    };
    loop {
        let page = store.devices(&filter).await.expect("reads");
        seen.extend(
            page.items
                .iter()
                .map(|device| (device.facts.host_name.clone(), device.id)),
        );
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 23);
    assert!(seen.is_sorted());
    seen.dedup();
    assert_eq!(seen.len(), 23);

    let filter = DeviceFilter {
        name: Some("mac-2".to_owned()),
        limit: 100,
        ..DeviceFilter::default()
    };
    assert_eq!(store.devices(&filter).await.expect("reads").items.len(), 5);

    let mut filter = CertificateFilter {
        state: Some(CertificateState::Valid),
        expires_after: Some(at(0)),
        expires_before: Some(at(365 * 86_400)),
        limit: 10,
        ..CertificateFilter::default()
    };
    let mut serials = Vec::new();
    loop {
        let page = store.certificates(&filter).await.expect("reads");
        serials.extend(page.items.iter().map(|certificate| certificate.serial));
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    assert_eq!(serials.len(), 23);

    let mut events = Vec::new();
    let mut before = None;
    loop {
        let page = store
            .audit_events(before.as_deref(), 7)
            .await
            .expect("reads");
        events.extend(page.items.iter().map(|event| event.number));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(events, (1..=46).rev().collect::<Vec<_>>());
    // A cursor that nobody gave is an error, never a page.
    let filter = CertificateFilter {
        after: Some("x/y".to_owned()),
        limit: 1,
        ..CertificateFilter::default()
    };
    assert!(store.certificates(&filter).await.is_err());
}

pub async fn the_audit_log_verifies_and_tells_what_was_changed(place: Place) {
    let holds = |_: &[u8], signature: &[u8]| signature == b"signed";
    let store = place.open().await;
    for _ in 0..3 {
        enrolled(&store).await;
    }
    let heads = store.heads().await.expect("reads");
    let checkpoint = Checkpoint {
        number: 0,
        at: at(9),
        message: checkpoint_message(at(9), &heads),
        signature: b"signed".to_vec(),
    };
    store.record_checkpoint(&checkpoint).await.expect("records");
    drop(store);
    let store = place.open().await;
    enrolled(&store).await;

    let proof = store.verify_audit(&holds).await.expect("reads");
    assert_eq!((proof.segments, proof.events, proof.checkpoints), (2, 4, 1));
    assert!(proof.holds(), "{proof:?}");

    for (sql, fault) in [
        (
            "UPDATE audit_event SET actor = 'somebody' WHERE number = 2",
            "was changed",
        ),
        (
            "UPDATE audit_event SET payload = '{}' WHERE number = 3",
            "details were changed",
        ),
        (
            "DELETE FROM audit_event WHERE number = 3",
            "signed checkpoint saw this event, and it is gone",
        ),
        ("DELETE FROM audit_event WHERE number = 1", "is missing"),
    ] {
        tamper(&place.location, sql).await;
        let proof = store.verify_audit(&holds).await.expect("reads");
        assert!(
            proof.faults.iter().any(|found| found.what.contains(fault)),
            "{sql}: {proof:?}"
        );
    }
    let proof = store.verify_audit(&|_, _| false).await.expect("reads");
    assert!(
        proof
            .faults
            .iter()
            .any(|found| found.what.contains("signature"))
    );
}

pub async fn tamper(location: &Location, sql: &'static str) {
    match location {
        Location::Sqlite(file) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
            let pool = sqlx::SqlitePool::connect_with(options)
                .await
                .expect("connects");
            sqlx::query(sql).execute(&pool).await.expect("tampers");
        }
        Location::Postgres(url) => {
            let pool = sqlx::PgPool::connect(url).await.expect("connects");
            sqlx::query(sql).execute(&pool).await.expect("tampers");
        }
    }
}

pub async fn a_hundred_writers_at_once_lose_nothing(place: Place) {
    let store = place.open().await;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let (device, first) = enrolled(&store).await;
                let second = renewed(&store, 5, &device, &first).await;
                let used = Kind::UseCertificate {
                    serial: second.serial,
                    device: device.id,
                    spends_permission: false,
                    takes_place_of: None,
                };
                apply(&store, 6, used).await.expect("uses");
                (first.serial, second.serial)
            })
        })
        .collect();
    for task in tasks {
        let (first, second) = task.await.expect("ends");
        assert_eq!(state(&store, first).await, CertificateState::Superseded);
        assert_eq!(state(&store, second).await, CertificateState::Valid);
    }
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert_eq!((proof.events, proof.holds()), (300, true));
}

pub async fn a_request_may_have_more_changes_than_one_statement_takes(place: Place) {
    let store = place.open().await;
    let (device, first) = enrolled(&store).await;
    let noted = || {
        Kind::Noted(Note {
            action: "noted",
            subject: "many".to_owned(),
            detail: String::new(),
        })
    };
    let renew = || Kind::Renew {
        certificate: certificate(&device),
        replaces: first.serial,
        after_expiry: None,
    };
    let used = || Kind::UseCertificate {
        serial: SerialNumber::from_entropy(random()),
        device: device.id,
        spends_permission: false,
        takes_place_of: None,
    };
    let reported = || Kind::ReportFacts {
        device: DeviceId::from_entropy(random()),
        facts: DeviceFacts::default(),
    };
    let kinds = std::iter::repeat_with(noted)
        .take(20_000)
        .chain(std::iter::repeat_with(renew).take(6_000))
        .chain(std::iter::repeat_with(used).take(20_000))
        .chain(std::iter::repeat_with(reported).take(20_000));
    let outcomes = store
        .commit(kinds.map(|kind| change(1, kind)).collect())
        .await
        .expect("commits");
    assert_eq!(outcomes.len(), 66_000);
    let (good, unknown) = outcomes.split_at(46_000);
    assert!(good.iter().all(Result::is_ok));
    assert!(unknown.iter().all(Result::is_err));
    let recorded = store
        .device_events(device.id, None, 1)
        .await
        .expect("reads");
    assert_eq!(recorded.items.len(), 1);
    let proof = store.verify_audit(&|_, _| true).await.expect("reads");
    assert_eq!((proof.events, proof.holds()), (26_001, true));
}

pub async fn a_database_belongs_to_one_site(place: Place) {
    let store = place.open().await;
    let ours = Pin::new(KeyDigest::new([1; 32]));
    store.bind_site(ours).await.expect("binds");
    store.bind_site(ours).await.expect("binds again");
    let error = store
        .bind_site(Pin::new(KeyDigest::new([2; 32])))
        .await
        .expect_err("another site");
    assert!(matches!(error, Unavailable::OtherSite { .. }));
}

pub async fn a_newer_schema_is_refused(place: Place) {
    drop(place.open().await);
    tamper(
        &place.location,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 9999, 'from the future', success, checksum, 0 FROM _sqlx_migrations",
    )
    .await;
    let opened = Store::open(&place.location, "test", Arc::new(SystemRng)).await;
    assert!(matches!(opened.err(), Some(Unavailable::NewerSchema(9999))));
}

pub async fn facts_and_last_seen_are_kept(place: Place) {
    let store = place.open().await;
    let (device, _) = enrolled(&store).await;
    let facts = DeviceFacts {
        host_name: "mac-1".to_owned(),
        renewal_period_1: Some(3600),
        ..DeviceFacts::default()
    };
    let report = Kind::ReportFacts {
        device: device.id,
        facts: facts.clone(),
    };
    apply(&store, 1, report).await.expect("reports");
    store
        .record_seen(&[(device.id, at(5))])
        .await
        .expect("records");
    store
        .record_seen(&[(device.id, at(3))])
        .await
        .expect("records");
    let found = store
        .device(device.id)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!((found.facts, found.last_seen), (facts, Some(at(5))));
    let unknown = Kind::ReportFacts {
        device: DeviceId::from_entropy(random()),
        facts: DeviceFacts::default(),
    };
    assert!(matches!(
        apply(&store, 2, unknown).await,
        Err(Conflict::NotFound(_))
    ));

    let usage = store
        .usage("local:ann", at(10), at(-10))
        .await
        .expect("reads");
    assert_eq!(usage, Usage { live: 1, issued: 1 });
    let token = NewToken {
        digest: TokenDigest::new([7; 32]),
        name: "first".to_owned(),
        role: Role::FullAdministrator,
        expires_at: None,
        replaces: false,
    };
    apply(&store, 3, Kind::AddToken(token)).await.expect("adds");
    let found = store
        .token(&TokenDigest::new([7; 32]))
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(found.role, Role::FullAdministrator);
}

//! What a device takes for its policy, and what it refuses.

use agent::compliance;
use data_encoding::BASE64;
use domain::ComplianceState::Compliant;
use domain::DeviceId;
use jiff::SignedDuration;
use protocol::{PayloadType, PolicyVersion};
use serde_json::json;

use crate::place::{FakeSite, Place, check, item_of};

fn one(place: &Place, name: &str) -> protocol::ItemBody {
    let mark = place.root().join(name);
    let script = format!("echo x >> {}; echo right", mark.display());
    item_of(name, vec![check(name, &script, "right")])
}

/// How often the script of `one` ran.
fn ran(place: &Place, name: &str) -> usize {
    let text = std::fs::read_to_string(place.root().join(name)).unwrap_or_default();
    text.lines().count()
}

fn problem(place: &Place) -> String {
    place.machine.state().policy_problem.unwrap_or_default()
}

/// The device refuses what `publish` makes, says so, and goes on with what it has.
async fn is_refused(place: &Place, why: &str, publish: impl AsyncFnOnce()) {
    place.deploy(vec![one(place, "good")]).await;
    place.evaluate().await.expect("evaluated");
    publish().await;
    place.check_in().await;
    let told = problem(place);
    assert!(told.contains(why), "{told}");
    let before = ran(place, "good");
    let states = place.states().await;
    assert_eq!(states["good"].0, Compliant);
    assert_eq!(states.len(), 1);
    assert_eq!(ran(place, "good"), before + 1);
    assert_eq!(ran(place, "bad"), 0);
    // The site hears of it at the next check-in.
    place.check_in().await;
    let reported = place.site.records().check_ins.pop().expect("a check-in");
    let reported = reported
        .policy
        .expect("a state")
        .problem
        .expect("a problem");
    assert!(reported.contains(why), "{reported}");
}

#[tokio::test]
async fn a_list_is_fetched_once_and_its_bodies_too() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a"), one(&place, "b")]).await;
    let requests = place.site.records().requests.len();
    place.check_in().await;
    assert_eq!(place.site.records().requests.len(), requests + 1);
    // One of the bodies stays, one goes, one comes.
    place.deploy(vec![one(&place, "b"), one(&place, "c")]).await;
    let records = place.site.records();
    let bodies = records.requests[requests + 1..]
        .iter()
        .filter(|path| path.starts_with(protocol::POLICY_BODY_PATH));
    assert_eq!(bodies.count(), 1);
    let folder = place.machine.layout.policy().join("bodies");
    assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 2);
    let state = records.check_ins.last().expect("a check-in").policy.clone();
    assert_eq!(
        state.expect("a state").version,
        PolicyVersion {
            epoch: 0,
            counter: 1
        }
    );
}

#[tokio::test]
async fn a_list_is_renewed_in_the_second_half_of_its_life() {
    let place = Place::new();
    let list = place.publish(vec![one(&place, "a")], &[json!({})]);
    place.check_in().await;
    place.clock.pass(24 * 3600 * 6);
    place.check_in().await;
    let fetched = |place: &Place| {
        let records = place.site.records();
        let lists = records.requests.iter();
        lists.filter(|path| *path == protocol::POLICY_PATH).count()
    };
    assert_eq!(fetched(&place), 1);
    place.clock.pass(24 * 3600 * 2);
    let later = protocol::PolicyList {
        issued_at: place.clock.real(),
        expires_at: place.clock.real() + SignedDuration::from_hours(24 * 14),
        version: PolicyVersion {
            epoch: 0,
            counter: 2,
        },
        ..list
    };
    place.sign_list(&later);
    place.check_in().await;
    assert_eq!(fetched(&place), 2);
    assert_eq!(problem(&place), "");
    place.clock.pass(24 * 3600 * 10);
    assert_eq!(place.states().await["a"].0, Compliant);
}

#[tokio::test]
async fn a_tampered_body_is_refused() {
    let place = Place::new();
    is_refused(&place, "it was changed on its way", async || {
        place.publish(vec![one(&place, "bad")], &[json!({})]);
        let mut records = place.site.records();
        let body = records.bodies.values_mut().next().expect("a body");
        let payload = BASE64.decode(body.payload.as_bytes()).expect("base64");
        let text = String::from_utf8(payload).expect("text");
        body.payload = BASE64.encode(text.replace("echo x", "echo y").as_bytes());
    })
    .await;
}

#[tokio::test]
async fn a_body_of_another_site_is_refused() {
    let place = Place::new();
    is_refused(&place, "under the root of another site", async || {
        let bad = one(&place, "bad");
        place.publish(vec![bad.clone()], &[json!({})]);
        let signed = FakeSite::new(place.clock.clone()).sign(PayloadType::Body, &bad);
        let mut records = place.site.records();
        *records.bodies.values_mut().next().expect("a body") = signed;
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_not_on_the_list_is_refused() {
    let place = Place::new();
    is_refused(
        &place,
        "its content is not what its name says",
        async || {
            place.publish(vec![one(&place, "other")], &[json!({})]);
            let signed = place.site.sign(PayloadType::Body, &one(&place, "bad"));
            let mut records = place.site.records();
            *records.bodies.values_mut().next().expect("a body") = signed;
        },
    )
    .await;
}

#[tokio::test]
async fn a_list_that_is_signed_as_something_else_is_refused() {
    let place = Place::new();
    is_refused(&place, "it is signed as something else", async || {
        let list = place.publish(vec![one(&place, "bad")], &[json!({})]);
        let signed = place.site.sign(PayloadType::Body, &list);
        place.site.records().list = Some(signed);
    })
    .await;
}

#[tokio::test]
async fn a_list_of_another_device_is_refused() {
    let place = Place::new();
    is_refused(&place, "it is for another device", async || {
        let mut list = place.publish(vec![one(&place, "bad")], &[json!({})]);
        list.device = DeviceId::from_entropy([8; 16]).smsid();
        place.sign_list(&list);
    })
    .await;
}

#[tokio::test]
async fn an_expired_list_is_refused_whatever_the_clock_says() {
    let place = Place::new();
    is_refused(&place, "it expired", async || {
        let mut list = place.publish(vec![one(&place, "bad")], &[json!({})]);
        list.expires_at = place.clock.real() - SignedDuration::from_secs(1);
        place.sign_list(&list);
        // Somebody set the clock back.
        place.clock.set(-400 * 86_400);
    })
    .await;
}

#[tokio::test]
async fn an_older_list_is_refused_also_when_the_rest_was_forgotten() {
    let place = Place::new();
    let old = place.publish(vec![one(&place, "bad")], &[json!({})]);
    is_refused(&place, "is older than", async || {
        place.publish_again_as(&old);
    })
    .await;
    // Another enrollment at the same site forgets all but what was seen.
    let layout = &place.machine.layout;
    std::fs::remove_dir_all(layout.compliance()).expect("removed");
    std::fs::remove_file(layout.policy().join("list.json")).expect("removed");
    place.check_in().await;
    assert!(problem(&place).contains("is older than"));
    assert!(place.evaluate().await.is_err());
    assert_eq!(ran(&place, "bad"), 0);
}

#[tokio::test]
async fn a_raised_epoch_beats_any_counter() {
    let place = Place::new();
    for _ in 0..3 {
        place.publish(vec![one(&place, "a")], &[json!({})]);
    }
    place.check_in().await;
    place.site.records().version = PolicyVersion {
        epoch: 1,
        counter: 0,
    };
    place.deploy(vec![one(&place, "b")]).await;
    assert_eq!(place.states().await.len(), 1);
}

#[tokio::test]
async fn a_list_that_expired_runs_nothing_and_is_fetched_anew() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a")]).await;
    place.states().await;
    place.site.records().away = true;
    place.clock.pass(15 * 86_400);
    assert!(place.evaluate().await.is_err());
    assert_eq!(ran(&place, "a"), 1);
    let identity = place.machine.enrolled().expect("enrolled");
    assert_eq!(compliance::next_evaluation(&place.machine, &identity), None);
    let status = compliance::Standing::of(&place.machine, &identity).expect("a policy");
    assert!(status.problem.expect("a problem").contains("expired"));
    place.site.records().away = false;
    place.publish(vec![one(&place, "a")], &[json!({})]);
    place.check_in().await;
    let reported = place.site.records().check_ins.pop().expect("a check-in");
    let told = reported
        .policy
        .expect("a state")
        .problem
        .expect("a problem");
    assert!(told.contains("expired"), "{told}");
    place.states().await;
    assert_eq!(ran(&place, "a"), 2);
}

#[tokio::test]
async fn a_list_that_expired_stays_so_whatever_time_somebody_tells() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a")]).await;
    for ahead in [15 * 24, 0] {
        place.site.records().ahead = SignedDuration::from_hours(ahead);
        place.check_in().await;
        assert!(place.evaluate().await.is_err(), "{ahead}");
    }
    assert_eq!(ran(&place, "a"), 0);
    assert!(
        problem(&place).contains("it expired"),
        "{}",
        problem(&place)
    );
    // Also after a restart, and by the device's own count of what went by.
    let mut place = place;
    place.machine.boot = "second".to_owned();
    place.check_in().await;
    assert!(place.evaluate().await.is_err());
    assert_eq!(ran(&place, "a"), 0);
}

#[tokio::test]
async fn a_site_that_tells_the_same_time_again_and_again_prolongs_nothing() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a")]).await;
    for hours in (0..15 * 24).step_by(6) {
        place.site.records().ahead = SignedDuration::from_hours(-hours);
        place.check_in().await;
        place.clock.pass(6 * 3600);
    }
    assert!(place.evaluate().await.is_err());
    assert_eq!(ran(&place, "a"), 0);
}

#[tokio::test]
async fn a_site_whose_clock_was_ahead_comes_back_with_a_higher_epoch() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a")]).await;
    place.site.records().ahead = SignedDuration::from_hours(400 * 24);
    place.check_in().await;
    place.site.records().ahead = SignedDuration::ZERO;
    place.publish(vec![one(&place, "a")], &[json!({})]);
    place.check_in().await;
    assert!(
        problem(&place).contains("it expired"),
        "{}",
        problem(&place)
    );
    place.site.records().version = PolicyVersion {
        epoch: 1,
        counter: 0,
    };
    place.deploy(vec![one(&place, "b")]).await;
    assert_eq!(place.states().await["b"].0, Compliant);
    place.check_in().await;
    assert_eq!(place.states().await["b"].0, Compliant);
}

#[tokio::test]
async fn a_list_that_was_overtaken_while_it_was_fetched_is_fetched_anew() {
    let place = Place::new();
    place.publish(vec![one(&place, "a")], &[json!({})]);
    agent::renewal::check_in(&place.machine)
        .await
        .expect("a check-in");
    let old = place.site.records().list.take();
    place.publish(vec![one(&place, "b")], &[json!({})]);
    {
        let mut records = place.site.records();
        records.then_list = std::mem::replace(&mut records.list, old);
    }
    compliance::deliver_and_note(&place.machine)
        .await
        .expect("noted");
    assert_eq!(problem(&place), "");
    assert_eq!(place.machine.state().policy_trouble, None);
    assert_eq!(place.states().await["b"].0, Compliant);
}

#[tokio::test]
async fn a_body_that_the_site_does_not_give_is_told_and_asked_for_soon_and_holds_nothing_up() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a")]).await;
    place.states().await;
    place.publish(vec![one(&place, "b")], &[json!({})]);
    place.site.records().bodies.clear();
    place.check_in().await;
    assert!(problem(&place).contains("does not give the policy body"));
    let state = place.machine.state();
    let trouble = state.policy_trouble.clone().expect("a trouble");
    assert!(trouble.next.duration_since(place.clock.real()).as_mins() <= 60);
    // The results went all the same.
    assert_eq!(state.delivery_trouble, None);
    assert_eq!(place.site.records().set.len(), 1);
    place.check_in().await;
    let reported = place.site.records().check_ins.pop().expect("a check-in");
    let told = reported.policy.expect("a state").problem;
    assert!(told.expect("a problem").contains("does not give"));
    // What is good again is taken when it is due, without another check-in.
    place.publish(vec![one(&place, "b")], &[json!({})]);
    place.clock.pass(3600);
    compliance::work(&place.machine).await.expect("worked");
    assert_eq!(problem(&place), "");
    assert_eq!(ran(&place, "b"), 1);
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_strands_nobody() {
    let place = Place::new();
    place.clock.set(3 * 365 * 86_400);
    place.deploy(vec![one(&place, "a")]).await;
    assert_eq!(place.states().await["a"].0, Compliant);
}

#[tokio::test]
async fn what_was_changed_on_this_disk_does_not_run() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a"), one(&place, "b")]).await;
    let folder = place.machine.layout.policy().join("bodies");
    let other = place.site.sign(PayloadType::Body, &one(&place, "bad"));
    let file = std::fs::read_dir(folder).expect("a folder").next();
    let file = file.expect("a body").expect("a body").path();
    std::fs::write(&file, serde_json::to_vec(&other).expect("JSON")).expect("written");
    let outcome = place.evaluate().await.expect("evaluated");
    assert_eq!(outcome.broken.len(), 1);
    assert_eq!(outcome.found.len(), 1);
    assert_eq!(ran(&place, "bad"), 0);
    assert!(problem(&place).contains("not what its name says"));
    // It is fetched again at once, and then all is well.
    compliance::deliver_and_note(&place.machine)
        .await
        .expect("noted");
    assert_eq!(problem(&place), "");
    assert_eq!(place.states().await.len(), 2);
}

#[tokio::test]
async fn an_old_list_that_is_put_back_on_this_disk_does_not_run() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a")]).await;
    let file = place.machine.layout.policy().join("list.json");
    let old = std::fs::read(&file).expect("a list");
    place.deploy(vec![one(&place, "b")]).await;
    std::fs::write(&file, old).expect("written");
    let failure = place
        .evaluate()
        .await
        .expect_err("nothing runs")
        .to_string();
    assert!(failure.contains("is older than"), "{failure}");
    assert_eq!(ran(&place, "a"), 0);
}

#[tokio::test]
async fn nothing_runs_of_a_site_that_nobody_confirmed() {
    let place = Place::with(false);
    place.deploy(vec![one(&place, "a")]).await;
    let failure = place
        .evaluate()
        .await
        .expect_err("nothing runs")
        .to_string();
    assert!(failure.contains("trust confirm"), "{failure}");
    assert_eq!(ran(&place, "a"), 0);
    place.check_in().await;
    let reported = place.site.records().check_ins.pop().expect("a check-in");
    assert!(reported.policy.expect("a state").problem.is_some());
}

#[tokio::test]
async fn an_answer_that_is_lost_is_fetched_again() {
    let place = Place::new();
    place.publish(vec![one(&place, "a")], &[json!({})]);
    agent::renewal::check_in(&place.machine)
        .await
        .expect("a check-in");
    place.site.records().lose_answers = 2;
    for _ in 0..3 {
        compliance::deliver_and_note(&place.machine)
            .await
            .expect("noted");
    }
    assert_eq!(place.machine.state().delivery_trouble, None);
    assert_eq!(place.states().await["a"].0, Compliant);
}

/// When the next evaluation of the device's own is due.
fn next(place: &Place) -> Option<domain::Timestamp> {
    let identity = place.machine.enrolled().expect("enrolled");
    compliance::next_evaluation(&place.machine, &identity)
}

#[tokio::test]
async fn what_was_not_evaluated_is_not_recorded_as_evaluated() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a")]).await;
    place.states().await;
    place.clock.pass(60);
    let (a, b) = (one(&place, "a"), one(&place, "b"));
    place.publish(vec![a, b], &[json!({}), json!({})]);
    // The first deployment has the one item, the second the other.
    let mut list = place.list();
    let both = list.deployments[0].items.clone();
    for (deployment, body) in list.deployments.iter_mut().zip(&both) {
        deployment.items = vec![*body];
    }
    place.sign_list(&list);
    place.check_in().await;
    let body = place.machine.layout.policy().join("bodies");
    std::fs::remove_file(body.join(format!("{}.json", both[1]))).expect("removed");
    place.site.records().away = true;
    for evaluation in 1..=3 {
        let outcome = place.evaluate().await.expect("evaluated");
        assert_eq!(outcome.broken.len(), 1);
        // It is tried again, later each time: never at once.
        let wait = next(&place)
            .expect("due")
            .duration_since(place.clock.real());
        assert_eq!(wait.as_secs(), 60 << (evaluation - 1), "{evaluation}");
    }
    place.site.records().away = false;
    place.clock.pass(3600);
    place.check_in().await;
    assert_eq!(place.states().await.len(), 2);
    assert_eq!(ran(&place, "b"), 1);
    let wait = next(&place)
        .expect("due")
        .duration_since(place.clock.real());
    assert!(wait.as_hours() >= 7, "{wait}");
}

#[tokio::test]
async fn an_evaluation_that_was_refused_is_tried_again() {
    let place = Place::new();
    place.deploy(vec![one(&place, "a")]).await;
    std::fs::remove_file(place.machine.layout.policy().join("list.json")).expect("removed");
    assert!(place.evaluate().await.is_err());
    let wait = next(&place)
        .expect("due")
        .duration_since(place.clock.real());
    assert_eq!(wait.as_secs(), 60);
}

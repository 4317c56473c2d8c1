//! Results on their way to the site.

use std::time::Duration;

use agent::compliance;
use domain::ComplianceState::{Compliant, NonCompliant, NotApplicable};
use serde_json::json;

use crate::place::{Place, check, item, item_of, wait_until};

/// A rule whose script prints what a file says.
fn file_check(place: &Place) -> protocol::ItemBody {
    let file = place.root().join("file");
    let script = format!("cat {}; true", file.display());
    item_of("file", vec![check("file", &script, "right")])
}

fn says(place: &Place, text: &str) {
    std::fs::write(place.root().join("file"), text).expect("written");
}

#[tokio::test]
async fn a_week_without_the_site() {
    let place = Place::new();
    says(&place, "right");
    place.deploy(vec![file_check(&place)]).await;
    place.states().await;
    place.check_in().await;
    place.site.records().away = true;
    for day in 0..7 {
        place.clock.pass(24 * 3600);
        says(&place, &format!("wrong {day}"));
        place.states().await;
        // It tries, and waits longer and longer.
        compliance::deliver_and_note(&place.machine)
            .await
            .expect("noted");
    }
    assert!(place.machine.state().delivery_trouble.is_some());
    place.site.records().away = false;
    // An answer that gets lost is no second application.
    place.site.records().lose_answers = 1;
    compliance::deliver_and_note(&place.machine)
        .await
        .expect("noted");
    compliance::deliver_and_note(&place.machine)
        .await
        .expect("noted");
    assert_eq!(place.machine.state().delivery_trouble, None);
    let records = place.site.records();
    let history: Vec<String> = records
        .history
        .iter()
        .map(|(sequence, one)| format!("{sequence} {}", one.value.as_deref().unwrap_or("")))
        .collect();
    let expected = ["1 right".to_owned()].into_iter();
    let expected = expected.chain((0..7).map(|day| format!("{} wrong {day}", day + 2)));
    assert_eq!(history, expected.collect::<Vec<_>>());
    let since = records.set.values().next().expect("a result").since;
    let six_days = place.clock.real().duration_since(since).as_hours();
    assert_eq!(six_days, 6 * 24);
}

#[tokio::test]
async fn an_evaluation_that_changes_nothing_sends_nothing() {
    let place = Place::new();
    says(&place, "right");
    place.deploy(vec![file_check(&place)]).await;
    place.states().await;
    place.check_in().await;
    place.clock.pass(3600);
    place.states().await;
    place.check_in().await;
    let records = place.site.records();
    let posted = records.requests.iter();
    let posted = posted.filter(|path| *path == protocol::RESULTS_PATH);
    assert_eq!(posted.count(), 1);
    // But that it was evaluated is known.
    let told = records
        .check_ins
        .last()
        .expect("a check-in")
        .results
        .clone();
    assert_eq!(told.expect("results").evaluated_at, place.clock.real());
}

#[tokio::test]
async fn a_site_that_forgot_gets_the_whole_set() {
    let place = Place::new();
    says(&place, "right");
    let other = item_of("other", vec![check("other", "echo right", "right")]);
    place.deploy(vec![file_check(&place), other]).await;
    place.states().await;
    place.check_in().await;
    {
        let mut records = place.site.records();
        assert_eq!(records.set.len(), 2);
        records.set.clear();
        records.stream = None;
        records.sequence = 0;
    }
    place.check_in().await;
    assert_eq!(place.site.records().set.len(), 2);
}

/// A disk that was put back to an earlier day, or a copied machine: it evaluates and reports before it
/// checks in. The site must end with what is true now, not with a mixture.
#[tokio::test]
async fn a_disk_of_an_earlier_day_begins_anew() {
    let place = Place::new();
    let file = place.machine.layout.compliance().join("results.jsonl");
    says(&place, "right");
    place.deploy(vec![file_check(&place)]).await;
    place.states().await;
    place.check_in().await;
    let report = async || {
        compliance::deliver_and_note(&place.machine)
            .await
            .expect("noted");
    };
    // How many changes the site saw that the earlier disk did not, and how many the disk makes.
    for (lost, made) in [(1, 1), (3, 1), (1, 3), (2, 2)] {
        let earlier = std::fs::read(&file).expect("results");
        for change in 0..lost {
            says(&place, &format!("lost {lost}/{made} {change}"));
            place.states().await;
            report().await;
        }
        std::fs::write(&file, &earlier).expect("put back");
        for change in 0..made {
            says(&place, &format!("made {lost}/{made} {change}"));
            place.states().await;
        }
        report().await;
        place.check_in().await;
        let records = place.site.records();
        let now = records.set.values().next().expect("a result");
        let expected = format!("made {lost}/{made} {}", made - 1);
        assert_eq!(now.value.as_deref(), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn rules_that_left_the_policy_leave_the_site() {
    let place = Place::new();
    says(&place, "right");
    let other = item_of("other", vec![check("other", "echo right", "right")]);
    place.deploy(vec![file_check(&place), other]).await;
    place.states().await;
    place.check_in().await;
    place.publish(vec![], &[]);
    place.check_in().await;
    // That is due at once, though no deployment is.
    compliance::work(&place.machine).await.expect("worked");
    place.check_in().await;
    assert_eq!(place.site.records().set.len(), 0);
}

#[tokio::test]
async fn what_is_for_another_platform_is_not_applicable() {
    let place = Place::new();
    let mut body = serde_json::to_value(item(
        "a",
        &[json!({"name": "s", "data_type": "string", "source": {"script": {"discovery": "exit 9"}}})],
        &[json!({"name": "r", "setting": "s", "condition": {"existential": "must-exist"}})],
    ))
    .expect("JSON");
    body["content"]["platforms"] = json!([{"os": "macOS"}]);
    let body = serde_json::from_value(body).expect("a body");
    place.deploy(vec![body]).await;
    assert_eq!(place.states().await["r"].0, NotApplicable);
    let ran = place.agent("evaluate", &[]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    // A test build says that it is a Mac: then the rule counts.
    #[cfg(feature = "test-clock")]
    {
        let ran = place.agent("evaluate", &[("PERENNIAL_TEST_PLATFORM", "macOS:26.1")]);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    }
}

#[tokio::test]
async fn evaluate_prints_a_table_and_has_exit_codes() {
    let place = Place::new();
    let ran = place.agent("evaluate", &[]);
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    says(&place, "wrong");
    place.publish(
        vec![
            file_check(&place),
            item_of("ok", vec![check("other", "echo right", "right")]),
        ],
        &[json!({})],
    );
    place.check_in().await;
    let ran = place.agent("evaluate", &[]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let table = String::from_utf8(ran.stdout).expect("text");
    let expected = "\
RULE         STATE          VALUE  REASON
file / file  non-compliant  wrong
ok / other   compliant      right
";
    assert_eq!(table, expected);
    says(&place, "right");
    let ran = place.agent("evaluate --json", &[]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let found: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(found[0]["state"], "compliant");
    let ran = place.agent("evaluate nothing", &[]);
    assert_eq!(ran.status.code(), Some(2));
    let told = String::from_utf8(ran.stderr).expect("text");
    assert!(
        told.contains("is not deployed to this computer; these are: `Baseline 1`"),
        "{told}"
    );
    let status = place.agent("status", &[]);
    let status = String::from_utf8(status.stdout).expect("text");
    assert!(
        status.contains("Baseline        Baseline 1: 2 rules compliant since"),
        "{status}"
    );
    assert!(
        status.contains("Policy          version 0.1, valid until"),
        "{status}"
    );
    // What waits arrives with the next check-in.
    place.check_in().await;
    let states: Vec<_> = place
        .site
        .records()
        .set
        .values()
        .map(|one| one.state)
        .collect();
    assert_eq!(states, [Compliant, Compliant]);
    let history = place.site.records().history.clone();
    assert!(history.iter().any(|(_, one)| one.state == NonCompliant));
}

#[tokio::test]
async fn diagnostics_have_no_scripts_and_no_values() {
    let place = Place::new();
    says(&place, "a-private-value");
    place.deploy(vec![file_check(&place)]).await;
    place.states().await;
    let output = place.root().join("zips");
    std::fs::create_dir(&output).expect("a folder");
    let ran = place.agent(&format!("diagnostics --output {}", output.display()), &[]);
    assert!(ran.status.success(), "{ran:?}");
    let zip = std::fs::read_dir(&output).expect("a folder").next();
    let zip = std::fs::File::open(zip.expect("a zip").expect("a zip").path()).expect("opens");
    let mut zip = zip::ZipArchive::new(zip).expect("a zip");
    let mut all = String::new();
    for at in 0..zip.len() {
        use std::io::Read;
        let mut part = Vec::new();
        zip.by_index(at)
            .expect("a part")
            .read_to_end(&mut part)
            .expect("reads");
        all += &String::from_utf8_lossy(&part);
    }
    assert!(all.contains("file / file") && all.contains("version 0.1"));
    assert!(!all.contains("a-private-value") && !all.contains("cat /"));
}

/// The daemon itself: the site is away, and what is due is evaluated all the same. While a script runs, the
/// machine's lock is free.
#[tokio::test]
async fn the_daemon_evaluates_beside_its_other_work() {
    let place = Place::new();
    let (begun, go_on) = (place.root().join("begun"), place.root().join("go-on"));
    let script = format!(
        "touch {}; while ! test -e {}; do sleep 0.05; done; echo right",
        begun.display(),
        go_on.display()
    );
    let checks = vec![check("r", &script, "right").within("1h")];
    place.deploy(vec![item_of("a", checks)]).await;
    let mut daemon = std::process::Command::new(crate::place::program())
        .arg("--root")
        .arg(place.root())
        .arg("run")
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it runs");
    wait_until(|| begun.exists()).await;
    let lock = tokio::time::timeout(Duration::from_secs(5), place.machine.lock());
    drop(lock.await.expect("it is free").expect("a lock"));
    std::fs::write(&go_on, "").expect("written");
    let results = place.machine.layout.compliance().join("results.jsonl");
    wait_until(|| results.exists()).await;
    daemon.kill().expect("killed");
    daemon.wait().expect("ended");
    place.check_in().await;
    assert_eq!(place.site.records().set.len(), 1);
}

//! When something is remediated, and when not.

use std::path::Path;

use domain::ComplianceState::{Compliant, Error, NonCompliant, Remediated, RemediationFailed};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::place::{Check, Place, check, item, item_of, wait_until};

/// A file must say "right"; the remediation writes that.
fn file_says_right(name: &str, file: &Path) -> Check {
    let file = file.display();
    check(name, &format!("cat {file}; true"), "right")
        .remediated_by(&format!("echo run >> {file}.log; echo right > {file}"))
}

fn runs(file: &Path) -> usize {
    let log = std::fs::read_to_string(format!("{}.log", file.display()));
    log.unwrap_or_default().lines().count()
}

#[tokio::test]
async fn what_is_not_compliant_is_remediated_once_and_stays_so() {
    let place = Place::new();
    let file = place.root().join("file");
    place
        .deploy(vec![item_of("a", vec![file_says_right("r", &file)])])
        .await;
    assert_eq!(place.states().await["r"].0, Remediated);
    assert_eq!(runs(&file), 1);
    // The next evaluation finds it compliant: what is reported stays "remediated".
    assert_eq!(place.states().await["r"].0, Compliant);
    place.check_in().await;
    assert_eq!(runs(&file), 1);
    let records = place.site.records();
    let states: Vec<_> = records.history.iter().map(|(_, one)| one.state).collect();
    assert_eq!(states, [Remediated]);
}

#[tokio::test]
async fn only_when_rule_and_deployment_say_so_and_never_after_an_error() {
    let place = Place::new();
    let file = place.root().join("file");
    let touch = format!("touch {}", file.display());
    let mut silent = check("silent rule", "echo wrong", "right");
    silent = silent.remediated_by(&touch).without_remediation();
    let error = check("error", "exit 3", "right").remediated_by(&touch);
    place.deploy(vec![item_of("a", vec![silent, error])]).await;
    let states = place.states().await;
    assert_eq!(states["silent rule"].0, NonCompliant);
    assert_eq!(states["error"].0, Error);
    let wrong = || check("r", "echo wrong", "right").remediated_by(&touch);
    place.publish(
        vec![item_of("b", vec![wrong()])],
        &[json!({"remediate": false})],
    );
    place.check_in().await;
    assert_eq!(place.states().await["r"].0, NonCompliant);
    // Outside of the window.
    let now = place.clock.real().to_zoned(TimeZone::system());
    let hour = |hours: i64| {
        (&now + SignedDuration::from_hours(hours))
            .strftime("%H:%M")
            .to_string()
    };
    let closed = format!("{}-{}", hour(2), hour(3));
    let open = format!("{}-{}", hour(-2), hour(3));
    place.publish(
        vec![item_of("c", vec![wrong()])],
        &[json!({"remediation_window": closed})],
    );
    place.check_in().await;
    assert_eq!(place.states().await["r"].0, NonCompliant);
    assert!(!file.exists());
    // Another deployment of the same item may.
    let both = [
        json!({"remediate": false}),
        json!({"remediation_window": open}),
    ];
    place.publish(vec![item_of("d", vec![wrong()])], &both);
    place.check_in().await;
    let (state, why) = place.states().await.remove("r").expect("a rule");
    assert_eq!(state, RemediationFailed);
    assert!(why.contains("still not compliant"), "{why}");
    assert!(file.exists());
}

#[tokio::test]
async fn a_remediation_that_fails_says_why() {
    let place = Place::new();
    let checks = vec![
        check("fails", "echo wrong", "right").remediated_by("echo no way >&2; exit 7"),
        check("hangs", "echo wrong", "right")
            .remediated_by("sleep 600")
            .within("1s"),
        check("breaks", "test -e broken && exit 9; echo wrong", "right")
            .remediated_by("kill -9 $PPID"),
    ];
    place.deploy(vec![item_of("a", checks)]).await;
    let states = place.states().await;
    for (rule, told) in [
        ("fails", "status 7: no way"),
        ("hangs", "longer than 1s"),
        ("breaks", "ended with it"),
    ] {
        let (state, why) = &states[rule];
        assert_eq!(*state, RemediationFailed, "{rule}");
        assert!(why.contains(told), "{rule}: {why}");
    }
    assert_eq!(place.left_behind(), [""; 0]);
}

#[tokio::test]
async fn two_rules_that_fight_are_stopped_by_the_guard() {
    let place = Place::new();
    let file = place.root().join("file");
    let says = |name: &str, word: &str| {
        check(name, &format!("cat {}; true", file.display()), word)
            .remediated_by(&format!("echo {word} > {}", file.display()))
    };
    std::fs::write(&file, "cold\n").expect("written");
    let (hot, cold) = (says("hot", "hot"), says("cold", "cold"));
    place
        .deploy(vec![item_of("hot", vec![hot]), item_of("cold", vec![cold])])
        .await;
    let mut stopped = Vec::new();
    for _ in 0..8 {
        place.clock.pass(60);
        let states = place.states().await;
        for rule in ["hot", "cold"] {
            let (state, why) = &states[rule];
            if *state == RemediationFailed {
                assert!(why.starts_with("keeps coming back"), "{why}");
                stopped.push(rule);
            }
        }
    }
    // Three times each; then the first one loses, and stays so.
    assert_eq!(stopped, ["hot", "hot"]);
    // A day later it may try again.
    place.clock.pass(24 * 3600);
    assert_eq!(place.states().await["hot"].0, Remediated);
}

#[tokio::test]
async fn a_script_that_serves_several_rules_runs_once() {
    let place = Place::new();
    let file = place.root().join("file");
    let rule = |name: &str, operator: &str, value: &str| {
        json!({"name": name, "setting": "s", "remediate": true, "condition": {"value": {
            "type": "integer", "operator": operator, "operands": [value],
        }}})
    };
    let file = file.display();
    let settings = [
        json!({"name": "s", "data_type": "integer", "source": {"script": {
            "discovery": format!("cat {file} 2>/dev/null || echo 0"),
            "remediation": format!("echo x >> {file}.log; echo 5 > {file}"),
        }}}),
    ];
    let rules = [
        rule("at least 3", "greater-than-or-equal-to", "3"),
        rule("at least 4", "greater-than-or-equal-to", "4"),
        rule("at least 9", "greater-than-or-equal-to", "9"),
    ];
    place.deploy(vec![item("a", &settings, &rules)]).await;
    let states = place.states().await;
    assert_eq!(states["at least 3"].0, Remediated);
    assert_eq!(states["at least 4"].0, Remediated);
    assert_eq!(states["at least 9"].0, RemediationFailed);
    let log = std::fs::read_to_string(format!("{file}.log")).expect("a log");
    assert_eq!(log.lines().count(), 1);
}

#[tokio::test]
async fn a_preference_gets_the_rules_value() {
    let place = Place::new();
    let setting = |name: &str, data_type: &str, application: &str, key: &str| {
        json!({"name": name, "data_type": data_type, "source": {"preference": {
            "application_id": application, "key": key,
        }}})
    };
    let rule = |name: &str, data_type: &str, operand: &str| {
        json!({"name": name, "setting": name, "remediate": true, "condition": {"value": {
            "type": data_type, "operator": "equals", "operands": [operand],
        }}})
    };
    let body = item(
        "preferences",
        &[
            setting("domain", "boolean", "com.example.app", "/outer/key"),
            setting("path", "integer", "/var/lists/a.plist", "key"),
            setting("own", "string", "com.microsoft.ccmclient", "RenewalPeriod1"),
        ],
        &[
            rule("domain", "boolean", "yes"),
            rule("path", "integer", "5"),
            rule("own", "string", "1728000"),
        ],
    );
    place.deploy(vec![body]).await;
    for (rule, (state, told)) in place.states().await {
        assert_eq!(state, Remediated, "{rule}: {told}");
    }
    for (rule, (state, told)) in place.states().await {
        assert_eq!(state, Compliant, "{rule}: {told}");
    }
    let list = place
        .root()
        .join("Library/Preferences/com.example.app.plist");
    let list = plist::Value::from_file(list).expect("a list");
    let outer = list.as_dictionary().and_then(|list| list.get("outer"));
    let key = outer.and_then(|outer| outer.as_dictionary()?.get("key"));
    assert_eq!(key, Some(&plist::Value::Boolean(true)));
    let own = place.machine.preferences().string("RenewalPeriod1");
    assert_eq!(own.as_deref(), Some("1728000"));
}

/// A fails, B is mended by what mends A: B was found non-compliant before, and is not mended again.
#[tokio::test]
async fn what_another_remediation_mended_is_not_remediated() {
    let place = Place::new();
    let file = place.root().join("file");
    let items = ["a", "b", "c"].map(|name| item_of(name, vec![file_says_right(name, &file)]));
    place.deploy(items.into()).await;
    let states = place.states().await;
    let mut found: Vec<_> = states.values().map(|(state, _)| *state).collect();
    found.sort();
    assert_eq!(found, [Compliant, Compliant, Remediated]);
    assert_eq!(runs(&file), 1);
}

/// Two baselines have two revisions of an item: what did not change has one number, one evaluation and
/// one result, of both baselines.
#[tokio::test]
async fn a_rule_of_two_revisions_is_evaluated_once() {
    let place = Place::new();
    let file = place.root().join("file");
    let discovery = format!("echo d >> {0}.found; cat {0}; true", file.display());
    let mend = format!("echo run >> {0}.log; echo wrong > {0}", file.display());
    let one = || check("r", &discovery, "right").remediated_by(&mend);
    let old = item_of("a", vec![one()]);
    let mut new = item_of("a", vec![one(), check("new", "echo right", "right")]);
    new.revision = 2;
    place.publish(vec![old, new], &[json!({}), json!({})]);
    let mut list = place.list();
    let both = list.deployments[0].items.clone();
    for (deployment, body) in list.deployments.iter_mut().zip(both) {
        deployment.items = vec![body];
    }
    place.sign_list(&list);
    place.check_in().await;
    let outcome = place.evaluate().await.expect("evaluated");
    assert_eq!(outcome.found.len(), 2, "{:?}", outcome.found);
    assert_eq!(runs(&file), 1);
    let found = format!("{}.found", file.display());
    let found = std::fs::read_to_string(found).expect("discovered");
    assert_eq!(found.lines().count(), 2);
    let rule = outcome
        .found
        .iter()
        .find(|found| found.name.as_str() == "r");
    assert_eq!(rule.expect("a rule").baselines.len(), 2);
}

#[tokio::test]
async fn a_remediation_that_fails_three_times_says_why_and_not_that_it_did_not_last() {
    let place = Place::new();
    let failing = check("r", "echo wrong", "right").remediated_by("echo no way >&2; exit 7");
    place.deploy(vec![item_of("a", vec![failing])]).await;
    for evaluation in 1..=5 {
        place.clock.pass(60);
        let (state, why) = place.states().await.remove("r").expect("a rule");
        assert_eq!(state, RemediationFailed);
        assert!(why.contains("status 7: no way"), "{evaluation}: {why}");
        assert!(!why.contains("did not last"), "{evaluation}: {why}");
        assert_eq!(
            why.contains("3 times"),
            evaluation > 3,
            "{evaluation}: {why}"
        );
    }
}

/// Nobody knows what was remediated: nothing is, for as long as it could matter.
#[tokio::test]
async fn a_guard_that_is_unreadable_stops_remediations_for_a_day() {
    let place = Place::new();
    let file = place.root().join("file");
    place
        .deploy(vec![item_of("a", vec![file_says_right("r", &file)])])
        .await;
    let folder = place.machine.layout.compliance();
    std::fs::write(folder.join("guard.json"), "broken").expect("written");
    let (state, why) = place.states().await.remove("r").expect("a rule");
    assert_eq!(state, RemediationFailed);
    assert!(why.contains("could not be read"), "{why}");
    assert!(folder.join("guard.json.unreadable").exists());
    place.clock.pass(23 * 3600);
    assert_eq!(place.states().await["r"].0, RemediationFailed);
    assert_eq!(runs(&file), 0);
    place.clock.pass(2 * 3600);
    assert_eq!(place.states().await["r"].0, Remediated);
}

/// The administrator takes a remediation back while the evaluation runs.
#[tokio::test]
async fn a_list_that_comes_meanwhile_stops_remediations() {
    let place = Place::new();
    let mark = place.root().join("mark");
    let wait = format!(
        "touch {0}; until [ -e {0}.go ]; do sleep 0.05; done; echo wrong",
        mark.display()
    );
    let ran = place.root().join("ran");
    let checks = || {
        let mend = format!("touch {}", ran.display());
        vec![
            check("r", &wait, "right")
                .within("60s")
                .remediated_by(&mend),
        ]
    };
    place.deploy(vec![item_of("a", checks())]).await;
    let meanwhile = async {
        wait_until(|| mark.exists()).await;
        place.publish(vec![item_of("a", checks())], &[json!({"remediate": false})]);
        place.check_in().await;
        std::fs::write(format!("{}.go", mark.display()), "").expect("written");
    };
    let (states, ()) = tokio::join!(place.states(), meanwhile);
    let (state, why) = &states["r"];
    assert_eq!(*state, NonCompliant, "{why}");
    assert!(why.contains("policy changed"), "{why}");
    assert!(!ran.exists());
}

/// A list ends at its time, also while it is evaluated.
#[tokio::test]
async fn nothing_begins_after_the_lists_end() {
    let place = Place::new();
    let ran = place.root().join("ran");
    let mend = format!("touch {}", ran.display());
    let touch = format!("touch {}; echo right", ran.display());
    let mut checks = vec![
        check("a", "sleep 4; echo wrong", "right").remediated_by(&mend),
        check("b", "sleep 4; echo right", "right"),
    ];
    checks.extend((0..3).map(|at| check(&format!("later {at}"), &touch, "right")));
    let mut list = place.publish(vec![item_of("a", checks)], &[json!({})]);
    list.expires_at = place.clock.real() + SignedDuration::from_secs(3);
    place.sign_list(&list);
    place.check_in().await;
    assert!(place.evaluate().await.is_err());
    assert!(!ran.exists());
}

/// A script kills its runner, and left something behind that has no environment: it is gone before the
/// next script runs.
#[tokio::test]
async fn nothing_of_a_killed_runner_is_there_for_the_next_script() {
    let place = Place::new();
    let discovery = "echo $(ps -eo args | grep -c '^sleep 62[3]')";
    let mend = "env -i setsid sleep 623 & sleep 0.2; kill -9 $PPID; sleep 5";
    let checks = vec![check("r", discovery, "right").remediated_by(mend)];
    place.deploy(vec![item_of("a", checks)]).await;
    let outcome = place.evaluate().await.expect("evaluated");
    assert_eq!(outcome.found[0].state, RemediationFailed);
    assert_eq!(outcome.found[0].value.as_deref(), Some("0"));
}

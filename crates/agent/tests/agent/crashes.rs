//! The agent, or a process of its evaluation, is killed: at any point of it.

use domain::ComplianceState::{Compliant, Remediated};

use crate::place::{Place, check, item_of, wait_until};

#[cfg(feature = "test-clock")]
#[tokio::test]
async fn killed_anywhere_it_discovers_again_before_it_remediates() {
    for point in [
        "discovering",
        "discovered",
        "remediating",
        "remediated",
        "script-started",
        "evaluated",
        "results-kept",
        "written",
        "moved",
    ] {
        let place = Place::new();
        let file = place.root().join("file");
        let file = file.display();
        // Each discovery and each remediation leaves a trace.
        let discovery = format!("echo d >> {file}.log; cat {file}; true");
        let remediation = format!("echo r >> {file}.log; echo right > {file}");
        let checks = vec![check("r", &discovery, "right").remediated_by(&remediation)];
        place.deploy(vec![item_of("a", checks)]).await;
        let ran = place.agent("evaluate", &[("PERENNIAL_TEST_DIE_AT", point)]);
        assert_ne!(ran.status.code(), Some(0), "{point}: {ran:?}");
        let (state, why) = place.states().await.remove("r").expect("a rule");
        assert!(
            matches!(state, Compliant | Remediated),
            "{point}: {state} {why}"
        );
        let log = std::fs::read_to_string(format!("{file}.log")).expect("a log");
        let log: String = log.split_whitespace().collect();
        assert!(!log.contains("rr"), "{point}: {log}");
        place.check_in().await;
        let records = place.site.records();
        assert_eq!(records.set.len(), 1, "{point}");
        drop(records);
        assert_eq!(place.left_behind(), [""; 0], "{point}");
    }
}

/// kill -9 of the agent while scripts run: they end, too, and the next evaluation is a whole one.
#[tokio::test]
async fn scripts_end_with_the_agent() {
    let place = Place::new();
    let mark = place.root().join("mark");
    let script = format!("setsid sleep 611 & touch {}; sleep 612", mark.display());
    let checks = vec![check("r", &script, "right").within("1h")];
    place.deploy(vec![item_of("a", checks)]).await;
    let mut child = place.start_evaluation();
    wait_until(|| mark.exists()).await;
    child.kill().expect("killed");
    child.wait().expect("ended");
    wait_until(|| place.left_behind().is_empty()).await;
}

/// kill -9 of the evaluating process, and of what runs the scripts: the next evaluation finds what
/// they left behind.
#[tokio::test]
async fn what_was_left_behind_is_killed_by_the_next_evaluation() {
    let place = Place::new();
    let mark = place.root().join("mark");
    // The runner and the one that started it.
    let script = format!(
        "setsid sleep 613 & touch {0}; read -r _ _ _ p _ < /proc/$PPID/stat; kill -9 $p $PPID; sleep 614",
        mark.display()
    );
    let checks = vec![check("r", &script, "right")];
    place.deploy(vec![item_of("a", checks)]).await;
    assert!(place.evaluate().await.is_err());
    let right = vec![check("r", "echo right", "right")];
    place.deploy(vec![item_of("b", right)]).await;
    assert_eq!(place.states().await["r"].0, Compliant);
    assert_eq!(place.left_behind(), [""; 0]);
}

/// kill -9 of the agent while a remediation runs: the next evaluation discovers before it remediates.
#[tokio::test]
async fn killed_during_a_remediation_it_discovers_first() {
    let place = Place::new();
    let file = place.root().join("file");
    let file = file.display();
    let discovery = format!("echo d >> {file}.log; cat {file}; true");
    let mend = format!(
        "echo r >> {file}.log; [ -e {file}.again ] || {{ touch {file}.again; sleep 621; }}; \
         echo right > {file}"
    );
    let checks = vec![
        check("r", &discovery, "right")
            .within("1h")
            .remediated_by(&mend),
    ];
    place.deploy(vec![item_of("a", checks)]).await;
    let mut child = place.start_evaluation();
    wait_until(|| std::path::Path::new(&format!("{file}.again")).exists()).await;
    child.kill().expect("killed");
    child.wait().expect("ended");
    wait_until(|| place.left_behind().is_empty()).await;
    assert_eq!(place.states().await["r"].0, Remediated);
    let log = std::fs::read_to_string(format!("{file}.log")).expect("a log");
    let log: String = log.split_whitespace().collect();
    assert_eq!(log, "drdrd");
}

/// kill -9 of the agent in a long evaluation: what was found out until then is kept, and told.
#[tokio::test]
async fn what_was_found_before_a_kill_is_kept() {
    let place = Place::new();
    let mut checks: Vec<_> = (0..120)
        .map(|at| check(&format!("quick {at}"), "echo right", "right"))
        .collect();
    checks.push(check("long", "sleep 622", "right").within("1h"));
    place.deploy(vec![item_of("a", checks)]).await;
    let mut child = place.start_evaluation();
    let results = place.machine.layout.compliance().join("results.jsonl");
    wait_until(|| results.exists()).await;
    child.kill().expect("killed");
    child.wait().expect("ended");
    wait_until(|| place.left_behind().is_empty()).await;
    place.check_in().await;
    let told = place.site.records().set.len();
    assert!((50..=120).contains(&told), "{told}");
}

/// A script stops the evaluating process: the evaluation is cut off, and the next one finds what is left.
#[tokio::test]
async fn an_evaluating_process_that_stands_still_is_killed() {
    let place = Place::new();
    let script = "read -r _ _ _ p _ < /proc/$PPID/stat; kill -STOP $p; sleep 624";
    let checks = vec![check("r", script, "right").within("1h")];
    place.deploy(vec![item_of("a", checks)]).await;
    assert!(place.evaluate().await.is_err());
    let right = vec![check("r", "echo right", "right")];
    place.deploy(vec![item_of("b", right)]).await;
    assert_eq!(place.states().await["r"].0, Compliant);
    assert_eq!(place.left_behind(), [""; 0]);
}

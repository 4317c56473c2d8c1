//! Scripts that do all the wrong things: each gets its state, and nothing of it is left.

use std::time::{Duration, Instant};

use domain::ComplianceState::{Compliant, Error, NonCompliant};
use serde_json::json;

use crate::place::{Place, check, item, item_of};

#[tokio::test]
async fn hostile_scripts_end_within_their_limits() {
    let place = Place::new();
    let rows = [
        ("hangs", "sleep 600", Error, "longer than 1s"),
        (
            "forks and hangs",
            "sleep 601 & sleep 602 & wait",
            Error,
            "longer than 1s",
        ),
        (
            "leaves something in its background",
            "sleep 603 & echo right",
            Compliant,
            "right",
        ),
        (
            "sets itself away",
            "setsid sh -c 'setsid sleep 604 & sleep 605' >/dev/null 2>&1 & sleep 0.1; echo right",
            Compliant,
            "right",
        ),
        (
            "sets itself away without its environment",
            "env -i setsid sleep 606 & (env -i setsid sleep 607 &) ; sleep 0.1; kill -9 $$",
            Error,
            "killed by signal 9",
        ),
        (
            "prints a gigabyte",
            "head -c 1000000000 /dev/zero | tr '\\0' x",
            Error,
            "printed more than 16 MiB",
        ),
        (
            "prints 70 KiB",
            "head -c 70000 /dev/zero | tr '\\0' x",
            Error,
            "printed 70000 bytes",
        ),
        (
            "prints invalid UTF-8",
            "printf '\\377right'",
            Error,
            "not UTF-8",
        ),
        (
            "counts and exits 1",
            "echo right; grep -c nothing /dev/null >&2",
            Compliant,
            "right",
        ),
        (
            "is killed",
            "echo right; kill -9 $$",
            Error,
            "killed by signal 9",
        ),
        (
            "has no interpreter",
            "#!/nowhere/python9\nprint('right')",
            Error,
            "/nowhere/python9 is not there",
        ),
        (
            "needs a tool that is missing",
            "no-such-tool --right",
            Error,
            "status 127",
        ),
        (
            "reads STDIN",
            "cat; read line; echo right",
            Compliant,
            "right",
        ),
        (
            "fills memory",
            // A line that tail(1) keeps whole. Who breaks the limits loses 3 GB, not the machine.
            "head -c 3000000000 /dev/zero | tail -n 1 | wc -c",
            Error,
            "more than 1024 MiB of memory",
        ),
        (
            "starts ten thousand processes",
            "i=0; while [ $i -lt 10000 ]; do sleep 30 & i=$((i+1)); done; wait",
            Error,
            "more than 256 processes",
        ),
        (
            "kills what runs it",
            "setsid sleep 609 & kill -9 $PPID; sleep 610",
            Error,
            "the program that ran it ended with it",
        ),
        ("comes last", "echo right", Compliant, "right"),
    ];
    let checks = rows.map(|(name, script, _, _)| {
        let limit = match name {
            "hangs" | "forks and hangs" => "1s",
            _ => "60s",
        };
        check(name, script, "right").within(limit)
    });
    place.deploy(vec![item_of("hostile", checks.into())]).await;
    let begun = Instant::now();
    let states = place.states().await;
    let took = begun.elapsed();
    for (name, _, expected, told) in rows {
        let (state, reason) = &states[name];
        assert_eq!(*state, expected, "{name}: {reason}");
        assert!(reason.contains(told), "{name}: {reason}");
    }
    assert!(took < Duration::from_secs(45), "{took:?}");
    assert_eq!(place.left_behind(), [""; 0]);
    let sleeps = std::fs::read_dir("/proc").expect("/proc").flatten();
    let sleeps = sleeps.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (line.starts_with("sleep 60") && line.trim().len() == 9).then_some(line)
    });
    assert_eq!(sleeps.collect::<Vec<_>>(), [""; 0]);
    let work = place.machine.layout.work();
    assert!(!work.exists(), "{work:?}");
}

#[tokio::test]
async fn a_script_runs_in_a_clean_place_of_its_own() {
    let place = Place::new();
    let script = "
        ls -A | wc -l
        stat -c %a .
        test \"$(ps -o sid= -p $$ | tr -d ' ')\" = $$ && echo session
        test \"$(ps -o pgid= -p $$ | tr -d ' ')\" = $$ && echo group
        readlink /proc/self/fd/0
        echo $HOME ${PATH%%:*} $SHELL$USER
        env | grep -c '^PERENNIAL_'
        ls -l $0 2>/dev/null | cut -c1-10
        (echo >> $0) 2>/dev/null || echo unchanged
        cat /proc/self/oom_score_adj; ulimit -c; ps -o nice= -p $$ | tr -d ' '
    ";
    let tools = place.machine.layout.work().join("tools");
    let expected = [
        "0",
        "700",
        "session",
        "group",
        "/dev/null",
        &format!("/root {}", tools.display()),
        "7",
        "lrwx------",
        "unchanged",
        "500",
        "0",
        "10",
    ]
    .join("\n");
    place
        .deploy(vec![item_of(
            "place",
            vec![check("is clean", script, &expected)],
        )])
        .await;
    let states = place.states().await;
    assert_eq!(states["is clean"].0, Compliant, "{}", states["is clean"].1);
}

#[tokio::test]
async fn interpreters_read_the_script_from_memory() {
    let place = Place::new();
    let mut checks = vec![
        check("sh", "#!/bin/sh -e\necho a; false; echo b", "a"),
        check(
            "bash",
            "#!/bin/bash\n[[ ab == a* ]] && echo $BASH_SUBSHELL",
            "0",
        ),
        check("env", "#!/usr/bin/env bash\necho ${BASH##*/}", "bash"),
        check("no first line", "echo a\n", "a"),
    ];
    for (name, path, script, value) in [
        (
            "python",
            "/usr/bin/python3",
            "import sys\nprint(len(sys.argv))",
            "1",
        ),
        ("perl", "/usr/bin/perl", "print 1 + 1", "2"),
        ("zsh", "/bin/zsh", "a=(1 2 3); print ${#a}", "3"),
    ] {
        if std::path::Path::new(path).exists() {
            checks.push(check(name, &format!("#!{path}\n{script}\n"), value));
        }
    }
    place.deploy(vec![item_of("interpreters", checks)]).await;
    for (name, (state, told)) in place.states().await {
        assert_eq!(state, Compliant, "{name}: {told}");
    }
}

#[tokio::test]
async fn a_setting_of_several_rules_is_discovered_once() {
    let place = Place::new();
    let count = place.root().join("count");
    let script = format!("echo x >> {0}; wc -l < {0}", count.display());
    let rule = |name: &str, operator: &str, value: &str| {
        json!({"name": name, "setting": "s", "condition": {"value": {
            "type": "integer", "operator": operator, "operands": [value],
        }}})
    };
    let body = item(
        "several",
        &[
            json!({"name": "s", "data_type": "integer", "source": {"script": {"discovery": script}}}),
        ],
        &[
            rule("is one", "equals", "1"),
            rule("is more", "greater-than", "1"),
            rule("is less", "less-than", "2"),
        ],
    );
    place.deploy(vec![body]).await;
    let states = place.states().await;
    let states: Vec<_> = states.values().map(|(state, _)| *state).collect();
    assert_eq!(states, [Compliant, NonCompliant, Compliant]);
    let lines = std::fs::read_to_string(count).expect("counted");
    assert_eq!(lines.lines().count(), 1);
}

/// The source's own item: `defaults` in the search path is the agent's, on this root.
#[tokio::test]
async fn defaults_is_the_agents_own() {
    let place = Place::new();
    place
        .machine
        .preferences()
        .set(&[("SMSID", "GUID:1".to_owned())])
        .expect("set");
    let missing = "The domain/default pair of (com.microsoft.ccmclient, SMSID) does not exist";
    let smsid = check(
        "SMSID",
        "defaults read com.microsoft.ccmclient SMSID",
        missing,
    )
    .remediated_by("defaults delete com.microsoft.ccmclient SMSID");
    place
        .deploy(vec![item_of("Remove SMSID for Mac", vec![smsid])])
        .await;
    let outcome = place.evaluate().await.expect("evaluated");
    let found = &outcome.found[0];
    assert_eq!(
        found.state,
        domain::ComplianceState::Remediated,
        "{found:?}"
    );
    assert_eq!(found.value.as_deref(), Some(missing));
    assert_eq!(place.machine.preferences().string("SMSID"), None);
}

/// The exit status alone decides nothing: grep -c prints a correct 0, and exits 1.
#[tokio::test]
async fn a_count_of_zero_is_a_value() {
    let place = Place::new();
    let setting = |name: &str| {
        json!({"name": name, "data_type": name, "source": {"script": {
            "discovery": "grep -c nothing /dev/null",
        }}})
    };
    let rule = |setting: &str, operator: &str, operand: &str| {
        json!({"name": format!("{setting} {operator}"), "setting": setting, "condition": {"value": {
            "type": setting, "operator": operator, "operands": [operand],
        }}})
    };
    let body = item(
        "counts",
        &[setting("integer"), setting("string")],
        &[
            rule("integer", "equals", "0"),
            rule("integer", "greater-than", "0"),
            rule("string", "equals", "0"),
            rule("string", "not-equal-to", "0"),
        ],
    );
    place.deploy(vec![body]).await;
    let states = place.states().await;
    let states: Vec<_> = states.values().map(|(state, _)| *state).collect();
    assert_eq!(states, [Compliant, NonCompliant, Compliant, NonCompliant]);
}

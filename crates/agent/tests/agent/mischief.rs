//! Scripts that turn against what runs them, and against the computer: what they leave behind takes
//! nothing else with it.

use domain::ComplianceState::{Compliant, Error};

use crate::place::{Place, check, item_of, wait_until};

/// A script is killed between mount(8) and umount(8). What it mounted is not deleted.
#[tokio::test]
async fn what_a_script_mounted_is_not_deleted_with_its_folder() {
    let place = Place::new();
    let outside = place.root().join("outside");
    std::fs::create_dir_all(outside.join("deep")).expect("made");
    std::fs::write(outside.join("deep/file"), "kept").expect("written");
    let outside = outside.display();
    let checks = vec![
        check(
            "mounts",
            &format!("mkdir 'a b'; mount --bind {outside} 'a b' || echo right; sleep 600"),
            "right",
        )
        .within("1s"),
        check(
            "mounts twice",
            &format!(
                "mkdir a; mount --rbind {outside} a; mount -t tmpfs none a/deep; \
                 mount --bind {outside} .; kill -9 $$"
            ),
            "right",
        ),
        check(
            "kills its runner",
            &format!("mkdir a; mount --bind {outside} a; kill -9 $PPID"),
            "right",
        ),
        check("comes last", "ls -A | wc -l", "0"),
    ];
    place.deploy(vec![item_of("mounts", checks)]).await;
    let states = place.states().await;
    assert_eq!(states["mounts"].0, Error, "{}", states["mounts"].1);
    assert_eq!(states["comes last"].0, Compliant);
    let kept = std::fs::read_to_string(place.root().join("outside/deep/file"));
    assert_eq!(kept.expect("it is there"), "kept");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&place.root().display().to_string()));
    assert!(!place.machine.layout.work().exists());
}

/// A runner that stands still, whose orders are read by its script, or in whose name the script
/// answers, is replaced. The others have their results.
#[tokio::test]
async fn a_runner_that_does_not_answer_is_replaced() {
    let place = Place::new();
    let mut checks = vec![
        check("stops its runner", "kill -STOP $PPID; sleep 615", "right"),
        check(
            "steals the next order",
            "timeout 0.5 cat /proc/$PPID/fd/0 >/dev/null; echo right",
            "right",
        ),
        check(
            "answers nonsense",
            "echo nonsense > /proc/$PPID/fd/1; sleep 616",
            "right",
        ),
        check(
            "answers for its runner",
            r#"echo '{"number":1,"stdout":"cmlnaHQ=","printed":5,"stderr":"","ended":{"exit":0}}' \
               > /proc/$PPID/fd/1; sleep 617"#,
            "right",
        ),
    ];
    checks.extend((0..8).map(|at| check(&format!("harmless {at}"), "echo right", "right")));
    let checks = checks.into_iter().map(|check| check.within("1s"));
    place
        .deploy(vec![item_of("mischief", checks.collect())])
        .await;
    let states = place.states().await;
    assert_eq!(states.len(), 12);
    for (rule, told) in [
        ("stops its runner", "did not answer in time"),
        ("answers nonsense", "ended with it"),
        ("answers for its runner", "ended with it"),
    ] {
        let (state, why) = &states[rule];
        assert_eq!(*state, Error, "{rule}: {why}");
        assert!(why.contains(told), "{rule}: {why}");
    }
    let (state, why) = &states["steals the next order"];
    assert_eq!(*state, Compliant, "{why}");
    let harmless = states.iter().filter(|(rule, _)| rule.contains("harmless"));
    let failed: Vec<_> = harmless
        .filter(|(_, (state, _))| *state != Compliant)
        .collect();
    // The stolen one has no value, and says so.
    assert!(failed.len() <= 1, "{failed:?}");
    for (_, (_, why)) in failed {
        assert!(why.contains("did not answer in time"), "{why}");
    }
    assert_eq!(place.left_behind(), [""; 0]);
}

/// Ctrl-C on a terminal goes to all of the foreground's process group.
#[tokio::test]
async fn an_interrupted_evaluation_leaves_no_script_behind() {
    use rustix::process::{Pid, Signal, kill_process_group};
    use std::os::unix::process::CommandExt;
    for signal in [Signal::INT, Signal::HUP] {
        let place = Place::new();
        let mark = place.root().join("mark");
        let script = format!("setsid sleep 618 & touch {}; sleep 619", mark.display());
        let checks = vec![check("r", &script, "right").within("1h")];
        place.deploy(vec![item_of("a", checks)]).await;
        // Whoever runs the tests may ignore these signals, and then all would.
        let mut child = std::process::Command::new("env")
            .arg("--default-signal=INT,HUP")
            .arg(crate::place::program())
            .arg("--root")
            .arg(place.root())
            .arg("evaluate")
            .process_group(0)
            .spawn()
            .expect("it runs");
        wait_until(|| mark.exists()).await;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process_group(group.expect("an id"), signal).expect("sent");
        child.wait().expect("ended");
        wait_until(|| place.left_behind().is_empty()).await;
    }
}

/// Orphans that ended are no processes any more, though nobody but the runner can take note of it.
#[tokio::test]
async fn what_ended_does_not_count() {
    let place = Place::new();
    let script = "i=0; while [ $i -lt 600 ]; do (true &); i=$((i+1)); done; sleep 0.3; echo right";
    let checks = vec![check("orphans", script, "right").within("60s")];
    place.deploy(vec![item_of("a", checks)]).await;
    let (state, why) = place.states().await.remove("orphans").expect("a rule");
    assert_eq!(state, Compliant, "{why}");
}

/// What a script starts as another user cannot read it.
#[tokio::test]
async fn a_script_is_for_root_alone() {
    let place = Place::new();
    let checks = vec![
        check("inherits", "ls -l /proc/self/fd | grep -c memfd", "0"),
        check(
            "another user",
            "# secret\nsetpriv --reuid 4711 --regid 4711 --clear-groups \
             sh -c 'cat \"$0\" 2>/dev/null | grep -c secret' \"$0\"",
            "0",
        ),
        check("root", "# secret\ngrep -c '^# secret' \"$0\"", "1"),
    ];
    place.deploy(vec![item_of("a", checks)]).await;
    for (rule, (state, why)) in place.states().await {
        assert_eq!(state, Compliant, "{rule}: {why}");
    }
}

/// What is left behind is known by the mark of the evaluation that was cut off. Who has that by chance
/// (a container's agent with a copy of this disk, who asks for the evaluation) is not meant.
#[tokio::test]
async fn what_is_left_behind_is_killed_and_nothing_else() {
    const MARK: (&str, &str) = ("PERENNIAL_EVALUATION", "the mark");
    let sleeping = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        let command = command.args(arguments).env(MARK.0, MARK.1);
        command.spawn().expect("it runs")
    };
    let is_there = |line: &str| {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let mut lines = all.filter_map(|entry| {
            let text = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((entry.file_name(), text))
        });
        let found = lines.find(|(_, text)| shown(text) == line);
        found.map(|(id, _)| id)
    };
    let place = Place::new();
    place
        .deploy(vec![item_of("a", vec![check("r", "echo right", "right")])])
        .await;
    let mut left = sleeping("sleep", &["625"]);
    let mut container = sleeping("unshare", &["--pid", "--fork", "sleep", "626"]);
    // Not everywhere may a namespace be made.
    wait_until(|| {
        is_there("sleep 626").is_some() || container.try_wait().is_ok_and(|end| end.is_some())
    })
    .await;
    let inside = is_there("sleep 626");
    let folder = place.machine.layout.compliance();
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("mark"), MARK.1).expect("written");
    let ran = place.agent("evaluate", &[MARK]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let ended = left.wait().expect("ended");
    assert!(!ended.success(), "{ended}");
    assert_eq!(is_there("sleep 626"), inside);
    if let Some(id) = inside.and_then(|id| id.to_str()?.parse().ok()) {
        let id = rustix::process::Pid::from_raw(id).expect("an id");
        rustix::process::kill_process(id, rustix::process::Signal::KILL).expect("killed");
    }
    container.wait().expect("ended");
    assert!(!folder.join("mark").exists());
    // An at(1) job that took the mark of an evaluation that ended is nobody's business.
    let mut job = sleeping("sleep", &["627"]);
    place.states().await;
    assert!(job.try_wait().expect("asked").is_none());
    job.kill().expect("killed");
    job.wait().expect("ended");
}

/// A command line as a person reads it.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).replace('\0', " ");
    text.trim().to_owned()
}

/// The removal of the agent deletes nothing that somebody mounted in its folders.
#[tokio::test]
async fn an_uninstall_deletes_nothing_that_is_mounted() {
    let place = Place::new();
    let outside = place.root().join("outside");
    std::fs::create_dir(&outside).expect("made");
    std::fs::write(outside.join("file"), "kept").expect("written");
    let mount = |folder: std::path::PathBuf| {
        std::fs::create_dir_all(&folder).expect("made");
        let mut command = std::process::Command::new("mount");
        let command = command.arg("--bind").arg(&outside).arg(folder);
        command.status().is_ok_and(|status| status.success())
    };
    let layout = &place.machine.layout;
    let here = layout.state().join("here");
    // Not everywhere may anything be mounted.
    if !mount(here.clone()) || !mount(layout.work().join("1-1")) {
        return;
    }
    let refused = place.agent("uninstall", &[]);
    let unmounted = std::process::Command::new("umount").arg(&here).status();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(
        told.contains("is mounted there: unmount it first"),
        "{told}"
    );
    assert!(unmounted.expect("it runs").success());
    let removed = place.agent("uninstall", &[]);
    assert!(removed.status.success(), "{removed:?}");
    assert!(!layout.state().exists());
    let kept = std::fs::read_to_string(outside.join("file"));
    assert_eq!(kept.expect("it is there"), "kept");
}

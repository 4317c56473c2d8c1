//! Scripts that turn against what runs them, and against the computer: what they leave behind takes
//! nothing else with it.

use domain::ComplianceState::{Compliant, Error};

use crate::place::{Place, check, item_of};

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

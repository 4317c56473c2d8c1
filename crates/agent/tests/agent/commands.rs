//! Commands of the site: once, in time, for this device.

use agent::compliance;
use domain::DeviceId;
use jiff::SignedDuration;
use protocol::{Command, CommandId, CommandResult, Order, PayloadType};

use crate::place::{FakeSite, Place, check, device, item_of};

/// Checks in, does what waits, and tells the site.
async fn obey(place: &Place) -> Vec<CommandResult> {
    place.check_in().await;
    compliance::do_commands(&place.machine).await.expect("done");
    compliance::deliver_and_note(&place.machine)
        .await
        .expect("noted");
    let mut records = place.site.records();
    records
        .command_results
        .drain(..)
        .map(|(_, result)| result)
        .collect()
}

fn test_script(place: &Place) -> Order {
    let mark = place.root().join("ran");
    let script = format!(
        "echo x >> {}; echo out; echo err >&2; exit 4",
        mark.display()
    );
    Order::TestScript {
        script: script.parse().expect("a script"),
    }
}

fn ran(place: &Place) -> usize {
    let text = std::fs::read_to_string(place.root().join("ran")).unwrap_or_default();
    text.lines().count()
}

#[tokio::test]
async fn a_command_is_done_once_and_its_result_told_once() {
    let place = Place::new();
    let command = place.order(test_script(&place));
    place.site.records().commands = vec![command];
    let results = obey(&place).await;
    assert_eq!(results.len(), 1);
    assert!(results[0].done, "{results:?}");
    assert_eq!(
        results[0].detail,
        "it ended with status 4\nSTDOUT:\nout\nSTDERR:\nerr\n"
    );
    // A site that offers it again does not know the result any more: it was restored, or means ill.
    assert_eq!(obey(&place).await, results);
    let told = place.machine.state().command_problem.expect("a problem");
    assert!(told.contains("was done already"), "{told}");
    assert_eq!(ran(&place), 1);
    // Also when it has expired and is forgotten.
    place.clock.pass(25 * 3600);
    assert_eq!(obey(&place).await, []);
    assert_eq!(obey(&place).await, []);
    assert!(
        place
            .machine
            .state()
            .command_problem
            .expect("a problem")
            .contains("expired")
    );
    assert_eq!(ran(&place), 1);
}

#[tokio::test]
async fn a_site_that_tells_a_wrong_time_gets_no_command_done_twice() {
    let place = Place::new();
    let command = place.order(test_script(&place));
    place.site.records().commands = vec![command];
    assert_eq!(obey(&place).await.len(), 1);
    for ahead in [8 * 24, 400 * 24, 0] {
        place.site.records().ahead = SignedDuration::from_hours(ahead);
        obey(&place).await;
        assert_eq!(ran(&place), 1, "{ahead}");
    }
}

#[tokio::test]
async fn a_policy_key_that_ended_signs_no_commands_whatever_time_somebody_tells() {
    let place = Place::new();
    let command = place.order(test_script(&place));
    place.site.records().ahead = SignedDuration::from_hours(24 * 365 * 6);
    place.check_in().await;
    place.site.records().ahead = SignedDuration::ZERO;
    place.site.records().commands = vec![command];
    assert_eq!(obey(&place).await, []);
    let told = place.machine.state().command_problem.expect("a problem");
    assert!(told.contains("its certificate ended"), "{told}");
    assert_eq!(ran(&place), 0);
}

#[tokio::test]
async fn commands_are_done_in_the_order_in_which_they_were_given() {
    let place = Place::new();
    let mark = place.root().join("ran");
    let mut commands: Vec<_> = (0..6)
        .map(|number| {
            let script = format!("echo {number} >> {}", mark.display());
            let script = script.parse().expect("a script");
            place.clock.pass(1);
            place.order(Order::TestScript { script })
        })
        .collect();
    commands.reverse();
    place.site.records().commands = commands;
    assert_eq!(obey(&place).await.len(), 6);
    let ran = std::fs::read_to_string(mark).expect("they ran");
    assert_eq!(ran.split_whitespace().collect::<String>(), "012345");
}

#[tokio::test]
async fn what_is_remembered_of_commands_cannot_be_read_and_all_else_goes_on() {
    let place = Place::new();
    place
        .deploy(vec![item_of("a", vec![check("a", "echo right", "right")])])
        .await;
    let file = place.machine.layout.compliance().join("commands.json");
    std::fs::write(&file, "no JSON").expect("written");
    place.site.records().commands = vec![place.order(test_script(&place))];
    place.check_in().await;
    let told = place.machine.state().command_problem.expect("a problem");
    assert!(told.contains("no command is done"), "{told}");
    assert!(compliance::work(&place.machine).await.is_err());
    assert_eq!(place.site.records().set.len(), 1);
    assert_eq!(ran(&place), 0);
}

#[tokio::test]
async fn a_client_that_is_cut_off_while_it_leaves_leaves_all_the_same() {
    let place = Place::new();
    place.site.records().commands = vec![place.order(Order::Uninstall)];
    place.check_in().await;
    for point in ["command-begun", "leaving-told"] {
        let ran = place.comply(&[("PERENNIAL_TEST_DIE_AT", point)]);
        assert_ne!(ran.code(), Some(0), "{point}");
        assert!(place.machine.layout.identity().exists(), "{point}");
    }
    assert_eq!(place.comply(&[]).code(), Some(0));
    assert!(!place.machine.layout.identity().exists());
}

#[tokio::test]
async fn a_command_that_is_cut_off_has_one_result_and_is_not_begun_again() {
    for (point, done) in [("command-begun", false), ("command-ended", true)] {
        let place = Place::new();
        place.site.records().commands = vec![place.order(test_script(&place))];
        place.check_in().await;
        let cut = place.comply(&[("PERENNIAL_TEST_DIE_AT", point)]);
        assert_ne!(cut.code(), Some(0), "{point}");
        let results = obey(&place).await;
        assert_eq!(results.len(), 1, "{point}");
        assert_eq!(results[0].done, done, "{point}");
        assert_eq!(ran(&place), usize::from(done), "{point}");
    }
}

#[tokio::test]
async fn no_command_is_done_again_that_was_forgotten() {
    let place = Place::new();
    // More than a device remembers, and all of them expire.
    let order = |_| place.order(test_script(&place));
    let script = place.order(test_script(&place));
    let plain = (0..300).map(|_| place.order(Order::CheckIn));
    let commands: Vec<_> = std::iter::once(script).chain(plain).collect();
    place.site.records().commands = commands.clone();
    place.check_in().await;
    place.site.records().commands.clear();
    compliance::do_commands(&place.machine).await.expect("done");
    assert_eq!(obey(&place).await.len(), 301);
    place.site.records().ahead = SignedDuration::from_hours(25);
    place.check_in().await;
    place.site.records().ahead = SignedDuration::ZERO;
    place.site.records().commands = commands;
    assert_eq!(obey(&place).await, []);
    assert_eq!(ran(&place), 1);
    // What is new is done as ever, as soon as it ends after what was forgotten.
    place.clock.pass(3600);
    place.site.records().commands = vec![order(())];
    assert_eq!(obey(&place).await.len(), 1);
    assert_eq!(ran(&place), 2);
}

#[tokio::test]
async fn a_command_that_ended_before_a_list_was_signed_is_not_done() {
    let place = Place::new();
    let held_back = place.order(test_script(&place));
    place.clock.pass(25 * 3600);
    place.deploy(vec![]).await;
    place.site.records().ahead = SignedDuration::from_hours(-25);
    place.site.records().commands = vec![held_back];
    assert_eq!(obey(&place).await, []);
    let told = place.machine.state().command_problem.expect("a problem");
    assert!(told.contains("it expired"), "{told}");
    assert_eq!(ran(&place), 0);
}

#[tokio::test]
async fn what_is_no_command_for_this_device_is_refused() {
    let place = Place::new();
    let now = place.clock.real();
    let command = |device, seconds| Command {
        device,
        id: CommandId::new([1; 16]),
        issued_at: now,
        expires_at: now + SignedDuration::from_secs(seconds),
        order: test_script(&place),
    };
    let ours = device().smsid();
    let other = DeviceId::from_entropy([8; 16]).smsid();
    let sign = |command: &Command| place.site.sign(PayloadType::Command, command);
    let mut tampered = sign(&command(ours, 60));
    tampered.signature = sign(&command(other, 60)).signature;
    let elsewhere = FakeSite::new(place.clock.clone());
    for (document, why) in [
        (sign(&command(other, 60)), "another device"),
        (sign(&command(ours, -1)), "expired"),
        (tampered, "changed on its way"),
        (
            elsewhere.sign(PayloadType::Command, &command(ours, 60)),
            "another site",
        ),
        (
            place.site.sign(PayloadType::Body, &command(ours, 60)),
            "something else",
        ),
    ] {
        place.site.records().commands = vec![document];
        assert_eq!(obey(&place).await, []);
        let told = place.machine.state().command_problem.expect("a problem");
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(ran(&place), 0);
    place.check_in().await;
    let reported = place.site.records().check_ins.pop().expect("a check-in");
    assert!(reported.policy.expect("a state").problem.is_some());
    place.site.records().commands.clear();
    assert_eq!(obey(&place).await, []);
    assert_eq!(place.machine.state().command_problem, None);
}

#[tokio::test]
async fn a_result_that_the_site_does_not_take_now_is_told_later() {
    let place = Place::new();
    let command = place.order(Order::CheckIn);
    place.site.records().commands = vec![command];
    place.check_in().await;
    place.site.records().commands.clear();
    for status in [403, 409, 429, 500] {
        place.site.records().refuses_results = Some(status);
        assert_eq!(obey(&place).await, [], "{status}");
    }
    place.site.records().refuses_results = None;
    assert_eq!(obey(&place).await.len(), 1);
    // One that it does not know is not told for ever.
    let command = place.order(Order::CheckIn);
    place.site.records().commands = vec![command];
    place.site.records().refuses_results = Some(404);
    assert_eq!(obey(&place).await, []);
    place.site.records().refuses_results = None;
    place.site.records().commands.clear();
    assert_eq!(obey(&place).await, []);
}

#[tokio::test]
async fn a_command_that_was_cut_off_is_not_done_again() {
    let place = Place::new();
    let command = place.order(test_script(&place));
    place.site.records().commands = vec![command];
    place.check_in().await;
    // As a program that is killed: the future is dropped while the script runs.
    let done = compliance::do_commands(&place.machine);
    let cut_off = tokio::time::timeout(std::time::Duration::from_millis(1), done).await;
    assert!(cut_off.is_err());
    let results = obey(&place).await;
    assert_eq!(results.len(), 1);
    assert!(!results[0].done);
    assert!(ran(&place) <= 1);
}

#[tokio::test]
async fn evaluate_check_in_and_renew_by_command() {
    let place = Place::new();
    let right = vec![
        check("a", "echo right", "right"),
        check("b", "echo wrong", "right"),
    ];
    place.deploy(vec![item_of("a", right)]).await;
    let commands = [Order::Evaluate, Order::CheckIn, Order::Renew].map(|order| place.order(order));
    place.site.records().commands = commands.into();
    let results = obey(&place).await;
    let mut details: Vec<(bool, &str)> = results
        .iter()
        .map(|result| (result.done, result.detail.as_str()))
        .collect();
    details.sort();
    // This site knows no EST.
    assert_eq!(details[0], (false, "the server refused: not here"));
    assert_eq!(
        details[1..],
        [
            (true, "1 rule compliant, 1 non-compliant"),
            (true, "checked in"),
        ]
    );
    assert_eq!(place.site.records().set.len(), 2);
}

#[tokio::test]
async fn no_script_is_tested_for_a_site_that_nobody_confirmed() {
    let place = Place::with(false);
    let command = place.order(test_script(&place));
    place.site.records().commands = vec![command];
    let results = obey(&place).await;
    assert!(!results[0].done && results[0].detail.contains("trust confirm"));
    assert_eq!(ran(&place), 0);
}

#[tokio::test]
async fn the_result_of_leaving_is_told_before() {
    let place = Place::new();
    let command = place.order(Order::Uninstall);
    place.site.records().commands = vec![command];
    let results = obey_leaving(&place).await;
    assert_eq!(results.len(), 1);
    assert!(results[0].done);
    // A process of its own removes everything.
    for _ in 0..200 {
        if !place.machine.layout.state().exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it is still there");
}

async fn obey_leaving(place: &Place) -> Vec<CommandResult> {
    place.check_in().await;
    compliance::do_commands(&place.machine).await.expect("done");
    let mut records = place.site.records();
    records
        .command_results
        .drain(..)
        .map(|(_, result)| result)
        .collect()
}

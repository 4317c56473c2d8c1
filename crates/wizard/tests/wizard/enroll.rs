//! The enrollment wizard.

use domain::wizard::RenewalFailure;
use egui::accesskit::Role;
use egui::{Key, Modifiers};
use protocol::RenewalStep;
use wizard::window::Purpose;
use wizard::worker::{Ask, News};

use crate::desk::{Desk, Setup, not_enrolled, renewed};

/// Root, on a computer whose management names no server.
fn administrator() -> Setup {
    Setup::new(Purpose::Enroll).status(|status| {
        not_enrolled(status);
        status.may_choose_server = true;
        status.managed_server = None;
    })
}

/// To a field, by keyboard.
fn go_to(desk: &mut Desk, name: &str) {
    for _ in 0..12 {
        if desk.focused().is_some_and(|(_, focused)| focused == name) {
            return;
        }
        desk.press(Key::Tab);
    }
    panic!("Tab does not reach {name}");
}

fn fill(desk: &mut Desk, name: &str, text: &str) {
    go_to(desk, name);
    desk.press_with(Modifiers::COMMAND, Key::A);
    desk.type_text(text);
}

#[test]
fn a_user_enrolls_with_the_managed_server_and_the_keyboard_alone() {
    let mut desk = Setup::new(Purpose::Enroll).status(not_enrolled).sit_down();
    assert_eq!(desk.heading(), "Enroll this computer");
    assert_eq!(desk.focused(), Some((Role::Button, "Continue".to_owned())));
    desk.press(Key::Enter);
    let words = desk.words();
    assert!(words.contains("Set by your administrator."), "{words}");
    fill(&mut desk, "Server name", "evil.example.com");
    fill(&mut desk, "User name", "ann");
    fill(&mut desk, "Password", "hunter2");
    desk.press(Key::Enter);
    let asked = desk.asked();
    let [Ask::Enroll(request)] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!(request.credentials.user, "ann");
    assert_eq!(request.credentials.password, "hunter2");
    assert_eq!(request.server, None, "the agent takes the managed one");
    assert_eq!(request.pin, None);
    desk.step(RenewalStep::AskingTheSite);
    assert_eq!(desk.heading(), "Enrolling this computer");
    desk.step(renewed());
    assert_eq!(desk.heading(), "This computer is enrolled");
    desk.press(Key::Enter);
    assert!(desk.is_closed());
}

#[test]
fn an_administrator_confirms_the_fingerprint() {
    let mut desk = administrator().sit_down();
    desk.press(Key::Enter);
    fill(&mut desk, "User name", "ann@contoso.com");
    fill(&mut desk, "Password", "hunter2");
    desk.press(Key::Enter);
    let asked = desk.asked();
    let [Ask::Enroll(request)] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!(request.server.as_deref(), Some("contoso.com"));
    let observed = "sha256:0123456789abcdef0123456789abcdef";
    desk.step(RenewalStep::Refused {
        failure: RenewalFailure::NotTrusted,
        detail: "nobody trusts it yet".to_owned(),
        observed: Some(observed.to_owned()),
    });
    assert_eq!(desk.heading(), "Is this the right server?");
    let words = desk.words();
    assert!(words.contains("sha2 56:0 1234 5678"), "{words}");
    // Enter alone confirms nothing.
    assert_eq!(desk.focused(), Some((Role::Button, "Copy".to_owned())));
    go_to(&mut desk, "It matches");
    desk.press(Key::Enter);
    assert!(desk.words().contains("The server is confirmed."));
    desk.type_text("hunter2");
    desk.press(Key::Enter);
    let asked = desk.asked();
    let [Ask::Enroll(request)] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!(request.pin.as_deref(), Some(observed));
}

#[test]
fn what_was_confirmed_is_for_that_server_alone() {
    let mut desk = administrator().sit_down();
    desk.press(Key::Enter);
    fill(&mut desk, "User name", "ann@contoso.com");
    fill(&mut desk, "Password", "hunter2");
    desk.press(Key::Enter);
    desk.step(RenewalStep::Refused {
        failure: RenewalFailure::NotTrusted,
        detail: String::new(),
        observed: Some("sha256:01".to_owned()),
    });
    go_to(&mut desk, "It matches");
    desk.press(Key::Enter);
    fill(&mut desk, "Server name", "other.example.com");
    fill(&mut desk, "Password", "hunter2");
    desk.asked();
    desk.press(Key::Enter);
    let asked = desk.asked();
    let [Ask::Enroll(request)] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!(request.server.as_deref(), Some("other.example.com"));
    assert_eq!(request.pin, None);
}

#[test]
fn what_is_missing_is_said_and_gets_the_focus() {
    let mut desk = administrator().sit_down();
    desk.press(Key::Enter);
    fill(&mut desk, "User name", "ann");
    desk.press(Key::Enter);
    assert!(desk.has(Role::Alert, "Enter the name of the server."));
    assert_eq!(
        desk.focused(),
        Some((Role::TextInput, "Server name".to_owned()))
    );
    desk.type_text("perennial.contoso.com");
    desk.press(Key::Enter);
    assert!(desk.has(Role::Alert, "Enter your password."));
    assert!(desk.asked().is_empty());
}

#[test]
fn without_a_server_a_user_is_told_whom_to_ask() {
    let setup = Setup::new(Purpose::Enroll).status(|status| {
        not_enrolled(status);
        status.managed_server = None;
    });
    let desk = setup.sit_down();
    let words = desk.words();
    assert!(words.contains("sudo perennial-agent enroll"), "{words}");
    assert!(!desk.has(Role::Button, "Continue"));
}

#[test]
fn a_refusal_leads_back_and_a_restart_is_waited_for() {
    let mut desk = Setup::new(Purpose::Enroll).status(not_enrolled).sit_down();
    desk.press(Key::Enter);
    fill(&mut desk, "User name", "ann");
    fill(&mut desk, "Password", "wrong");
    desk.press(Key::Enter);
    desk.refuse(RenewalFailure::WrongPassword);
    assert_eq!(desk.heading(), "That did not work");
    desk.press(Key::Enter);
    assert_eq!(desk.heading(), "Confirm that it is you");
    desk.hear(News::Away);
    assert_eq!(desk.heading(), "Waiting for the agent");
    let mut status = crate::desk::status();
    not_enrolled(&mut status);
    desk.hear(News::Status(Box::new(status)));
    assert_eq!(desk.heading(), "Confirm that it is you");
}

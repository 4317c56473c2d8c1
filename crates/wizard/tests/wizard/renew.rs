//! The Renew Certificate Wizard.

use domain::ReminderStage;
use domain::wizard::RenewalFailure;
use egui::Key;
use egui::accesskit::Role;
use protocol::{Credentials, LocalEvent, RenewalStep};
use wizard::window::Purpose;
use wizard::worker::{Ask, News};

use crate::desk::{DETAIL, Desk, Setup, at, renewed};

fn desk() -> Desk {
    Setup::new(Purpose::Renew).sit_down()
}

/// At the page that asks for the password.
fn asked_for_password() -> Desk {
    let mut desk = desk();
    desk.press(Key::Enter);
    assert_eq!(desk.heading(), "Confirm that it is you");
    desk
}

fn submitted() -> Desk {
    let mut desk = asked_for_password();
    desk.type_text("hunter2");
    desk.press(Key::Enter);
    desk
}

/// The one thing that was asked is a renewal, with these.
fn handed_over(desk: &Desk) -> Credentials {
    match <[Ask; 1]>::try_from(desk.asked()) {
        Ok([Ask::Renew(credentials)]) => credentials,
        asked => panic!("{asked:?}"),
    }
}

#[test]
fn a_person_renews_with_the_keyboard_alone() {
    let mut desk = desk();
    assert_eq!(desk.heading(), "Renew your certificate");
    let words = desk.words();
    for part in [
        "It expires in 9 days.",
        "After Friday, 4 December 2026 at 14:30 this computer will no longer be managed by Contoso",
        "“Remind me later” brings this window back on Thursday, 26 November 2026 at 10:00.",
    ] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
    assert_eq!(desk.focused(), Some((Role::Button, "Continue".to_owned())));
    desk.press(Key::Enter);

    // The name and the server are there, and the cursor is in the password.
    let focused = desk.focused();
    assert_eq!(focused, Some((Role::PasswordInput, "Password".to_owned())));
    let words = desk.words();
    assert!(desk.has(Role::TextInput, "User name"), "{words}");
    assert!(desk.has(Role::TextInput, "Server name"), "{words}");
    desk.type_text("hunter2");
    desk.press(Key::Enter);

    let credentials = handed_over(&desk);
    assert_eq!(credentials.user, "ann@contoso.com");
    assert_eq!(credentials.password, "hunter2");
    assert_eq!(desk.heading(), "Renewing the certificate");
    for step in [
        RenewalStep::Waiting,
        RenewalStep::AskingTheSite,
        RenewalStep::TakingIntoUse,
    ] {
        desk.step(step);
        assert!(desk.has(Role::ProgressIndicator, "Progress"));
    }
    desk.step(renewed());
    assert_eq!(desk.heading(), "The certificate is renewed");
    let until = "The new certificate is valid until Saturday, 4 December 2027 at 14:30.";
    assert!(desk.has(Role::Status, until), "{}", desk.words());
    assert_eq!(desk.focused(), Some((Role::Button, "Close".to_owned())));
    desk.press(Key::Enter);
    assert!(desk.is_closed());
    assert!(desk.asked().is_empty(), "nothing was put off");
}

#[test]
fn tab_goes_through_the_page_from_top_to_bottom() {
    let mut desk = asked_for_password();
    let order = [
        "Password",
        "Remind me later",
        "Back",
        "Renew",
        "User name",
        "Server name",
    ];
    assert_eq!(desk.tab_order(), order);
}

#[test]
fn a_password_is_typed_before_anything_is_sent() {
    let mut desk = asked_for_password();
    desk.press(Key::Enter);
    assert!(desk.asked().is_empty());
    assert!(desk.has(Role::Alert, "Enter your password."));
    assert_eq!(
        desk.focused(),
        Some((Role::PasswordInput, "Password".to_owned()))
    );
    desk.type_text("x");
    assert!(!desk.has(Role::Alert, "Enter your password."));
}

#[test]
fn each_failure_says_what_to_do_and_keeps_details_for_the_help_desk() {
    for failure in RenewalFailure::ALL {
        let mut desk = submitted();
        desk.asked();
        desk.refuse(*failure);
        assert_eq!(desk.heading(), "That did not work");
        let (what, act) = desk.harness.state().words().failure(*failure);
        let words = desk.words();
        assert!(desk.has(Role::Alert, what), "{words}");
        assert!(words.contains(act), "{words}");
        assert!(words.contains("Help desk: +49 30 1234-500"), "{words}");
        assert!(!words.contains(DETAIL), "folded: {words}");
        desk.click("Details for the help desk");
        let words = desk.words();
        assert!(words.contains(DETAIL), "{words}");
        assert!(words.contains("SMSID: GUID:5F2B"), "{words}");
        desk.click("Copy");
        assert!(desk.has(Role::Status, "Copied"));
        desk.click("Try again");
        assert_eq!(desk.heading(), "Confirm that it is you");
    }
}

#[test]
fn what_was_typed_is_gone_when_the_page_comes_back() {
    let mut desk = submitted();
    desk.asked();
    desk.refuse(RenewalFailure::WrongPassword);
    desk.press(Key::Enter);
    desk.press(Key::Enter);
    assert!(desk.asked().is_empty(), "the field is empty");
    desk.type_text("other");
    desk.press(Key::Enter);
    let credentials = handed_over(&desk);
    assert_eq!(credentials.password, "other");
}

#[test]
fn a_password_cannot_be_taken_back_after_it_was_deleted() {
    let mut desk = asked_for_password();
    desk.type_text("hunter2");
    for _ in 0..7 {
        desk.press(Key::Backspace);
    }
    desk.press_with(egui::Modifiers::COMMAND, Key::Z);
    desk.press(Key::Enter);
    assert!(desk.asked().is_empty());
}

#[test]
fn later_is_told_to_the_agent_before_the_window_goes() {
    let mut desk = desk();
    desk.click("Remind me later");
    assert!(matches!(desk.asked().as_slice(), [Ask::PutOff]));
    assert!(!desk.is_closed());
    desk.hear(News::PutOff(None));
    assert!(desk.is_closed());
}

#[test]
fn closing_is_later_and_does_not_wait_for_ever() {
    let mut desk = submitted();
    desk.asked();
    assert!(!desk.harness.state_mut().close());
    assert!(matches!(desk.asked().as_slice(), [Ask::PutOff]));
    assert!(desk.harness.state_mut().close(), "the second time it goes");
}

#[test]
fn in_the_second_period_it_counts_and_it_may_end() {
    let setup = Setup::new(Purpose::Renew).identity(|identity| {
        identity.stage = Some(ReminderStage::SecondPeriod);
        identity.put_off = 3;
    });
    let words = setup.sit_down().words();
    assert!(words.contains("You put it off 3 times."), "{words}");
    let setup = setup.identity(|identity| identity.may_put_off = false);
    let desk = setup.sit_down();
    assert!(!desk.has(Role::Button, "Remind me later"));
    let words = desk.words();
    assert!(words.contains("It cannot be put off any more."), "{words}");
}

#[test]
fn expired_has_its_own_words() {
    let setup = Setup::new(Purpose::Renew)
        .status(|status| status.now = at("2026-12-05T09:00:00Z"))
        .identity(|identity| identity.stage = Some(ReminderStage::Expired));
    let desk = setup.sit_down();
    assert_eq!(desk.heading(), "Your certificate has expired");
    let words = desk.words();
    let part = "It expired on Friday, 4 December 2026 at 14:30.";
    assert!(words.contains(part), "{words}");
    assert!(words.contains("until you renew it"), "{words}");
}

#[test]
fn without_the_site_no_password_is_asked_for() {
    let setup = Setup::new(Purpose::Renew).identity(|identity| identity.site_reachable = false);
    let mut desk = setup.sit_down();
    desk.press(Key::Enter);
    assert_eq!(desk.heading(), "The server cannot be reached");
    assert!(!desk.has(Role::PasswordInput, "Password"));
    assert_eq!(desk.focused(), Some((Role::Button, "Try again".to_owned())));
    // Somebody looks, once.
    desk.press(Key::Enter);
    desk.press(Key::Enter);
    assert!(matches!(desk.asked().as_slice(), [Ask::CheckIn]));
    let refused = crate::desk::refused(RenewalFailure::SiteUnreachable);
    desk.hear(News::CheckIn(refused));
    assert_eq!(desk.heading(), "The server cannot be reached");
    desk.hear(News::Event(LocalEvent::SiteReachable(true)));
    assert_eq!(desk.heading(), "Confirm that it is you");
}

#[test]
fn it_waits_for_the_agent_and_goes_on() {
    let mut desk = submitted();
    desk.asked();
    desk.hear(News::Away);
    assert_eq!(desk.heading(), "Waiting for the agent");
    desk.hear(News::Status(Box::new(crate::desk::status())));
    assert_eq!(desk.heading(), "Confirm that it is you");
}

#[test]
fn renewed_meanwhile_it_says_so_on_every_page() {
    let event = || {
        News::Event(LocalEvent::Renewed {
            not_after: at("2027-12-04T13:30:00Z"),
        })
    };
    let mut failed = submitted();
    failed.refuse(RenewalFailure::Other);
    for mut desk in [desk(), asked_for_password(), failed] {
        desk.asked();
        desk.hear(event());
        assert_eq!(desk.heading(), "Already renewed");
        desk.press(Key::Enter);
        assert!(desk.is_closed());
        assert!(desk.asked().is_empty(), "there is nothing to put off");
    }
    // By the status alone, when the event was missed.
    let mut desk = desk();
    let mut status = crate::desk::status();
    let identity = status.identity.as_mut().expect("an identity");
    identity.not_after = at("2027-12-04T13:30:00Z");
    desk.hear(News::Status(Box::new(status)));
    assert_eq!(desk.heading(), "Already renewed");
}

#[test]
fn what_was_renewed_meanwhile_closes_by_itself() {
    let mut desk = desk();
    let not_after = at("2027-12-04T13:30:00Z");
    desk.hear(News::Event(LocalEvent::Renewed { not_after }));
    let words = desk.words();
    assert!(words.contains("This page closes automatically."), "{words}");
    desk.pass(15);
    assert!(!desk.is_closed(), "there is time to read it");
    desk.pass(15);
    assert!(desk.is_closed());
    let asked = desk.asked();
    let puts_off = |ask: &Ask| matches!(ask, Ask::PutOff);
    assert!(!asked.iter().any(puts_off), "there is nothing to put off");
    // What a person renewed stays until they close it.
    let mut desk = submitted();
    desk.step(crate::desk::renewed());
    desk.pass(3600);
    assert!(!desk.is_closed());
    // The next reminder finds it there.
    desk.hear(News::Event(due()));
    assert_eq!(desk.heading(), "Renew your certificate");
}

fn due() -> LocalEvent {
    LocalEvent::ReminderDue {
        since: at("2026-11-26T09:00:00Z"),
        stage: ReminderStage::FirstPeriod,
        not_after: at("2026-12-04T13:30:00Z"),
    }
}

#[test]
fn a_hidden_window_closes_too() {
    // Nothing is drawn from here on.
    let mut desk = desk();
    assert!(!desk.harness.state_mut().close());
    assert!(matches!(desk.asked().as_slice(), [Ask::PutOff]));
    desk.pass(1);
    assert!(!desk.is_closed(), "the agent has a moment to answer");
    desk.pass(2);
    assert!(desk.is_closed());
}

#[test]
fn what_is_shown_does_not_grow_old() {
    let mut desk = desk();
    desk.pass(10);
    assert!(desk.asked().is_empty());
    desk.pass(15);
    assert!(matches!(desk.asked().as_slice(), [Ask::Status]));
    desk.pass(1);
    assert!(desk.asked().is_empty(), "once");
}

#[test]
fn who_opens_it_by_hand_puts_nothing_off() {
    let setup = Setup::new(Purpose::Renew).identity(|identity| identity.reminder_waits = None);
    let mut desk = setup.sit_down();
    assert!(!desk.has(Role::Button, "Remind me later"));
    assert!(!desk.words().contains("brings this window back"));
    // The reminder that comes meanwhile is one.
    desk.hear(News::Event(due()));
    assert!(desk.has(Role::Button, "Remind me later"));
    desk.click("Remind me later");
    assert!(matches!(desk.asked().as_slice(), [Ask::PutOff]));
}

#[test]
fn an_agent_that_restarts_tells_of_the_same_reminder() {
    let mut desk = Setup::new(Purpose::Preferences).sit_down();
    let known = crate::desk::status().identity.expect("one").reminder_waits;
    let again = LocalEvent::ReminderDue {
        since: known.expect("it waits"),
        stage: ReminderStage::FirstPeriod,
        not_after: at("2026-12-04T13:30:00Z"),
    };
    desk.hear(News::Event(again));
    assert_eq!(desk.heading(), "Configuration Manager");
    desk.hear(News::Event(due()));
    assert_eq!(desk.heading(), "Renew your certificate");
}

#[test]
fn a_page_on_which_somebody_types_stays() {
    let mut desk = asked_for_password();
    desk.hear(News::Event(LocalEvent::SiteReachable(false)));
    assert_eq!(desk.heading(), "The server cannot be reached");
    desk.hear(News::Event(LocalEvent::SiteReachable(true)));
    desk.type_text("hunt");
    desk.hear(News::Event(LocalEvent::SiteReachable(false)));
    assert_eq!(desk.heading(), "Confirm that it is you");
    desk.type_text("er2");
    desk.press(Key::Enter);
    let credentials = handed_over(&desk);
    assert_eq!(credentials.password, "hunter2");
}

#[test]
fn an_agent_at_work_is_no_wrong_password_and_no_answer_of_the_site() {
    let mut desk = submitted();
    desk.refuse(RenewalFailure::Busy);
    let words = desk.words();
    assert!(words.contains("Try again in a moment."), "{words}");
    let setup = Setup::new(Purpose::Renew).identity(|identity| identity.site_reachable = false);
    let mut desk = setup.sit_down();
    desk.press(Key::Enter);
    desk.press(Key::Enter);
    let busy = crate::desk::refused(RenewalFailure::Busy);
    desk.hear(News::CheckIn(busy));
    assert_eq!(desk.heading(), "The server cannot be reached");
    // It can be asked again.
    desk.asked();
    desk.press(Key::Enter);
    assert!(matches!(desk.asked().as_slice(), [Ask::CheckIn]));
}

#[test]
fn it_follows_a_clock_that_is_set() {
    let status = |now: &str, stage| {
        let mut status = crate::desk::status();
        status.now = at(now);
        status.identity.as_mut().expect("an identity").stage = stage;
        News::Status(Box::new(status))
    };
    let mut desk = desk();
    assert!(desk.words().contains("It expires in 9 days."));
    for (now, stage, title, line) in [
        (
            "2031-01-01T00:00:00Z",
            Some(ReminderStage::Expired),
            "Your certificate has expired",
            "It expired on Friday, 4 December 2026 at 14:30.",
        ),
        (
            "2026-12-04T12:59:30Z",
            Some(ReminderStage::SecondPeriod),
            "Renew your certificate",
            "It expires in 30 minutes.",
        ),
        // Before it was issued.
        (
            "1970-01-01T00:00:00Z",
            None,
            "Renew your certificate",
            "It expires in 20791 days.",
        ),
    ] {
        desk.hear(status(now, stage));
        assert_eq!(desk.heading(), title);
        let words = desk.words();
        assert!(words.contains(line), "{line}: {words}");
    }
    assert!(desk.asked().is_empty() && !desk.is_closed());
    // On the other pages nothing depends on it.
    desk.press(Key::Enter);
    desk.hear(status("2031-01-01T00:00:00Z", Some(ReminderStage::Expired)));
    assert_eq!(desk.heading(), "Confirm that it is you");
}

#[test]
fn who_is_not_root_renews_as_who_enrolled() {
    let mut desk = asked_for_password();
    // To the user's name, and typing there.
    desk.press_with(egui::Modifiers::SHIFT, Key::Tab);
    desk.press_with(egui::Modifiers::SHIFT, Key::Tab);
    assert_eq!(
        desk.focused().map(|(_, name)| name),
        Some("User name".to_owned())
    );
    desk.type_text("eve");
    desk.press(Key::Tab);
    desk.press(Key::Tab);
    desk.type_text("hunter2");
    desk.press(Key::Enter);
    let credentials = handed_over(&desk);
    assert_eq!(credentials.user, "ann@contoso.com");
}

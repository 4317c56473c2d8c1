//! The page *Configuration Manager*.

use std::path::PathBuf;

use domain::wizard::RenewalFailure;
use egui::Key;
use egui::accesskit::Role;
use protocol::RenewalStep;
use wizard::instance::Start;
use wizard::window::Purpose;
use wizard::worker::{Ask, News};

use crate::desk::{DETAIL, Setup, at, not_enrolled, refused, troubled};

#[test]
fn it_shows_how_the_computer_stands() {
    let mut desk = Setup::new(Purpose::Preferences).sit_down();
    assert_eq!(desk.heading(), "Configuration Manager");
    let words = desk.words();
    for part in [
        "This computer is enrolled and managed.",
        "9 days left",
        "Friday, 4 December 2026 at 14:30",
        "GUID:5F2B7C0E-93A4-4B53-8C0E-5D6C4E6D1F3A",
        // The next silent renewal.
        "Thursday, 26 November 2026 at 04:12",
        "45 days before it expires",
        "every 8 hours",
        // The last check-in.
        "Wednesday, 25 November 2026 at 09:41",
        "This computer meets every rule.",
    ] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
    assert!(desk.has(Role::Meter, "Life of the certificate"));
    let order = ["Renew…", "Save diagnostics", "Check in now"];
    assert_eq!(desk.tab_order(), order);
}

#[test]
fn what_was_never_checked_is_not_called_good() {
    let mut setup = Setup::new(Purpose::Preferences);
    for (rules, line) in [
        (None, "No rules were checked yet."),
        (Some(Vec::new()), "This computer meets every rule."),
    ] {
        setup = setup.identity(|identity| identity.compliance = rules);
        let words = setup.sit_down().words();
        assert!(words.contains(line), "{line}: {words}");
    }
}

#[test]
fn trouble_is_told_in_plain_words() {
    let desk = Setup::new(Purpose::Preferences)
        .identity(troubled)
        .sit_down();
    let words = desk.words();
    for part in [
        "3 rules need attention",
        "The screen locks after ten minutes",
        "It will be fixed automatically; you need not do anything.",
        "The automatic fix did not help",
        "It is not fixed automatically: ask your help desk.",
        "RenewalPeriod2 is set to \"5000000\", which is not used: it is longer than RenewalPeriod1",
        "Not reachable; this computer keeps trying",
        "cannot be reached: connection refused",
    ] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
}

#[test]
fn it_checks_in_and_says_how_it_went() {
    let mut desk = Setup::new(Purpose::Preferences).sit_down();
    desk.click("Check in now");
    assert!(matches!(desk.asked().as_slice(), [Ask::CheckIn]));
    assert!(desk.has(Role::Status, "Checking in…"));
    desk.click("Check in now");
    assert!(desk.asked().is_empty(), "one at a time");
    let at = at("2026-11-25T09:01:00Z");
    desk.hear(News::CheckIn(RenewalStep::CheckedIn { at }));
    let line = "Checked in on Wednesday, 25 November 2026 at 10:01.";
    assert!(desk.has(Role::Status, line), "{}", desk.words());
    desk.click("Check in now");
    desk.hear(News::CheckIn(refused(RenewalFailure::SiteUnreachable)));
    let words = desk.words();
    assert!(
        words.contains("The server could not be reached."),
        "{words}"
    );
    assert!(words.contains(DETAIL), "{words}");
}

#[test]
fn it_saves_diagnostics_and_says_where() {
    let mut desk = Setup::new(Purpose::Preferences).sit_down();
    desk.click("Save diagnostics");
    assert!(matches!(desk.asked().as_slice(), [Ask::SaveDiagnostics(_)]));
    desk.hear(News::Saved(Ok(PathBuf::from("/home/ann/Downloads/a.zip"))));
    let line = "Diagnostics are in /home/ann/Downloads/a.zip";
    assert!(desk.has(Role::Status, line), "{}", desk.words());
}

#[test]
fn it_opens_the_wizard_and_takes_it_back_without_putting_anything_off() {
    let mut desk = Setup::new(Purpose::Preferences).sit_down();
    desk.press(Key::Enter);
    assert_eq!(desk.heading(), "Renew your certificate");
    assert!(!desk.has(Role::Button, "Remind me later"));
    desk.click("Close");
    assert_eq!(desk.heading(), "Configuration Manager");
    assert!(desk.asked().is_empty());
    assert!(!desk.is_closed());
}

fn started(name: &str) -> News {
    News::Started(Start::named(name).expect("a start"))
}

#[test]
fn a_second_start_shows_what_it_wanted_in_the_same_window() {
    let mut desk = Setup::new(Purpose::Preferences).sit_down();
    desk.hear(started("preferences"));
    assert_eq!(desk.heading(), "Configuration Manager");
    desk.hear(started("renew"));
    assert_eq!(desk.heading(), "Renew your certificate");
    // What is under way goes on.
    desk.press(Key::Enter);
    desk.hear(started("enroll"));
    assert_eq!(desk.heading(), "Confirm that it is you");
    // It was a reminder: closing it is later.
    assert!(!desk.harness.state_mut().close());
    assert!(matches!(desk.asked().as_slice(), [Ask::PutOff]));
}

#[test]
fn who_is_not_enrolled_can_enroll() {
    let mut desk = Setup::new(Purpose::Preferences)
        .status(not_enrolled)
        .sit_down();
    assert!(desk.words().contains("This computer is not enrolled."));
    assert!(!desk.has(Role::Button, "Check in now"));
    desk.press(Key::Enter);
    assert_eq!(desk.heading(), "Enroll this computer");
}

#[test]
fn the_language_is_that_of_managed_preferences() {
    let setup = Setup::new(Purpose::Preferences)
        .status(|status| status.look.language = Some("de".to_owned()));
    let words = setup.sit_down().words();
    assert!(words.contains("noch 9 Tage"), "{words}");
}

#[test]
fn what_does_not_fit_is_reached_by_keyboard() {
    let mut setup = Setup::new(Purpose::Preferences).identity(troubled);
    setup.zoom = 2.0;
    let mut desk = setup.sit_down();
    let place = |desk: &crate::desk::Desk| {
        let all = desk.harness.output().shapes.iter();
        all.map(|shape| shape.shape.visual_bounding_rect().bottom())
            .fold(0.0, f32::max)
    };
    let before = place(&desk);
    for _ in 0..3 {
        desk.press(Key::PageDown);
    }
    assert!(place(&desk) < before, "it scrolled");
}

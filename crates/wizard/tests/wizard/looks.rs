//! Every page as it looks: nothing clipped, nothing on anything, at each size, in both languages and
//! colours. With `PERENNIAL_SCREENSHOTS` pictures of all of it go to `target/screenshots`.

use std::path::{Path, PathBuf};

use domain::ReminderStage;
use domain::wizard::RenewalFailure;
use egui::{Key, Theme, vec2};
use protocol::{LocalEvent, RenewalStep};
use wizard::window::{LEAST_SIZE, Purpose, SIZE};
use wizard::worker::News;

use crate::desk::{Desk, Setup, at, in_use, not_enrolled, renewed, troubled};

type Scene = (&'static str, fn(Setup) -> Desk);

fn renew(setup: Setup) -> Setup {
    Setup {
        purpose: Purpose::Renew,
        ..setup
    }
}

fn enroll(setup: Setup) -> Setup {
    let purpose = Purpose::Enroll;
    Setup { purpose, ..setup }.status(not_enrolled)
}

fn root(setup: Setup) -> Setup {
    enroll(setup).status(|status| status.may_choose_server = true)
}

fn password(setup: Setup) -> Desk {
    let mut desk = renew(setup).sit_down();
    desk.press(Key::Enter);
    desk
}

fn submitted(setup: Setup) -> Desk {
    let mut desk = password(setup);
    desk.type_text("correct horse");
    desk.press(Key::Enter);
    desk
}

fn enrolling(setup: Setup) -> Desk {
    let mut desk = setup.sit_down();
    desk.press(Key::Enter);
    // The session's user may have a name, or none.
    desk.press(Key::Tab);
    desk.press_with(egui::Modifiers::SHIFT, Key::Tab);
    desk
}

const SCENES: &[Scene] = &[
    ("renew-1-notice", |setup| renew(setup).sit_down()),
    ("renew-1-second-period", |setup| {
        let setup = renew(setup)
            .status(|status| status.now = at("2026-12-03T02:00:00Z"))
            .identity(|identity| {
                identity.stage = Some(ReminderStage::SecondPeriod);
                identity.put_off = 3;
                identity.later_until = Some(at("2026-12-03T10:00:00Z"));
            });
        setup.sit_down()
    }),
    ("renew-1-expired", |setup| {
        let setup = renew(setup)
            .status(|status| status.now = at("2026-12-06T02:00:00Z"))
            .identity(|identity| {
                identity.stage = Some(ReminderStage::Expired);
                identity.may_put_off = false;
            });
        setup.sit_down()
    }),
    ("renew-2-password", password),
    ("renew-2-password-missing", |setup| {
        let mut desk = password(setup);
        desk.press(Key::Enter);
        desk
    }),
    ("renew-2-offline", |setup| {
        let mut desk = renew(setup)
            .identity(|identity| identity.site_reachable = false)
            .sit_down();
        desk.press(Key::Enter);
        desk
    }),
    ("renew-3-progress", |setup| {
        let mut desk = submitted(setup);
        desk.step(RenewalStep::AskingTheSite);
        desk
    }),
    ("renew-4-done", |setup| {
        let mut desk = submitted(setup);
        desk.step(renewed());
        desk.hear(in_use());
        desk
    }),
    ("renew-4-meanwhile", |setup| {
        let mut desk = password(setup);
        let not_after = at("2027-12-04T13:30:00Z");
        desk.hear(News::Event(LocalEvent::Renewed { not_after }));
        desk.hear(in_use());
        desk
    }),
    ("renew-5-wrong-password", |setup| {
        let mut desk = submitted(setup);
        desk.refuse(RenewalFailure::WrongPassword);
        desk
    }),
    ("renew-5-not-allowed-details", |setup| {
        let mut desk = submitted(setup);
        desk.refuse(RenewalFailure::NotAllowed);
        let details = desk.harness.state().words().details();
        desk.click_anywhere(details);
        desk
    }),
    ("renew-6-waiting", |setup| {
        let mut desk = renew(setup).sit_down();
        desk.hear(News::Away);
        desk
    }),
    ("enroll-1-welcome", |setup| enroll(setup).sit_down()),
    ("enroll-1-no-server", |setup| {
        let setup = enroll(setup).status(|status| status.managed_server = None);
        setup.sit_down()
    }),
    ("enroll-2-password", |setup| enrolling(enroll(setup))),
    ("enroll-2-administrator", |setup| enrolling(root(setup))),
    ("enroll-3-trust", |setup| {
        let mut desk = enrolling(root(setup));
        desk.enroll_anyhow();
        desk.step(RenewalStep::Refused {
            failure: RenewalFailure::NotTrusted,
            detail: String::new(),
            observed: Some(
                "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
            ),
        });
        desk
    }),
    ("enroll-4-done", |setup| {
        let mut desk = enrolling(root(setup));
        desk.enroll_anyhow();
        desk.step(renewed());
        desk.hear(in_use());
        desk
    }),
    ("preferences-1-enrolled", |setup| setup.sit_down()),
    ("preferences-2-troubled", |setup| {
        setup.identity(troubled).sit_down()
    }),
    ("preferences-3-scrolled", |setup| {
        let mut desk = setup.identity(troubled).sit_down();
        for _ in 0..8 {
            desk.press(Key::PageDown);
        }
        desk
    }),
    ("preferences-4-not-enrolled", |setup| {
        setup.status(not_enrolled).sit_down()
    }),
];

fn setup(locale: &'static str, theme: Theme, zoom: f32) -> Setup {
    Setup {
        locale,
        theme,
        zoom,
        ..Setup::new(Purpose::Preferences)
    }
}

#[test]
fn nothing_is_clipped_at_any_size_in_both_languages() {
    for (name, scene) in SCENES {
        for locale in ["en_GB.UTF-8", "de_DE.UTF-8"] {
            for (zoom, size) in [
                (1.0, SIZE),
                (2.0, SIZE),
                (1.0, LEAST_SIZE),
                (2.0, SIZE * 2.0),
                (1.0, vec2(1600.0, 1000.0)),
            ] {
                // Those of the platform are wider, or narrower.
                let platform_fonts = size != LEAST_SIZE;
                let desk = scene(Setup {
                    size,
                    platform_fonts,
                    ..setup(locale, Theme::Light, zoom)
                });
                desk.check_layout(&format!("{name}, {locale}, {size:?} at {zoom}"));
            }
        }
    }
}

#[test]
fn light_and_dark_are_what_they_say() {
    for (theme, bright) in [(Theme::Light, true), (Theme::Dark, false)] {
        let desk = setup("en", theme, 1.0).sit_down();
        let picture = desk.picture();
        let corner = picture.get_pixel(2, 2).0;
        assert_eq!(corner[0] > 128, bright, "{corner:?}");
        let ink = picture
            .pixels()
            .filter(|pixel| (pixel.0[0] > 128) != bright)
            .count();
        assert!(ink > 2000, "something is written: {ink}");
    }
}

#[test]
fn pictures_of_every_page() {
    let Some(folder) = folder() else { return };
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, scene) in SCENES {
        for (theme, color) in [(Theme::Light, "light"), (Theme::Dark, "dark")] {
            for (locale, language) in [("en_GB", "en"), ("de_DE", "de")] {
                for (zoom, size, percent) in [(1.0, SIZE, 100), (2.0, SIZE * 2.0, 200)] {
                    // Both languages in one colour each are enough.
                    if (language == "de") != (color == "dark") && percent == 100 {
                        continue;
                    }
                    let desk = scene(Setup {
                        size,
                        platform_fonts: true,
                        ..setup(locale, theme, zoom)
                    });
                    let picture = desk.picture();
                    let file = format!("{name}-{color}-{language}-{percent}.png");
                    picture.save(folder.join(file)).expect("a file");
                }
            }
            // A large text in a small window.
            let desk = scene(Setup {
                platform_fonts: true,
                ..setup("de_DE", theme, 2.0)
            });
            let picture = desk.picture();
            let file = format!("{name}-{color}-de-200-small.png");
            picture.save(folder.join(file)).expect("a file");
        }
    }
}

/// None when nobody asked for pictures: they take a minute.
fn folder() -> Option<PathBuf> {
    std::env::var_os("PERENNIAL_SCREENSHOTS")?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Some(here.join("../../target/screenshots"))
}

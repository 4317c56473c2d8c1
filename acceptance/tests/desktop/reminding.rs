//! When the wizard opens, and when it does not.

use std::time::Duration;

use acceptance::desktop::{Node, node};
use acceptance::programs::{Client, run, scaled_clock, until};
use anyhow::{Context, Result};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::office::{NOTICE, Office, says};

/// When *Remind me later* says that the window will be back.
fn said(nodes: &[Node]) -> Result<Timestamp> {
    const BEFORE: &str = "brings this window back on ";
    let line = nodes
        .iter()
        .filter_map(|node| node.name.split_once(BEFORE))
        .map(|(_, rest)| rest)
        .next()
        .with_context(|| format!("{nodes:#?}"))?;
    let moment = line.split('.').next().unwrap_or_default();
    let moment = DateTime::strptime("%A, %d %B %Y at %H:%M", moment)?;
    Ok(moment.to_zoned(TimeZone::UTC)?.timestamp())
}

/// What the agent remembers: a moment of its own clock, or a number.
fn remembered(client: &Client, key: &str) -> Result<serde_json::Value> {
    let state = client.root().join("var/lib/perennial-agent/state.json");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(state)?)?;
    Ok(state[key].clone())
}

/// When the agent reminded, or was told to do so later.
fn reminded_at(client: &Client) -> Result<Timestamp> {
    let at = remembered(client, "last_reminder")?;
    Ok(at.as_str().context("a reminder")?.parse()?)
}

#[test]
fn later_is_back_when_it_said_and_counts() -> Result<()> {
    // Ten minutes in half a minute.
    let mut office = Office::open("later", Some(scaled_clock(20.0)))?;
    let interval = SignedDuration::from_mins(10);
    office.manage("<key>MaximumPutOffs</key><integer>2</integer>")?;
    // All of the certificate's life is the second period.
    office.set(&[
        ("RenewalPeriod1", "3888000"),
        ("RenewalPeriod2", "3888000"),
        ("RenewalReminderInterval2", &interval.as_secs().to_string()),
    ])?;
    office.start_agent()?;
    office.log_in()?;

    let first = office.desktop.page(NOTICE)?;
    assert!(office.agent_log().contains("second-period"));
    assert!(!says(&first, "You put it off"));
    office.picture("second-period")?;
    // Before the button that has the focus.
    office.desktop.press("shift+Tab")?;
    let mut page = Vec::new();
    until("the focus is on later", || {
        page = office.desktop.read()?;
        Ok(node(&page, "push button", "Remind me later").is_ok_and(has_focus))
    })?;
    let back = said(&page)?;
    office.desktop.press("space")?;
    office.until_wizard_is_closed()?;
    let put_off = reminded_at(&office.client)?;
    assert_eq!(remembered(&office.client, "put_off")?, 1);
    // It is said to the minute, and what is said is as old as the page: less than half a real minute.
    let off = (put_off + interval).duration_since(back);
    let bounds = SignedDuration::from_mins(-1)..SignedDuration::from_mins(10);
    assert!(bounds.contains(&off), "{off:?} after {back}");

    let again = office.desktop.page(NOTICE)?;
    assert!(reminded_at(&office.client)? >= put_off + interval);
    assert!(says(&again, "You put it off once."), "{again:#?}");

    // Closing the window is the same as later, also one that is put away; and it is the last time.
    office.desktop.minimize_window()?;
    until("it is put away", || Ok(!office.is_wizard_open()?))?;
    let wizard = office.wizard_process()?;
    office.desktop.close_window_of("Renew Certificate")?;
    until("its process ends", || Ok(!is_there(wizard)))?;
    assert_eq!(remembered(&office.client, "put_off")?, 2);
    let last = office.desktop.page(NOTICE)?;
    assert!(says(&last, "It cannot be put off any more."), "{last:#?}");
    assert!(!says(&last, "Remind me later"));
    office.picture("not-any-more")?;
    Ok(())
}

fn has_focus(node: &Node) -> bool {
    node.states.iter().any(|state| state == "focused")
}

fn is_there(process: u32) -> bool {
    std::path::Path::new("/proc")
        .join(process.to_string())
        .exists()
}

#[test]
fn the_session_part_ends_with_its_desktop() -> Result<()> {
    let mut office = Office::open("log-out", None)?;
    office.start_agent()?;
    office.log_in()?;
    let session = office.session_process()?;
    std::thread::sleep(Duration::from_secs(1));
    assert!(is_there(session));
    office.desktop.end();
    until("the session part ends", || office.session_has_ended())
}

#[test]
fn one_reminder_waits_until_somebody_logs_in() -> Result<()> {
    // An hour in a second: several reminders while nobody is there.
    let mut office = Office::open("nobody", Some(scaled_clock(3600.0)))?;
    office.set(&[
        ("RenewalPeriod1", "3888000"),
        ("RenewalReminderInterval1", "3600"),
    ])?;
    office.start_agent()?;
    until("three reminders", || Ok(office.reminders() >= 3))?;
    assert!(!office.is_wizard_open()?);
    office.log_in()?;
    office.desktop.page(NOTICE)?;
    let titles = office.desktop.windows()?;
    let wizards = titles
        .iter()
        .filter(|title| title.contains(crate::office::WINDOW));
    assert_eq!(wizards.count(), 1, "{titles:?}");
    Ok(())
}

#[test]
fn who_presents_something_gets_a_notification_that_opens_the_wizard() -> Result<()> {
    let mut office = Office::open("presenting", None)?;
    let desktop = &office.desktop;
    let mut notifications = desktop.command("dunst").spawn()?;
    let mut presentation = desktop
        .command("xterm")
        .args(["-fullscreen", "-e", "sleep", "600"])
        .spawn()?;
    let fills_the_screen = || -> Result<bool> {
        let mut ask = desktop.command("xdotool");
        let said = run(ask.args(["getactivewindow", "getwindowgeometry"]), "")?;
        Ok(said.out.contains("1280x900"))
    };
    until("something fills the screen", fills_the_screen)?;

    office.start_agent()?;
    office.log_in()?;
    office.remind_now()?;
    let shown = || -> Result<String> {
        let ran = run(
            office
                .desktop
                .command("dunstctl")
                .args(["count", "displayed"]),
            "",
        )?;
        Ok(ran.out.trim().to_owned())
    };
    until("a notification", || Ok(shown()? == "1"))?;
    office.picture("notification")?;
    assert!(!office.is_wizard_open()?);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!office.is_wizard_open()?);

    let mut press = office.desktop.command("dunstctl");
    run(press.arg("action"), "")?.succeeded();
    office.desktop.page(NOTICE)?;
    office.picture("opened-from-it")?;

    for program in [&mut presentation, &mut notifications] {
        program.kill()?;
        program.wait()?;
    }
    Ok(())
}

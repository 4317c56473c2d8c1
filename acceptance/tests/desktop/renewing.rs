//! The Renew Certificate Wizard, from the reminder to the site's record.

use std::time::Duration;

use acceptance::desktop::node;
use acceptance::programs::{PASSWORD, until};
use anyhow::Result;

use crate::office::{FAILED, NOTICE, Office, PASSWORD_PAGE, RENEWED, WINDOW, field, says};

#[test]
fn a_reminder_opens_the_wizard_and_a_password_renews() -> Result<()> {
    let mut office = Office::open("renewing", None)?;
    office.start_agent()?;
    office.log_in()?;
    // Nothing is decided, and nothing opens.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(office.reminders(), 0);
    assert!(!office.is_wizard_open()?);

    office.remind_now()?;
    let desktop = &office.desktop;
    let notice = desktop.page(NOTICE)?;
    assert_eq!(office.reminders(), 1);
    let log = office.agent_log();
    assert!(log.contains("first-period"), "{log}");
    assert!(says(&notice, "Remind me later"), "{notice:#?}");
    office.picture("notice")?;

    // By keyboard alone.
    desktop.press("Return")?;
    let page = desktop.page(PASSWORD_PAGE)?;
    assert_eq!(field(&page, "entry", "User name")?, "ann");
    let server = office.server().devices.to_string();
    assert_eq!(field(&page, "entry", "Server name")?, server);
    until("the password has the focus", || {
        let page = office.desktop.read()?;
        let password = node(&page, "password text", "Password")?;
        Ok(password.states.iter().any(|state| state == "focused"))
    })?;
    office.picture("password")?;

    let before = office.serial()?;
    desktop.type_text("wrong horse")?;
    desktop.press("Return")?;
    let page = desktop.page(FAILED)?;
    assert!(says(&page, "The user name or the password is wrong."));
    office.picture("wrong-password")?;
    assert_eq!(office.serial_at_the_site()?, before);

    desktop.press("Return")?;
    desktop.page(PASSWORD_PAGE)?;
    desktop.type_text(PASSWORD)?;
    desktop.press("Return")?;
    desktop.page(RENEWED)?;
    office.picture("renewed")?;
    let after = office.serial()?;
    assert_ne!(after, before);
    assert_eq!(office.serial_at_the_site()?, after);

    desktop.press("Return")?;
    office.until_wizard_is_closed()
}

#[test]
fn the_site_goes_away_and_comes_back() -> Result<()> {
    let mut office = Office::asked_for_password("site-down")?;

    let at = office.stop_site()?;
    office.desktop.type_text(PASSWORD)?;
    office.desktop.press("Return")?;
    let page = office.desktop.page(FAILED)?;
    assert!(says(&page, "The server could not be reached."), "{page:#?}");
    assert!(says(&page, "Your current certificate is unchanged."));
    office.picture("not-reached")?;

    // No password is asked for that could not help.
    office.desktop.press("Return")?;
    office.desktop.page("The server cannot be reached")?;
    office.picture("offline")?;

    office.start_site(&at)?;
    let serial = office.serial()?;
    office.desktop.press("Return")?;
    office.desktop.page(PASSWORD_PAGE)?;
    office.picture("site-is-back")?;
    office.desktop.type_text(PASSWORD)?;
    office.desktop.press("Return")?;
    office.desktop.page(RENEWED)?;
    assert_ne!(office.serial()?, serial);
    assert_eq!(office.serial_at_the_site()?, office.serial()?);
    Ok(())
}

#[test]
fn the_agent_goes_away_and_comes_back() -> Result<()> {
    let mut office = Office::asked_for_password("agent-gone")?;
    office.desktop.type_text("half a pass")?;

    office.kill_agent();
    office.desktop.page("Waiting for the agent")?;
    office.picture("waiting")?;
    office.start_agent()?;
    let page = office.desktop.page(PASSWORD_PAGE)?;
    // What was typed is forgotten.
    assert_eq!(field(&page, "password text", "Password")?, "");
    office.desktop.type_text(PASSWORD)?;
    office.desktop.press("Return")?;
    office.desktop.page(RENEWED)?;
    Ok(())
}

#[test]
fn what_renews_silently_meanwhile_is_told_and_the_window_closes() -> Result<()> {
    let office = Office::asked_for_password("meanwhile")?;
    let before = office.serial()?;
    office.client.agent("renew")?.succeeded();
    assert_ne!(office.serial()?, before);
    let page = office.desktop.page("Already renewed")?;
    assert!(says(&page, "closes automatically"), "{page:#?}");
    office.picture("already-renewed")?;
    office.until_wizard_is_closed()
}

#[test]
fn a_second_start_brings_the_first_window_forward() -> Result<()> {
    let office = Office::reminded("two-wizards")?;
    office.desktop.minimize_window()?;
    until("it is put away", || Ok(!office.is_wizard_open()?))?;
    // The person presses an icon.
    let ended = office.wizard("preferences").status()?;
    assert!(ended.success());
    until("the first one is back", || office.is_wizard_open())?;
    let titles = office.desktop.windows()?;
    let wizards = titles.iter().filter(|title| title.contains(WINDOW));
    assert_eq!(wizards.count(), 1, "{titles:?}");
    office.desktop.page(NOTICE)?;
    Ok(())
}

//! The enrollment wizard and the page *Configuration Manager*, in another language and in the dark.

use acceptance::desktop::node;
use acceptance::programs::{PASSWORD, until};
use anyhow::Result;

use crate::office::{Office, field, says};

#[test]
fn a_user_enrolls_at_the_managed_server_in_german() -> Result<()> {
    let mut office = Office::without_enrollment("enrolling", None)?;
    office.manage(&format!(
        "<key>Server</key><string>{}</string><key>ServerPin</key><string>{}</string>\
         <key>CompanyName</key><string>Contoso</string><key>Language</key><string>de</string>\
         <key>HelpDesk</key><string>helpdesk@contoso.com</string>",
        office.server().devices,
        office.server().pin
    ))?;
    office.start_agent()?;
    let mut wizard = office
        .wizard("enroll")
        .env("GTK_THEME", "Adwaita:dark")
        .spawn()?;
    let desktop = &office.desktop;
    desktop.page("Registrieren Sie diesen Computer")?;
    office.picture("welcome")?;
    desktop.press("Return")?;
    let page = desktop.page("Bestätigen Sie, dass Sie es sind")?;
    let server = office.server().devices.to_string();
    assert_eq!(field(&page, "entry", "Servername")?, server);
    // The session has no name for the user: the field is empty, and has the focus.
    until("the user's name has the focus", || {
        let page = desktop.read()?;
        let user = node(&page, "entry", "Benutzername")?;
        Ok(user.states.iter().any(|state| state == "focused"))
    })?;
    desktop.type_text("ann")?;
    desktop.press("Tab")?;
    desktop.type_text(PASSWORD)?;
    office.picture("name-and-password")?;
    desktop.press("Return")?;
    desktop.page("Dieser Computer ist registriert")?;
    office.picture("enrolled")?;
    assert_eq!(office.client.status()?["user"], "ann");
    assert_eq!(office.serial_at_the_site()?, office.serial()?);
    desktop.press("Return")?;
    assert!(wizard.wait()?.success());

    let mut page = office.wizard("preferences").spawn()?;
    let nodes = office.desktop.page("Configuration Manager")?;
    assert!(
        says(
            &nodes,
            "Dieser Computer ist registriert und wird verwaltet."
        ),
        "{nodes:#?}"
    );
    office.picture("configuration-manager")?;
    office.desktop.close_window()?;
    assert!(page.wait()?.success());
    Ok(())
}

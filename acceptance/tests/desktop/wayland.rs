//! The same windows before a Wayland compositor.

use acceptance::programs::until;
use anyhow::Result;

use crate::office::{NOTICE, Office, says};

#[test]
fn the_wizard_opens_before_a_wayland_compositor() -> Result<()> {
    let mut office = Office::open("wayland", None)?;
    office.start_agent()?;
    office.remind_now()?;
    until("a reminder waits", || Ok(office.reminders() == 1))?;
    let mut compositor = office
        .desktop
        .command("weston")
        .args(["--backend=headless-backend.so", "--socket=wayland-test"])
        .spawn()?;
    let socket = office.desktop.home().join("wayland-test");
    until("the compositor is there", || Ok(socket.exists()))?;
    let mut wizard = office
        .wizard("remind")
        .env("WAYLAND_DISPLAY", "wayland-test")
        .env_remove("DISPLAY")
        .spawn()?;
    let page = office.desktop.page(NOTICE)?;
    assert!(says(&page, "Remind me later"), "{page:#?}");
    for program in [&mut wizard, &mut compositor] {
        program.kill()?;
        program.wait()?;
    }
    Ok(())
}

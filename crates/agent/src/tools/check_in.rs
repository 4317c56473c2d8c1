//! `check-in`: now.

use domain::RenewalMode;

use crate::cli::Output;
use crate::failure::Failure;
use crate::identity::Machine;
use crate::renewal;
use crate::tools::status::to_the_second;

pub async fn run(machine: &Machine, output: Output) -> Result<(), Failure> {
    renewal::require_identity(machine)?;
    crate::log::start(&machine.layout, false);
    let _lock = machine.lock().await?;
    renewal::resume(machine).await?;
    let site = machine.enrolled()?.site;
    let answer = renewal::check_in(machine).await?;
    machine.wake_daemon();
    if output.json {
        return super::print_json(&answer);
    }
    println!("Checked in with {}", site.server);
    let window = answer.renewal.suggested_window;
    match answer.renewal_mode {
        RenewalMode::Automatic => println!(
            "Silent renewal between {} and {}",
            to_the_second(window.start),
            to_the_second(window.end)
        ),
        mode => println!("No silent renewal: the site's policy is {mode}"),
    }
    Ok(())
}

//! `check-in`: now.

use domain::RenewalMode;

use crate::cli::Output;
use crate::compliance;
use crate::failure::Failure;
use crate::identity::Machine;
use crate::renewal;
use crate::tools::status::to_the_second;

pub async fn run(machine: &Machine, output: Output) -> Result<(), Failure> {
    renewal::require_identity(machine)?;
    crate::log::start(&machine.layout, false);
    let answer = renewal::check_in_now(machine).await?;
    let site = machine.enrolled()?.site;
    compliance::deliver_and_note(machine).await?;
    match machine.daemon() {
        Some(_) => machine.wake_daemon(),
        None => do_commands(machine).await?,
    }
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

/// Without a daemon, what the site asked for is done here.
async fn do_commands(machine: &Machine) -> Result<(), Failure> {
    compliance::do_commands(machine).await?;
    match compliance::deliver_and_note(machine).await {
        // It was told to leave, or leaves now.
        Err(Failure::NotEnrolled) => Ok(()),
        done => done,
    }
}

//! `renew`: a silent renewal now.

use crate::cli::Output;
use crate::failure::Failure;
use crate::identity::Machine;
use crate::renewal;

pub async fn run(machine: &Machine, output: Output) -> Result<(), Failure> {
    machine.enrolled()?;
    crate::log::start(&machine.layout, false);
    let _lock = machine.lock().await?;
    renewal::resume(machine).await?;
    let identity = renewal::renew(machine).await?;
    machine.wake_daemon();
    if output.json {
        return super::print_json(&super::status::Status::of(machine)?);
    }
    println!("Renewed");
    println!("Subject  {}", identity.certificate.subject());
    println!("Expires  {}", identity.certificate.not_after());
    Ok(())
}

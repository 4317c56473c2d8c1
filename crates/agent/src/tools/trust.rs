//! `trust`: which site is pinned, and root's confirmation that it is the right one.

use crate::cli::{Trust, TrustCommand};
use crate::failure::Failure;
use crate::identity::Machine;
use crate::site::SiteRecord;

pub async fn run(machine: &Machine, arguments: &Trust) -> Result<(), Failure> {
    let _lock = machine.lock().await?;
    let identity = machine.enrolled()?;
    let site = &identity.site;
    match &arguments.command {
        TrustCommand::Show => {
            println!("Server  {}", site.server);
            println!("Pin     {}", site.pin);
            println!(
                "Trust   {}",
                if site.trust_verified {
                    "verified"
                } else {
                    "unverified"
                }
            );
            Ok(())
        }
        TrustCommand::Confirm { pin } if *pin == site.pin => {
            let confirmed = SiteRecord {
                trust_verified: true,
                ..site.clone()
            };
            confirmed.write(&identity.folder)?;
            machine.identities().confirm_pending(&confirmed)?;
            machine.wake_daemon();
            println!("The site at {} is confirmed", confirmed.server);
            Ok(())
        }
        TrustCommand::Confirm { .. } => Err(Failure::other(format!(
            "another site is pinned here: {}\nIf that is the wrong one, uninstall and enroll again",
            site.pin
        ))),
    }
}

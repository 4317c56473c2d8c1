//! Programs of the administrator that run after a renewal (`renewed.d/`), for services that use the
//! certificate. They run in the order of their names; what they do never undoes the renewal.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use std::io::ErrorKind::TimedOut;

use crate::identity::{Identity, Machine};

/// A hook that takes longer is killed.
const LIMIT: Duration = Duration::from_secs(60);

pub async fn run(machine: &Machine, identity: &Identity) {
    let mut programs: Vec<_> = fs::read_dir(machine.layout.hooks())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    programs.sort();
    for program in programs {
        let Ok(metadata) = fs::metadata(&program) else {
            continue;
        };
        let mode = metadata.permissions().mode();
        if !metadata.is_file() || mode & 0o111 == 0 {
            continue;
        }
        // They run as root: nobody else may have written them.
        if mode & 0o022 != 0 || metadata.uid() != rustix::process::geteuid().as_raw() {
            tracing::warn!(event = "hook-refused", program = %program.display(), "others can write it");
            continue;
        }
        let outcome = Command::new(&program)
            .env("PERENNIAL_KEY_FILE", identity.folder.join("key.pem"))
            .env(
                "PERENNIAL_CERTIFICATE_FILE",
                identity.folder.join("certificate.pem"),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status();
        match tokio::time::timeout(LIMIT, outcome)
            .await
            .unwrap_or_else(|_| Err(TimedOut.into()))
        {
            Ok(status) if status.success() => {
                tracing::info!(event = "hook-ran", program = %program.display());
            }
            Ok(status) => {
                tracing::warn!(event = "hook-failed", program = %program.display(), %status);
            }
            Err(error) => {
                tracing::warn!(event = "hook-failed", program = %program.display(), %error);
            }
        }
    }
}

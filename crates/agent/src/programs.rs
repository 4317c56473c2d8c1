//! Programs of the administrator that the agent runs: after a renewal, and to remind people.

use std::fs;
use std::io::ErrorKind::TimedOut;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// One that takes longer is killed.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `program` with what it is told in its environment. What it does never undoes anything.
pub async fn run(program: &Path, told: &[(&str, String)]) {
    let name = program.display();
    let program = match checked(program) {
        Ok(program) => program,
        Err(reason) => {
            tracing::warn!(event = "program-refused", program = %name, reason);
            return;
        }
    };
    let outcome = Command::new(program)
        // What it is told, and nothing of the agent's own.
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(told.iter().map(|(key, value)| (*key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    let outcome = tokio::time::timeout(LIMIT, outcome).await;
    match outcome.unwrap_or_else(|_| Err(TimedOut.into())) {
        Ok(status) if status.success() => {
            tracing::info!(event = "program-ran", program = %name);
        }
        Ok(status) => tracing::warn!(event = "program-failed", program = %name, %status),
        Err(error) => tracing::warn!(event = "program-failed", program = %name, %error),
    }
}

/// The program itself, behind links. It runs as root: nobody else may have written it, or be able to
/// put another one in its place.
fn checked(program: &Path) -> Result<PathBuf, &'static str> {
    if !program.is_absolute() {
        return Err("it is not an absolute path");
    }
    let program = program.canonicalize().map_err(|_| "it is not there")?;
    let found = fs::metadata(&program).map_err(|_| "it is not there")?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err("it is no program");
    }
    if !is_ours(&found) {
        return Err("it does not belong to root alone: others own it or can write it");
    }
    for folder in program.ancestors().skip(1) {
        let folder = fs::metadata(folder).map_err(|_| "its folder is not there")?;
        // In a sticky folder nobody moves what is root's.
        let sticky = folder.permissions().mode() & 0o1000 != 0;
        let safe = is_ours(&folder) || (sticky && is_owned(&folder));
        if !safe {
            return Err("a folder above it does not belong to root alone");
        }
    }
    Ok(program)
}

fn is_ours(found: &fs::Metadata) -> bool {
    found.permissions().mode() & 0o022 == 0 && is_owned(found)
}

/// By root, or by who runs an agent below another root.
fn is_owned(found: &fs::Metadata) -> bool {
    found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw()
}

//! Programs of the administrator that the agent runs: after a renewal, and to remind people.

use std::fs;
use std::io::ErrorKind::TimedOut;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// One that takes longer is killed.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `program` with what it is told in its environment. What it does never undoes anything.
pub async fn run(program: &Path, told: &[(&str, String)]) {
    let name = program.display();
    if let Err(reason) = may_run(program) {
        tracing::warn!(event = "program-refused", program = %name, reason);
        return;
    }
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

/// It runs as root: nobody else may have written it, or put it in its place.
fn may_run(program: &Path) -> Result<(), &'static str> {
    let metadata = fs::metadata(program).map_err(|_| "it is not there")?;
    let mode = metadata.permissions().mode();
    if !metadata.is_file() || mode & 0o111 == 0 {
        Err("it is no program")
    } else if !is_ours(&metadata) {
        Err("it does not belong to root alone: others own it or can write it")
    } else {
        let folder = program.canonicalize().ok();
        let folder = folder.as_deref().and_then(Path::parent).map(fs::metadata);
        match folder {
            Some(Ok(folder)) if is_ours(&folder) => Ok(()),
            _ => Err("its folder does not belong to root alone"),
        }
    }
}

fn is_ours(found: &fs::Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    found.permissions().mode() & 0o022 == 0 && found.uid() == own
}

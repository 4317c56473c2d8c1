//! Diagnostics as a file of the user: the agent streams, and this process writes, with the user's own
//! rights.

use std::io::{BufWriter, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use domain::Timestamp;

use crate::agent::{Agent, AgentError};

/// Gives the file's path.
pub fn save(agent: &Agent, now: Timestamp) -> Result<PathBuf, AgentError> {
    save_in(&folder(), agent, now)
}

/// A file that is there is never overwritten, and what broke off is removed.
pub fn save_in(folder: &Path, agent: &Agent, now: Timestamp) -> Result<PathBuf, AgentError> {
    let stamp = now.strftime("%Y-%m-%d-%H%M%S");
    let path = folder.join(format!("perennial-diagnostics-{stamp}.zip"));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let text = format!("{} is there already", path.display());
                AgentError::Write(std::io::Error::new(ErrorKind::AlreadyExists, text))
            }
            _ => AgentError::Write(error),
        })?;
    let written = agent.diagnostics(&mut BufWriter::new(file));
    if written.is_err() {
        // The reason for the failure is what counts.
        let _ = std::fs::remove_file(&path);
    }
    written.map(|()| path)
}

/// Where browsers put files, too: the user's downloads, or the home folder.
fn folder() -> PathBuf {
    let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
    let configured = std::fs::read_to_string(home.join(".config/user-dirs.dirs")).ok();
    let named = configured.and_then(|text| downloads(&text, &home));
    [named, Some(home.join("Downloads"))]
        .into_iter()
        .flatten()
        .find(|folder| folder.is_dir())
        .unwrap_or(home)
}

/// Of the file that `xdg-user-dirs-update` writes.
fn downloads(text: &str, home: &Path) -> Option<PathBuf> {
    let value = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("XDG_DOWNLOAD_DIR="))?;
    let value = value.trim_matches('"');
    match value.strip_prefix("$HOME/") {
        Some(below) => Some(home.join(below)),
        None => Some(PathBuf::from(value)).filter(|path| path.is_absolute()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_desktop_says_where_downloads_are() {
        let home = Path::new("/home/ann");
        for (text, folder) in [
            (
                "# made\nXDG_DOWNLOAD_DIR=\"$HOME/Herunter geladen\"\n",
                Some("/home/ann/Herunter geladen"),
            ),
            ("XDG_DOWNLOAD_DIR=\"/data/ann\"", Some("/data/ann")),
            ("XDG_DOWNLOAD_DIR=\"elsewhere\"", None),
            ("", None),
        ] {
            assert_eq!(downloads(text, home), folder.map(PathBuf::from), "{text}");
        }
    }
}

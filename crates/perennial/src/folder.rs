//! The folder of a site: what lies where.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use domain::Pin;
use serde::{Deserialize, Serialize};
use transport::ServerAddress;
use zeroize::Zeroizing;

/// A site's folder.
#[derive(Debug, Clone)]
pub struct SiteFolder(PathBuf);

/// Where a running server listens; written when it is ready, removed when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub devices: ServerAddress,
    pub console: ServerAddress,
    pub pin: Pin,
    pub pid: u32,
}

/// The site in a folder is not running.
#[derive(Debug, thiserror::Error)]
#[error("the site in {0} is not running; start it: perennial serve --site {0}")]
pub struct NotRunning(String);

impl SiteFolder {
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self(folder.as_ref().to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn configuration(&self) -> PathBuf {
        self.0.join("perennial.toml")
    }

    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("site.db")
    }

    fn token_file(&self) -> PathBuf {
        self.0.join("administrator.token")
    }

    fn running_file(&self) -> PathBuf {
        self.0.join("running.json")
    }

    /// The first administrator's token, when it is (still) kept here.
    pub fn token(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        let file = self.token_file();
        if !file.exists() {
            return Ok(None);
        }
        let bytes = authority::read_secret(&file)?;
        let text = std::str::from_utf8(&bytes).context("the token's file holds no text")?;
        Ok(Some(Zeroizing::new(text.trim().to_owned())))
    }

    pub fn write_token(&self, secret: &str) -> anyhow::Result<()> {
        authority::write_secret(&self.token_file(), format!("{secret}\n").as_bytes())?;
        Ok(())
    }

    /// Holds the folder for one server: SQLite's records have one writer.
    ///
    /// # Errors
    /// When another server holds it.
    pub fn lock(&self) -> anyhow::Result<File> {
        let file = self.0.join("site.lock");
        let lock =
            File::create(&file).with_context(|| format!("cannot open {}", file.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => bail!(
                "another `perennial serve` runs this site already; a site on SQLite has one server \
                 (PostgreSQL allows any number)"
            ),
            Err(TryLockError::Error(error)) => Err(error).context("cannot lock the site's folder"),
        }
    }

    /// # Errors
    /// [`NotRunning`] when no server said where it listens.
    pub fn running(&self) -> anyhow::Result<Running> {
        let text = std::fs::read(self.running_file())
            .map_err(|_| NotRunning(self.0.display().to_string()))?;
        serde_json::from_slice(&text).context("running.json cannot be read")
    }

    pub fn set_running(&self, running: &Running) -> anyhow::Result<()> {
        let part = self.0.join(format!("running.{}.part", running.pid));
        std::fs::write(&part, serde_json::to_vec(running)?)?;
        std::fs::rename(&part, self.running_file())?;
        Ok(())
    }

    /// Removes what [`Self::set_running`] wrote, unless another node wrote after us.
    pub fn clear_running(&self, ours: &Running) {
        if self.running().is_ok_and(|found| found == *ours) {
            let _ = std::fs::remove_file(self.running_file());
        }
    }
}

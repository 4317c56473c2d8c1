//! What was deleted is forgotten, some time later, and so is the history of results.

use std::time::{Duration, Instant};

use store::{Actor, Applied, Kind};

use crate::{Result, Site};

/// How often a node looks.
const LOOK: Duration = Duration::from_secs(3600);
/// Results are looked through no more often, unless devices were forgotten: it reads all of them.
const BETWEEN: Duration = Duration::from_secs(7 * 86_400);
/// Between two steps, others write.
const PAUSE: Duration = Duration::from_millis(50);

impl Site {
    /// Forgets what is due, now and every hour, for ever; of results now and then.
    pub(crate) async fn purge_deleted(&self) {
        // Not when the site starts: it has enough to do then.
        let mut due = Instant::now() + LOOK;
        loop {
            // A clock that jumped forward must not forget a year at once.
            let purged = match self.require_clock() {
                Ok(()) => self.purge().await,
                Err(_) => Ok(false),
            };
            let purged = match purged {
                // What only they had goes with them.
                Ok(purged) if purged || Instant::now() >= due => {
                    due = Instant::now() + BETWEEN;
                    self.forget_results().await
                }
                other => other.map(drop),
            };
            if let Err(error) = purged {
                tracing::error!(event = "purge-failed", %error, "will be tried again");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn forget_results(&self) -> Result<()> {
        self.require_clock()?;
        let until = self.now() - self.0.settings.compliance_history.duration();
        let intervals = self.0.store.forget_history(until).await?;
        let texts = self.0.store.forget_values().await?;
        tracing::info!(event = "results-forgotten", intervals, texts);
        Ok(())
    }

    /// Removes devices whose retention is over, in steps that are each a commit of their own. Nodes
    /// that do it at the same time find nothing left. True when some were removed.
    async fn purge(&self) -> Result<bool> {
        let mut any = false;
        loop {
            let now = self.now();
            let settings = &self.0.settings;
            let kind = Kind::PurgeDevices {
                deleted_until: now - settings.deleted_device_retention.duration(),
                // Entries stay until one list after expiry (RFC 5280 section 3.3).
                expired_until: now - settings.crl_lifetime.duration(),
            };
            let Applied::Purged(purged) = self.commit(Actor::site(), kind).await? else {
                return Ok(any);
            };
            any |= purged.devices > 0;
            tracing::info!(
                event = "devices-purged",
                devices = purged.devices,
                certificates = purged.certificates,
                entries = purged.entries
            );
            if !purged.more {
                return Ok(any);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

//! What was deleted is forgotten, some time later.

use std::time::Duration;

use store::{Actor, Applied, Kind};

use crate::{Result, Site};

/// How often a node looks.
const LOOK: Duration = Duration::from_secs(3600);
/// Between two steps, others write.
const PAUSE: Duration = Duration::from_millis(50);

impl Site {
    /// Forgets what is due, now and every hour, for ever.
    pub(crate) async fn purge_deleted(&self) {
        loop {
            // A clock that jumped forward must not forget a year at once.
            let purged = match self.require_clock() {
                Ok(()) => self.purge().await,
                Err(_) => Ok(()),
            };
            if let Err(error) = purged {
                tracing::error!(event = "purge-failed", %error, "will be tried again");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Removes devices whose retention is over, in steps that are each a commit of their own. Nodes
    /// that do it at the same time find nothing left.
    async fn purge(&self) -> Result<()> {
        loop {
            let now = self.now();
            let settings = &self.0.settings;
            let kind = Kind::PurgeDevices {
                deleted_until: now - settings.deleted_device_retention.duration(),
                // Entries stay until one list after expiry (RFC 5280 section 3.3).
                expired_until: now - settings.crl_lifetime.duration(),
            };
            let Applied::Purged(purged) = self.commit(Actor::site(), kind).await? else {
                return Ok(());
            };
            tracing::info!(
                event = "devices-purged",
                devices = purged.devices,
                certificates = purged.certificates,
                entries = purged.entries
            );
            if !purged.more {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

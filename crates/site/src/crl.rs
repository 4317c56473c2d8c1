//! The revocation list: made at each revocation, and never later than half its life.

use std::time::Duration;

use authority::{CrlTemplate, Revoked};
use store::{Actor, Conflict, Crl, Kind};

use crate::{Error, Result, Site};

/// How often a node looks whether another one let the list grow old.
const LOOK: Duration = Duration::from_secs(2);

impl Site {
    /// The present revocation list.
    ///
    /// # Errors
    /// When none was made yet.
    pub async fn crl(&self) -> Result<Crl> {
        self.0
            .store
            .crl()
            .await?
            .ok_or_else(|| Error::NotFound("no revocation list was made yet".to_owned()))
    }

    /// Makes a list when there is none, when it is old, or when something was revoked since: also
    /// by a node that ended before it could publish.
    ///
    /// # Errors
    /// When the records cannot be reached.
    pub async fn refresh_crl(&self) -> Result<()> {
        if self.crl_is_due().await? {
            self.publish_crl().await
        } else {
            Ok(())
        }
    }

    /// Makes and publishes a new list.
    ///
    /// # Errors
    /// When the records cannot be reached.
    pub async fn publish_crl(&self) -> Result<()> {
        loop {
            let now = self.now();
            let number = self.0.store.crl().await?.map_or(1, |crl| crl.number + 1);
            let lifetime = self.0.settings.crl_lifetime.duration();
            let count = self.0.store.revocation_count().await?;
            // Entries stay until one list after expiry (RFC 5280 section 3.3).
            let revocations = self.0.store.revocations(now - lifetime).await?;
            let template = CrlTemplate {
                number: u64::try_from(number).unwrap_or(1),
                this_update: now,
                next_update: now + lifetime,
                revoked: revocations
                    .into_iter()
                    .map(|entry| Revoked {
                        serial: entry.serial,
                        at: entry.at,
                        reason: entry.reason,
                    })
                    .collect(),
            };
            let entries = template.revoked.len();
            let der = self
                .0
                .authority
                .sign_crl(&template)
                .map_err(|error| Error::Invalid(format!("the revocation list: {error}")))?;
            let kind = Kind::PublishCrl {
                number,
                this_update: template.this_update,
                next_update: template.next_update,
                revocations: count,
                der,
            };
            let change = store::Change {
                at: now,
                by: Actor::site(),
                kind,
            };
            match self.0.store.commit_one(change).await? {
                // Another node was faster; its list may not know our revocation yet.
                Err(Conflict::CrlNumber) => continue,
                outcome => outcome?,
            };
            tracing::info!(event = "crl-published", number, entries);
            return Ok(());
        }
    }

    /// Keeps the list fresh, for ever.
    pub(crate) async fn publish_crls(&self) {
        loop {
            if let Err(error) = self.refresh_crl().await {
                tracing::error!(event = "crl-not-published", %error, "will be tried again");
                tokio::time::sleep(LOOK).await;
            }
            tokio::select! {
                () = self.0.revoked.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn crl_is_due(&self) -> Result<bool> {
        let Some(crl) = self.0.store.crl().await? else {
            return Ok(true);
        };
        let life = crl.next_update.duration_since(crl.this_update);
        let unlisted = self.0.store.revocation_count().await? != crl.revocations;
        let now = self.now();
        // A list from the future was made by a clock that has been set back since.
        Ok(unlisted || now >= crl.this_update + life / 2 || now < crl.this_update)
    }
}

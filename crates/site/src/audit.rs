//! The audit log: reading it, proving it, and signing checkpoints over it.

use std::time::Duration;

use domain::Action;
use store::{AuditEvent, AuditProof, Checkpoint, Unavailable, checkpoint_message};

use crate::{Administrator, Page, Result, Site};

const CHECKPOINT: Duration = Duration::from_secs(3600);

impl Site {
    /// Events, newest first.
    ///
    /// # Errors
    /// When the role may not.
    pub async fn audit_events(
        &self,
        by: &Administrator,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Page<AuditEvent>> {
        by.require(Action::ReadAudit)?;
        Ok(self.0.store.audit_events(before, limit).await?)
    }

    /// Checks all chains and all checkpoints.
    ///
    /// # Errors
    /// When the role may not, or the records cannot be reached.
    pub async fn verify_audit(&self, by: &Administrator) -> Result<AuditProof> {
        by.require(Action::ReadAudit)?;
        let key = self.0.audit_key.spki_der();
        let holds = move |message: &[u8], signature: &[u8]| {
            x509::signature_matches(&key, message, signature)
        };
        Ok(self.0.store.verify_audit(&holds).await?)
    }

    pub(crate) async fn write_checkpoints(&self) {
        loop {
            tokio::time::sleep(CHECKPOINT).await;
            if let Err(error) = self.write_checkpoint().await {
                tracing::error!(event = "checkpoint-not-written", %error, "will be tried again");
            }
        }
    }

    pub(crate) async fn write_checkpoint(&self) -> std::result::Result<(), Unavailable> {
        let at = self.now();
        let message = checkpoint_message(at, &self.0.store.heads().await?);
        let signature = self.0.audit_key.sign(&message);
        self.0
            .store
            .record_checkpoint(&Checkpoint {
                number: 0,
                at,
                message,
                signature,
            })
            .await
    }
}

//! What administrators see and do of certificates.

use domain::{Action, Period, RevocationReason, SerialNumber, Timestamp};
use store::{Certificate, CertificateFilter, Kind};

use crate::{Administrator, Error, Page, Result, Site};

impl Site {
    /// # Errors
    /// When the role may not, or the page's beginning is none.
    pub async fn certificates(
        &self,
        by: &Administrator,
        filter: &CertificateFilter,
    ) -> Result<Page<Certificate>> {
        by.require(Action::ReadCertificates)?;
        Ok(self.0.store.certificates(filter).await?)
    }

    /// The span of time from now to `period` later, as this site's clock has it.
    pub fn within(&self, period: Period) -> (Timestamp, Timestamp) {
        let now = self.now();
        (now, now + period.duration())
    }

    /// # Errors
    /// When there is no such certificate.
    pub async fn certificate(
        &self,
        by: &Administrator,
        serial: SerialNumber,
    ) -> Result<Certificate> {
        by.require(Action::ReadCertificates)?;
        let found = self.0.store.certificate(serial).await?;
        found.ok_or_else(|| Error::NotFound(format!("there is no certificate {serial}")))
    }

    /// # Errors
    /// When there is no such certificate.
    pub async fn revoke_certificate(
        &self,
        by: &Administrator,
        serial: SerialNumber,
        reason: RevocationReason,
    ) -> Result<u64> {
        by.require(Action::RevokeCertificates)?;
        self.revoking(by, Kind::RevokeCertificate { serial, reason })
            .await
    }
}

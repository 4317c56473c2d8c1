//! A device renews after its certificate expired: within the profile's grace time, or once when an
//! administrator allows it. It proves its old key by a signature, as TLS lets it in no more.

use data_encoding::BASE64;
use domain::{Action, AfterExpiry, DeviceId, Period, Timestamp};
use protocol::{ProofPurpose, RenewExpired};
use store::Kind;
use x509::CertificateRequest;

use crate::device::DevicePrincipal;
use crate::{Address, Administrator, Error, IssuedCertificate, Result, Site};

impl Site {
    /// Renews the certificate whose key made the proof. One that did not expire is renewed as well: the
    /// device's clock may be wrong.
    ///
    /// # Errors
    /// When the proof does not hold, the device may do nothing, or the grace time is over and nobody
    /// allowed it.
    pub async fn renew_expired(
        &self,
        asked: &RenewExpired,
        address: Address,
    ) -> Result<IssuedCertificate> {
        let request = BASE64
            .decode(asked.request.as_bytes())
            .map_err(|_| Error::Invalid("the request is not base64".to_owned()))?;
        let request = CertificateRequest::from_der(&request)
            .map_err(|invalid| Error::Invalid(invalid.to_string()))?;
        let purpose = ProofPurpose::RenewExpired;
        let device = match self.prove(purpose, &asked.proof, &request, address).await? {
            Ok(device) => device,
            Err(refusal) => return Err(self.refuse(refusal, asked.proof.serial, address).await),
        };
        let after_expiry = match self.may_renew(&device) {
            // Its answer was lost: asking again costs nothing, though the time is over meanwhile.
            Err(Error::Expired(_)) if self.was_issued(&device, &request).await? => {
                Some(AfterExpiry::Grace)
            }
            may => may?,
        };
        self.renew_as(&device, &request, after_expiry).await
    }

    /// True when this device has a certificate for this key already: its answer was lost.
    pub(crate) async fn was_issued(
        &self,
        device: &DevicePrincipal,
        request: &CertificateRequest,
    ) -> Result<bool> {
        let found = self
            .0
            .store
            .certificate_of_key(device.device(), request.key())
            .await?;
        Ok(found.is_some())
    }

    /// Why this device's certificate may be renewed although it expired; none when it did not.
    fn may_renew(&self, device: &DevicePrincipal) -> Result<Option<AfterExpiry>> {
        let (now, standing) = (self.now(), &device.standing);
        let grace = self.0.settings.profile.grace;
        let within = |end: Timestamp| end > now;
        if within(standing.not_after) {
            Ok(None)
        } else if within(standing.not_after + grace.duration()) {
            Ok(Some(AfterExpiry::Grace))
        } else if standing.renewal_allowed_until.is_some_and(within) {
            Ok(Some(AfterExpiry::Permission))
        } else {
            let (id, end) = (standing.device, standing.not_after);
            let why = match grace.seconds() {
                0 => "the site has no grace time".to_owned(),
                _ => format!("the grace time ({grace}) is over"),
            };
            Err(Error::Expired(format!(
                "the certificate expired on {end} and {why}; an administrator can allow one renewal \
                 (perennial device allow-renewal {id}), or the user renews with the password"
            )))
        }
    }

    /// Lets this device renew once after its certificate expired, within `within` from now. It still
    /// has to prove its old key.
    ///
    /// # Errors
    /// When there is no such device, or it is not active.
    pub async fn allow_renewal(
        &self,
        by: &Administrator,
        device: DeviceId,
        within: Period,
    ) -> Result<Timestamp> {
        by.require(Action::AllowRenewal)?;
        if within.seconds() < 60 || within > LONGEST_PERMISSION {
            return Err(Error::Invalid(format!(
                "a permission lasts from 1m to {LONGEST_PERMISSION}"
            )));
        }
        let until = self.now() + within.duration();
        self.commit(by.actor(), Kind::AllowRenewal { device, until })
            .await?;
        Ok(until)
    }
}

/// A permission that nobody used must not lie about for ever.
const LONGEST_PERMISSION: Period = Period::from_days(365);

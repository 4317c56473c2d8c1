//! When a certificate should be renewed silently.

use domain::{
    CertificateState, DEFAULT_RENEWAL_PERIOD_1, DeviceState, Period, SerialNumber, Window,
};
use protocol::RenewalInfo;
use store::Standing;
use x509::RenewalId;

use crate::{DevicePrincipal, Error, Result, Site};

/// How soon a client asks again at the latest, and at the earliest.
const ASK_AGAIN: Period = Period::from_seconds(6 * 3600);
const ASK_AGAIN_EARLIEST: Period = Period::from_seconds(60);

impl Site {
    /// The window in which `device` should renew its certificate.
    pub fn renewal_info(&self, device: &DevicePrincipal) -> RenewalInfo {
        info(&device.standing)
    }

    /// The same for whoever names the certificate, and how long until asking again makes sense.
    /// Who knows the name knows the certificate: it has 16 random bytes.
    ///
    /// # Errors
    /// When `name` is none, or names no valid certificate of an active device of this site: why
    /// not is nobody's business here.
    pub async fn renewal_info_of(&self, name: &str) -> Result<(RenewalInfo, Period)> {
        let name: RenewalId = name
            .parse()
            .map_err(|error| Error::Invalid(format!("{error}")))?;
        let unknown =
            || Error::NotFound("this site has no such certificate that is valid".to_owned());
        if self.0.authority.issuing().key_identifier() != Some(&name.key_identifier[..]) {
            return Err(unknown());
        }
        let serial = SerialNumber::from_bytes(&name.serial).map_err(|_| unknown())?;
        let standing = self.0.store.standing(serial).await?.ok_or_else(unknown)?;
        if (standing.device_state, standing.certificate_state)
            != (DeviceState::Active, CertificateState::Valid)
        {
            return Err(unknown());
        }
        let info = info(&standing);
        let left = info.suggested_window.end.duration_since(self.now());
        let left = Period::from_seconds(u64::try_from(left.as_secs()).unwrap_or(0));
        Ok((info, left.clamp(ASK_AGAIN_EARLIEST, ASK_AGAIN)))
    }
}

/// The window of a certificate: its own, by the renewal period that its device reported last, or
/// where an administrator's order moves it.
fn info(standing: &Standing) -> RenewalInfo {
    let reported = standing.facts.renewal_period_1.map(Period::from_seconds);
    let own = Window::of_certificate(
        standing.issued_at,
        standing.not_after,
        reported.unwrap_or(DEFAULT_RENEWAL_PERIOD_1),
    );
    match &standing.ordered {
        Some(ordered) => RenewalInfo {
            suggested_window: own.moved_to(ordered.window),
            explanation_url: ordered.explanation_url.clone(),
        },
        None => RenewalInfo {
            suggested_window: own,
            explanation_url: None,
        },
    }
}

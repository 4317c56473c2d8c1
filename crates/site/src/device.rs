//! Which device is this, and may it do anything? Asked at each request, not only at the handshake:
//! one indexed read, so that whoever was blocked or revoked a moment ago is refused now.

use domain::{CertificateState, DeviceId, DeviceState, SerialNumber};
use store::{Actor, Standing};

use crate::{Address, Error, Result, Site};

/// A device that proved a valid certificate with mutual TLS.
#[derive(Debug, Clone)]
pub struct DevicePrincipal {
    pub(crate) standing: Standing,
    pub(crate) address: Address,
}

impl DevicePrincipal {
    pub fn device(&self) -> DeviceId {
        self.standing.device
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor::device(self.standing.device, self.address)
    }
}

impl Site {
    /// The device that showed the certificate `serial` (verified by TLS) on a connection from
    /// `address`.
    ///
    /// # Errors
    /// When the certificate is unknown, revoked, superseded or expired, or its device is not active.
    pub async fn authenticate_device(
        &self,
        serial: Option<SerialNumber>,
        address: Address,
    ) -> Result<DevicePrincipal> {
        let Some(serial) = serial else {
            return Err(Error::Unauthenticated(
                "this needs a client certificate of this site".to_owned(),
            ));
        };
        let Some(standing) = self.0.store.standing(serial).await? else {
            let reason = "this site has no record of this certificate; enroll again";
            return Err(self.refuse(serial, address, reason).await);
        };
        let reason = match (standing.device_state, standing.certificate_state) {
            (DeviceState::Blocked, _) => "the device is blocked; ask your administrator",
            (DeviceState::Retired, _) => "the device is retired; enroll again",
            (_, CertificateState::Revoked) => "the certificate is revoked; enroll again",
            (_, CertificateState::Superseded) => {
                "the certificate was replaced by a newer one that is in use; was this machine restored from a backup?"
            }
            (DeviceState::Active, CertificateState::Valid) if standing.not_after <= self.now() => {
                "the certificate has expired"
            }
            (DeviceState::Active, CertificateState::Valid) => {
                return Ok(DevicePrincipal { standing, address });
            }
        };
        Err(self.refuse(serial, address, reason).await)
    }

    async fn refuse(&self, serial: SerialNumber, address: Address, reason: &str) -> Error {
        let by = Actor::nobody(address);
        self.note(by, "device-refused", serial.to_string(), reason.to_owned())
            .await;
        Error::Forbidden(reason.to_owned())
    }
}

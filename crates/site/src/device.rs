//! Which device is this, and may it do anything? Asked at each request, not only at the handshake:
//! one indexed read, so that whoever was blocked or revoked a moment ago is refused now.

use domain::{CertificateState, DeviceId, DeviceState, SerialNumber};
use store::{Actor, Standing};

use crate::{Address, Error, Result, Site};

const BLOCKED: &str = "the device is blocked; ask your administrator";

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
        match self.judge(serial, address).await? {
            Ok(device) => Ok(device),
            Err(reason) => Err(self.refuse(serial, address, reason).await),
        }
    }

    /// The device that a connection proves beside a user's log-in. None when it shows no certificate,
    /// or one that is no longer good: then the log-in alone decides.
    ///
    /// # Errors
    /// When the device is blocked, whoever logs in on it.
    pub async fn proved_device(
        &self,
        serial: Option<SerialNumber>,
        address: Address,
    ) -> Result<Option<DevicePrincipal>> {
        let Some(serial) = serial else {
            return Ok(None);
        };
        match self.judge(serial, address).await? {
            Ok(device) => Ok(Some(device)),
            Err(reason) if reason == BLOCKED => Err(self.refuse(serial, address, reason).await),
            Err(_) => Ok(None),
        }
    }

    /// The device of a certificate, or why it may do nothing.
    async fn judge(
        &self,
        serial: SerialNumber,
        address: Address,
    ) -> Result<std::result::Result<DevicePrincipal, &'static str>> {
        let Some(standing) = self.0.store.standing(serial).await? else {
            return Ok(Err(
                "this site has no record of this certificate; enroll again",
            ));
        };
        Ok(match (standing.device_state, standing.certificate_state) {
            (DeviceState::Blocked, _) => Err(BLOCKED),
            (DeviceState::Retired, _) => Err("the device is retired; enroll again"),
            (DeviceState::Deleted, _) => Err("the device was deleted; enroll again"),
            (DeviceState::Obsolete, _) => {
                Err("the device was replaced by another record; enroll again")
            }
            (_, CertificateState::Revoked) => Err("the certificate is revoked; enroll again"),
            (_, CertificateState::Superseded) => Err(
                "the certificate was replaced by a newer one that is in use; was this machine restored from a backup?",
            ),
            (DeviceState::Active, CertificateState::Valid) if standing.not_after <= self.now() => {
                Err("the certificate has expired")
            }
            (DeviceState::Active, CertificateState::Valid) => {
                Ok(DevicePrincipal { standing, address })
            }
        })
    }

    async fn refuse(&self, serial: SerialNumber, address: Address, reason: &str) -> Error {
        let by = Actor::nobody(address);
        let subject = serial.to_string();
        self.note(by, address, "device-refused", subject, reason.to_owned())
            .await;
        Error::Forbidden(reason.to_owned())
    }
}

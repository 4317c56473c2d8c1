//! Which device is this, and may it do anything? Asked at each request, not only at the handshake:
//! one indexed read, so that whoever was blocked or revoked a moment ago is refused now.

use domain::{AlertKind, CertificateState, DeviceId, DeviceState, SerialNumber};
use store::{Actor, Kind, Note, Standing};

use crate::{Address, Error, Result, Site};

/// A device that proved the key of its certificate: with mutual TLS, or by a signature.
#[derive(Debug, Clone)]
pub struct DevicePrincipal {
    pub(crate) standing: Standing,
    pub(crate) address: Address,
}

impl DevicePrincipal {
    pub fn device(&self) -> DeviceId {
        self.standing.device
    }

    /// What the first use of its certificate does.
    pub(crate) fn first_use(&self) -> Kind {
        Kind::UseCertificate {
            serial: self.standing.serial,
            device: self.standing.device,
            spends_permission: self.standing.renewal_allowed_until.is_some(),
            takes_place_of: self.standing.predecessor,
        }
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
            Judgement::Good(device) => Ok(device),
            Judgement::Expired(_) => Err(self.refuse(Refusal::Expired, serial, address).await),
            Judgement::Refused(refusal) => Err(self.refuse(refusal, serial, address).await),
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
            Judgement::Good(device) => Ok(Some(device)),
            Judgement::Expired(_) => Ok(None),
            Judgement::Refused(refusal) => self.beside_a_log_in(refusal, serial, address).await,
        }
    }

    /// What a refused certificate means for the user who logs in: only a block stops everybody.
    pub(crate) async fn beside_a_log_in(
        &self,
        refusal: Refusal,
        serial: SerialNumber,
        address: Address,
    ) -> Result<Option<DevicePrincipal>> {
        match refusal {
            Refusal::Blocked => Err(self.refuse(refusal, serial, address).await),
            Refusal::Superseded(_) => {
                // The log-in decides, but somebody should know.
                let _refused = self.refuse(refusal, serial, address).await;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The device of a certificate, and what it may do.
    pub(crate) async fn judge(&self, serial: SerialNumber, address: Address) -> Result<Judgement> {
        let Some(standing) = self.0.store.standing(serial).await? else {
            return Ok(Judgement::Refused(Refusal::Unknown));
        };
        let refusal = match (standing.device_state, standing.certificate_state) {
            (DeviceState::Blocked, _) => Refusal::Blocked,
            (DeviceState::Retired, _) => Refusal::Retired,
            (DeviceState::Obsolete, _) => Refusal::Obsolete,
            (DeviceState::Deleted, _) => Refusal::Deleted,
            (DeviceState::Active, CertificateState::Revoked) => Refusal::Revoked,
            (DeviceState::Active, CertificateState::Superseded) => {
                Refusal::Superseded(standing.device)
            }
            (DeviceState::Active, CertificateState::Valid) => {
                let expired = standing.not_after <= self.now();
                let device = DevicePrincipal { standing, address };
                return Ok(match expired {
                    true => Judgement::Expired(device),
                    false => Judgement::Good(device),
                });
            }
        };
        Ok(Judgement::Refused(refusal))
    }

    /// Puts a refusal into the audit log, and raises an alert where somebody should look.
    pub(crate) async fn refuse(
        &self,
        refusal: Refusal,
        serial: SerialNumber,
        address: Address,
    ) -> Error {
        let by = Actor::nobody(address);
        let reason = refusal.to_string();
        // Serial numbers that are not ours anybody can make up: all of one address are one refusal.
        let what = match refusal {
            Refusal::Unknown => "unknown".to_owned(),
            _ => serial.to_string(),
        };
        let key = ("device-refused", what, address);
        self.note(by, key, &reason, |detail| match refusal {
            Refusal::Superseded(device) => Kind::RaiseAlert {
                alert: AlertKind::SupersededCertificateUsed,
                device,
                detail: format!("certificate {serial} came from {address}: {detail}"),
            },
            _ => Kind::Noted(Note {
                action: "device-refused",
                subject: serial.to_string(),
                detail,
            }),
        })
        .await;
        match refusal {
            Refusal::Expired => Error::Expired(reason),
            _ => Error::Forbidden(reason),
        }
    }
}

/// What a certificate is worth now.
pub(crate) enum Judgement {
    Good(DevicePrincipal),
    /// All is well but its date.
    Expired(DevicePrincipal),
    Refused(Refusal),
}

/// Why a device may do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this site has no record of this certificate; enroll again")]
    Unknown,
    #[error("the device is blocked; ask your administrator")]
    Blocked,
    #[error("the device is retired; enroll again")]
    Retired,
    #[error("the device was deleted; enroll again")]
    Deleted,
    #[error("the device was replaced by another record; enroll again")]
    Obsolete,
    #[error("the certificate is revoked; enroll again")]
    Revoked,
    #[error(
        "the certificate was replaced by a newer one that is in use; was this machine restored from a backup?"
    )]
    Superseded(DeviceId),
    #[error("the certificate has expired")]
    Expired,
    #[error("the certificate was never used; enroll again")]
    NeverUsed,
}

//! Reading revocation lists (RFC 5280 section 5).

use domain::{RevocationReason, SerialNumber, Timestamp};
use x509_parser::prelude::{CertificateRevocationList, FromDer};
use x509_parser::x509::ReasonCode;

/// What we read in a revocation list. Its signature is for verifiers to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateList {
    pub issuer: String,
    pub this_update: Timestamp,
    pub next_update: Option<Timestamp>,
    pub revoked: Vec<RevokedEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedEntry {
    pub serial: SerialNumber,
    pub at: Timestamp,
    pub reason: RevocationReason,
}

/// What was given is not a revocation list of a site.
#[derive(Debug, thiserror::Error)]
#[error("not a revocation list in DER")]
pub struct InvalidCrl;

impl CertificateList {
    /// # Errors
    /// When `der` is not one list, or an entry has no serial number of a site.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCrl> {
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| InvalidCrl)?;
        if !rest.is_empty() {
            return Err(InvalidCrl);
        }
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| InvalidCrl);
        let revoked = list
            .iter_revoked_certificates()
            .map(|entry| {
                Ok(RevokedEntry {
                    serial: SerialNumber::from_bytes(entry.raw_serial()).map_err(|_| InvalidCrl)?,
                    at: time(entry.revocation_date.timestamp())?,
                    reason: entry
                        .reason_code()
                        .map_or(RevocationReason::Unspecified, |(_, code)| reason(code)),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            issuer: list.issuer().to_string(),
            this_update: time(list.last_update().timestamp())?,
            next_update: list
                .next_update()
                .map(|at| time(at.timestamp()))
                .transpose()?,
            revoked,
        })
    }
}

fn reason(code: ReasonCode) -> RevocationReason {
    match code {
        ReasonCode::KeyCompromise => RevocationReason::KeyCompromise,
        ReasonCode::AffiliationChanged => RevocationReason::AffiliationChanged,
        ReasonCode::Superseded => RevocationReason::Superseded,
        ReasonCode::CessationOfOperation => RevocationReason::CessationOfOperation,
        ReasonCode::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        _ => RevocationReason::Unspecified,
    }
}

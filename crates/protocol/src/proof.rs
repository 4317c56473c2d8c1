//! Proof of a key whose certificate no longer opens a TLS connection: a signature over a new
//! request, the site's nonce and the site's name.

use data_encoding::BASE64;
use domain::{Pin, SerialNumber, Timestamp};
use serde::{Deserialize, Serialize};

/// `GET` gives a [`Challenge`]; `POST` takes a [`RenewExpired`] and gives a [`RenewedExpired`].
pub const RENEW_EXPIRED_PATH: &str = "/renew-expired";

/// Header of `simpleenroll`: the JSON of a [`Proof`] in base64, so that a user who logs in on a
/// computer whose certificate expired keeps its record.
pub const PROOF_HEADER: &str = "perennial-proof";

/// Header of `simpleenroll` with the value [`NEW_RECORD`]: the computer's identifier was removed, so
/// it gets a new record, and the one that it proves becomes obsolete.
pub const RECORD_HEADER: &str = "perennial-record";
pub const NEW_RECORD: &str = "new";

/// What a proof is for. A proof for one thing is worth nothing for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofPurpose {
    Enroll,
    RenewExpired,
}

/// From the site: good for an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    pub nonce: String,
    /// The site's time.
    pub time: Timestamp,
}

/// From the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The certificate whose key is proved.
    pub serial: SerialNumber,
    pub nonce: String,
    /// ECDSA with SHA-256 over [`proved_message`], ASN.1, in base64.
    pub signature: String,
}

impl Proof {
    /// As [`PROOF_HEADER`] carries it.
    pub fn to_header(&self) -> String {
        BASE64.encode(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads what [`Self::to_header`] wrote; none when it is something else.
    pub fn from_header(header: &[u8]) -> Option<Self> {
        serde_json::from_slice(&BASE64.decode(header).ok()?).ok()
    }
}

/// From the device: a request for a new key, and the proof of the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewExpired {
    /// PKCS#10, DER, in base64.
    pub request: String,
    pub proof: Proof,
}

/// From the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewedExpired {
    /// DER, in base64.
    pub certificate: String,
    pub time: Timestamp,
}

/// The bytes that a proof signs.
pub fn proved_message(
    purpose: ProofPurpose,
    site: Pin,
    nonce: &str,
    request_der: &[u8],
) -> Vec<u8> {
    let purpose = match purpose {
        ProofPurpose::Enroll => "enroll",
        ProofPurpose::RenewExpired => "renew-expired",
    };
    // Only the last part may hold any byte, so the parts cannot be shifted against each other.
    let mut message = format!("perennial key proof 1\n{purpose}\n{site}\n{nonce}\n").into_bytes();
    message.extend_from_slice(request_der);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_version_are_read() {
        let read: RenewExpired =
            serde_json::from_str(include_str!("../golden/renew-expired-1.json")).expect("reads");
        assert_eq!(read.proof.nonce, "nonce");
        let read: Challenge =
            serde_json::from_str(include_str!("../golden/challenge-1.json")).expect("reads");
        assert_eq!(read.nonce, "nonce");
    }

    #[test]
    fn a_proof_is_for_one_thing() {
        let site = Pin::new(domain::KeyDigest::new([7; 32]));
        let enroll = proved_message(ProofPurpose::Enroll, site, "n", b"r");
        let renew = proved_message(ProofPurpose::RenewExpired, site, "n", b"r");
        assert_ne!(enroll, renew);
    }
}

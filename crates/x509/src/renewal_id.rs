//! What names a certificate when somebody asks when to renew it (RFC 9773 section 4.1).

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

/// The key identifier of a certificate's issuer, and its serial number. As text: both in base64url
/// without padding, with a full stop between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalId {
    pub key_identifier: Vec<u8>,
    /// The content octets of the DER integer, with their leading zero where there is one.
    pub serial: Vec<u8>,
}

/// What was given names no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a certificate is named by the key identifier of its issuer and its serial number, both in base64url without padding, with a full stop between them (RFC 9773 section 4.1)"
)]
pub struct InvalidRenewalId;

impl RenewalId {
    /// No longer text is looked at: more than any key identifier and serial number need.
    const LONGEST: usize = 256;
}

impl fmt::Display for RenewalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}",
            BASE64URL_NOPAD.encode(&self.key_identifier),
            BASE64URL_NOPAD.encode(&self.serial)
        )
    }
}

impl FromStr for RenewalId {
    type Err = InvalidRenewalId;

    fn from_str(given: &str) -> Result<Self, InvalidRenewalId> {
        if given.len() > Self::LONGEST {
            return Err(InvalidRenewalId);
        }
        let (key, serial) = given.split_once('.').ok_or(InvalidRenewalId)?;
        let decode = |text: &str| match BASE64URL_NOPAD.decode(text.as_bytes()) {
            Ok(bytes) if !bytes.is_empty() => Ok(bytes),
            _ => Err(InvalidRenewalId),
        };
        Ok(Self {
            key_identifier: decode(key)?,
            serial: decode(serial)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Certificate;

    /// RFC 9773 appendix A.
    const EXAMPLE: &str = "-----BEGIN CERTIFICATE-----
MIIBQzCB66ADAgECAgUAh2VDITAKBggqhkjOPQQDAjAVMRMwEQYDVQQDEwpFeGFt
cGxlIENBMCIYDzAwMDEwMTAxMDAwMDAwWhgPMDAwMTAxMDEwMDAwMDBaMBYxFDAS
BgNVBAMTC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeBZu
7cbpAYNXZLbbh8rNIzuOoqOOtmxA1v7cRm//AwyMwWxyHz4zfwmBhcSrf47NUAFf
qzLQ2PPQxdTXREYEnKMjMCEwHwYDVR0jBBgwFoAUaYhba4dGQEHhs3uEe6CuLN4B
yNQwCgYIKoZIzj0EAwIDRwAwRAIge09+S5TZAlw5tgtiVvuERV6cT4mfutXIlwTb
+FYN/8oCIClDsqBklhB9KAelFiYt9+6FDj3z4KGVelYM5MdsO3pK
-----END CERTIFICATE-----
";

    #[test]
    fn the_rfcs_example() {
        let ders = crate::certificates_from_pem(EXAMPLE.as_bytes()).expect("PEM");
        let certificate = Certificate::from_der(&ders[0]).expect("a certificate");
        let id = certificate.renewal_id().expect("has an authority");
        assert_eq!(id.to_string(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn what_names_no_certificate_is_refused() {
        let long = format!("{}.AIdlQyE", "A".repeat(400));
        for bad in [
            "",
            ".",
            "aYhba4dGQEHhs3uEe6CuLN4ByNQ",
            "aYhba4dGQEHhs3uEe6CuLN4ByNQ.",
            ".AIdlQyE",
            "aYhba4dGQEHhs3uEe6CuLN4ByNQ=.AIdlQyE=",
            "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE.AIdlQyE",
            "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyF",
            "aYhba4dGQEHhs3uEe6CuLN4B/NQ.AIdlQyE",
            &long,
        ] {
            assert_eq!(bad.parse::<RenewalId>(), Err(InvalidRenewalId), "{bad}");
        }
    }
}

//! Identifiers: each is its own type, parsed where it enters.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What was given is not an identifier of the kind that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {expected}")]
pub struct InvalidIdentifier {
    given: String,
    expected: &'static str,
}

impl InvalidIdentifier {
    fn new(given: &str, expected: &'static str) -> Self {
        // An error text never repeats more of a stranger's input than a person would read.
        let given = given.chars().take(80).filter(|c| !c.is_control()).collect();
        Self { given, expected }
    }
}

/// Names a device for ever. The site assigns it at the first enrollment; certificates carry it in
/// their subject alternative name `urn:uuid:…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(Uuid);

impl DeviceId {
    /// Makes an identifier (UUID version 8, RFC 9562 section 5.8) out of 16 bytes.
    pub fn from_entropy(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads back what [`Self::as_bytes`] gave, as stored.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidIdentifier> {
        Uuid::from_slice(bytes)
            .map(Self)
            .map_err(|_| InvalidIdentifier::new("(bytes)", "a device identifier of 16 bytes"))
    }

    /// The URI that a certificate carries for this device (RFC 9562 section 4).
    pub fn urn(&self) -> String {
        format!("urn:uuid:{self}")
    }

    /// Reads the URI that [`Self::urn`] writes.
    pub fn from_urn(urn: &str) -> Result<Self, InvalidIdentifier> {
        urn.strip_prefix("urn:uuid:")
            .ok_or_else(|| InvalidIdentifier::new(urn, "a `urn:uuid:` name"))?
            .parse()
    }

    /// The form that a client keeps in its preferences.
    pub fn smsid(&self) -> Smsid {
        Smsid(*self)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hyphenated())
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

impl FromStr for DeviceId {
    type Err = InvalidIdentifier;

    /// Takes the bare UUID and the client's form `GUID:…`, in either case of letters.
    fn from_str(given: &str) -> Result<Self, InvalidIdentifier> {
        let uuid = given.strip_prefix("GUID:").unwrap_or(given);
        Uuid::try_parse(uuid).map(Self).map_err(|_| {
            InvalidIdentifier::new(given, "a device identifier (a UUID, or GUID: and a UUID)")
        })
    }
}

/// A [`DeviceId`] as the incumbent's clients write it: `GUID:` and an upper-case UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Smsid(DeviceId);

impl Smsid {
    pub fn device(&self) -> DeviceId {
        self.0
    }
}

impl fmt::Display for Smsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GUID:{}", self.0.to_string().to_uppercase())
    }
}

impl fmt::Debug for Smsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Smsid({self})")
    }
}

impl FromStr for Smsid {
    type Err = InvalidIdentifier;

    fn from_str(given: &str) -> Result<Self, InvalidIdentifier> {
        given.trim().parse().map(Self)
    }
}

/// The serial number of a certificate that we issued: 16 bytes, the first between 0x40 and 0x7f, so
/// that it is positive and of one length (RFC 5280 section 4.1.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SerialNumber([u8; 16]);

impl SerialNumber {
    pub fn from_entropy(mut bytes: [u8; 16]) -> Self {
        bytes[0] = (bytes[0] & 0x3f) | 0x40;
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the integer's content octets as a certificate carries them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidIdentifier> {
        bytes.try_into().map(Self).map_err(|_| {
            InvalidIdentifier::new(
                &HEXLOWER.encode(bytes),
                "a serial number of this site (16 bytes)",
            )
        })
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SerialNumber({self})")
    }
}

impl FromStr for SerialNumber {
    type Err = InvalidIdentifier;

    /// Takes hexadecimal digits in either case, with or without the colons that other tools print.
    fn from_str(given: &str) -> Result<Self, InvalidIdentifier> {
        parse_hex(given)
            .map(Self)
            .ok_or_else(|| InvalidIdentifier::new(given, "a serial number (32 hexadecimal digits)"))
    }
}

/// SHA-256 of a public key (its DER SubjectPublicKeyInfo): names a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidIdentifier> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| InvalidIdentifier::new("(bytes)", "a SHA-256 digest of 32 bytes"))
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({self})")
    }
}

/// The public key of a site's root, by which a client knows the site: `sha256:` and 64 digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pin(KeyDigest);

impl Pin {
    pub fn new(root_key: KeyDigest) -> Self {
        Self(root_key)
    }

    pub fn key(&self) -> KeyDigest {
        self.0
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl FromStr for Pin {
    type Err = InvalidIdentifier;

    fn from_str(given: &str) -> Result<Self, InvalidIdentifier> {
        given
            .trim()
            .strip_prefix("sha256:")
            .and_then(parse_hex)
            .map(|digest| Self(KeyDigest(digest)))
            .ok_or_else(|| {
                InvalidIdentifier::new(given, "a pin (`sha256:` and 64 hexadecimal digits)")
            })
    }
}

/// SHA-256 of an access token's secret: what is stored, so that a stolen database opens no door.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn parse_hex<const N: usize>(given: &str) -> Option<[u8; N]> {
    let digits: String = given.trim().chars().filter(|c| *c != ':').collect();
    let bytes = data_encoding::HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .ok()?;
    bytes.try_into().ok()
}

crate::serde_as_text!(SerialNumber, Pin, Smsid);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_name_in_three_forms() {
        let device = DeviceId::from_entropy([0xab; 16]);
        let smsid = device.smsid().to_string();
        assert_eq!(smsid, "GUID:ABABABAB-ABAB-8BAB-ABAB-ABABABABABAB");
        assert_eq!(smsid.parse(), Ok(device));
        assert_eq!(DeviceId::from_urn(&device.urn()), Ok(device));
        assert_eq!(device.to_string().parse(), Ok(device));
    }

    #[test]
    fn what_is_no_identifier_is_refused_with_the_form_that_is_expected() {
        for given in [
            "",
            "GUID:",
            "guid:abababab-abab-8bab-abab-abababababab",
            "' or 1=1 --",
        ] {
            let error = given.parse::<DeviceId>().expect_err(given);
            assert!(error.to_string().contains("a device identifier"), "{error}");
        }
        assert!("sha256:12".parse::<Pin>().is_err());
        assert!("".parse::<SerialNumber>().is_err());
    }

    #[test]
    fn a_serial_number_is_positive_and_reads_back_with_colons() {
        for first in [0x00, 0x7f, 0x80, 0xff] {
            let mut bytes = [0x5a; 16];
            bytes[0] = first;
            let serial = SerialNumber::from_entropy(bytes);
            assert!((0x40..=0x7f).contains(&serial.as_bytes()[0]));
            let digits = serial.to_string().to_uppercase();
            let pairs: Vec<_> = digits
                .as_bytes()
                .chunks(2)
                .map(String::from_utf8_lossy)
                .collect();
            assert_eq!(pairs.join(":").parse(), Ok(serial));
        }
    }
}

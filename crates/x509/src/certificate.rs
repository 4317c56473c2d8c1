//! Reading certificates.

use crate::RenewalId;
use domain::{DeviceId, KeyDigest, SerialNumber, Timestamp};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// What we read in a certificate. Trust is a separate question, answered by TLS or by
/// [`Certificate::is_signed_by`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    subject: String,
    issuer: String,
    serial: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
    key: KeyDigest,
    spki_der: Vec<u8>,
    is_ca: bool,
    signs_policy: bool,
    device: Option<DeviceId>,
    authority_key: Option<Vec<u8>>,
    subject_key: Option<Vec<u8>>,
}

/// What was given is not an X.509 certificate in DER.
#[derive(Debug, thiserror::Error)]
#[error("not an X.509 certificate")]
pub struct InvalidCertificate;

impl Certificate {
    /// # Errors
    /// When `der` is not one certificate, to its last byte.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| InvalidCertificate)?;
        if !rest.is_empty() {
            return Err(InvalidCertificate);
        }
        let time = |t: x509_parser::time::ASN1Time| {
            Timestamp::from_second(t.timestamp()).map_err(|_| InvalidCertificate)
        };
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: parsed.raw_serial().to_vec(),
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            key: crate::key_digest(parsed.public_key().raw),
            spki_der: parsed.public_key().raw.to_vec(),
            is_ca: parsed.is_ca(),
            signs_policy: signs_policy(&parsed),
            device: device_of(&parsed),
            authority_key: authority_key(&parsed),
            subject_key: subject_key(&parsed),
            der: der.to_vec(),
        })
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub fn to_pem(&self) -> String {
        crate::certificates_to_pem([self.der()])
    }

    /// The subject's distinguished name, for people.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The serial number, when it has the form that a site gives.
    pub fn serial(&self) -> Option<SerialNumber> {
        SerialNumber::from_bytes(&self.serial).ok()
    }

    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The digest that names its public key.
    pub fn key(&self) -> KeyDigest {
        self.key
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    pub fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// True when it is for signing a site's policy, and for nothing else: its one extended key usage is
    /// code signing (RFC 5280 section 4.2.1.12), which no server and no client has.
    pub fn signs_policy(&self) -> bool {
        self.signs_policy
    }

    /// The device that it names in its subject alternative name `urn:uuid:…`.
    pub fn device(&self) -> Option<DeviceId> {
        self.device
    }

    /// The identifier of its own key, as its subject key identifier has it.
    pub fn key_identifier(&self) -> Option<&[u8]> {
        self.subject_key.as_deref()
    }

    /// What names it when somebody asks when to renew it; none without an authority key identifier.
    pub fn renewal_id(&self) -> Option<RenewalId> {
        Some(RenewalId {
            key_identifier: self.authority_key.clone()?,
            serial: self.serial.clone(),
        })
    }

    /// True when `issuer`'s key made the signature on this certificate.
    pub fn is_signed_by(&self, issuer: &Certificate) -> bool {
        let parse = |der| X509Certificate::from_der(der).map(|(_, parsed)| parsed);
        match (parse(self.der()), parse(issuer.der())) {
            (Ok(leaf), Ok(issuer)) => leaf.verify_signature(Some(issuer.public_key())).is_ok(),
            _ => false,
        }
    }
}

fn device_of(certificate: &X509Certificate<'_>) -> Option<DeviceId> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().find_map(|name| match name {
                    GeneralName::URI(uri) => DeviceId::from_urn(uri).ok(),
                    _ => None,
                })
            }
            _ => None,
        })
}

fn signs_policy(certificate: &X509Certificate<'_>) -> bool {
    let Ok(Some(usage)) = certificate.extended_key_usage() else {
        return false;
    };
    let usage = usage.value;
    let others = usage.any
        || usage.server_auth
        || usage.client_auth
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    usage.code_signing && !others
}

fn authority_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(identifier) => {
                Some(identifier.key_identifier.as_ref()?.0.to_vec())
            }
            _ => None,
        })
}

fn subject_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        })
}

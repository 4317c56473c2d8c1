//! Certificate requests (PKCS#10, RFC 2986). Only the public key of a request is ever used; what
//! else it asks for is read so that the difference can be audited.

use std::fmt;

use data_encoding::BASE64;
use domain::KeyDigest;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::PrivateKey;

/// A request whose signature was verified: whoever sent it holds the private key.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    spki_der: Vec<u8>,
    der: Vec<u8>,
    key: KeyDigest,
    key_type: KeyType,
    wishes: Wishes,
}

/// Kinds of public keys that a site can certify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    P256,
    P384,
    /// With its length in bits.
    Rsa(usize),
}

/// What a request asks for beside its key. Never granted; the enrollment profile decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    pub subject: String,
    pub ca: bool,
    pub alternative_names: Vec<String>,
}

/// One sentence that says what is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    #[error("the request is empty")]
    Empty,
    #[error("the request is not base64")]
    Base64,
    #[error("the request is not a PKCS#10 certificate request in DER")]
    Structure,
    #[error("the request's signature does not match its public key")]
    Signature,
    #[error(
        "the request's public key is of a kind that is not accepted (P-256, P-384, RSA 2048 to 4096)"
    )]
    KeyType,
}

impl CertificateRequest {
    /// Reads the body of an EST request: base64, wrapped or not; PEM armour is tolerated.
    ///
    /// # Errors
    /// When it is anything else, or its signature does not verify.
    pub fn from_body(body: &[u8]) -> Result<Self, InvalidRequest> {
        let text = std::str::from_utf8(body).map_err(|_| InvalidRequest::Base64)?;
        let base64: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("-----"))
            .flat_map(str::chars)
            .filter(|c| !c.is_ascii_whitespace())
            .collect();
        if base64.is_empty() {
            return Err(InvalidRequest::Empty);
        }
        let der = BASE64
            .decode(base64.as_bytes())
            .map_err(|_| InvalidRequest::Base64)?;
        Self::from_der(&der)
    }

    /// # Errors
    /// When `der` is not one request to its last byte, its signature does not verify, or its key is
    /// of a kind that no profile accepts.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidRequest> {
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| InvalidRequest::Structure)?;
        if !rest.is_empty() {
            return Err(InvalidRequest::Structure);
        }
        let spki = &request.certification_request_info.subject_pki;
        let key_type = KeyType::of(spki)?;
        request
            .verify_signature()
            .map_err(|_| InvalidRequest::Signature)?;
        Ok(Self {
            der: der.to_vec(),
            spki_der: spki.raw.to_vec(),
            key: crate::key_digest(spki.raw),
            key_type,
            wishes: Wishes::of(&request),
        })
    }

    /// The whole request, as it came.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The digest that names the public key.
    pub fn key(&self) -> KeyDigest {
        self.key
    }

    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }
}

impl KeyType {
    fn of(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, InvalidRequest> {
        const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
        const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";
        let unsupported = InvalidRequest::KeyType;
        let algorithm = spki.algorithm.algorithm.to_id_string();
        let curve = || {
            let parameters = spki.algorithm.parameters.as_ref()?;
            Some(parameters.as_oid().ok()?.to_id_string())
        };
        match (algorithm.as_str(), spki.parsed().map_err(|_| unsupported)?) {
            (EC_PUBLIC_KEY, PublicKey::EC(point)) => match (curve().as_deref(), point.data().len())
            {
                // Uncompressed points alone (RFC 5480 section 2.2 lets a CA choose).
                (Some("1.2.840.10045.3.1.7"), 65) => Ok(Self::P256),
                (Some("1.3.132.0.34"), 97) => Ok(Self::P384),
                _ => Err(unsupported),
            },
            (RSA_ENCRYPTION, PublicKey::RSA(rsa)) => {
                let bits = rsa.key_size();
                let exponent = rsa.try_exponent().map_err(|_| unsupported)?;
                if (2048..=4096).contains(&bits)
                    && bits % 8 == 0
                    && exponent >= 65_537
                    && exponent % 2 == 1
                {
                    Ok(Self::Rsa(bits))
                } else {
                    Err(unsupported)
                }
            }
            _ => Err(unsupported),
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
        }
    }
}

impl Wishes {
    fn of(request: &X509CertificationRequest<'_>) -> Self {
        let mut wishes = Self {
            subject: short(&request.certification_request_info.subject.to_string()),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::BasicConstraints(constraints) => wishes.ca |= constraints.ca,
                ParsedExtension::SubjectAlternativeName(names) => wishes.alternative_names.extend(
                    names
                        .general_names
                        .iter()
                        .take(8)
                        .map(|name| short(&name.to_string())),
                ),
                _ => {}
            }
        }
        wishes
    }
}

/// Strangers' text for the audit log: bounded, printable.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Writes a request for `key`, signed by it. The site takes nothing from it but the key; the name
/// is for people who read it on the way, and may be empty.
pub fn request_der(key: &PrivateKey, common_name: &str) -> Vec<u8> {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    if !common_name.is_empty() {
        let name = rcgen::DnType::CommonName;
        parameters.distinguished_name.push(name, common_name);
    }
    let request = parameters.serialize_request(key.as_rcgen());
    request
        .expect("a request of a name and a key can always be written")
        .der()
        .to_vec()
}

/// [`request_der`] as PEM.
pub fn request_pem(key: &PrivateKey, common_name: &str) -> String {
    crate::pem::armoured("CERTIFICATE REQUEST", &request_der(key, common_name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa};

    use super::*;

    #[test]
    fn a_request_gives_its_key_and_its_wishes() {
        let key = PrivateKey::generate();
        let mut parameters = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = parameters
            .serialize_request(key.as_rcgen())
            .unwrap()
            .der()
            .to_vec();
        let request = CertificateRequest::from_der(&der).unwrap();
        assert_eq!(request.key(), key.digest());
        assert_eq!(request.key_type(), KeyType::P256);
        assert_eq!(request.wishes().alternative_names.len(), 1);
    }

    #[test]
    fn bodies_in_every_form_that_clients_send() {
        let key = PrivateKey::generate();
        let pem = request_pem(&key, "mac-1");
        let der = request_der(&key, "mac-1");
        let flat = BASE64.encode(&der);
        for body in [
            pem.clone(),
            pem.replace('\n', "\r\n"),
            flat.clone(),
            format!("{flat}\n"),
        ] {
            assert_eq!(
                CertificateRequest::from_body(body.as_bytes())
                    .unwrap()
                    .key(),
                key.digest()
            );
        }
    }

    #[test]
    fn bad_bodies_get_their_sentence() {
        let mut forged = request_der(&PrivateKey::generate(), "a");
        *forged.last_mut().unwrap() ^= 1;
        let mut longer = request_der(&PrivateKey::generate(), "a");
        longer.push(0);
        let rows: [(&[u8], InvalidRequest); 5] = [
            (b" \r\n", InvalidRequest::Empty),
            (b"*not base64*", InvalidRequest::Base64),
            (b"\xff\xfe", InvalidRequest::Base64),
            (b"aGVsbG8=", InvalidRequest::Structure),
            (
                BASE64.encode(&longer).leak().as_bytes(),
                InvalidRequest::Structure,
            ),
        ];
        for (body, expected) in rows {
            assert_eq!(CertificateRequest::from_body(body).unwrap_err(), expected);
        }
        assert_eq!(
            CertificateRequest::from_der(&forged).unwrap_err(),
            InvalidRequest::Signature
        );
    }

    proptest! {
        /// Whatever a mutation does, the reader neither panics nor certifies another key. (The
        /// outermost tags are outside of the signature: a flipped bit there may be forgiven.)
        #[test]
        fn mutations_never_give_another_key(at in 0usize..200, bit in 0u8..8, cut in 0usize..200) {
            let key = PrivateKey::generate();
            let mut der = request_der(&key, "mac-1");
            let at = at % der.len();
            der[at] ^= 1 << bit;
            if let Ok(request) = CertificateRequest::from_der(&der) {
                prop_assert_eq!(request.key(), key.digest());
            }
            der[at] ^= 1 << bit;
            let cut = cut % der.len();
            prop_assert!(CertificateRequest::from_der(&der[..cut]).is_err());
        }
    }
}

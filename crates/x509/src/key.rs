//! A private key that lives in a file: P-256, PKCS#8.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use domain::KeyDigest;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData};
use zeroize::Zeroizing;

/// A P-256 private key. Never printed; its PEM is wiped from memory when dropped.
pub struct PrivateKey(rcgen::KeyPair);

/// What was read is not a private key that we can use.
#[derive(Debug, thiserror::Error)]
#[error("not a private key in PEM that this program can use")]
pub struct InvalidKey;

impl PrivateKey {
    /// Makes a new P-256 key out of the operating system's randomness.
    pub fn generate() -> Self {
        Self(
            rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                .expect("a P-256 key can always be made"),
        )
    }

    /// # Errors
    /// When `pem` is not one PKCS#8 private key.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        rcgen::KeyPair::from_pem(pem)
            .map(Self)
            .map_err(|_| InvalidKey)
    }

    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// PKCS#8 DER, for the TLS library.
    pub fn to_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// The digest that names this key's public half.
    pub fn digest(&self) -> KeyDigest {
        crate::key_digest(&self.spki_der())
    }

    /// Signs `message` (ECDSA with SHA-256, ASN.1).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        rcgen::SigningKey::sign(&self.0, message).expect("a P-256 key can always sign")
    }

    /// For the crates that issue with it.
    pub fn as_rcgen(&self) -> &rcgen::KeyPair {
        &self.0
    }
}

/// True when the P-256 key `spki_der` made `signature` over `message`.
pub fn signature_matches(spki_der: &[u8], message: &[u8], signature: &[u8]) -> bool {
    use x509_parser::prelude::FromDer;
    let Ok((_, spki)) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki_der) else {
        return false;
    };
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki.subject_public_key.data);
    key.verify(message, signature).is_ok()
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(public key {})", self.digest())
    }
}

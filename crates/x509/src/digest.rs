//! SHA-256 and the digests that name keys.

use aws_lc_rs::{digest, hmac};
use domain::KeyDigest;

/// SHA-256 of the concatenation of `parts`.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// HMAC-SHA-256 of `message` (RFC 2104).
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// True when `tag` is the HMAC-SHA-256 of `message`; in a time that tells nothing of it.
pub fn hmac_sha256_matches(key: &[u8], message: &[u8], tag: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::verify(&key, message, tag).is_ok()
}

/// The digest that names a public key: SHA-256 of its DER SubjectPublicKeyInfo.
pub fn key_digest(spki_der: &[u8]) -> KeyDigest {
    KeyDigest::new(sha256(&[spki_der]))
}

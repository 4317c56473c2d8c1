//! SHA-256 and the digests that name keys.

use aws_lc_rs::digest;
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

/// The digest that names a public key: SHA-256 of its DER SubjectPublicKeyInfo.
pub fn key_digest(spki_der: &[u8]) -> KeyDigest {
    KeyDigest::new(sha256(&[spki_der]))
}

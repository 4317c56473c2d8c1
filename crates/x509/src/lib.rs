//! Requests, certificates, PKCS#7 and pins: what both the site and its clients read and write.
//! Nothing here issues: that is `authority`'s alone.

mod bundle;
mod certificate;
mod crl;
mod digest;
mod key;
mod pem;
mod policy;
mod renewal_id;
mod request;

pub use bundle::{InvalidBundle, certs_only_from_base64, certs_only_to_base64};
pub use certificate::{Certificate, InvalidCertificate};
pub use crl::{CertificateList, InvalidCrl, RevokedEntry};
pub use digest::{hmac_sha256, hmac_sha256_matches, key_digest, sha256};
pub use key::{InvalidKey, PrivateKey, signature_matches};
pub use pem::{certificates_from_pem, certificates_to_pem};
pub use policy::{
    PolicySignatureError, policy_certificate, verify_policy, verify_policy_signature,
};
pub use renewal_id::{InvalidRenewalId, RenewalId};
pub use request::{CertificateRequest, InvalidRequest, KeyType, Wishes, request_der, request_pem};

/// What tests of other crates need; nothing that a program uses.
#[doc(hidden)]
pub mod testing {
    /// A self-signed certificate (DER).
    pub fn self_signed(key: &crate::PrivateKey) -> Vec<u8> {
        let parameters = rcgen::CertificateParams::default();
        let signed = parameters.self_signed(key.as_rcgen());
        signed
            .expect("a key can sign its own certificate")
            .der()
            .to_vec()
    }
}

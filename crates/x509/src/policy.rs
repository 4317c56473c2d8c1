//! The certificate that signs a site's policy: directly under the root, for nothing else.

use domain::{Pin, Timestamp};

use crate::{Certificate, signature_matches};

/// Why a signature is not the site's policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicySignatureError {
    #[error("its certificates cannot be read")]
    Chain,
    #[error("it was signed under the root of another site")]
    OtherSite,
    #[error("its certificate was not signed by the site's root")]
    NotUnderRoot,
    #[error("its certificate is not one for signing policy")]
    Purpose,
    #[error("its certificate is not valid before {0}")]
    NotYet(Timestamp),
    #[error("its certificate ended {0}")]
    Ended(Timestamp),
    #[error("its signature does not match: it was changed on its way")]
    Signature,
}

/// Checks that `signature` over `message` was made with a policy key of the site whose root is pinned.
/// `chain`: the policy certificate and the root, DER. Returns the policy certificate.
///
/// `now` is the verifier's best knowledge of the time.
///
/// # Errors
/// When anything of it is not so.
pub fn verify_policy(
    pin: Pin,
    chain: &[Vec<u8>],
    message: &[u8],
    signature: &[u8],
    now: Timestamp,
) -> Result<Certificate, PolicySignatureError> {
    let policy = policy_certificate(pin, chain, now)?;
    verify_policy_signature(&policy, message, signature)?;
    Ok(policy)
}

/// The first half of [`verify_policy`]: what does not change between the documents of one signer.
///
/// # Errors
/// When the chain is not one of the site, for this purpose, at this time.
pub fn policy_certificate(
    pin: Pin,
    chain: &[Vec<u8>],
    now: Timestamp,
) -> Result<Certificate, PolicySignatureError> {
    let [policy, root] = chain else {
        return Err(PolicySignatureError::Chain);
    };
    let read = |der: &[u8]| Certificate::from_der(der).map_err(|_| PolicySignatureError::Chain);
    let (policy, root) = (read(policy)?, read(root)?);
    if Pin::new(root.key()) != pin || !root.is_signed_by(&root) {
        return Err(PolicySignatureError::OtherSite);
    }
    if !policy.is_signed_by(&root) {
        return Err(PolicySignatureError::NotUnderRoot);
    }
    if policy.is_ca() || !policy.signs_policy() {
        return Err(PolicySignatureError::Purpose);
    }
    if now < policy.not_before() {
        return Err(PolicySignatureError::NotYet(policy.not_before()));
    }
    if now > policy.not_after() {
        return Err(PolicySignatureError::Ended(policy.not_after()));
    }
    Ok(policy)
}

/// The second half: `policy` came from [`policy_certificate`].
///
/// # Errors
/// When the signature is not its key's.
pub fn verify_policy_signature(
    policy: &Certificate,
    message: &[u8],
    signature: &[u8],
) -> Result<(), PolicySignatureError> {
    if signature_matches(policy.spki_der(), message, signature) {
        Ok(())
    } else {
        Err(PolicySignatureError::Signature)
    }
}

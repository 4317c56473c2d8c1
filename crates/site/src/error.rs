//! Why a use case was refused. One table maps these to HTTP for all faces.

use domain::{Period, Timestamp};
use store::Unavailable;

/// A refusal, in words for the person or program that asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong in itself.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    TooLarge(String),
    /// Nobody in particular asked, or with a wrong password or token.
    #[error("{0}")]
    Unauthenticated(String),
    /// Known, and not allowed.
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotFound(String),
    /// Not in the present state of things.
    #[error("{0}")]
    Conflict(String),
    #[error("{reason}; try again in {after}")]
    TooMany { reason: String, after: Period },
    /// The certificate expired, and a person has to help. Asking again within the hour is fine.
    #[error("{0}")]
    Expired(String),
    /// What was signed is too old to be believed fresh.
    #[error("the nonce is not good any more; ask for a new one")]
    StaleNonce,
    /// Nothing is issued while the site's clock is not believed.
    #[error(
        "the site's clock stepped by more than a day; it issues nothing until an administrator accepts the time"
    )]
    ClockStepped,
    /// Policy is signed by nodes that hold the policy key, and this one does not.
    #[error(
        "this node signs no policy: it has no policy key, or cannot read it; another node may, or restore keys/policy.key"
    )]
    NoPolicyKey,
    /// It has one, and clients would not believe it.
    #[error(
        "this node signs no policy: its policy certificate is good from {from} to {until}; make a new key: perennial policy rotate-key"
    )]
    PolicyKeyNotValid { from: Timestamp, until: Timestamp },
    /// The records cannot be reached. Details are for the log, not for strangers.
    #[error("the site cannot reach its records; nothing was changed; try again")]
    Unavailable(#[source] Unavailable),
}

impl Error {
    /// The HTTP status of this refusal.
    pub fn status(&self) -> u16 {
        match self {
            Error::Invalid(_) => 400,
            Error::TooLarge(_) => 413,
            Error::Unauthenticated(_) => 401,
            Error::Forbidden(_) | Error::Expired(_) => 403,
            Error::NotFound(_) => 404,
            Error::Conflict(_) => 409,
            // RFC 8470: what might be a replay.
            Error::StaleNonce => 425,
            Error::TooMany { .. } => 429,
            Error::Unavailable(_)
            | Error::ClockStepped
            | Error::NoPolicyKey
            | Error::PolicyKeyNotValid { .. } => 503,
        }
    }

    /// Seconds for a `Retry-After` header, where trying again makes sense.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Error::TooMany { after, .. } => Some(after.seconds().max(1)),
            Error::Unavailable(_) => Some(5),
            Error::ClockStepped | Error::NoPolicyKey | Error::PolicyKeyNotValid { .. } => Some(300),
            Error::Expired(_) => Some(3600),
            _ => None,
        }
    }
}

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Self {
        // A list's cursor comes from the caller.
        if let Unavailable::Cursor(what) = &error {
            tracing::debug!(event = "no-cursor", what);
            return Error::Invalid("that is not where a page begins".to_owned());
        }
        tracing::error!(event = "store-unavailable", %error);
        Error::Unavailable(error)
    }
}

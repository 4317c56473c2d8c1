//! Why a command did not do what it was asked, in words, with its exit code.

use domain::wizard::RenewalFailure;
use domain::{Pin, Timestamp};
use transport::TransportError;

/// Not a status of HTTP: the handshake was refused.
const BY_TLS: u16 = 0;
const TOO_EARLY: u16 = 425;
const TOO_MANY: u16 = 429;

/// The one table of failures and exit codes.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Other(String),
    #[error("this computer is not enrolled")]
    NotEnrolled,
    /// The site's own sentence.
    #[error("the server refused: {reason}")]
    Refused { status: u16, reason: String },
    #[error("the server at {address} is not trusted: {reason}")]
    NotTrusted {
        address: String,
        /// The root that the server showed, where trusting it would help.
        observed: Option<Pin>,
        /// Whether the person who asked may decide to trust it.
        advise: bool,
        reason: String,
    },
    #[error("{0}")]
    Unreachable(String),
    #[error("the password is empty")]
    EmptyPassword,
    /// The certificate expired, and a person has to help.
    #[error("{0}")]
    Expired(String),
    #[error("this needs root")]
    NeedsRoot,
    /// Root, or management, does not let this user.
    #[error("{0}")]
    NotAllowed(String),
}

impl Failure {
    pub fn other(reason: impl Into<String>) -> Self {
        Self::Other(reason.into())
    }

    pub fn expired(on: Timestamp) -> Self {
        Self::Expired(format!("the certificate expired on {on}"))
    }

    /// In the kinds that the wizard tells apart.
    pub fn for_the_wizard(&self) -> RenewalFailure {
        match self {
            Self::Refused { status: 401, .. } | Self::EmptyPassword => {
                RenewalFailure::WrongPassword
            }
            Self::Refused { status: 429, .. } => RenewalFailure::TooMany,
            Self::Refused { .. } | Self::Expired(_) | Self::NotAllowed(_) => {
                RenewalFailure::NotAllowed
            }
            Self::NotTrusted { .. } => RenewalFailure::NotTrusted,
            Self::Unreachable(_) => RenewalFailure::SiteUnreachable,
            Self::Other(_) | Self::NotEnrolled | Self::NeedsRoot => RenewalFailure::Other,
        }
    }

    /// 1 failed, 3 not enrolled, 4 refused, 5 not reachable, 6 expired, 7 needs root (2, wrong
    /// usage, comes from the parser).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Other(_) => 1,
            Self::NotEnrolled => 3,
            Self::Refused { .. } | Self::NotTrusted { .. } | Self::EmptyPassword => 4,
            Self::Unreachable(_) => 5,
            Self::Expired(_) => 6,
            Self::NeedsRoot | Self::NotAllowed(_) => 7,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotEnrolled => Some("enroll it: CMEnroll -s <server> -u <user name>".to_owned()),
            Self::NotTrusted {
                observed: Some(pin),
                advise: true,
                ..
            } => Some(format!(
                "nothing was sent to it. It shows the fingerprint\n  {pin}\n\
                 If your administrator gives you the same one, add: --pin {pin}"
            )),
            Self::Unreachable(_) => Some(
                "this computer's identity is as it was; check the network and the server's name, and try again"
                    .to_owned(),
            ),
            Self::Expired(_) => Some(
                "while the site allows it, this computer comes back by itself: perennial-agent renew\n\
                 otherwise with your password: perennial-agent renew --user <user name>\n\
                 or when an administrator allows it: perennial device allow-renewal"
                    .to_owned(),
            ),
            Self::NeedsRoot => Some("run it with sudo".to_owned()),
            Self::Other(_)
            | Self::NotAllowed(_)
            | Self::NotTrusted { .. }
            | Self::Refused { .. }
            | Self::EmptyPassword => None,
        }
    }

    /// True when the site was reached and said no: asking again soon helps nobody. "Too many" (429)
    /// and "too early" (425, a nonce that is not good any more) are no such answers.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { status, .. } => !matches!(*status, TOO_EARLY | TOO_MANY),
            Self::Expired(_) => true,
            // Also when another server stands in the site's place: a hotel's network, for instance.
            _ => false,
        }
    }

    /// True when TLS does not let the certificate in: its dates, as the site sees them.
    pub fn is_about_the_certificate(&self) -> bool {
        matches!(
            self,
            Self::Expired(_) | Self::Refused { status: BY_TLS, .. }
        )
    }
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::NotTrusted {
                address,
                observed,
                reason,
            } => Self::NotTrusted {
                address: address.to_string(),
                observed,
                advise: false,
                reason,
            },
            TransportError::Refused { expired: true, .. } => {
                Self::Expired("the site says that the certificate has expired".to_owned())
            }
            TransportError::Refused { reason, .. } => Self::Refused {
                status: BY_TLS,
                reason: format!("this computer's certificate is not accepted ({reason})"),
            },
            TransportError::Unreachable { .. } | TransportError::Broken { .. } => {
                Self::Unreachable(error.to_string())
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

//! States of devices and certificates, and the ways between them.
//!
//! ```text
//! device:       active ──block──▶ blocked ──unblock──▶ active
//!               active, blocked ──retire──▶ retired           (the end)
//!               active, blocked ──supersede──▶ obsolete       (the end)
//!               every state ──an administrator deletes it──▶ deleted
//!                                           (the end; some time later the record is gone)
//!
//! certificate:  valid ──a newer one was used──▶ superseded
//!               valid, superseded ──revoke──▶ revoked         (the end)
//!               "expired" is not a state: it is a question of the date.
//!
//! command:      waiting ──the device did it──▶ done             (the end)
//!               waiting ──the device could not──▶ failed        (the end)
//!               waiting ──its time passed──▶ expired            (the end)
//! ```

/// A word that names no state of the asked kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not one of: {known}")]
pub struct UnknownWord {
    given: String,
    known: String,
}

/// An enum whose variants are single words, in databases, on the wire and on command lines.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant),* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            pub const fn word(&self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::state::UnknownWord;

            fn from_str(given: &str) -> Result<Self, Self::Err> {
                match given {
                    $($word => Ok($name::$variant),)*
                    _ => Err(crate::state::UnknownWord::new(given, &[$($word),*])),
                }
            }
        }

        crate::serde_as_text!($name);
    };
}
pub(crate) use words;

impl UnknownWord {
    pub(crate) fn new(given: &str, known: &[&str]) -> Self {
        Self {
            given: given.chars().take(40).collect(),
            known: known.join(", "),
        }
    }
}

words! {
    DeviceState {
        Active = "active",
        /// An administrator refuses it for now.
        Blocked = "blocked",
        /// It left: its client was uninstalled, or an administrator said so.
        Retired = "retired",
        /// Another record took its place: the same computer enrolled again.
        Obsolete = "obsolete",
        /// An administrator deleted it; its history goes some time later.
        Deleted = "deleted",
    }
}

words! {
    /// What can happen to a device's state.
    DeviceTransition {
        Block = "block",
        Unblock = "unblock",
        Retire = "retire",
        /// Its place is taken by another record.
        Supersede = "supersede",
    }
}

/// A transition that the device's state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {transition} a device that is {state}")]
pub struct TransitionRefused {
    pub state: DeviceState,
    pub transition: DeviceTransition,
}

impl DeviceState {
    /// The state after `transition`. A transition that changes nothing succeeds, so that a command
    /// can be repeated.
    pub fn after(self, transition: DeviceTransition) -> Result<Self, TransitionRefused> {
        use DeviceState::{Active, Blocked, Deleted, Obsolete, Retired};
        use DeviceTransition::{Block, Retire, Supersede, Unblock};
        match (self, transition) {
            (Active | Blocked, Block) => Ok(Blocked),
            (Active | Blocked, Unblock) => Ok(Active),
            (Active | Blocked | Retired, Retire) => Ok(Retired),
            (Active | Blocked | Obsolete, Supersede) => Ok(Obsolete),
            (Retired, Block | Unblock | Supersede)
            | (Obsolete, Block | Unblock | Retire)
            | (Deleted, _) => Err(TransitionRefused {
                state: self,
                transition,
            }),
        }
    }
}

words! {
    CertificateState {
        Valid = "valid",
        /// A newer certificate of the same device was used.
        Superseded = "superseded",
        Revoked = "revoked",
    }
}

words! {
    /// What an administrator should look at.
    AlertKind {
        /// Somebody has a copy of an old disk, or restored one.
        SupersededCertificateUsed = "superseded-certificate-used",
        /// A device does not run its policy, or refused a list.
        PolicyRefused = "policy-refused",
        /// The certificate of the site's policy key ends within 180 days.
        PolicyKeyEnds = "policy-key-ends",
        /// At the moment that an administrator set for a deployment, too few devices were compliant.
        ComplianceBelow = "compliance-below",
    }
}

words! {
    /// What a command tells a device to do.
    CommandKind {
        Renew = "renew",
        Evaluate = "evaluate",
        CheckIn = "check-in",
        Uninstall = "uninstall",
        TestScript = "test-script",
    }
}

words! {
    /// What became of a command.
    CommandState {
        Waiting = "waiting",
        Done = "done",
        Failed = "failed",
        Expired = "expired",
    }
}

words! {
    /// Why an expired certificate may be renewed all the same.
    AfterExpiry {
        /// The profile's grace time.
        Grace = "grace",
        /// An administrator allowed this device once.
        Permission = "permission",
    }
}

words! {
    /// Why a certificate was revoked (RFC 5280 section 5.3.1; the reasons that a site uses).
    RevocationReason {
        Unspecified = "unspecified",
        KeyCompromise = "keyCompromise",
        AffiliationChanged = "affiliationChanged",
        Superseded = "superseded",
        CessationOfOperation = "cessationOfOperation",
        PrivilegeWithdrawn = "privilegeWithdrawn",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_an_end() {
        for end in [
            DeviceState::Retired,
            DeviceState::Obsolete,
            DeviceState::Deleted,
        ] {
            for transition in DeviceTransition::ALL {
                let after = end.after(*transition);
                assert!(
                    after.is_err() || after == Ok(end),
                    "{end} {transition}: {after:?}"
                );
            }
        }
    }

    #[test]
    fn every_transition_can_be_repeated() {
        for state in DeviceState::ALL {
            for transition in DeviceTransition::ALL {
                if let Ok(after) = state.after(*transition) {
                    assert_eq!(after.after(*transition), Ok(after), "{state} {transition}");
                }
            }
        }
    }

    #[test]
    fn words_read_back() {
        for reason in RevocationReason::ALL {
            assert_eq!(reason.word().parse(), Ok(*reason));
        }
        let error = "gone".parse::<DeviceState>().expect_err("no such state");
        assert_eq!(
            error.to_string(),
            "`gone` is not one of: active, blocked, retired, obsolete, deleted"
        );
    }
}

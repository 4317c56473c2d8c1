//! Exemptions: a rule that some devices need not keep.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{CollectionName, DeviceId};

/// Who is exempted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExemptionScope {
    /// The members of a collection, whoever they are at the time.
    Collection(CollectionName),
    Device(DeviceId),
}

impl fmt::Display for ExemptionScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collection(name) => write!(f, "collection {name}"),
            Self::Device(device) => write!(f, "device {}", device.smsid()),
        }
    }
}

/// Why somebody is exempted: a sentence of an administrator, for those who come after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExemptionReason(String);

/// What was given is no reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an exemption needs a reason of 1 to 1000 characters, without control characters")]
pub struct InvalidReason;

impl ExemptionReason {
    const MOST: usize = 1_000;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExemptionReason {
    type Err = InvalidReason;

    fn from_str(given: &str) -> Result<Self, InvalidReason> {
        let text = given.trim();
        let good = !text.is_empty()
            && text.chars().take(Self::MOST + 1).count() <= Self::MOST
            && !text.chars().any(char::is_control);
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidReason)
        }
    }
}

impl fmt::Display for ExemptionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

crate::serde_as_text!(ExemptionReason);

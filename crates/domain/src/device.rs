//! What a device says of itself at a check-in. All of it is a claim: it identifies nothing.

use serde::{Deserialize, Serialize};

use crate::{RenewalKey, RenewalSetting};

/// Facts that a device reports. Texts are cut to [`DeviceFacts::MAX_TEXT`] bytes where they enter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceFacts {
    pub host_name: String,
    /// `macOS` or `Linux`.
    pub os_name: String,
    pub os_version: String,
    pub model: String,
    pub hardware_uuid: String,
    pub hardware_serial: String,
    pub agent_version: String,
    /// The first renewal period as the device resolved it, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_period_1: Option<u64>,
    /// The four renewal keys as the device resolved them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub renewal_settings: Vec<RenewalSetting>,
    /// How far the site's clock was ahead of the device's, in seconds, to the minute; none when it
    /// was close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew: Option<i64>,
    /// False when the site's certificate chain was accepted without a check at enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_verified: Option<bool>,
}

impl DeviceFacts {
    /// Longest text of one fact, in bytes.
    pub const MAX_TEXT: usize = 256;

    /// The same facts with each text cut to its limit and without control characters, fit to be
    /// stored and shown.
    pub fn bounded(self) -> Self {
        Self {
            host_name: bounded(self.host_name),
            os_name: bounded(self.os_name),
            os_version: bounded(self.os_version),
            model: bounded(self.model),
            hardware_uuid: bounded(self.hardware_uuid),
            hardware_serial: bounded(self.hardware_serial),
            agent_version: bounded(self.agent_version),
            renewal_settings: self
                .renewal_settings
                .into_iter()
                .take(RenewalKey::ALL.len())
                .map(|setting| RenewalSetting {
                    raw: setting.raw.map(bounded),
                    notice: setting.notice.map(bounded),
                    ..setting
                })
                .collect(),
            ..self
        }
    }
}

fn bounded(text: String) -> String {
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > DeviceFacts::MAX_TEXT {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_facts_are_cut() {
        let facts = DeviceFacts {
            host_name: format!("a\u{1b}[31m\n{}", "ü".repeat(1000)),
            ..DeviceFacts::default()
        }
        .bounded();
        assert!(facts.host_name.starts_with("a[31mü"));
        assert!(facts.host_name.len() <= DeviceFacts::MAX_TEXT);
    }
}

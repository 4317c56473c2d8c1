//! A check-in: the device says how it is, the site says when to renew and when to come again.

use domain::{DeviceFacts, Period, RenewalMode, Smsid, Timestamp, Window};
use serde::{Deserialize, Serialize};

use crate::{PolicyNotice, PolicyState, RecordedSet, ResultsState, SignedDocument};

pub const CHECK_IN_PATH: &str = "/management/v1/check-in";
/// When to renew a certificate, for whoever knows it: below this path, by its name of RFC 9773
/// section 4.1.
pub const RENEWAL_INFO_PATH: &str = "/renewal-info";

/// From the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn {
    pub facts: DeviceFacts,
    /// The device's time, so that the site can see a clock that is wrong.
    pub time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyState>,
    /// None before the first evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultsState>,
}

/// From the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckInAnswer {
    /// The site's time. It may only bring an attempt forward.
    pub time: Timestamp,
    pub device: Smsid,
    pub renewal: RenewalInfo,
    /// Who renews: the site's policy.
    #[serde(default)]
    pub renewal_mode: RenewalMode,
    /// How long until the next check-in.
    pub next_check_in: Period,
    /// None from a site that gives no policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyNotice>,
    /// The results that the site has, of the stream that the device named; none of another stream, so
    /// that the device sends its whole set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<RecordedSet>,
    /// Each a [`crate::Command`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<SignedDocument>,
}

/// When to renew, in the shape of ACME Renewal Information (RFC 9773 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewalInfo {
    pub suggested_window: Window,
    #[serde(
        rename = "explanationURL",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub explanation_url: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_version_are_read() {
        let request: CheckIn =
            serde_json::from_str(include_str!("../golden/check-in-1.json")).expect("check-in 1");
        assert_eq!(request.facts.os_name, "macOS");
        let answer: CheckInAnswer =
            serde_json::from_str(include_str!("../golden/check-in-answer-1.json"))
                .expect("check-in answer 1");
        assert_eq!(answer.next_check_in.seconds(), 3600);
        // A site that says nothing of the mode means silence.
        assert_eq!(answer.renewal_mode, RenewalMode::Automatic);
        let written = serde_json::to_value(&answer).expect("writes");
        let read: serde_json::Value =
            serde_json::from_str(include_str!("../golden/check-in-answer-1.json")).expect("reads");
        for (key, value) in read.as_object().expect("an object") {
            assert_eq!(written[key], *value, "{key}");
        }
    }
}

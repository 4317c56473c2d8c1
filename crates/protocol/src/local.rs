//! What the agent and the programs of this computer's users say to each other: HTTP over a Unix socket.
//! The agent knows who calls (peer credentials), and decides by that. Nobody but root chooses server,
//! fingerprint or trust this way, and no path of a file goes over it.

use domain::wizard::RenewalFailure;
use domain::{
    ComplianceState, ReminderStage, RenewalKey, RenewalMode, RenewalSetting, Timestamp, Unused,
};
use serde::{Deserialize, Serialize};

/// `GET`: a [`LocalStatus`].
pub const LOCAL_STATUS_PATH: &str = "/local/v1/status";
/// `GET`: [`LocalEvent`]s, a line of JSON each, the present ones first; as long as the caller listens.
pub const LOCAL_EVENTS_PATH: &str = "/local/v1/events";
/// `POST` a [`Credentials`]: [`RenewalStep`]s, a line of JSON each; the last one is the outcome.
pub const LOCAL_RENEWAL_PATH: &str = "/local/v1/renewals";
/// `POST` an [`EnrollmentRequest`]: as [`LOCAL_RENEWAL_PATH`].
pub const LOCAL_ENROLLMENT_PATH: &str = "/local/v1/enrollments";
/// `POST`, empty: [`PutOff`].
pub const LOCAL_LATER_PATH: &str = "/local/v1/later";
/// `POST`, empty: as [`LOCAL_RENEWAL_PATH`], with [`RenewalStep::CheckedIn`] at the end.
pub const LOCAL_CHECK_IN_PATH: &str = "/local/v1/check-ins";
/// `GET`: a zip archive.
pub const LOCAL_DIAGNOSTICS_PATH: &str = "/local/v1/diagnostics";

/// The largest body that the agent reads, in bytes.
pub const LOCAL_LIMIT: usize = 16 * 1024;

/// How this computer stands, as far as its users may know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalStatus {
    pub agent_version: String,
    /// The agent's time.
    pub now: Timestamp,
    /// None when the computer is not enrolled.
    pub identity: Option<LocalIdentity>,
    /// What an administrator of the computer set for its windows.
    pub look: Look,
    /// The caller may choose server and fingerprint: root.
    pub may_choose_server: bool,
    /// A server that managed preferences name, for an enrollment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_server: Option<String>,
}

impl LocalStatus {
    /// Since when a reminder waits for a person, if one does.
    pub fn reminder_waits(&self) -> Option<Timestamp> {
        self.identity.as_ref()?.reminder_waits
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalIdentity {
    pub user: String,
    pub server: String,
    /// Somebody confirmed that it is the right server.
    pub trust_verified: bool,
    pub smsid: Option<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub renewal_mode: RenewalMode,
    /// When it renews by itself; none where it does not.
    pub renews_at: Option<Timestamp>,
    pub last_check_in: Option<Timestamp>,
    /// The four keys: effective, configured, notice.
    pub renewal_settings: Vec<RenewalSetting>,
    /// Why configured values are not used: the notices, for who speaks another language.
    pub unused_settings: Vec<(RenewalKey, Unused)>,
    /// The certificate's time, by its schedule; none before the first period.
    pub stage: Option<ReminderStage>,
    /// Since when one is due and waits for a person, if one does.
    pub reminder_waits: Option<Timestamp>,
    /// When a reminder comes next; none when none is planned.
    pub next_reminder: Option<Timestamp>,
    /// How often it was put off in the second period.
    pub put_off: u32,
    /// When it would be back, put off now.
    pub later_until: Option<Timestamp>,
    /// False when managed preferences allow no more of it.
    pub may_put_off: bool,
    /// The last attempt to reach the site succeeded.
    pub site_reachable: bool,
    /// What is in the way.
    pub troubles: Vec<LocalTrouble>,
    /// Rules that are not kept, or have no answer; none before the first evaluation.
    pub compliance: Option<Vec<LocalRule>>,
}

/// Something that did not work the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTrouble {
    pub of: TroubleOf,
    /// The site said no (as opposed to: it was not there).
    pub refused: bool,
    /// For a help desk, in English.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TroubleOf {
    CheckIn,
    Renewal,
    /// Getting the policy.
    Policy,
    /// Delivering results.
    Results,
    /// The policy came, and is not as it should be.
    PolicyList,
    /// So is a command.
    Command,
}

/// A rule that this computer does not keep, or has no answer for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalRule {
    pub baseline: String,
    pub rule: String,
    pub state: ComplianceState,
    pub since: Timestamp,
    /// It is mended without anybody's help.
    pub mends_itself: bool,
}

/// Managed preferences for the windows (`CompanyName`, `HelpDesk`, `Logo`, `Language`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Look {
    pub company: Option<String>,
    /// Whom to ask, as one line.
    pub help_desk: Option<String>,
    /// A PNG picture, in base64; small.
    pub logo: Option<String>,
    /// Such as `de`; none: that of the session.
    pub language: Option<String>,
}

/// A user's name and password: handed over once, and never kept.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// To enroll. Server and fingerprint count from root alone; others enroll with the managed server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollmentRequest {
    pub credentials: Credentials,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The root's fingerprint that a person confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// What happens while the agent works for a caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RenewalStep {
    /// Somebody else's work goes first.
    Waiting,
    AskingTheSite,
    TakingIntoUse,
    Renewed {
        not_after: Timestamp,
    },
    CheckedIn {
        at: Timestamp,
    },
    Refused {
        failure: RenewalFailure,
        /// For the help desk.
        detail: String,
        /// The fingerprint that the server showed, where an administrator may confirm it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        observed: Option<String>,
    },
}

/// The reminder was put off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutOff {
    /// When it is back; none when no other one comes.
    pub until: Option<Timestamp>,
    pub put_off: u32,
}

/// What listeners hear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalEvent {
    /// A reminder is due: whoever has a person before it shows it. Who comes later hears of it again, by the
    /// same moment.
    ReminderDue {
        since: Timestamp,
        stage: ReminderStage,
        not_after: Timestamp,
    },
    /// It was shown, put off, or is not needed any more.
    ReminderDone,
    /// A newer certificate is in use.
    Renewed {
        not_after: Timestamp,
    },
    SiteReachable(bool),
}

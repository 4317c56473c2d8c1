//! What a filter can ask for.

use std::fmt;

use crate::BaselineName;
use crate::state::words;

words! {
    /// A text. What was not reported is not there; no text is empty.
    TextField {
        HostName = "device.host_name",
        Model = "device.model",
        OsName = "os.name",
        /// The version in the device's own words, such as `Debian GNU/Linux 12 (bookworm)`.
        OsRelease = "os.release",
        HardwareSerial = "hardware.serial",
        /// In upper case; not there when it tells no two computers apart.
        HardwareUuid = "hardware.uuid",
        UserName = "user.name",
    }
}

words! {
    VersionField {
        OsVersion = "os.version",
        AgentVersion = "agent.version",
    }
}

words! {
    /// A number of whole days that changes with time and without an event.
    DaysField {
        /// Since the enrollment.
        EnrolledAgo = "device.enrolled_days_ago",
        /// Since the last check-in; not there before the first one.
        LastSeenAgo = "device.last_seen_days_ago",
        /// Until the certificate in use ends, negative since it ended; not there without one.
        CertificateLeft = "certificate.days_left",
    }
}

words! {
    FlagField {
        /// False when the site's certificate was accepted without a check at the enrollment.
        TrustVerified = "device.trust_verified",
    }
}

/// Anything that a filter can ask for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The device's state in the records.
    State,
    Text(TextField),
    Version(VersionField),
    Days(DaysField),
    Flag(FlagField),
    /// How a baseline stands on the device; not there when none of its deployments is for it.
    Compliance(BaselineName),
}

/// A field as it is shown to people who write filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldHelp {
    pub name: &'static str,
    pub kind: &'static str,
    pub meaning: &'static str,
    pub example: &'static str,
}

const STATE: &str = "device.state";
pub(super) const COMPLIANCE: &str = "compliance";

impl Field {
    /// All fields but those for baselines, in the order in which people read them.
    pub const PLAIN: &'static [Field] = &[
        Field::State,
        Field::Text(TextField::HostName),
        Field::Text(TextField::Model),
        Field::Days(DaysField::EnrolledAgo),
        Field::Days(DaysField::LastSeenAgo),
        Field::Flag(FlagField::TrustVerified),
        Field::Text(TextField::OsName),
        Field::Version(VersionField::OsVersion),
        Field::Text(TextField::OsRelease),
        Field::Version(VersionField::AgentVersion),
        Field::Text(TextField::HardwareSerial),
        Field::Text(TextField::HardwareUuid),
        Field::Text(TextField::UserName),
        Field::Days(DaysField::CertificateLeft),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        let found = Self::PLAIN.iter().find(|field| field.name() == name);
        found.cloned()
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::State => STATE,
            Self::Text(field) => field.word(),
            Self::Version(field) => field.word(),
            Self::Days(field) => field.word(),
            Self::Flag(field) => field.word(),
            Self::Compliance(_) => COMPLIANCE,
        }
    }

    /// All that there is to ask for.
    pub fn all_help() -> impl Iterator<Item = FieldHelp> {
        let compliance = FieldHelp {
            name: "compliance[\"…\"]",
            kind: "state",
            meaning: "how the baseline of that name stands; null when it is not deployed to the device",
            example: r#"compliance["CIS level 1"] == "non-compliant""#,
        };
        Self::PLAIN.iter().map(Self::help).chain([compliance])
    }

    /// What kind of value it has, as people say it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::State | Self::Compliance(_) => "a state",
            Self::Text(_) => "a text",
            Self::Version(_) => "a version",
            Self::Days(_) => "a number of days",
            Self::Flag(_) => "true or false",
        }
    }

    pub fn help(&self) -> FieldHelp {
        let (meaning, example) = match self {
            Self::State => (
                "active, blocked, retired or obsolete",
                r#"device.state == "blocked""#,
            ),
            Self::Text(field) => match field {
                TextField::HostName => ("the computer's name", r#"device.host_name == "mac-17""#),
                TextField::Model => (
                    "the hardware's model",
                    r#"device.model in ["Mac14,2", "Mac15,3"]"#,
                ),
                TextField::OsName => ("macOS or Linux", r#"os.name == "macOS""#),
                TextField::OsRelease => (
                    "the operating system's version in its own words",
                    r#"os.release == "Debian GNU/Linux 12 (bookworm)""#,
                ),
                TextField::HardwareSerial => (
                    "the hardware's serial number",
                    r#"hardware.serial == "C02""#,
                ),
                TextField::HardwareUuid => (
                    "the hardware's UUID, in upper case",
                    r#"hardware.uuid == "4C4C4544-0042-3510-8052-B3C04F4B4E32""#,
                ),
                TextField::UserName => (
                    "the user who enrolled it, as typed",
                    r#"user.name in ["ann", "bob"]"#,
                ),
            },
            Self::Version(field) => match field {
                VersionField::OsVersion => (
                    "the first version in os.release",
                    r#"os.version >= v"14.4""#,
                ),
                VersionField::AgentVersion => ("the agent's version", r#"agent.version < v"0.2""#),
            },
            Self::Days(field) => match field {
                DaysField::EnrolledAgo => (
                    "whole days since the enrollment",
                    "device.enrolled_days_ago < 7",
                ),
                DaysField::LastSeenAgo => (
                    "whole days since the last check-in; null before the first",
                    "device.last_seen_days_ago >= 30",
                ),
                DaysField::CertificateLeft => (
                    "whole days until the certificate in use ends, negative since it ended; null without one",
                    "certificate.days_left < 45",
                ),
            },
            Self::Compliance(_) => (
                "how the baseline stands",
                r#"compliance["CIS level 1"] == "non-compliant""#,
            ),
            Self::Flag(FlagField::TrustVerified) => (
                "whether it checked the site's certificate when it enrolled",
                "!device.trust_verified",
            ),
        };
        FieldHelp {
            name: self.name(),
            kind: match self {
                Self::State | Self::Compliance(_) => "state",
                Self::Text(_) => "text",
                Self::Version(_) => "version",
                Self::Days(_) => "number",
                Self::Flag(_) => "boolean",
            },
            meaning,
            example,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compliance(baseline) => {
                write!(f, "{COMPLIANCE}[{}]", super::quoted(baseline.as_str()))
            }
            plain => f.pad(plain.name()),
        }
    }
}

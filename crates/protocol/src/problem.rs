//! Errors on the wire (RFC 9457, `application/problem+json`).

use serde::{Deserialize, Serialize};

pub const PROBLEM_TYPE: &str = "application/problem+json";

/// What went wrong, for a program (`status`) and a person (`detail`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    #[serde(default, rename = "type")]
    pub kind: ProblemKind,
    pub status: u16,
    pub detail: String,
}

/// The kinds of problems that a program can act on. All others are told apart by their status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ProblemKind {
    /// The certificate expired, and a person has to help.
    #[serde(rename = "urn:perennial:problem:certificate-expired")]
    CertificateExpired,
    #[default]
    #[serde(rename = "about:blank", other)]
    Blank,
}

//! Errors on the wire (RFC 9457, `application/problem+json`).

use serde::{Deserialize, Serialize};

pub const PROBLEM_TYPE: &str = "application/problem+json";

/// What went wrong, for a program (`status`) and a person (`detail`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub status: u16,
    pub detail: String,
}

//! What a device and its site say to each other. JSON over mutual TLS, beside EST (RFC 7030).
//!
//! Types are versioned by their path. A field may be added, with a default; a released field is
//! never removed or given another meaning: `golden/` holds a message of every version, and each
//! must still be read.

mod check_in;
mod leave;
mod local;
mod policy;
mod problem;
mod proof;
mod results;

pub use check_in::{CHECK_IN_PATH, CheckIn, CheckInAnswer, RENEWAL_INFO_PATH, RenewalInfo};
pub use leave::{LEAVE_PATH, Leave, LeaveAnswer};
pub use local::{
    Credentials, EnrollmentRequest, LOCAL_CHECK_IN_PATH, LOCAL_DIAGNOSTICS_PATH,
    LOCAL_ENROLLMENT_PATH, LOCAL_EVENTS_PATH, LOCAL_LATER_PATH, LOCAL_LIMIT, LOCAL_RENEWAL_PATH,
    LOCAL_STATUS_PATH, LocalEvent, LocalIdentity, LocalRule, LocalStatus, LocalTrouble, Look,
    PutOff, RenewalStep, TroubleOf,
};
pub use policy::{
    AssignedDeployment, BodyHash, COMMAND_PATH, Command, CommandId, CommandResult,
    InvalidCommandId, InvalidHash, ItemBody, Order, POLICY_BODY_PATH, POLICY_LIMIT, POLICY_PATH,
    PayloadType, PolicyList, PolicyNotice, PolicyState, PolicyVersion, RuleNumber, SignedDocument,
    signed_message,
};
pub use problem::{PROBLEM_TYPE, Problem, ProblemKind};
pub use proof::{
    Challenge, NEW_RECORD, PROOF_HEADER, Proof, ProofPurpose, RECORD_HEADER, RENEW_EXPIRED_PATH,
    RenewExpired, RenewedExpired, proved_message,
};

pub use results::{
    NotHexadecimal, RESULTS_LIMIT, RESULTS_PATH, RecordedSet, ResultChange, ResultReceipt,
    ResultReport, ResultsState, RuleResult, SetDigest, StreamId,
};

/// EST's well-known prefix (RFC 7030 section 3.2.2).
pub const EST_PREFIX: &str = "/.well-known/est";

/// The largest body that a site reads from a device, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

//! The agent against a site in this process that signs what a real one signs: compliance settings, and its
//! socket for local users.

mod commands;
mod crashes;
mod local;
mod mischief;
mod place;
mod policy;
mod remediation;
mod reporting;
mod scripts;
#[cfg(feature = "test-clock")]
mod session;

//! The agent's compliance settings, against a site in this process that signs what a real one signs.

mod commands;
mod crashes;
mod mischief;
mod place;
mod policy;
mod remediation;
mod reporting;
mod scripts;

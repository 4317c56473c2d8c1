//! The client: enrolls a computer, renews its certificate silently, reminds people when that was
//! not possible, and takes leave. `main.rs` is its command line.

pub mod cli;
pub mod compliance;
pub mod daemon;
pub mod failure;
mod files;
pub mod identity;
mod journal;
pub mod local;
pub mod log;
pub mod network;
pub mod platform;
pub mod preferences;
mod programs;
mod property_list;
pub mod reminder;
pub mod renewal;
pub mod session;
pub mod site;
pub mod state;
pub mod tools;

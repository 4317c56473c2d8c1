//! The tools: what a person or a script calls.

pub mod check_in;
pub mod defaults;
pub mod diagnostics;
pub mod enroll;
pub mod evaluate;
pub mod install;
pub mod renew;
pub mod status;
pub mod trust;
pub mod uninstall;

use serde::Serialize;

use crate::failure::Failure;

/// Prints a value as JSON.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::other(error.to_string()))?;
    println!("{text}");
    Ok(())
}

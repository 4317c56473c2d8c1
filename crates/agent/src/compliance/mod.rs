//! Compliance settings on the client: the site's signed policy is kept (`policy.rs`, `delivery.rs`),
//! evaluated when it is due (`schedule.rs`, `evaluation.rs`) by processes of their own (`evaluator.rs`,
//! `runner.rs`), and the results wait on disk until the site has them (`results.rs`).

mod commands;
mod delivery;
mod evaluation;
pub mod evaluator;
mod guard;
mod policy;
mod preference;
mod results;
pub mod runner;
mod schedule;
mod standing;

pub use delivery::{deliver, deliver_and_note, note_answer, report};
pub use evaluation::{Outcome, Selection, do_commands, evaluate, next, next_evaluation, work};
pub use evaluator::Line;
pub use policy::{Owner, PolicyProblem};
pub use results::{Found, Held};
pub use standing::{BaselineStanding, Standing};

//! Real parts for tests: the project's programs, run as their users run them, and a PostgreSQL
//! server of one's own.

pub mod desktop;
pub mod disk;
pub mod est;
pub mod fleet;
pub mod postgres;
pub mod programs;
pub mod secrets;
pub mod trace;

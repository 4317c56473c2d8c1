//! Real parts for tests: a PostgreSQL server of one's own, and (for the tests of this crate) the
//! programs of the project, run as their users run them.

pub mod postgres;

//! Time and randomness are parameters. Their one implementation lives in the crate `clock`.

/// A moment, in UTC. Databases and wires carry it with millisecond precision or better.
pub use jiff::Timestamp;

/// Tells the time. Implemented by the system's clock and by the clocks of tests.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// A source of randomness that is fit for keys and serial numbers.
pub trait Rng: Send + Sync + 'static {
    /// Fills `bytes` with unpredictable values.
    fn fill(&self, bytes: &mut [u8]);
}

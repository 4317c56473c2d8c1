//! Time and randomness are parameters. Their one implementation lives in the crate `clock`.

/// A moment, in UTC. Databases and wires carry it with millisecond precision or better.
pub use jiff::Timestamp;

use jiff::SignedDuration;

/// Tells the time. Implemented by the system's clock and by the clocks of tests.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;

    /// Time that passed since some moment that stays the same while the machine runs. Setting the
    /// clock does not change it, and it goes on while the machine sleeps.
    fn elapsed(&self) -> SignedDuration;
}

/// A source of randomness that is fit for keys and serial numbers.
pub trait Rng: Send + Sync + 'static {
    /// Fills `bytes` with unpredictable values.
    fn fill(&self, bytes: &mut [u8]);
}

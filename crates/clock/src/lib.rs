//! The one home of the system's clock and of its randomness. Everywhere else both are parameters.
//!
//! A build with the feature `test-clock` reads `PERENNIAL_TEST_CLOCK`, and then time runs
//! faster for every program that was started with the same value: `REAL:VIRTUAL:FACTOR` says that
//! at the Unix second REAL it was VIRTUAL, and that since then each second lasted FACTOR seconds.

use std::time::Duration;

use domain::{Clock, Rng, Timestamp};
use jiff::SignedDuration;

/// The environment variable that scales time in test builds.
pub const TEST_CLOCK_VARIABLE: &str = "PERENNIAL_TEST_CLOCK";

/// The system's clock, in UTC; in test builds possibly scaled.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock {
    scale: Option<Scale>,
}

#[derive(Debug, Clone, Copy)]
struct Scale {
    real: Timestamp,
    virtual_: Timestamp,
    factor: f64,
}

impl SystemClock {
    /// The clock of this process: the system's, or in a test build the one that the environment asks for.
    ///
    /// # Panics
    /// In a test build, when the variable is set but is not of the form `REAL:VIRTUAL:FACTOR`: a test
    /// that silently ran in real time would prove nothing.
    pub fn new() -> Self {
        #[cfg(feature = "test-clock")]
        if let Ok(value) = std::env::var(TEST_CLOCK_VARIABLE) {
            let scale = Scale::parse(&value);
            return Self {
                scale: Some(scale.expect("PERENNIAL_TEST_CLOCK is REAL:VIRTUAL:FACTOR")),
            };
        }
        Self::default()
    }

    /// How long the machine really waits until it is `at`; zero when that has passed.
    pub fn wait_until(&self, at: Timestamp) -> Duration {
        self.real(at.duration_since(self.now()))
    }

    /// How long `wait` really takes; zero when it is negative.
    pub fn real(&self, wait: SignedDuration) -> Duration {
        let wait = match self.scale {
            None => wait,
            Some(scale) => SignedDuration::from_secs_f64(wait.as_secs_f64() / scale.factor),
        };
        Duration::try_from(wait).unwrap_or(Duration::ZERO)
    }

    /// The moment of the machine's own clock at which it will be `at` here.
    pub fn machine_time(&self, at: Timestamp) -> Timestamp {
        match self.scale {
            None => at,
            Some(scale) => {
                let since = at.duration_since(scale.virtual_).as_secs_f64() / scale.factor;
                scale
                    .real
                    .saturating_add(SignedDuration::from_secs_f64(since))
                    .unwrap_or(Timestamp::MAX)
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's clock"
    )]
    fn machine_now() -> Timestamp {
        Timestamp::now()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let machine = Self::machine_now();
        match self.scale {
            None => machine,
            Some(scale) => {
                let since = machine.duration_since(scale.real).as_secs_f64() * scale.factor;
                scale
                    .virtual_
                    .saturating_add(SignedDuration::from_secs_f64(since))
                    .unwrap_or(Timestamp::MAX)
            }
        }
    }

    fn elapsed(&self) -> SignedDuration {
        // Unlike the monotonic clock, it goes on while the machine sleeps.
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        // There the monotonic clock does, too.
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        let elapsed = rustix::time::clock_gettime(clock);
        let elapsed = SignedDuration::new(
            elapsed.tv_sec,
            i32::try_from(elapsed.tv_nsec).unwrap_or_default(),
        );
        match self.scale {
            None => elapsed,
            Some(scale) => SignedDuration::from_secs_f64(elapsed.as_secs_f64() * scale.factor),
        }
    }
}

#[cfg(any(test, feature = "test-clock"))]
impl Scale {
    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(':');
        let seconds = |part: Option<&str>| {
            let nanos = part?.parse::<f64>().ok()? * 1e9;
            Timestamp::from_nanosecond(nanos as i128).ok()
        };
        let real = seconds(parts.next())?;
        let virtual_ = seconds(parts.next())?;
        let factor: f64 = parts.next()?.parse().ok()?;
        (parts.next().is_none() && factor.is_finite() && factor > 0.0).then_some(Self {
            real,
            virtual_,
            factor,
        })
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    /// From the system itself. The cryptographic library's own generator takes longer to begin than an
    /// evaluating process otherwise runs.
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system always gives randomness");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_clock_runs_and_waits_in_proportion() {
        let machine = SystemClock::machine_now();
        let value = format!("{}:2000000000:525600", machine.as_second());
        let clock = SystemClock {
            scale: Scale::parse(&value),
        };
        let year = clock.now() + SignedDuration::from_hours(365 * 24);
        let wait = clock.wait_until(year).as_secs_f64();
        assert!((50.0..=60.1).contains(&wait), "{wait}");
        assert!(clock.now().as_second() >= 2_000_000_000);
        let back = clock
            .machine_time(year)
            .duration_since(machine)
            .as_secs_f64();
        assert!((58.0..=62.0).contains(&back), "{back}");
    }

    #[test]
    fn a_scale_of_another_form_is_none() {
        for value in ["", "1:2", "1:2:0", "1:2:-3", "1:2:nan", "a:b:c", "1:2:3:4"] {
            assert!(Scale::parse(value).is_none(), "{value}");
        }
    }
}

//! Limits on log-ins and enrollments, in memory, for each node: they bound what a stranger can try
//! and what a looping client can spend. Losing them at a restart is no harm.

use std::collections::HashMap;
use std::sync::Mutex;

use domain::{Period, Timestamp};

use crate::{Address, Error, Result};

/// Wrong passwords that are free of a wait.
const FREE_FAILURES: u32 = 5;
/// The first wait; it doubles with each further failure.
const FIRST_WAIT_SECONDS: u64 = 30;
const LONGEST_WAIT_SECONDS: u64 = 3600;
/// Entries that are remembered at most; past it, what is over is forgotten.
const MOST_ENTRIES: usize = 100_000;

#[derive(Default)]
pub(crate) struct Limits {
    failures: Mutex<HashMap<(String, Address), Failures>>,
    enrollments: Mutex<HashMap<Address, (Timestamp, u32)>>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    until: Timestamp,
}

impl Limits {
    /// Refuses a log-in while its (user, address) has to wait. By both: nobody can lock out another
    /// person from elsewhere.
    pub(crate) fn check_login(&self, user: &str, address: Address, now: Timestamp) -> Result<()> {
        let failures = self.failures.lock().expect("no holder panics");
        match failures.get(&(user.to_owned(), address)) {
            Some(failures) if failures.until > now && failures.count > FREE_FAILURES => {
                Err(Error::TooMany {
                    reason: "too many wrong passwords".to_owned(),
                    after: whole_seconds(failures.until, now),
                })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn login_failed(&self, user: &str, address: Address, now: Timestamp) {
        let mut failures = self.failures.lock().expect("no holder panics");
        if failures.len() >= MOST_ENTRIES {
            failures.retain(|_, failures| failures.until > now);
        }
        let entry = failures
            .entry((user.to_owned(), address))
            .or_insert(Failures {
                count: 0,
                until: now,
            });
        // A quiet hour forgives.
        if now > entry.until + Period::from_seconds(LONGEST_WAIT_SECONDS).duration() {
            entry.count = 0;
        }
        entry.count += 1;
        let doublings = entry.count.saturating_sub(FREE_FAILURES + 1).min(16);
        let wait = (FIRST_WAIT_SECONDS << doublings).min(LONGEST_WAIT_SECONDS);
        entry.until = now + Period::from_seconds(wait).duration();
    }

    pub(crate) fn login_succeeded(&self, user: &str, address: Address) {
        self.failures
            .lock()
            .expect("no holder panics")
            .remove(&(user.to_owned(), address));
    }

    /// Counts an enrollment of an address against its hour.
    pub(crate) fn count_enrollment(
        &self,
        address: Address,
        most: u32,
        now: Timestamp,
    ) -> Result<()> {
        let hour = Period::from_seconds(3600).duration();
        let mut enrollments = self.enrollments.lock().expect("no holder panics");
        if enrollments.len() >= MOST_ENTRIES {
            enrollments.retain(|_, (began, _)| *began + hour > now);
        }
        let (began, count) = enrollments.entry(address).or_insert((now, 0));
        if *began + hour <= now {
            (*began, *count) = (now, 0);
        }
        if *count >= most {
            return Err(Error::TooMany {
                reason: format!("this address enrolled {most} times within an hour"),
                after: whole_seconds(*began + hour, now),
            });
        }
        *count += 1;
        Ok(())
    }
}

fn whole_seconds(until: Timestamp, now: Timestamp) -> Period {
    Period::from_seconds(u64::try_from(until.duration_since(now).as_secs() + 1).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_passwords_wait_longer_and_longer_for_their_own_address_alone() {
        let limits = Limits::default();
        let here = Address::from([127, 0, 0, 1]);
        let there = Address::from([127, 0, 0, 2]);
        let mut now = Timestamp::from_second(1_800_000_000).expect("a moment");
        for _ in 0..FREE_FAILURES {
            limits.login_failed("ann", here, now);
            assert!(limits.check_login("ann", here, now).is_ok());
        }
        let mut waits = Vec::new();
        for _ in 0..10 {
            limits.login_failed("ann", here, now);
            let Err(Error::TooMany { after, .. }) = limits.check_login("ann", here, now) else {
                panic!("not limited");
            };
            waits.push(after.seconds());
            now += after.duration();
            assert!(limits.check_login("ann", here, now).is_ok());
        }
        assert_eq!(waits[..3], [31, 61, 121]);
        assert_eq!(waits[9], 3601);
        assert!(limits.check_login("ann", there, now).is_ok());
        limits.login_succeeded("ann", here);
        assert!(limits.check_login("ann", here, now).is_ok());
    }

    #[test]
    fn an_address_has_its_number_of_enrollments_an_hour() {
        let limits = Limits::default();
        let here = Address::from([127, 0, 0, 1]);
        let now = Timestamp::from_second(1_800_000_000).expect("a moment");
        assert!(limits.count_enrollment(here, 2, now).is_ok());
        assert!(limits.count_enrollment(here, 2, now).is_ok());
        assert!(limits.count_enrollment(here, 2, now).is_err());
        let later = now + Period::from_seconds(3600).duration();
        assert!(limits.count_enrollment(here, 2, later).is_ok());
    }
}

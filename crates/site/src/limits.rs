//! Limits on log-ins, enrollments and renewals, in memory, for each node: they bound what a stranger
//! can try and what a looping client can spend. Losing them at a restart is no harm.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;

use domain::{DeviceId, Period, Timestamp};

use crate::{Address, Error, Result};

/// Wrong passwords that are free of a wait.
const FREE_FAILURES: u32 = 5;
/// Log-ins of one user from one address that may be under way at once, while none has failed.
const AT_ONCE: u32 = 64;
/// The first wait; it doubles with each further failure.
const FIRST_WAIT_SECONDS: u64 = 30;
const LONGEST_WAIT_SECONDS: u64 = 3600;
const HOUR: Period = Period::from_seconds(3600);
/// The same refusal is noted once in this time.
const NOTED_EVERY: Period = Period::from_seconds(60);

/// Lists that a device may fetch within an hour: as often as somebody changes the policy, and more.
const MOST_LISTS: u32 = 120;
/// Bodies that a device may fetch within an hour, where its list has less than half of them.
const MOST_BODIES: u32 = 1_000;
/// How often a device may say something new of its policy within an hour.
const MOST_POLICY_NEWS: u32 = 60;

#[derive(Default)]
pub(crate) struct Limits {
    logins: Mutex<Recent<(String, Address), Logins>>,
    enrollments: Mutex<Recent<Address, u32>>,
    renewals: Mutex<Recent<DeviceId, u32>>,
    reports: Mutex<Recent<DeviceId, u32>>,
    lists: Mutex<Recent<DeviceId, u32>>,
    bodies: Mutex<Recent<DeviceId, u32>>,
    policy_news: Mutex<Recent<DeviceId, u32>>,
    notes: Mutex<Recent<NoteKey, u64>>,
}

/// What is refused, to whom or what, from where.
pub(crate) type NoteKey = (&'static str, String, Address);

#[derive(Default, Clone, Copy)]
struct Logins {
    failures: u32,
    under_way: u32,
}

impl Limits {
    /// Lets a log-in begin, or refuses it while its (user, address) has to wait. By both: nobody can
    /// lock out another person from elsewhere. Attempts count while they are under way, so that
    /// many at once are no way around.
    pub(crate) fn begin_login(
        &self,
        user: &str,
        address: Address,
        now: Timestamp,
    ) -> Result<Login<'_>> {
        let mut logins = self.logins.lock().expect("no holder panics");
        let key = (user.to_owned(), network(address));
        let (until, entry) = logins.entry(key, now, Period::from_seconds(LONGEST_WAIT_SECONDS));
        if entry.failures > FREE_FAILURES && *until > now {
            return Err(Error::TooMany {
                reason: "too many wrong passwords".to_owned(),
                after: whole_seconds(*until, now),
            });
        }
        // One try after each wait; before that, as many as are left.
        let allowed = match entry.failures {
            0 => AT_ONCE,
            failures => (FREE_FAILURES + 1).saturating_sub(failures).max(1),
        };
        if entry.under_way >= allowed {
            return Err(Error::TooMany {
                reason: "this user logs in too often at once".to_owned(),
                after: Period::from_seconds(1),
            });
        }
        entry.under_way += 1;
        Ok(Login {
            limits: self,
            key: (user.to_owned(), network(address)),
            now,
        })
    }

    /// Forgets everything: the site's time was set, and waits of the old one mean nothing.
    pub(crate) fn forget(&self) {
        *self.logins.lock().expect("no holder panics") = Recent::default();
        *self.enrollments.lock().expect("no holder panics") = Recent::default();
        *self.renewals.lock().expect("no holder panics") = Recent::default();
        *self.reports.lock().expect("no holder panics") = Recent::default();
        *self.lists.lock().expect("no holder panics") = Recent::default();
        *self.bodies.lock().expect("no holder panics") = Recent::default();
        *self.policy_news.lock().expect("no holder panics") = Recent::default();
        *self.notes.lock().expect("no holder panics") = Recent::default();
    }

    /// Counts an enrollment of an address against its hour.
    pub(crate) fn count_enrollment(
        &self,
        address: Address,
        most: u32,
        now: Timestamp,
    ) -> Result<()> {
        let mut enrollments = self.enrollments.lock().expect("no holder panics");
        count(
            &mut enrollments,
            network(address),
            most,
            now,
            "this address enrolled",
        )
    }

    /// Counts a renewal of a device against its hour: a looping client does not take the CA down.
    pub(crate) fn count_renewal(&self, device: DeviceId, most: u32, now: Timestamp) -> Result<()> {
        let mut renewals = self.renewals.lock().expect("no holder panics");
        count(&mut renewals, device, most, now, "this device renewed")
    }

    /// Counts a device's report of results against its hour: history has a price.
    pub(crate) fn count_report(&self, device: DeviceId, most: u32, now: Timestamp) -> Result<()> {
        let mut reports = self.reports.lock().expect("no holder panics");
        count(
            &mut reports,
            device,
            most,
            now,
            "this device reported results",
        )
    }

    /// Counts a list that is signed for a device against its hour.
    pub(crate) fn count_list(&self, device: DeviceId, now: Timestamp) -> Result<()> {
        let mut lists = self.lists.lock().expect("no holder panics");
        let what = "this device fetched its policy";
        count(&mut lists, device, MOST_LISTS, now, what)
    }

    /// Counts a body that is signed for a device against its hour. `listed`: how many are on its list.
    pub(crate) fn count_body(&self, device: DeviceId, listed: usize, now: Timestamp) -> Result<()> {
        let mut bodies = self.bodies.lock().expect("no holder panics");
        let listed = u32::try_from(listed).unwrap_or(u32::MAX);
        let most = MOST_BODIES.max(listed.saturating_mul(2));
        let what = "this device fetched bodies of its policy";
        count(&mut bodies, device, most, now, what)
    }

    /// Counts what a device says of its policy against its hour, when it is something new.
    pub(crate) fn count_policy_news(&self, device: DeviceId, now: Timestamp) -> Result<()> {
        let mut news = self.policy_news.lock().expect("no holder panics");
        let what = "this device told of its policy";
        count(&mut news, device, MOST_POLICY_NEWS, now, what)
    }

    /// Whether a refusal is worth an entry in the audit log: how many of its kind had none since the
    /// last one; none when it has to be silent.
    pub(crate) fn worth_noting(&self, key: NoteKey, now: Timestamp) -> Option<u64> {
        let mut notes = self.notes.lock().expect("no holder panics");
        let (until, unnoted) = notes.entry(key, now, HOUR);
        if *until > now {
            *unnoted += 1;
            return None;
        }
        *until = now + NOTED_EVERY.duration();
        Some(std::mem::take(unnoted))
    }
}

/// A log-in under way. It ends when this is dropped, also when the one who asked went away.
pub(crate) struct Login<'a> {
    limits: &'a Limits,
    key: (String, Address),
    now: Timestamp,
}

impl Login<'_> {
    /// The password was wrong.
    pub(crate) fn failed(self) {
        self.change(|until, entry, now| {
            entry.failures += 1;
            let doublings = entry.failures.saturating_sub(FREE_FAILURES + 1).min(16);
            let wait = (FIRST_WAIT_SECONDS << doublings).min(LONGEST_WAIT_SECONDS);
            *until = now + Period::from_seconds(wait).duration();
        });
    }

    /// The password was right: what was before is forgiven.
    pub(crate) fn matched(self) {
        self.change(|_, entry, _| entry.failures = 0);
    }

    fn change(&self, change: impl FnOnce(&mut Timestamp, &mut Logins, Timestamp)) {
        let mut logins = self.limits.logins.lock().expect("no holder panics");
        let kept = Period::from_seconds(LONGEST_WAIT_SECONDS);
        let (until, entry) = logins.entry(self.key.clone(), self.now, kept);
        change(until, entry, self.now);
    }
}

impl Drop for Login<'_> {
    fn drop(&mut self) {
        self.change(|_, entry, _| entry.under_way = entry.under_way.saturating_sub(1));
    }
}

fn count<K: Hash + Eq>(
    counts: &mut Recent<K, u32>,
    key: K,
    most: u32,
    now: Timestamp,
    what: &str,
) -> Result<()> {
    let (until, count) = counts.entry(key, now, Period::from_seconds(0));
    if *until <= now {
        (*until, *count) = (now + HOUR.duration(), 0);
    }
    if *count >= most {
        return Err(Error::TooMany {
            reason: format!("{what} {most} times within an hour"),
            after: whole_seconds(*until, now),
        });
    }
    *count += 1;
    Ok(())
}

/// A user's own network: one address, or for IPv6 the 64 bits that a site gives out as one.
fn network(address: Address) -> Address {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// Values that matter until a moment, a bounded number of them.
struct Recent<K, V>(HashMap<K, (Timestamp, V)>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Default> Recent<K, V> {
    /// Memory that strangers can make us spend, in entries.
    const MOST: usize = 100_000;

    /// The value of `key` and until when it matters. One whose moment passed more than `kept` ago is
    /// forgotten, as are all of them when there are too many.
    fn entry(&mut self, key: K, now: Timestamp, kept: Period) -> &mut (Timestamp, V) {
        if self.0.len() >= Self::MOST && !self.0.contains_key(&key) {
            self.0.retain(|_, (until, _)| *until > now);
            if self.0.len() >= Self::MOST {
                self.0.clear();
            }
        }
        let entry = self.0.entry(key).or_insert_with(|| (now, V::default()));
        if entry.0 + kept.duration() < now {
            *entry = (now, V::default());
        }
        entry
    }
}

fn whole_seconds(until: Timestamp, now: Timestamp) -> Period {
    Period::from_seconds(u64::try_from(until.duration_since(now).as_secs() + 1).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Address = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
    const THERE: Address = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a moment")
    }

    #[test]
    fn wrong_passwords_wait_longer_and_longer_for_their_own_address_alone() {
        let limits = Limits::default();
        let mut now = now();
        for _ in 0..=FREE_FAILURES {
            limits.begin_login("ann", HERE, now).expect("free").failed();
        }
        let mut waits = Vec::new();
        for _ in 0..10 {
            let Err(Error::TooMany { after, .. }) = limits.begin_login("ann", HERE, now) else {
                panic!("not limited");
            };
            waits.push(after.seconds());
            now += after.duration();
            limits
                .begin_login("ann", HERE, now)
                .expect("after the wait")
                .failed();
        }
        assert_eq!(waits[..3], [31, 61, 121]);
        assert_eq!(waits[9], 3601);
        assert!(limits.begin_login("ann", THERE, now).is_ok());
        // A quiet hour forgives.
        let later = now + Period::from_seconds(3 * 3600).duration();
        for _ in 0..FREE_FAILURES {
            limits
                .begin_login("ann", HERE, later)
                .expect("forgiven")
                .failed();
        }
        limits
            .begin_login("ann", HERE, later)
            .expect("the last free one")
            .matched();
        limits
            .begin_login("ann", HERE, later)
            .expect("forgiven")
            .failed();
    }

    #[test]
    fn many_at_once_are_no_way_around() {
        let limits = Limits::default();
        let begun: Vec<_> = (0..200)
            .filter_map(|_| limits.begin_login("ann", HERE, now()).ok())
            .collect();
        assert_eq!(begun.len(), AT_ONCE as usize);
        begun.into_iter().for_each(Login::failed);
        assert!(limits.begin_login("ann", HERE, now()).is_err());
    }

    #[test]
    fn who_went_away_does_not_count() {
        let limits = Limits::default();
        limits
            .begin_login("ann", HERE, now())
            .expect("free")
            .failed();
        for _ in 0..200 {
            drop(limits.begin_login("ann", HERE, now()).expect("ended"));
        }
    }

    #[test]
    fn an_address_has_its_number_of_enrollments_an_hour() {
        let limits = Limits::default();
        assert!(limits.count_enrollment(HERE, 2, now()).is_ok());
        assert!(limits.count_enrollment(HERE, 2, now()).is_ok());
        assert!(limits.count_enrollment(HERE, 2, now()).is_err());
        let later = now() + HOUR.duration();
        assert!(limits.count_enrollment(HERE, 2, later).is_ok());
        // A whole IPv6 network counts as one.
        let v6 = |text: &str| text.parse::<Address>().expect("an address");
        assert!(limits.count_enrollment(v6("2001:db8::1"), 1, later).is_ok());
        assert!(
            limits
                .count_enrollment(v6("2001:db8::2"), 1, later)
                .is_err()
        );
    }

    #[test]
    fn a_device_fetches_its_policy_within_bounds() {
        let limits = Limits::default();
        let device = DeviceId::from_entropy([1; 16]);
        let fits = |count: &dyn Fn() -> Result<()>| (0..).take_while(|_| count().is_ok()).count();
        assert_eq!(fits(&|| limits.count_list(device, now())), 120);
        assert_eq!(fits(&|| limits.count_body(device, 3, now())), 1_000);
        // A large list may be fetched twice.
        let large = DeviceId::from_entropy([2; 16]);
        assert_eq!(fits(&|| limits.count_body(large, 5_000, now())), 10_000);
        assert_eq!(fits(&|| limits.count_policy_news(device, now())), 60);
        let later = now() + HOUR.duration();
        assert!(limits.count_list(device, later).is_ok());
    }

    #[test]
    fn the_same_refusal_is_noted_once_a_minute() {
        let limits = Limits::default();
        let note = |now| limits.worth_noting(("refused", "ann".to_owned(), HERE), now);
        assert_eq!(note(now()), Some(0));
        assert_eq!((note(now()), note(now())), (None, None));
        assert_eq!(note(now() + NOTED_EVERY.duration()), Some(2));
    }
}

//! One agent's place on a machine, with all it remembers.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clock::{SystemClock, SystemRng};
use domain::{Clock, ConfiguredValue, DeviceFacts, RawValue, RenewalSchedule, Rng, Timestamp};
use jiff::SignedDuration;
use protocol::CheckIn;
use rustix::process::{Pid, Signal, kill_process};

use crate::compliance;
use crate::failure::Failure;
use crate::files;
use crate::identity::{Identity, IdentityStore};
use crate::network::{Https, Network};
use crate::platform::{self, Layout};
use crate::preferences::{CCMCLIENT, Preferences};
use crate::site::SiteRecord;
use crate::state::{KnownTime, State};

/// The agent below one root.
#[derive(Clone)]
pub struct Machine {
    pub layout: Layout,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub network: Arc<dyn Network>,
    /// What the machine says of itself.
    pub facts: fn() -> DeviceFacts,
    /// Names this run of the machine, from its start to its end.
    pub boot: String,
    /// The agent's own program, which evaluates in a process of its own.
    pub program: PathBuf,
}

impl Machine {
    pub fn new(root: &Path) -> Self {
        let clock = Arc::new(SystemClock::new());
        Self {
            layout: Layout::new(root),
            network: Arc::new(Https {
                clock: clock.clone(),
            }),
            clock,
            rng: Arc::new(SystemRng),
            facts: platform::facts,
            boot: platform::boot(),
            program: platform::own_program(),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// # Errors
    /// When this is the machine's own agent and the caller is not root.
    pub fn require_root(&self) -> Result<(), Failure> {
        if self.layout.is_machine() && !rustix::process::geteuid().is_root() {
            return Err(Failure::NeedsRoot);
        }
        Ok(())
    }

    pub fn identities(&self) -> IdentityStore {
        IdentityStore::new(self.layout.identity())
    }

    pub fn preferences(&self) -> Preferences<'_> {
        Preferences::new(&self.layout)
    }

    pub fn state(&self) -> State {
        State::read(&self.layout.state())
    }

    pub fn write_state(&self, state: &State) -> io::Result<()> {
        state.write(&self.layout.state())
    }

    /// Changes what is remembered, while no other program does.
    pub async fn change_state(&self, change: impl FnOnce(&mut State)) -> io::Result<State> {
        let _lock = self.lock().await?;
        let mut state = self.state();
        change(&mut state);
        self.write_state(&state)?;
        Ok(state)
    }

    /// The identity of an enrolled machine.
    ///
    /// # Errors
    /// [`Failure::NotEnrolled`] when there is none.
    pub fn enrolled(&self) -> Result<Identity, Failure> {
        self.identities().current()?.ok_or(Failure::NotEnrolled)
    }

    /// The reminders' schedule, out of the preferences.
    pub fn schedule(&self) -> RenewalSchedule {
        let found = self.preferences().snapshot(CCMCLIENT);
        RenewalSchedule::resolve(|key| {
            let (value, level) = found(key.word())?;
            let value = raw(value);
            Some(ConfiguredValue { value, level })
        })
    }

    /// A moment that has certainly passed: the site's last time, and what went by since.
    pub fn known_time(&self) -> Option<Timestamp> {
        self.state().known_time.map(|known| self.time_since(&known))
    }

    /// `known`, and what went by since.
    pub fn time_since(&self, known: &KnownTime) -> Timestamp {
        let since = match known.boot == self.boot {
            true => self
                .clock
                .elapsed()
                .saturating_sub(SignedDuration::from_secs(known.elapsed)),
            // How long the machine was off nobody knows.
            false => SignedDuration::ZERO,
        };
        let since = since.max(SignedDuration::ZERO);
        known.time.saturating_add(since).unwrap_or(known.time)
    }

    /// The best knowledge of the time. Within one run of the machine that is the site's, whatever the
    /// clock was set to; after a start the clock, corrected by what it was wrong before, and never
    /// before the last moment that the site told.
    pub fn best_time(&self) -> Timestamp {
        let state = self.state();
        let Some(known) = self.known_time() else {
            return self.now();
        };
        if state.known_time.is_some_and(|time| time.boot == self.boot) {
            return known;
        }
        let skew = SignedDuration::from_secs(state.skew.unwrap_or(0));
        let corrected = self.now().saturating_add(skew);
        corrected.map_or(known, |corrected| corrected.max(known))
    }

    /// Remembers the site's time.
    pub fn know_time(&self, time: Timestamp) -> KnownTime {
        KnownTime {
            time,
            elapsed: self.clock.elapsed().as_secs(),
            boot: self.boot.clone(),
        }
    }

    /// What a check-in reports.
    pub fn report(&self, site: &SiteRecord) -> CheckIn {
        let schedule = self.schedule();
        let facts = DeviceFacts {
            renewal_period_1: Some(schedule.period_1.effective.seconds()),
            renewal_settings: schedule.settings(),
            clock_skew: self.state().reported_skew(),
            trust_verified: Some(site.trust_verified),
            ..(self.facts)()
        };
        let (policy, results) = compliance::report(self);
        CheckIn {
            facts,
            time: self.now(),
            policy,
            results,
        }
    }

    /// Lets one program at a time work on the identity. Waits for its turn, and can be broken off.
    pub async fn lock(&self) -> io::Result<File> {
        let lock = self.open_lock()?;
        while !is_locked(&lock)? {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(lock)
    }

    /// The same, without waiting: none when it is another one's turn.
    pub fn try_lock(&self) -> io::Result<Option<File>> {
        let lock = self.open_lock()?;
        Ok(is_locked(&lock)?.then_some(lock))
    }

    fn open_lock(&self) -> io::Result<File> {
        let state = self.layout.state();
        files::make_folder(&state, 0o700)?;
        File::create(state.join("work.lock"))
    }

    /// Marks this process as the daemon.
    ///
    /// # Errors
    /// When another one runs.
    pub fn become_daemon(&self) -> Result<File, Failure> {
        let state = self.layout.state();
        files::make_folder(&state, 0o700)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(state.join("daemon.lock"))?;
        // A tool that looks whether a daemon runs holds the lock for an instant.
        for _ in 0..20 {
            match lock.try_lock() {
                Ok(()) => {
                    lock.set_len(0)?;
                    lock.write_all(std::process::id().to_string().as_bytes())?;
                    return Ok(lock);
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        Err(Failure::other("the agent runs already"))
    }

    /// The daemon's process, when one runs.
    pub fn daemon(&self) -> Option<Pid> {
        let mut lock = File::open(self.layout.state().join("daemon.lock")).ok()?;
        if lock.try_lock_shared().is_ok() {
            return None;
        }
        let mut text = String::new();
        lock.rewind().ok()?;
        lock.read_to_string(&mut text).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Tells the daemon that something changed.
    pub fn wake_daemon(&self) {
        if let Some(pid) = self.daemon() {
            let _ = kill_process(pid, Signal::HUP);
        }
    }
}

/// Takes a lock, if nobody has it.
fn is_locked(lock: &File) -> io::Result<bool> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn raw(value: plist::Value) -> RawValue {
    use plist::Value;
    match value {
        Value::String(text) => RawValue::Text(text),
        Value::Integer(_) => RawValue::Other("integer"),
        Value::Real(_) => RawValue::Other("real"),
        Value::Boolean(_) => RawValue::Other("boolean"),
        Value::Date(_) => RawValue::Other("date"),
        Value::Data(_) => RawValue::Other("data"),
        Value::Array(_) => RawValue::Other("array"),
        Value::Dictionary(_) => RawValue::Other("dictionary"),
        _ => RawValue::Other("unknown"),
    }
}

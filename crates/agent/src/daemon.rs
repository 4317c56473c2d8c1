//! The daemon: sleeps until the next moment that matters, does what is due, and sleeps again. No
//! timer runs in between.

use domain::Timestamp;
use jiff::SignedDuration;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::identity::Machine;
use crate::log;
use crate::platform::Alarm;
use crate::renewal;

/// Never longer, whatever was computed: a wrong clock must not make a sleep of years.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_hours(24);

pub async fn run(machine: &Machine) -> Result<(), Failure> {
    // Listening for signals comes first: a tool may send one as soon as it sees the daemon.
    let mut changed = signal(SignalKind::hangup())?;
    let mut end = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _daemon = machine.become_daemon()?;
    log::start(&machine.layout, true);
    let mut alarm = Alarm::new(machine.clock)?;
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!(event = "started", version = env!("CARGO_PKG_VERSION"));
    let work = async {
        loop {
            let next = step(machine).await;
            sleep(&mut alarm, &mut changed, next).await?;
        }
    };
    // Breaking off at any point of the work is as harmless as being killed there.
    tokio::select! {
        failed = work => return failed,
        _ = end.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(event = "stopped");
    Ok(())
}

/// Until the next moment that matters, or until a tool says that something changed. Without an
/// identity nothing is due.
async fn sleep(
    alarm: &mut Alarm,
    changed: &mut Signal,
    next: Option<Timestamp>,
) -> Result<(), Failure> {
    let Some(next) = next else {
        changed.recv().await;
        return Ok(());
    };
    tokio::select! {
        waited = alarm.wait_until(next) => Ok(waited?),
        _ = changed.recv() => Ok(()),
    }
}

/// Does what is due now, and tells when something is due next.
async fn step(machine: &Machine) -> Option<Timestamp> {
    let due = match Due::now(machine) {
        Ok(due) => due?,
        Err(failure) => {
            tracing::error!(event = "identity-unreadable", %failure);
            return Some(machine.now() + SignedDuration::from_hours(1));
        }
    };
    if due.next > machine.now() {
        return Some(due.next.min(machine.now() + LONGEST_SLEEP));
    }
    if let Err(failure) = act(machine, due.renewal).await {
        match &failure {
            Failure::NotEnrolled => return None,
            failure if failure.is_refusal() => tracing::warn!(event = "refused", %failure),
            failure => tracing::warn!(event = "not-reached", %failure),
        }
        if let Err(failure) = renewal::note_trouble(machine, &failure, due.renewal) {
            tracing::error!(event = "state-not-written", %failure);
            return Some(machine.now() + SignedDuration::from_hours(1));
        }
    }
    let next = Due::now(machine).ok().flatten()?.next;
    Some(next.min(machine.now() + LONGEST_SLEEP))
}

async fn act(machine: &Machine, renewal_is_due: bool) -> Result<(), Failure> {
    let _lock = machine.lock()?;
    renewal::resume(machine).await?;
    if renewal_is_due {
        renewal::renew(machine).await?;
    } else {
        renewal::check_in(machine).await?;
        tracing::debug!(event = "checked-in");
    }
    Ok(())
}

/// What is due, and when.
struct Due {
    next: Timestamp,
    renewal: bool,
}

impl Due {
    /// None without an identity.
    fn now(machine: &Machine) -> Result<Option<Self>, Failure> {
        let now = machine.now();
        let state = machine.state();
        // A clock that was set back does not prolong the wait for another try.
        let trouble = state.trouble.as_ref();
        let again = trouble.map(|trouble| if trouble.at > now { now } else { trouble.next });
        let again = again.unwrap_or(Timestamp::MIN);
        match machine.enrolled() {
            // An enrollment that was cut off after the site's answer.
            Err(Failure::NotEnrolled) if renewal::is_staged(machine) => {
                return Ok(Some(Self {
                    next: again,
                    renewal: false,
                }));
            }
            Err(Failure::NotEnrolled) => return Ok(None),
            enrolled => enrolled?,
        };
        // A check-in in the future was made by a clock that has been set back since.
        let planned = state
            .next_check_in
            .filter(|_| state.last_check_in.is_none_or(|at| at <= now));
        let mut check_in = planned.unwrap_or(now);
        // A renewal that fails does not keep the device from checking in.
        if trouble.is_some_and(|trouble| !trouble.of_renewal) {
            check_in = check_in.max(again);
        }
        let renewal = state.renew_at.unwrap_or(Timestamp::MAX).max(again);
        Ok(Some(Self {
            next: check_in.min(renewal),
            renewal: renewal <= now,
        }))
    }
}

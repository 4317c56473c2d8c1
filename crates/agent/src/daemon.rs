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
use crate::state::Trouble;

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
    match work_when_due(machine).await {
        Ok(next) => next.map(|next| next.min(machine.now() + LONGEST_SLEEP)),
        Err(failure) => {
            tracing::error!(event = "cannot-work", %failure, "will be tried again in an hour");
            Some(machine.now() + SignedDuration::from_hours(1))
        }
    }
}

async fn work_when_due(machine: &Machine) -> Result<Option<Timestamp>, Failure> {
    let Some(due) = Due::now(machine)? else {
        return Ok(None);
    };
    if due.next > machine.now() {
        return Ok(Some(due.next));
    }
    let _lock = machine.lock().await?;
    // A tool may have done it while this one waited for its turn.
    let Some(due) = Due::now(machine)?.filter(|due| due.next <= machine.now()) else {
        return Ok(Due::now(machine)?.map(|due| due.next));
    };
    match act(machine, due.renewal).await {
        Ok(()) | Err(Failure::NotEnrolled) => {}
        Err(failure) => {
            if failure.is_refusal() {
                tracing::warn!(event = "refused", %failure);
            } else {
                tracing::warn!(event = "not-reached", %failure);
            }
            renewal::note_trouble(machine, &failure, due.renewal)?;
        }
    }
    Ok(Due::now(machine)?.map(|due| due.next))
}

async fn act(machine: &Machine, renewal_is_due: bool) -> Result<(), Failure> {
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
        let again = |trouble: &Option<Trouble>| match trouble {
            Some(trouble) if trouble.at <= now => trouble.next,
            _ => Timestamp::MIN,
        };
        let check_in_again = again(&state.trouble);
        match machine.enrolled() {
            // An enrollment that was cut off after the site's answer.
            Err(Failure::NotEnrolled) if renewal::is_staged(machine) => {
                return Ok(Some(Self {
                    next: check_in_again,
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
        let check_in = planned.unwrap_or(now).max(check_in_again);
        let renewal = state.renew_at.unwrap_or(Timestamp::MAX);
        let renewal = renewal.max(again(&state.renewal_trouble));
        Ok(Some(Self {
            next: check_in.min(renewal),
            renewal: renewal <= now,
        }))
    }
}

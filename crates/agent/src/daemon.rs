//! The daemon: sleeps until the next moment that matters, does what is due, and sleeps again. No
//! timer runs in between. Policy, evaluations and results are the work of a process beside it: that may
//! take long, and a renewal must not wait for it; and its memory goes back.

use std::cell::Cell;
use std::io::{self, Read};
use std::process::Stdio;

use clock::SystemClock;
use domain::{RenewalMode, Timestamp};
use jiff::SignedDuration;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::compliance;
use crate::failure::Failure;
use crate::identity::Machine;
use crate::local::{Bounds, Local, Socket};
use crate::log;
use crate::platform::{self, Alarm, NetworkWatch};
use crate::reminder;
use crate::renewal;
use crate::state::Trouble;

/// Never longer, whatever was computed: a wrong clock must not make a sleep of years.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_hours(24);
/// Less is the clocks' imprecision.
const ASLEEP: SignedDuration = SignedDuration::from_secs(1);
/// Networks that change all the time are no reason to ask all the time.
const BETWEEN_TRIES: std::time::Duration = std::time::Duration::from_secs(30);
/// How long an evaluation waits that could not be done.
const AFTER_FAILURE: SignedDuration = SignedDuration::from_mins(1);
/// A network that comes up does so in several steps.
const SETTLING: std::time::Duration = std::time::Duration::from_secs(3);

pub async fn run(machine: &Machine) -> Result<(), Failure> {
    // Listening for signals comes first: a tool may send one as soon as it sees the daemon.
    let mut changed = signal(SignalKind::hangup())?;
    let mut end = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _daemon = machine.become_daemon()?;
    log::start(&machine.layout, true);
    if let Err(error) = platform::cgroup::prepare_service() {
        tracing::warn!(event = "no-control-group", %error);
    }
    let mut alarm = Alarm::new(SystemClock::new())?;
    let local = Local::new(machine, Bounds::default());
    let socket = match Socket::listen(&machine.layout) {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::error!(event = "no-socket", %error, "no windows; all else goes on");
            None
        }
    };
    let (_socket, listener) = socket.unzip();
    let callers = async {
        match listener {
            Some(listener) => local.serve(listener).await,
            None => std::future::pending().await,
        }
    };
    let windows = || local.windows();
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!(event = "started", version = env!("CARGO_PKG_VERSION"));
    let evaluations = Evaluations::default();
    let work = async {
        note_waking(machine).await;
        let mut asleep = alarm.asleep();
        loop {
            let next = step(machine, &windows).await;
            local.refresh();
            let next = evaluations.begin_or_wait(machine, next);
            tokio::select! {
                slept = sleep(machine, &mut alarm, &mut changed, &evaluations.ended, next) => slept?,
                () = local.changed() => {}
            }
            // Also a sleep in the middle of the work.
            if alarm.asleep() > asleep + ASLEEP {
                asleep = alarm.asleep();
                tracing::debug!(event = "woke");
                note_waking(machine).await;
            }
        }
    };
    // Breaking off at any point of the work is as harmless as being killed there.
    let all = async {
        tokio::select! {
            failed = work => return failed,
            () = evaluations.run(machine) => {}
            () = callers => {}
            _ = end.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok::<(), Failure>(())
    };
    // What callers asked for runs in tasks of this set, and ends with it.
    LocalSet::new().run_until(all).await?;
    tracing::info!(event = "stopped");
    Ok(())
}

/// What is evaluated while the daemon does its other work.
#[derive(Default)]
struct Evaluations {
    running: Cell<bool>,
    /// After one that could not be done.
    not_before: Cell<Option<Timestamp>>,
    due: Notify,
    ended: Notify,
}

impl Evaluations {
    /// Begins what is due. Returns when to wake up next, for that or for `next`.
    fn begin_or_wait(&self, machine: &Machine, next: Option<Timestamp>) -> Option<Timestamp> {
        if self.running.get() {
            return next;
        }
        let identity = machine.enrolled().ok();
        let due = identity.and_then(|identity| compliance::next(machine, &identity));
        let Some(due) = due else { return next };
        let now = machine.now();
        let due = due.max(self.not_before.get().unwrap_or(due));
        if due <= now {
            self.running.set(true);
            self.due.notify_one();
            return next;
        }
        let due = due.min(now + LONGEST_SLEEP);
        Some(next.map_or(due, |next| next.min(due)))
    }

    /// Does what is due, again and again.
    async fn run(&self, machine: &Machine) {
        loop {
            self.due.notified().await;
            let done = in_a_process(machine).await;
            if let Err(error) = &done {
                tracing::error!(event = "not-evaluated", %error, "will be tried again");
            }
            let wait = done.err().map(|_| machine.now() + AFTER_FAILURE);
            self.not_before.set(wait);
            self.running.set(false);
            self.ended.notify_one();
        }
    }
}

/// [`compliance::work`] in a process that ends with it, or with this one: its input is never written to, and
/// closed when this process ends.
async fn in_a_process(machine: &Machine) -> io::Result<()> {
    let mut child = tokio::process::Command::new(&machine.program)
        .arg("--root")
        .arg(machine.layout.root())
        .arg("comply")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let _open = child.stdin.take();
    match child.wait().await? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(status.to_string())),
    }
}

/// The program of that process.
///
/// # Errors
/// When what is due cannot be done.
pub async fn comply(machine: &Machine) -> Result<(), Failure> {
    log::start(&machine.layout, true);
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    // Breaking off at any point of the work is as harmless as being killed there.
    tokio::select! {
        done = compliance::work(machine) => done,
        _ = end => Ok(()),
    }
}

/// Until the next moment that matters, or until a tool says that something changed. Without an
/// identity nothing is due. While the site is not reachable, a change of the network ends the sleep.
async fn sleep(
    machine: &Machine,
    alarm: &mut Alarm,
    changed: &mut Signal,
    evaluated: &Notify,
    next: Option<Timestamp>,
) -> Result<(), Failure> {
    let Some(next) = next else {
        tokio::select! {
            _ = changed.recv() => {}
            () = evaluated.notified() => {}
        }
        return Ok(());
    };
    let offline = machine.state().waits_for_network();
    let network = async {
        match offline.then(NetworkWatch::start).flatten() {
            Some(watch) => {
                tokio::time::sleep(BETWEEN_TRIES).await;
                watch.changed().await;
                tokio::time::sleep(SETTLING).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        waited = alarm.wait_until(next) => waited?,
        _ = changed.recv() => {}
        () = evaluated.notified() => {}
        () = network => {
            tracing::debug!(event = "network-changed");
            let now = machine.now();
            if let Err(error) = machine.change_state(|state| state.try_again_at(now)).await {
                tracing::error!(event = "cannot-work", %error);
            }
        }
    }
    Ok(())
}

/// A daemon that cannot write goes on: it tries again later.
async fn note_waking(machine: &Machine) {
    if let Err(failure) = woke(machine).await {
        tracing::error!(event = "cannot-work", %failure);
    }
}

/// The machine woke, or the daemon started: what was not reachable is tried again before anybody is
/// reminded of anything.
pub async fn woke(machine: &Machine) -> Result<(), Failure> {
    let now = machine.now();
    machine
        .change_state(|state| {
            state.woke_at = Some(now);
            state.try_again_at(now);
        })
        .await?;
    Ok(())
}

/// Does what is due now, and tells when something is due next. `windows` are the users before whom a
/// program shows reminders.
pub async fn step(machine: &Machine, windows: &dyn Fn() -> Vec<u32>) -> Option<Timestamp> {
    match work_when_due(machine, windows).await {
        Ok(next) => next.map(|next| next.min(machine.now() + LONGEST_SLEEP)),
        Err(failure) => {
            tracing::error!(event = "cannot-work", %failure, "will be tried again in an hour");
            Some(machine.now() + SignedDuration::from_hours(1))
        }
    }
}

async fn work_when_due(
    machine: &Machine,
    windows: &dyn Fn() -> Vec<u32>,
) -> Result<Option<Timestamp>, Failure> {
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
    if due.work.is_some() {
        let renewal_is_due = due.work == Some(Work::Renewal);
        match act(machine, renewal_is_due).await {
            Ok(()) | Err(Failure::NotEnrolled) => {}
            Err(failure) => {
                if failure.is_refusal() {
                    tracing::warn!(event = "refused", %failure);
                } else {
                    tracing::warn!(event = "not-reached", %failure);
                }
                renewal::note_trouble(machine, &failure, renewal_is_due)?;
            }
        }
    }
    reminder::show_when_due(machine, windows).await?;
    Ok(Due::now(machine)?.map(|due| due.next))
}

async fn act(machine: &Machine, renewal_is_due: bool) -> Result<(), Failure> {
    renewal::resume(machine).await?;
    if renewal_is_due {
        renewal::renew(machine).await?;
    } else {
        match renewal::check_in(machine).await {
            // TLS lets it in no more, and no window will be learned: what is left is the proof of its
            // key, whatever the policy says.
            Err(failure) if failure.is_about_the_certificate() => {
                renewal::renew(machine).await?;
            }
            done => {
                done?;
                tracing::debug!(event = "checked-in");
            }
        }
    }
    Ok(())
}

/// What has to do with the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    CheckIn,
    Renewal,
}

/// What is due, and when.
struct Due {
    next: Timestamp,
    /// What is due now, beside a reminder.
    work: Option<Work>,
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
        let identity = match machine.enrolled() {
            // An enrollment that was cut off after the site's answer.
            Err(Failure::NotEnrolled) if renewal::is_staged(machine) => {
                return Ok(Some(Self {
                    next: check_in_again,
                    work: Some(Work::CheckIn),
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
        let renewal = match (state.renewal_mode, state.renewal_due(now)) {
            (RenewalMode::Automatic, Some(due)) => due.max(again(&state.renewal_trouble)),
            _ => Timestamp::MAX,
        };
        let reminder = reminder::next(machine, &state, &identity);
        let reminder = reminder.map_or(Timestamp::MAX, |next| next.at);
        let work = if renewal <= now {
            Some(Work::Renewal)
        } else if check_in <= now {
            Some(Work::CheckIn)
        } else {
            None
        };
        Ok(Some(Self {
            next: check_in.min(renewal).min(reminder),
            work,
        }))
    }
}

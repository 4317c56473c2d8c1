//! What takes its time: renewals, enrollments and check-ins that callers asked for. They run one after
//! the other, each to its end whether its caller stays or not, and tell steps to whoever still listens.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use hyper::body::Bytes;
use protocol::RenewalStep;
use tokio::sync::{Mutex, mpsc};

use super::answer::{self, Answer, Refusal};
use super::{Caller, Local};
use crate::failure::Failure;
use crate::renewal;

/// More than any work has.
const MOST_STEPS: usize = 8;

/// Who waits for a turn. A user has one place in it.
pub struct Queue {
    most: usize,
    turn: Mutex<()>,
    waiting: Cell<usize>,
    users: RefCell<HashSet<u32>>,
}

impl Queue {
    pub fn new(most: usize) -> Rc<Self> {
        Rc::new(Self {
            most,
            turn: Mutex::new(()),
            waiting: Cell::new(0),
            users: RefCell::default(),
        })
    }

    /// Waits for nothing: the ticket is a place among those who do.
    pub fn enter(self: &Rc<Self>, caller: Caller) -> Result<Ticket, Refusal> {
        // Root comes in whatever others do.
        if self.waiting.get() >= self.most && !caller.is_root {
            return Err(Refusal::busy(
                "the agent has too much to do; try again soon",
            ));
        }
        if !self.users.borrow_mut().insert(caller.uid) {
            return Err(Refusal::busy(
                "the agent works on another request of yours; wait until that is done",
            ));
        }
        self.waiting.set(self.waiting.get() + 1);
        Ok(Ticket(self.clone(), caller.uid))
    }
}

pub struct Ticket(Rc<Queue>, u32);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        self.0.users.borrow_mut().remove(&self.1);
    }
}

/// Where steps go. Nobody waits for who does not read them.
pub struct Steps(mpsc::Sender<Bytes>);

impl Steps {
    pub fn tell(&self, step: &RenewalStep) {
        let _ = self.0.try_send(answer::line(step));
    }
}

/// Begins a work of `caller`. The answer is its steps, with the last one for its outcome.
pub fn begin(
    local: &Rc<Local>,
    caller: Caller,
    work: impl AsyncFnOnce(&Local, &Steps) -> Result<RenewalStep, Failure> + 'static,
) -> Result<Answer, Refusal> {
    let ticket = local.queue.enter(caller)?;
    let (sender, receiver) = mpsc::channel(MOST_STEPS);
    let (local, steps) = (local.clone(), Steps(sender));
    tokio::task::spawn_local(async move {
        let queue = ticket.0.clone();
        // Also the daemon, or a tool, may be at work.
        let is_free = matches!(local.machine.try_lock(), Ok(Some(_)));
        let turn = match queue.turn.try_lock() {
            Ok(turn) if is_free => turn,
            other => {
                steps.tell(&RenewalStep::Waiting);
                match other {
                    Ok(turn) => turn,
                    Err(_) => queue.turn.lock().await,
                }
            }
        };
        let done = work(&local, &steps).await;
        local.refresh();
        local.changed.notify_one();
        // The next one may begin before this one's caller heard of it.
        drop(turn);
        drop(ticket);
        steps.tell(&done.unwrap_or_else(|failure| refused(&failure)));
    });
    Ok(answer::stream("application/x-ndjson", receiver))
}

/// What became of asking this computer's site. When it is not there, the windows of all users hear so,
/// and ask for no password that could not help; and they hear when it is back.
pub async fn asked<T>(local: &Local, answer: Result<T, Failure>) -> Result<T, Failure> {
    if let Err(failure) = &answer
        && let Err(error) = renewal::note_asked(&local.machine, failure).await
    {
        tracing::error!(event = "cannot-work", %error);
    }
    answer
}

/// An answer that is known at once.
pub fn already(step: &RenewalStep) -> Answer {
    let (sender, receiver) = mpsc::channel(1);
    Steps(sender).tell(step);
    answer::stream("application/x-ndjson", receiver)
}

pub fn refused(failure: &Failure) -> RenewalStep {
    // Who may not confirm it can show it to somebody who may.
    let observed = match failure {
        Failure::NotTrusted { observed, .. } => *observed,
        _ => None,
    };
    RenewalStep::Refused {
        failure: failure.for_the_wizard(),
        detail: failure.to_string(),
        observed: observed.map(|pin| pin.to_string()),
    }
}

//! What windows ask of the agent, and what they hear of it. Threads wait for the socket, so that no
//! window ever does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use domain::Timestamp;
use domain::wizard::RenewalFailure;
use protocol::{Credentials, EnrollmentRequest, LocalEvent, LocalStatus, PutOff, RenewalStep};

use crate::agent::{Agent, AgentError};
use crate::diagnostics;
use crate::instance::{Instance, Start};

/// A window's request. Its answers come as [`News`].
#[derive(Debug)]
pub enum Ask {
    Renew(Credentials),
    Enroll(EnrollmentRequest),
    CheckIn,
    PutOff,
    /// What the window shows grows old.
    Status,
    /// The time is for the file's name.
    SaveDiagnostics(Timestamp),
}

/// What windows hear.
#[derive(Debug)]
pub enum News {
    Status(Box<LocalStatus>),
    /// The agent does not answer; it is asked again and again, and [`News::Status`] follows.
    Away,
    Event(LocalEvent),
    /// Of a renewal or an enrollment.
    Step(RenewalStep),
    /// Of a check-in.
    CheckIn(RenewalStep),
    PutOff(Option<PutOff>),
    /// This program was started again, for this.
    Started(Start),
    Saved(Result<PathBuf, String>),
}

/// The agent, as windows see it: behind threads, or a test's.
pub trait Agents {
    fn ask(&mut self, ask: Ask);
    /// The next news, without waiting.
    fn news(&mut self) -> Option<News>;
}

/// Calls the window: something is new.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

pub struct Worker {
    agent: Agent,
    news: Receiver<News>,
    tell: Tell,
}

#[derive(Clone)]
struct Tell {
    sender: Sender<News>,
    wake: Wake,
}

impl Tell {
    /// False when the window is gone.
    fn tell(&self, news: News) -> bool {
        let told = self.sender.send(news).is_ok();
        (self.wake)();
        told
    }
}

/// How long the agent is left alone before it is asked whether it is back.
const AGAIN: Duration = Duration::from_millis(700);

impl Worker {
    /// Begins to listen.
    pub fn start(socket: &Path, wake: Wake) -> Self {
        let (sender, news) = channel();
        let tell = Tell { sender, wake };
        let agent = Agent::at(socket);
        let (listener, listening) = (agent.clone(), tell.clone());
        std::thread::spawn(move || listen(&listener, &listening));
        Self { agent, news, tell }
    }

    /// Hears of later starts, and holds the lock until the program ends.
    pub fn hear_starts(&self, instance: Instance) {
        let tell = self.tell.clone();
        std::thread::spawn(move || {
            for start in instance.starts() {
                tell.tell(News::Started(start));
            }
            // Without a socket nobody is heard, and it is locked all the same.
            std::thread::park();
            drop(instance);
        });
    }
}

impl Agents for Worker {
    fn ask(&mut self, ask: Ask) {
        let (agent, tell) = (self.agent.clone(), self.tell.clone());
        std::thread::spawn(move || answer(&agent, ask, &tell));
    }

    fn news(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

/// Status first, then events, and the status again after each; until the window is gone.
fn listen(agent: &Agent, tell: &Tell) {
    loop {
        // Events first: nothing that happens between the two is missed.
        let heard = agent.events(
            || tell_status(agent, tell),
            |event| {
                tell.tell(News::Event(event));
                tell_status(agent, tell);
            },
        );
        let refused = matches!(heard, Err(AgentError::Refused { .. }));
        if !tell.tell(News::Away) {
            return;
        }
        std::thread::sleep(if refused { AGAIN * 8 } else { AGAIN });
    }
}

fn tell_status(agent: &Agent, tell: &Tell) {
    if let Ok(status) = agent.status() {
        tell.tell(News::Status(Box::new(status)));
    }
}

fn answer(agent: &Agent, ask: Ask, tell: &Tell) {
    match ask {
        Ask::Renew(credentials) => {
            let mut ended = false;
            let asked = agent.renew(credentials, |step| {
                ended |= is_last(&step);
                tell.tell(News::Step(step));
            });
            end(agent, tell, asked, ended, News::Step);
        }
        Ask::Enroll(request) => {
            let mut ended = false;
            let asked = agent.enroll(request, |step| {
                ended |= is_last(&step);
                tell.tell(News::Step(step));
            });
            end(agent, tell, asked, ended, News::Step);
        }
        Ask::CheckIn => {
            let mut ended = false;
            let asked = agent.check_in(|step| {
                ended |= is_last(&step);
                tell.tell(News::CheckIn(step));
            });
            end(agent, tell, asked, ended, News::CheckIn);
        }
        Ask::PutOff => {
            let put_off = agent.put_off().ok();
            tell.tell(News::PutOff(put_off));
        }
        Ask::Status => tell_status(agent, tell),
        Ask::SaveDiagnostics(now) => {
            let saved = diagnostics::save(agent, now).map_err(|error| error.to_string());
            tell.tell(News::Saved(saved));
        }
    }
}

fn is_last(step: &RenewalStep) -> bool {
    matches!(
        step,
        RenewalStep::Renewed { .. } | RenewalStep::CheckedIn { .. } | RenewalStep::Refused { .. }
    )
}

/// Whatever happened, a window hears an end. When the agent went away, the listener says so.
fn end(
    agent: &Agent,
    tell: &Tell,
    asked: Result<(), AgentError>,
    ended: bool,
    news: fn(RenewalStep) -> News,
) {
    if ended {
        tell_status(agent, tell);
        return;
    }
    let (failure, detail) = match asked {
        Err(AgentError::Refused { status, reason }) => {
            let failure = match status {
                403 => RenewalFailure::NotAllowed,
                429 | 503 => RenewalFailure::Busy,
                _ => RenewalFailure::Other,
            };
            (failure, reason)
        }
        Err(error) => (RenewalFailure::Other, error.to_string()),
        Ok(()) => (
            RenewalFailure::Other,
            "the agent ended without an outcome".to_owned(),
        ),
    };
    if agent.status().is_err() {
        tell.tell(News::Away);
    }
    let observed = None;
    tell.tell(news(RenewalStep::Refused {
        failure,
        detail,
        observed,
    }));
}

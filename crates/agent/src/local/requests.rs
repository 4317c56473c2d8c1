//! What callers ask for, and which of them may. Nobody but root chooses server, fingerprint or trust, or
//! gives this computer to another user.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use domain::Pin;
use domain::wizard::RenewalFailure;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, Request, StatusCode};
use protocol::{
    Credentials, EnrollmentRequest, LOCAL_CHECK_IN_PATH, LOCAL_DIAGNOSTICS_PATH,
    LOCAL_ENROLLMENT_PATH, LOCAL_EVENTS_PATH, LOCAL_LATER_PATH, LOCAL_LIMIT, LOCAL_RENEWAL_PATH,
    LOCAL_STATUS_PATH, RenewalStep,
};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use transport::ServerAddress;
use zeroize::Zeroizing;

use super::answer::{self, Answer, Refusal};
use super::{Caller, Local, events, look, status, work};
use crate::failure::Failure;
use crate::reminder::{self, Whose};
use crate::renewal::trust::{self, GivenTrust, Wanted};
use crate::renewal::{self, Renewed};
use crate::tools::diagnostics::{self, Scope};

/// Of an archive.
const LONGEST_READING: Duration = Duration::from_secs(120);

pub(super) async fn answer(
    local: &Rc<Local>,
    caller: Caller,
    request: Request<Incoming>,
) -> Answer {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let post = Method::POST;
    let done = match path.as_str() {
        LOCAL_STATUS_PATH if method == Method::GET => status(local, caller),
        LOCAL_EVENTS_PATH if method == Method::GET => Ok(events::listen(local, caller)),
        LOCAL_DIAGNOSTICS_PATH if method == Method::GET => take_diagnostics(local, caller).await,
        LOCAL_RENEWAL_PATH if method == post => renew(local, caller, request).await,
        LOCAL_ENROLLMENT_PATH if method == post => enroll(local, caller, request).await,
        LOCAL_CHECK_IN_PATH if method == post => check_in(local, caller),
        LOCAL_LATER_PATH if method == post => later(local, caller).await,
        LOCAL_STATUS_PATH
        | LOCAL_EVENTS_PATH
        | LOCAL_DIAGNOSTICS_PATH
        | LOCAL_RENEWAL_PATH
        | LOCAL_ENROLLMENT_PATH
        | LOCAL_CHECK_IN_PATH
        | LOCAL_LATER_PATH => Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "the agent does not take this method here",
        )),
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "the agent has nothing here",
        )),
    };
    done.unwrap_or_else(Refusal::answer)
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = match failure {
            Failure::NotEnrolled => StatusCode::CONFLICT,
            Failure::NotAllowed(_) | Failure::NeedsRoot => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, failure.to_string())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Failure::from(error).into()
    }
}

fn status(local: &Local, caller: Caller) -> Result<Answer, Refusal> {
    Ok(answer::json(&status::of(&local.machine, caller)?))
}

async fn later(local: &Rc<Local>, caller: Caller) -> Result<Answer, Refusal> {
    let ticket = local.put_offs.enter(caller)?;
    let local = local.clone();
    // To its end, also when the window does not wait for it.
    let work = tokio::task::spawn_local(async move {
        let _ticket = ticket;
        let put_off = reminder::put_off(&local.machine, Whose::User).await?;
        local.refresh();
        local.changed.notify_one();
        Ok::<_, Failure>(put_off)
    });
    let put_off = work.await.map_err(io::Error::other)??;
    Ok(answer::json(&put_off))
}

fn check_in(local: &Rc<Local>, caller: Caller) -> Result<Answer, Refusal> {
    renewal::require_identity(&local.machine)?;
    work::begin(local, caller, async |local, steps| {
        steps.tell(&RenewalStep::AskingTheSite);
        work::asked(local, renewal::check_in_now(&local.machine).await).await?;
        let at = local.machine.now();
        Ok(RenewalStep::CheckedIn { at })
    })
}

async fn renew(
    local: &Rc<Local>,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let Credentials { user, password } = body(local, request).await?;
    let password = Zeroizing::new(password);
    // What the caller saw is what it wants to renew.
    let before = local.machine.enrolled()?;
    if !caller.is_root && !user.eq_ignore_ascii_case(&before.site.user) {
        return Err(Refusal::forbidden(format!(
            "this computer is enrolled by {}; only root may renew it as another user",
            before.site.user
        )));
    }
    if let Some(refused) = try_password(local, caller, &password) {
        return Ok(refused);
    }
    work::begin(local, caller, async move |local, steps| {
        let machine = &local.machine;
        let lock = machine.lock().await?;
        let tell = |step| steps.tell(&step);
        let renewed = renewal::renew_with_password(machine, &before, &user, &password, &tell).await;
        drop(lock);
        let renewed = work::asked(local, renewed).await?;
        let (Renewed::Now(identity) | Renewed::Meanwhile(identity)) = renewed;
        let not_after = identity.certificate.not_after();
        Ok(RenewalStep::Renewed { not_after })
    })
}

async fn enroll(
    local: &Rc<Local>,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let EnrollmentRequest {
        credentials: Credentials { user, password },
        server,
        pin,
    } = body(local, request).await?;
    let password = Zeroizing::new(password);
    let managed = look::server(&local.machine);
    let server =
        match server {
            None => None,
            Some(server) => Some(server.parse::<ServerAddress>().map_err(|_| {
                Refusal::new(StatusCode::BAD_REQUEST, "this is no name of a server")
            })?),
        };
    if !caller.is_root {
        let is_managed = managed.is_some() && (server.is_none() || server == managed);
        if pin.is_some() || !is_managed {
            return Err(Refusal::forbidden(
                "only root, or this computer's management (preference Server), chooses the server \
                 and whom to trust",
            ));
        }
        if local.machine.enrolled().is_ok() {
            return Err(Refusal::forbidden(
                "this computer is enrolled; only root may enroll it anew",
            ));
        }
    }
    let Some(server) = server.or(managed) else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "no server is named"));
    };
    let trust = match pin {
        None => GivenTrust::Nothing,
        Some(pin) => GivenTrust::Pin(
            pin.parse::<Pin>()
                .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "this is no fingerprint"))?,
        ),
    };
    if let Some(refused) = try_password(local, caller, &password) {
        return Ok(refused);
    }
    let wanted = Wanted {
        server,
        user,
        trust,
    };
    work::begin(local, caller, async move |local, steps| {
        let machine = &local.machine;
        let site = trust::find(machine, &wanted).await?;
        let _lock = machine.lock().await?;
        // Somebody else may have done it meanwhile.
        if !caller.is_root && machine.enrolled().is_ok() {
            return Err(Failure::NotAllowed("this computer is enrolled".to_owned()));
        }
        let tell = |step| steps.tell(&step);
        let identity = renewal::enroll_and_tell(machine, &site, &password, &tell).await?;
        let not_after = identity.certificate.not_after();
        Ok(RenewalStep::Renewed { not_after })
    })
}

/// What keeps a password from being tried. A few a minute are enough for a person, and too few to lock
/// somebody's account soon.
fn try_password(local: &Local, caller: Caller, password: &Zeroizing<String>) -> Option<Answer> {
    if password.is_empty() {
        return Some(work::already(&work::refused(&Failure::EmptyPassword)));
    }
    let now = local.machine.clock.elapsed();
    if caller.is_root || local.passwords.borrow_mut().take(caller.uid, now) {
        return None;
    }
    Some(work::already(&RenewalStep::Refused {
        failure: RenewalFailure::TooMany,
        detail: "this computer's agent takes a few passwords a minute from each user".to_owned(),
        observed: None,
    }))
}

async fn take_diagnostics(local: &Rc<Local>, caller: Caller) -> Result<Answer, Refusal> {
    let busy = || Refusal::busy("the agent made diagnostics just now; try again in a minute");
    let (scope, taking) = match caller.is_root {
        true => (Scope::All, None),
        false => {
            let taking = local.archiving.clone().try_acquire_owned();
            let taking = taking.map_err(|_| busy())?;
            let now = local.machine.clock.elapsed();
            if !local.archives.borrow_mut().take(caller.uid, now) {
                return Err(busy());
            }
            (Scope::Public, Some(taking))
        }
    };
    let machine = local.machine.clone();
    // Reading and compressing takes a while: on a thread of its own.
    let made = tokio::task::spawn_blocking(move || diagnostics::archive(&machine, scope)).await;
    // Reading it takes as long as its reader wants.
    drop(taking);
    let file = made.map_err(io::Error::other)??;
    let length = file.metadata()?.len();
    let mut file = tokio::fs::File::from_std(file);
    let (parts, receiver) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        let send = async {
            let mut part = vec![0; 64 << 10];
            while let Ok(length @ 1..) = file.read(&mut part).await {
                let part = Bytes::copy_from_slice(&part[..length]);
                if parts.send(part).await.is_err() {
                    return;
                }
            }
        };
        // Nor does it stay for ever for who reads a little now and then.
        let _ = tokio::time::timeout(LONGEST_READING, send).await;
    });
    let mut archive = answer::stream("application/zip", receiver);
    // So that whoever gets less of it knows.
    archive.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(archive)
}

/// Reads a request's body. What is wrong with it is not repeated: there is a password in it.
async fn body<T: DeserializeOwned>(
    local: &Local,
    request: Request<Incoming>,
) -> Result<T, Refusal> {
    let too_large = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the agent reads {LOCAL_LIMIT} bytes and no more"),
        )
    };
    let broken = || Refusal::new(StatusCode::BAD_REQUEST, "the body broke off");
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LOCAL_LIMIT as u64) {
        return Err(too_large());
    }
    let mut body = request.into_body();
    // Never grows: no copy of it is left behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(LOCAL_LIMIT));
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| broken())?.into_data() else {
                continue;
            };
            if whole.len() + data.len() > LOCAL_LIMIT {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
        Ok(())
    };
    match tokio::time::timeout(local.bounds.patience, read).await {
        Ok(read) => read?,
        Err(_) => {
            return Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "the body took too long",
            ));
        }
    }
    serde_json::from_slice(&whole).map_err(|_| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "the body is not what the agent takes here",
        )
    })
}

//! Between the site and this device's disk: lists, bodies and commands come, results go. All of it is
//! done under the machine's lock, which is given back between two requests.

use std::fs::File;
use std::time::Duration;

use domain::{Smsid, Timestamp};
use jiff::SignedDuration;
use protocol::{BodyHash, CheckInAnswer, PolicyState, PolicyVersion, RecordedSet, ResultsState};

use super::commands::Commands;
use super::evaluation::take_turns;
use super::policy::{Owner, PolicyProblem, PolicyStore, Seen, Verifier};
use super::results::{Header, Results};
use super::schedule::Schedule;
use crate::failure::Failure;
use crate::identity::{Identity, Machine};
use crate::renewal::{wait_after, wait_for_site};
use crate::site::SiteClient;
use crate::state::{State, Trouble};

/// Reports in one go, at most: a site that takes nothing must not hold the agent.
const MOST_REPORTS: usize = 200;

impl Owner {
    /// None of a certificate that names no device.
    pub fn of(identity: &Identity) -> Option<Self> {
        let device: Smsid = identity.certificate.device()?.smsid();
        Some(Self {
            pin: identity.site.pin,
            device,
        })
    }
}

/// What a check-in says of policy and results.
pub fn report(machine: &Machine) -> (Option<PolicyState>, Option<ResultsState>) {
    let Ok(identity) = machine.enrolled() else {
        return (None, None);
    };
    let Some(owner) = Owner::of(&identity) else {
        return (None, None);
    };
    let state = machine.state();
    let seen = PolicyStore::new(&machine.layout).seen(owner.pin);
    let problem = problem(machine, &identity, &state);
    let newest = seen.map(|seen| seen.newest).unwrap_or_default();
    let policy = (newest != PolicyVersion::default() || problem.is_some()).then_some(PolicyState {
        version: newest,
        problem,
    });
    let results = Header::read(&machine.layout, &owner).filter(|header| header.sequence > 0);
    (policy, results.map(|header| header.state()))
}

fn owner(machine: &Machine) -> Option<Owner> {
    Owner::of(&machine.enrolled().ok()?)
}

/// Why this device does not run its policy, or what it refused last.
pub fn problem(machine: &Machine, identity: &Identity, state: &State) -> Option<String> {
    let owner = Owner::of(identity)?;
    let schedule = Schedule::read(&machine.layout).filter(|schedule| schedule.owner == owner);
    let untrusted =
        (schedule.is_some() && !identity.site.trust_verified).then(|| unverified(identity));
    let expired = schedule
        .map(|schedule| schedule.expires_at)
        .filter(|expires_at| machine.policy_time(owner.pin) >= *expires_at)
        .map(|expires_at| format!("the policy list expired {expires_at}: nothing runs"));
    let refused = [&state.policy_problem, &state.command_problem];
    let refused = refused.into_iter().flatten().cloned();
    let told: Vec<String> = untrusted
        .into_iter()
        .chain(expired)
        .chain(refused)
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// Why nothing runs after an enrollment that did not check the server.
pub fn unverified(identity: &Identity) -> String {
    format!(
        "nobody confirmed that this is the right site: no script of it runs here until: \
         perennial-agent trust confirm {}",
        identity.site.pin
    )
}

/// Takes from a check-in's answer what concerns policy, commands and results. What is to be fetched
/// or told is noted in `state`, and done by [`deliver`].
///
/// # Errors
/// When it cannot be remembered.
pub fn note_answer(
    machine: &Machine,
    state: &mut State,
    answer: &CheckInAnswer,
) -> Result<(), Failure> {
    let Some(owner) = owner(machine) else {
        return Ok(());
    };
    let now = note_time(machine, &owner, answer.time)?;
    if let Some(notice) = &answer.policy {
        let schedule = Schedule::read(&machine.layout).filter(|schedule| schedule.owner == owner);
        state.policy_wanted |=
            schedule.is_none_or(|schedule| schedule.is_behind(&notice.content, now));
    }
    if answer.policy.is_some() {
        settle(machine, &owner, answer.results)?;
    }
    take_commands(machine, &owner, state, answer)
}

/// Remembers the time that a check-in's answer tells. What policy goes by does not go back with it.
fn note_time(machine: &Machine, owner: &Owner, told: Timestamp) -> Result<Timestamp, Failure> {
    let store = PolicyStore::new(&machine.layout);
    // Without it no list is taken, which says why.
    let Ok(mut seen) = store.seen(owner.pin) else {
        return Ok(told);
    };
    let now = seen.time_of(machine, told);
    seen.note_time(machine, now);
    store.note_seen(owner.pin, &seen)?;
    Ok(now)
}

fn settle(machine: &Machine, owner: &Owner, recorded: Option<RecordedSet>) -> Result<(), Failure> {
    let Some(header) = Header::read(&machine.layout, owner) else {
        return Ok(());
    };
    let ours = RecordedSet {
        sequence: header.sequence,
        digest: header.digest,
    };
    if header.waiting == 0 && recorded == Some(ours) {
        return Ok(());
    }
    let mut results = read_results(machine, owner);
    let before = results.clone();
    results.settle(recorded, &*machine.rng, machine.best_time());
    if results != before {
        results.write(&machine.layout)?;
    }
    Ok(())
}

pub fn read_results(machine: &Machine, owner: &Owner) -> Results {
    let now = machine.best_time();
    Results::read(&machine.layout, owner, &*machine.rng, now)
}

fn take_commands(
    machine: &Machine,
    owner: &Owner,
    state: &mut State,
    answer: &CheckInAnswer,
) -> Result<(), Failure> {
    let now = machine.command_time(owner.pin, answer.time);
    let mut commands = match Commands::read(&machine.layout, owner) {
        Ok(commands) => commands,
        Err(error) => {
            state.command_problem = Some(format!("no command is done: {error}"));
            return Ok(());
        }
    };
    let mut changed = commands.forget(now);
    let mut verifier = Verifier::new(owner.clone(), machine.policy_time(owner.pin));
    state.command_problem = None;
    for document in &answer.commands {
        match commands.take(document, &mut verifier, now) {
            Ok(new) => changed |= new,
            Err(problem) => {
                // Its result waits again.
                changed |= matches!(problem, PolicyProblem::Done(_));
                tracing::warn!(event = "command-refused", %problem);
                state.command_problem = Some(format!("a command was refused: {problem}"));
            }
        }
    }
    if changed {
        commands.write(&machine.layout)?;
    }
    Ok(())
}

/// When something is to be fetched or told; none when nothing waits.
pub fn next(machine: &Machine, identity: &Identity, state: &State) -> Option<Timestamp> {
    let owner = Owner::of(identity)?;
    let now = machine.now();
    let fetch = state
        .policy_wanted
        .then(|| not_before(&state.policy_trouble, now));
    let tell = does_wait(machine, &owner).then(|| not_before(&state.delivery_trouble, now));
    [fetch, tell].into_iter().flatten().min()
}

/// True when something waits to be told.
fn does_wait(machine: &Machine, owner: &Owner) -> bool {
    Header::read(&machine.layout, owner).is_some_and(|header| header.waiting > 0)
        || Commands::read(&machine.layout, owner)
            .is_ok_and(|commands| commands.next_result(&[]).is_some())
}

/// When what waits may be tried again. A clock that was set back does not prolong the wait.
fn not_before(trouble: &Option<Trouble>, now: Timestamp) -> Timestamp {
    match trouble {
        Some(trouble) if trouble.at <= now => trouble.next,
        _ => now,
    }
}

/// Fetches the policy where the site has another one, and tells what the site does not know. What went
/// wrong is remembered: it is tried again later. Check-ins and renewals have troubles of their own, and
/// what is told does not wait for what is fetched.
///
/// The caller does not hold the machine's lock.
///
/// # Errors
/// When that cannot be remembered, or nothing is enrolled here.
pub async fn deliver_and_note(machine: &Machine) -> Result<(), Failure> {
    deliver_what(machine, |_| true).await.map(drop)
}

/// The same, of what is due.
///
/// # Errors
/// The same.
pub async fn deliver_when_due(machine: &Machine) -> Result<(), Failure> {
    let now = machine.now();
    deliver_what(machine, |trouble| not_before(trouble, now) <= now)
        .await
        .map(drop)
}

/// [`deliver_and_note`], for one who wants to know.
///
/// # Errors
/// When the site is not there, or refuses.
pub async fn deliver(machine: &Machine) -> Result<(), Failure> {
    match deliver_what(machine, |_| true).await? {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Returns what went wrong first.
async fn deliver_what(
    machine: &Machine,
    is_due: impl Fn(&Option<Trouble>) -> bool,
) -> Result<Option<Failure>, Failure> {
    let Some(owner) = Owner::of(&machine.enrolled()?) else {
        return Ok(None);
    };
    let _turn = take_turns(machine, "delivery.lock").await?;
    let mut talk = Talk::begin(machine, &owner).await?;
    let state = machine.state();
    let mut failures = Vec::new();
    if state.policy_wanted && is_due(&state.policy_trouble) {
        let fetched = fetch(&mut talk).await;
        let mut state = machine.state();
        let before = state.policy_trouble.take();
        // Soon: somebody changes the policy, or mends the site.
        state.policy_trouble = trouble(machine, before.as_ref(), &fetched, wait_for_site);
        if before.is_some() || state.policy_trouble.is_some() {
            machine.write_state(&state)?;
        }
        failures.extend(fetched.err());
    }
    if does_wait(machine, &owner) && is_due(&state.delivery_trouble) {
        let told = match failures.first() {
            // It would only take as long again.
            Some(Failure::Unreachable(why)) => Err(Failure::Unreachable(why.clone())),
            _ => tell(&mut talk).await,
        };
        let mut state = machine.state();
        let before = state.delivery_trouble.take();
        if let Err(failure) = &told {
            let wait = |failures| wait_after(failure, failures);
            state.delivery_trouble = trouble(machine, before.as_ref(), &told, wait);
        }
        if before.is_some() || state.delivery_trouble.is_some() {
            machine.write_state(&state)?;
        }
        failures.extend(told.err());
    }
    Ok(failures.into_iter().next())
}

fn trouble(
    machine: &Machine,
    before: Option<&Trouble>,
    done: &Result<(), Failure>,
    wait: impl Fn(u32) -> SignedDuration,
) -> Option<Trouble> {
    let failure = done.as_ref().err()?;
    tracing::warn!(event = "not-delivered", %failure);
    let now = machine.now();
    let failures = before.map_or(0, |trouble| trouble.failures) + 1;
    Some(Trouble {
        at: now,
        what: failure.to_string(),
        refused: failure.is_refusal(),
        failures,
        next: now + wait(failures),
    })
}

/// The machine's lock is held at most a little longer than this: then others have their turn, who renew
/// or check in.
const LONGEST_HOLD: SignedDuration = SignedDuration::from_secs(2);
/// Longer than others wait between two looks at the lock.
const OTHERS_TURN: Duration = Duration::from_millis(250);

/// What this device and its site say to each other under the machine's lock. Without it a renewal could
/// make the certificate an old one that is in use here, and the site would take that for a copy. For the
/// sake of renewals it is given back between two requests.
struct Talk<'a> {
    machine: &'a Machine,
    owner: &'a Owner,
    lock: Option<File>,
    since: SignedDuration,
}

impl<'a> Talk<'a> {
    async fn begin(machine: &'a Machine, owner: &'a Owner) -> Result<Self, Failure> {
        Ok(Self {
            machine,
            owner,
            lock: Some(machine.lock().await?),
            since: machine.clock.elapsed(),
        })
    }

    /// The way to the site for one request. What was read before may be another's work now.
    async fn client(&mut self) -> Result<SiteClient, Failure> {
        let machine = self.machine;
        if machine.clock.elapsed() - self.since >= LONGEST_HOLD {
            self.lock = None;
            tokio::time::sleep(OTHERS_TURN).await;
            self.lock = Some(machine.lock().await?);
            self.since = machine.clock.elapsed();
        }
        let identity = machine.enrolled()?;
        if Owner::of(&identity).as_ref() != Some(self.owner) {
            return Err(Failure::other("this computer was enrolled anew meanwhile"));
        }
        SiteClient::new(&identity.site, Some(&identity), machine)
    }
}

/// A list whose bodies are not there any more was overtaken by another one: so often at once.
const MOST_LISTS: usize = 3;

/// Fetches the list, and the bodies that are not here. The one in force goes on until all of the new
/// one is here and good.
async fn fetch(talk: &mut Talk<'_>) -> Result<(), Failure> {
    let mut lists = 1;
    let taken = loop {
        match take_list(talk).await {
            Err(Refused::Failed(_, Failure::Refused { status: 404, .. })) if lists < MOST_LISTS => {
                lists += 1;
            }
            taken => break taken,
        }
    };
    let (problem, failure) = match taken {
        Ok(version) => {
            tracing::info!(event = "policy-taken", %version);
            (None, None)
        }
        Err(Refused::Problem(what, problem)) => {
            tracing::error!(event = "policy-refused", what, %problem);
            (Some(format!("{what} was refused: {problem}")), None)
        }
        Err(Refused::Failed(what, failure)) => match &failure {
            Failure::Refused { reason, .. } if failure.is_refusal() => {
                let problem = format!("the site does not give {what}: {reason}");
                (Some(problem), Some(failure))
            }
            _ => return Err(failure),
        },
    };
    let mut state = talk.machine.state();
    // Asking again at once would bring the same list; the next check-in asks.
    state.policy_wanted = failure.is_some();
    state.policy_problem = problem;
    talk.machine.write_state(&state)?;
    failure.map_or(Ok(()), Err)
}

enum Refused {
    /// It did not come.
    Failed(String, Failure),
    /// What the site gave is not this device's policy.
    Problem(String, PolicyProblem),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed("the policy list".to_owned(), failure)
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Failure::from(error).into()
    }
}

async fn take_list(talk: &mut Talk<'_>) -> Result<PolicyVersion, Refused> {
    let (machine, owner) = (talk.machine, talk.owner);
    let store = PolicyStore::new(&machine.layout);
    let refused = |problem| Refused::Problem("the policy list".to_owned(), problem);
    let document = talk.client().await?.policy().await?;
    let mut seen = store.seen(owner.pin)?;
    let now = seen.time_of(machine, machine.best_time());
    let mut verifier = Verifier::new(owner.clone(), now);
    let list = match verifier.list(&document, seen.newest) {
        Err(problem) if problem.is_lateness() => {
            verifier = Verifier::new(owner.clone(), machine.best_time());
            let list = verifier.list(&document, seen.newest).map_err(refused)?;
            // A site whose clock was ahead once says so by a higher epoch, which it signs: then the time
            // begins anew.
            if list.version.epoch <= seen.newest.epoch {
                return Err(refused(problem));
            }
            seen.time = None;
            list
        }
        list => list.map_err(refused)?,
    };
    // A newer list may have an earlier date, from a site that mended its clock.
    if list.version > seen.newest || Some(list.issued_at) > seen.signed_at {
        seen.signed_at = Some(list.issued_at);
    }
    // Nothing older comes after it, also when a body of it is refused.
    seen.newest = list.version;
    let now = seen.time_of(machine, machine.best_time().max(list.issued_at));
    seen.note_time(machine, now);
    store.note_seen(owner.pin, &seen)?;
    for hash in list.deployments.iter().flat_map(|one| &one.items) {
        take_body(talk, &store, &mut verifier, *hash).await?;
    }
    let before = Schedule::read(&machine.layout);
    let schedule = Schedule::of(&list, owner.clone(), before);
    // From here on the list is in force; then come the version below which none is any more, and what
    // is due.
    store.keep_list(&document)?;
    let taken = Seen {
        taken: list.version,
        ..store.seen(owner.pin)?
    };
    store.note_seen(owner.pin, &taken)?;
    schedule.write(&machine.layout)?;
    store.prune(&list)?;
    Ok(list.version)
}

async fn take_body(
    talk: &mut Talk<'_>,
    store: &PolicyStore,
    verifier: &mut Verifier,
    hash: BodyHash,
) -> Result<(), Refused> {
    match store.body(verifier, hash) {
        Ok(_) => return Ok(()),
        Err(PolicyProblem::Missing) => {}
        Err(problem) => tracing::warn!(event = "body-fetched-again", %hash, %problem),
    }
    let named = || format!("the policy body {hash}");
    let document = talk.client().await?.policy_body(hash).await;
    let document = document.map_err(|failure| Refused::Failed(named(), failure))?;
    let refused = |problem| Refused::Problem(named(), problem);
    verifier.body(&document, hash).map_err(refused)?;
    Ok(store.keep_body(hash, &document)?)
}

/// What is refused of one thing keeps nothing else back.
async fn tell(talk: &mut Talk<'_>) -> Result<(), Failure> {
    let told = tell_commands(talk).await;
    if let Err(failure @ Failure::Unreachable(_)) = told {
        return Err(failure);
    }
    told.and(tell_results(talk).await)
}

async fn tell_commands(talk: &mut Talk<'_>) -> Result<(), Failure> {
    let (machine, owner) = (talk.machine, talk.owner);
    let mut refused = Vec::new();
    let mut first = Ok(());
    loop {
        let client = talk.client().await?;
        let Ok(mut commands) = Commands::read(&machine.layout, owner) else {
            return first;
        };
        let Some((id, result)) = commands.next_result(&refused) else {
            return first;
        };
        match client.command_result(&id, &result).await {
            Err(failure) if failure.is_refusal() => {
                tracing::warn!(event = "command-result-refused", %id, %failure);
                let unknown = matches!(&failure, Failure::Refused { status: 404, .. });
                let now = machine.command_time(owner.pin, machine.best_time());
                // A site that does not know it, or does not wait for it any more, wants no result.
                if !unknown && !commands.is_late(&id, now) {
                    refused.push(id);
                    first = first.and(Err(failure));
                    continue;
                }
            }
            told => told?,
        }
        commands.told(&id);
        commands.write(&machine.layout)?;
    }
}

async fn tell_results(talk: &mut Talk<'_>) -> Result<(), Failure> {
    let (machine, owner) = (talk.machine, talk.owner);
    for _ in 0..MOST_REPORTS {
        if Header::read(&machine.layout, owner).is_none_or(|header| header.waiting == 0) {
            return Ok(());
        }
        let client = talk.client().await?;
        let mut results = read_results(machine, owner);
        let Some(report) = results.report() else {
            return Ok(());
        };
        let receipt = client.results(&report).await?;
        domain::fault::step("results-told");
        let before = results.clone();
        results.receive(&receipt, &*machine.rng, machine.best_time());
        if results == before {
            return Err(Failure::other("the server takes no results"));
        }
        results.write(&machine.layout)?;
    }
    Err(Failure::other("the server takes its results too slowly"))
}

/// What is kept of the policy is not what the site signed: it is fetched again. The caller holds the
/// machine's lock.
pub fn want_again(machine: &Machine, what: String) -> Result<(), Failure> {
    tracing::error!(event = "policy-refused", what);
    let mut state = machine.state();
    state.policy_wanted = true;
    state.policy_problem = Some(what);
    Ok(machine.write_state(&state)?)
}

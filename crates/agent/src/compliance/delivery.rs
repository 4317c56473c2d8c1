//! Between the site and this device's disk: lists, bodies and commands come, results go. All of it is
//! done by who holds the machine's lock.

use domain::{Smsid, Timestamp};
use protocol::{BodyHash, CheckInAnswer, PolicyState, PolicyVersion, ResultsState, SignedDocument};

use super::commands::Commands;
use super::policy::{Owner, PolicyProblem, PolicyStore, Verifier};
use super::results::{Header, Results};
use super::schedule::Schedule;
use crate::failure::Failure;
use crate::identity::{Identity, Machine};
use crate::renewal::wait_after;
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

fn settle(machine: &Machine, owner: &Owner, site_has: Option<u64>) -> Result<(), Failure> {
    let Some(header) = Header::read(&machine.layout, owner) else {
        return Ok(());
    };
    if header.waiting == 0 && site_has == Some(header.sequence) {
        return Ok(());
    }
    let mut results = read_results(machine, owner);
    let before = results.clone();
    results.settle(site_has, &*machine.rng, machine.best_time());
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
    let mut verifier = Verifier::new(owner.clone(), now);
    state.command_problem = None;
    for document in &answer.commands {
        match commands.take(document, &mut verifier) {
            Ok(new) => changed |= new,
            Err(problem) => {
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

/// True when something waits to be fetched or told.
pub fn is_waiting(machine: &Machine, identity: &Identity, state: &State) -> bool {
    let Some(owner) = Owner::of(identity) else {
        return false;
    };
    state.policy_wanted
        || Header::read(&machine.layout, &owner).is_some_and(|header| header.waiting > 0)
        || Commands::read(&machine.layout, &owner)
            .is_ok_and(|commands| commands.next_result().is_some())
}

/// [`deliver`], and what went wrong is remembered: it is tried again later. Check-ins and renewals
/// have troubles of their own.
///
/// # Errors
/// When that cannot be remembered.
pub async fn deliver_and_note(machine: &Machine) -> Result<(), Failure> {
    let done = deliver(machine).await;
    let mut state = machine.state();
    let before = state.delivery_trouble.take();
    if let Err(failure) = done {
        tracing::warn!(event = "not-delivered", %failure);
        let now = machine.now();
        let failures = before.as_ref().map_or(0, |trouble| trouble.failures) + 1;
        state.delivery_trouble = Some(Trouble {
            at: now,
            what: failure.to_string(),
            refused: failure.is_refusal(),
            failures,
            next: now + wait_after(&failure, failures),
        });
    } else if before.is_none() {
        return Ok(());
    }
    Ok(machine.write_state(&state)?)
}

/// Fetches the policy where the site has another one, and tells what the site does not know.
///
/// # Errors
/// When the site is not there, or refuses.
pub async fn deliver(machine: &Machine) -> Result<(), Failure> {
    let identity = machine.enrolled()?;
    let Some(owner) = Owner::of(&identity) else {
        return Ok(());
    };
    if !is_waiting(machine, &identity, &machine.state()) {
        return Ok(());
    }
    let client = SiteClient::new(&identity.site, Some(&identity), machine)?;
    // Of what is refused, the first is told; the rest is tried all the same.
    let fetched = match machine.state().policy_wanted {
        true => fetch(machine, &owner, &client).await,
        false => Ok(()),
    };
    if let Err(failure @ Failure::Unreachable(_)) = fetched {
        return Err(failure);
    }
    let told = tell_commands(machine, &owner, &client).await;
    let reported = tell_results(machine, &owner, &client).await;
    fetched.and(told).and(reported)
}

/// Fetches the list, and the bodies that are not here. The one in force goes on until all of the new
/// one is here and good.
async fn fetch(machine: &Machine, owner: &Owner, client: &SiteClient) -> Result<(), Failure> {
    let taken = match take_list(machine, owner, client).await {
        Ok(version) => {
            tracing::info!(event = "policy-taken", %version);
            None
        }
        Err(Refused::Failed(failure)) => return Err(failure),
        Err(Refused::Problem(what, problem)) => {
            tracing::error!(event = "policy-refused", what, %problem);
            Some(format!("{what} was refused: {problem}"))
        }
    };
    let mut state = machine.state();
    // Asking again at once would bring the same; the next check-in asks.
    state.policy_wanted = false;
    state.policy_problem = taken;
    Ok(machine.write_state(&state)?)
}

enum Refused {
    /// The site did not answer: it is asked again.
    Failed(Failure),
    /// What it gave is not this device's policy.
    Problem(String, PolicyProblem),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

async fn take_list(
    machine: &Machine,
    owner: &Owner,
    client: &SiteClient,
) -> Result<PolicyVersion, Refused> {
    let store = PolicyStore::new(&machine.layout);
    let refused = |problem| Refused::Problem("the policy list".to_owned(), problem);
    let mut seen = store.seen(owner.pin)?;
    let document = client.policy().await?;
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
        take_body(&store, &mut verifier, client, *hash).await?;
    }
    let before = Schedule::read(&machine.layout);
    let schedule = Schedule::of(&list, owner.clone(), before);
    // From here on the list is in force; then come the version below which none is any more, and what
    // is due.
    store.keep_list(&document)?;
    seen.taken = list.version;
    store.note_seen(owner.pin, &seen)?;
    schedule.write(&machine.layout)?;
    store.prune(&list)?;
    Ok(list.version)
}

async fn take_body(
    store: &PolicyStore,
    verifier: &mut Verifier,
    client: &SiteClient,
    hash: BodyHash,
) -> Result<(), Refused> {
    match store.body(verifier, hash) {
        Ok(_) => return Ok(()),
        Err(PolicyProblem::Missing) => {}
        Err(problem) => tracing::warn!(event = "body-fetched-again", %hash, %problem),
    }
    let document: SignedDocument = client.policy_body(hash).await?;
    let refused = |problem| Refused::Problem(format!("the policy body {hash}"), problem);
    verifier.body(&document, hash).map_err(refused)?;
    Ok(store.keep_body(hash, &document)?)
}

async fn tell_commands(
    machine: &Machine,
    owner: &Owner,
    client: &SiteClient,
) -> Result<(), Failure> {
    loop {
        let Ok(mut commands) = Commands::read(&machine.layout, owner) else {
            return Ok(());
        };
        let Some((id, result)) = commands.next_result() else {
            return Ok(());
        };
        match client.command_result(&id, &result).await {
            // A site that does not know it any more wants no result.
            Err(failure) if failure.is_refusal() => {
                tracing::warn!(event = "command-result-refused", %id, %failure);
            }
            told => told?,
        }
        commands.told(&id);
        commands.write(&machine.layout)?;
    }
}

async fn tell_results(
    machine: &Machine,
    owner: &Owner,
    client: &SiteClient,
) -> Result<(), Failure> {
    if Header::read(&machine.layout, owner).is_none_or(|header| header.waiting == 0) {
        return Ok(());
    }
    let mut results = read_results(machine, owner);
    for _ in 0..MOST_REPORTS {
        let Some(report) = results.report() else {
            return Ok(());
        };
        let receipt = client.results(&report).await?;
        domain::fault::step("results-told");
        let before = results.clone();
        results.receive(&receipt, machine.best_time());
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

/// When what waits may be tried again. A clock that was set back does not prolong the wait.
pub fn not_before(state: &State, now: Timestamp) -> Timestamp {
    match &state.delivery_trouble {
        Some(trouble) if trouble.at <= now => trouble.next,
        _ => now,
    }
}

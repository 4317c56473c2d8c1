//! The agent's half of an evaluation: says what is to be evaluated, starts the process that does it
//! ([`super::evaluator`]), and keeps what that found out. Commands of the site that take long are done
//! here, too. While scripts run the machine's lock is free: tools and renewals go on.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io;
use std::process::Stdio;
use std::time::Duration;

use domain::{BaselineName, ComplianceState, Severity, Timestamp, fault};
use jiff::tz::TimeZone;
use protocol::{CommandId, CommandResult, Order, SignedDocument};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::commands::Commands;
use super::delivery::{self, read_results};
use super::evaluator::{Line, Plan, Task};
use super::policy::{Owner, PolicyStore, Verifier};
use super::results::{Found, Held};
use super::schedule::{Moment, Schedule};
use crate::failure::Failure;
use crate::files;
use crate::identity::{Identity, Machine};
use crate::platform;
use crate::renewal;
use crate::site::SiteClient;

/// Which deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Those that are due now.
    Due,
    All,
    Of(BaselineName),
}

/// What an evaluation did.
#[derive(Debug, Default)]
pub struct Outcome {
    pub found: Vec<Found>,
    /// How many results are news.
    pub changed: usize,
    /// Bodies that are not what the site signed: their rules were not evaluated.
    pub broken: Vec<String>,
}

/// When [`work`] has something to do; none where nothing is planned.
pub fn next(machine: &Machine, identity: &Identity) -> Option<Timestamp> {
    let state = machine.state();
    let delivery = delivery::next(machine, identity, &state);
    let command = does_wait(machine, identity).then(|| machine.now());
    let evaluation = next_evaluation(machine, identity);
    [delivery, command, evaluation].into_iter().flatten().min()
}

/// When the next evaluation is due; none where nothing may run.
pub fn next_evaluation(machine: &Machine, identity: &Identity) -> Option<Timestamp> {
    if !identity.site.trust_verified {
        return None;
    }
    let schedule = schedule_of(machine, &Owner::of(identity)?)?;
    with_moment(machine, &schedule, |moment| schedule.next(moment))
}

fn does_wait(machine: &Machine, identity: &Identity) -> bool {
    let owner = Owner::of(identity);
    let commands = owner.map(|owner| Commands::read(&machine.layout, &owner));
    commands.is_some_and(|commands| commands.is_ok_and(|commands| commands.waits()))
}

/// Does what is due: policy comes, commands are done, deployments are evaluated, results go.
///
/// # Errors
/// When it cannot be done; what was found out until then is kept.
pub async fn work(machine: &Machine) -> Result<(), Failure> {
    deliver_when_due(machine).await?;
    // Whatever is wrong with them, what is deployed is evaluated.
    let obeyed = do_commands(machine).await;
    if let Err(failure) = &obeyed {
        tracing::error!(event = "commands-not-done", %failure);
    }
    let due = match machine.enrolled() {
        // It was told to leave.
        Err(Failure::NotEnrolled) => return Ok(()),
        identity => next_evaluation(machine, &identity?),
    };
    if due.is_some_and(|due| due <= machine.now()) {
        let outcome = evaluate(machine, &Selection::Due, true, |_| ()).await?;
        let (rules, changed) = (outcome.found.len(), outcome.changed);
        tracing::info!(event = "evaluated", rules, changed);
    }
    deliver_when_due(machine).await?;
    obeyed
}

async fn deliver_when_due(machine: &Machine) -> Result<(), Failure> {
    let identity = match machine.enrolled() {
        Err(Failure::NotEnrolled) => return Ok(()),
        identity => identity?,
    };
    let next = delivery::next(machine, &identity, &machine.state());
    match next.is_some_and(|next| next <= machine.now()) {
        true => delivery::deliver_when_due(machine).await,
        false => Ok(()),
    }
}

/// Evaluates the deployments of `selection`, and keeps the results. `told`: each thing as it is found
/// out. Waits for an evaluation that runs already.
///
/// # Errors
/// When nothing may run, or the evaluation was cut off.
pub async fn evaluate(
    machine: &Machine,
    selection: &Selection,
    remediate: bool,
    told: impl FnMut(&Line),
) -> Result<Outcome, Failure> {
    let _turn = take_turns(machine, "evaluation.lock").await?;
    let (owner, identity) = trusted_owner(machine)?;
    let begun = {
        let _lock = machine.lock().await?;
        begin(machine, &owner, &identity, selection)?
    };
    let Some(deployments) = begun else {
        return Ok(Outcome::default());
    };
    let task = Task::Evaluate {
        deployments: deployments.clone(),
        remediate,
    };
    let answered = ask(machine, owner.clone(), task, told).await?;
    fault::step("evaluated");
    let _lock = machine.lock().await?;
    keep(machine, &owner, &deployments, answered)
}

/// The deployments to evaluate, noted as begun; none when there is nothing to do any more.
fn begin(
    machine: &Machine,
    owner: &Owner,
    identity: &Identity,
    selection: &Selection,
) -> Result<Option<Vec<i64>>, Failure> {
    let Some(mut schedule) = schedule_of(machine, owner) else {
        let problem = delivery::problem(machine, identity, &machine.state());
        let why = problem.unwrap_or_else(|| "the site gave none yet".to_owned());
        return Err(Failure::other(format!("there is no policy: {why}")));
    };
    let all = || schedule.deployments.iter();
    let deployments: Vec<i64> = match selection {
        Selection::All => all().map(|planned| planned.number).collect(),
        Selection::Of(baseline) => {
            let of = all().filter(|planned| planned.baseline == *baseline);
            let of: Vec<i64> = of.map(|planned| planned.number).collect();
            if of.is_empty() {
                return Err(no_such_baseline(baseline, &schedule));
            }
            of
        }
        Selection::Due => with_moment(machine, &schedule, |moment| schedule.due(moment)),
    };
    if *selection == Selection::Due && deployments.is_empty() && !schedule.dropped {
        return Ok(None);
    }
    schedule.begin(machine.now());
    schedule.write(&machine.layout)?;
    Ok(Some(deployments))
}

fn no_such_baseline(baseline: &BaselineName, schedule: &Schedule) -> Failure {
    let known: HashSet<String> = schedule
        .deployments
        .iter()
        .map(|planned| format!("`{}`", planned.baseline))
        .collect();
    let mut known: Vec<String> = known.into_iter().collect();
    known.sort();
    let known = match &known[..] {
        [] => "none is".to_owned(),
        known => format!("these are: {}", known.join(", ")),
    };
    Failure::other(format!(
        "the baseline `{baseline}` is not deployed to this computer; {known}"
    ))
}

/// What the evaluating process answered.
#[derive(Default)]
struct Answered {
    rules: HashSet<protocol::RuleNumber>,
    found: Vec<Found>,
    broken: Vec<(protocol::BodyHash, String)>,
    tested: Option<String>,
    refused: Option<String>,
    ended: bool,
}

/// Starts the evaluating process and listens until it ends.
async fn ask(
    machine: &Machine,
    owner: Owner,
    task: Task,
    mut told: impl FnMut(&Line),
) -> Result<Answered, Failure> {
    let facts = (machine.facts)();
    let plan = Plan {
        now: machine.policy_time(owner.pin),
        owner,
        // A distribution's name is no version that a rule compares with.
        os_version: match facts.os_name.as_str() {
            "Linux" => platform::os_version_number().unwrap_or(facts.os_version),
            _ => facts.os_version,
        },
        os_name: facts.os_name,
        task,
    };
    let mut text = serde_json::to_vec(&plan).map_err(|error| Failure::other(error.to_string()))?;
    text.push(b'\n');
    let mut child = Command::new(&machine.program)
        .arg("--root")
        .arg(machine.layout.root())
        .arg("evaluate-plan")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| files::named(&machine.program, &error))?;
    let missing = || Failure::other("the evaluation has no pipes");
    // It stops when this one is closed: not before it ended, and when this process ends.
    let mut plan = child.stdin.take().ok_or_else(missing)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(missing)?).lines();
    plan.write_all(&text).await?;
    plan.flush().await?;
    let mut answered = Answered::default();
    while let Some(line) = lines.next_line().await? {
        let Ok(line) = serde_json::from_str::<Line>(&line) else {
            continue;
        };
        told(&line);
        match line {
            Line::Begun { rules, .. } => answered.rules.extend(rules),
            Line::Broken { body, why } => answered.broken.push((body, why)),
            Line::Found(found) => answered.found.push(found),
            Line::Tested(text) => answered.tested = Some(text),
            Line::Refused(why) => answered.refused = Some(why),
            Line::Ended => answered.ended = true,
            Line::Discovered | Line::Remediating { .. } => {}
        }
    }
    let status = child.wait().await?;
    if !answered.ended {
        tracing::error!(event = "evaluation-cut-off", %status);
    }
    Ok(answered)
}

/// Keeps what was found out, also by an evaluation that was cut off.
fn keep(
    machine: &Machine,
    owner: &Owner,
    deployments: &[i64],
    answered: Answered,
) -> Result<Outcome, Failure> {
    for (body, why) in &answered.broken {
        PolicyStore::new(&machine.layout).remove_body(*body)?;
        let what = format!("the policy body {body} on this computer was refused: {why}");
        delivery::want_again(machine, what)?;
    }
    if let Some(why) = &answered.refused {
        delivery::want_again(machine, format!("nothing runs: {why}"))?;
    }
    let complete = answered.ended && answered.broken.is_empty() && answered.refused.is_none();
    // Without the whole policy nobody knows which rules are gone.
    let all = complete.then_some(&answered.rules);
    let mut results = read_results(machine, owner);
    let mut changed = Vec::new();
    if answered.refused.is_none() && (answered.ended || !answered.found.is_empty()) {
        changed = results.take(answered.found.clone(), all, machine.best_time());
        results.write(&machine.layout)?;
        fault::step("results-kept");
    }
    for held in &changed {
        note_event(held);
    }
    if answered.ended
        && let Some(mut schedule) = schedule_of(machine, owner)
    {
        schedule.ended(deployments, complete, machine.now(), &machine.boot);
        schedule.write(&machine.layout)?;
    }
    if let Some(why) = answered.refused {
        return Err(Failure::other(format!("nothing was evaluated: {why}")));
    }
    if !answered.ended {
        return Err(Failure::other(
            "the evaluation was cut off; it will be tried again",
        ));
    }
    Ok(Outcome {
        found: answered.found,
        changed: changed.len(),
        broken: answered
            .broken
            .into_iter()
            .map(|(body, why)| format!("the policy body {body}: {why}"))
            .collect(),
    })
}

/// "Critical with event": the system's log tells it.
fn note_event(held: &Held) {
    use ComplianceState::{Error, NonCompliant, RemediationFailed};
    let found = &held.found;
    let is_bad = matches!(found.state, NonCompliant | RemediationFailed | Error);
    if found.severity == Severity::CriticalWithEvent && is_bad {
        let (rule, item, state) = (&found.name, &found.item, found.state);
        tracing::error!(event = "not-compliant", %rule, %item, %state);
    }
}

/// Does the commands that wait, one after the other. Each is marked as begun before it is done.
///
/// # Errors
/// When they cannot be remembered. One that fails is an answer to the site.
pub async fn do_commands(machine: &Machine) -> Result<(), Failure> {
    let identity = machine.enrolled()?;
    let Some(owner) = Owner::of(&identity) else {
        return Ok(());
    };
    if !Commands::read(&machine.layout, &owner)?.waits_or_was_cut_off() {
        return Ok(());
    }
    let _turn = take_turns(machine, "commands.lock").await?;
    change_commands(machine, &owner, |commands| {
        commands.end_what_was_cut_off(machine.best_time());
    })
    .await?;
    loop {
        let commands = Commands::read(&machine.layout, &owner)?;
        if let Some(id) = commands.leaving() {
            return leave(machine, &id).await;
        }
        let Some((id, document)) = commands.next_waiting() else {
            return Ok(());
        };
        let order = match order_of(machine, &owner, &document) {
            Ok(order) => order,
            Err(why) => {
                let detail = format!("it was not done: {why}");
                end(machine, &owner, &id, false, detail).await?;
                continue;
            }
        };
        tracing::info!(event = "command", %id, order = named(&order));
        let leaves = order == Order::Uninstall;
        change_commands(machine, &owner, |commands| match leaves {
            true => commands.leave(&id),
            false => commands.begin(&id),
        })
        .await?;
        fault::step("command-begun");
        if leaves {
            continue;
        }
        let (done, detail) = match obey(machine, &owner, order).await {
            Ok(detail) => (true, detail),
            Err(failure) => (false, failure.to_string()),
        };
        end(machine, &owner, &id, done, detail).await?;
        fault::step("command-ended");
    }
}

/// How long the removal of this client may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// Tells the site that this client goes, and has it removed by a process of its own. Whatever is cut off
/// is begun again: that it is to leave is gone with the rest.
async fn leave(machine: &Machine, id: &CommandId) -> Result<(), Failure> {
    // The site is told first: there is nobody left to do so after. When it is not there, `Leave` tells it.
    let result = CommandResult {
        at: machine.best_time(),
        done: true,
        detail: "the client takes its leave".to_owned(),
    };
    {
        let _lock = machine.lock().await?;
        let identity = machine.enrolled()?;
        let client = SiteClient::new(&identity.site, Some(&identity), machine)?;
        if let Err(failure) = client.command_result(id, &result).await {
            tracing::warn!(event = "leave-not-told", %failure);
        }
    }
    fault::step("leaving-told");
    platform::start_uninstalling(&machine.program, &machine.layout)?;
    let begun = tokio::time::Instant::now();
    while machine.layout.identity().exists() {
        if begun.elapsed() > REMOVAL {
            return Err(Failure::other(
                "this client was not removed; it is tried again",
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn change_commands(
    machine: &Machine,
    owner: &Owner,
    change: impl FnOnce(&mut Commands),
) -> Result<(), Failure> {
    let _lock = machine.lock().await?;
    let mut commands = Commands::read(&machine.layout, owner)?;
    let before = commands.clone();
    change(&mut commands);
    if commands != before {
        commands.write(&machine.layout)?;
    }
    Ok(())
}

async fn end(
    machine: &Machine,
    owner: &Owner,
    id: &CommandId,
    done: bool,
    mut detail: String,
) -> Result<(), Failure> {
    while detail.len() > CommandResult::MOST {
        detail.pop();
    }
    let result = CommandResult {
        at: machine.best_time(),
        done,
        detail,
    };
    change_commands(machine, owner, |commands| commands.end(id, result)).await
}

/// What a command says, verified again: it lay on disk, and time went by.
fn order_of(machine: &Machine, owner: &Owner, document: &SignedDocument) -> Result<Order, String> {
    let now = machine.command_time(owner.pin, machine.best_time());
    let mut verifier = Verifier::new(owner.clone(), machine.policy_time(owner.pin));
    let command = verifier.command(document, now);
    Ok(command.map_err(|problem| problem.to_string())?.order)
}

fn named(order: &Order) -> &'static str {
    match order {
        Order::Renew => "renew",
        Order::Evaluate => "evaluate",
        Order::CheckIn => "check-in",
        Order::Uninstall => "uninstall",
        Order::TestScript { .. } => "test-script",
    }
}

async fn obey(machine: &Machine, owner: &Owner, order: Order) -> Result<String, Failure> {
    match order {
        Order::Renew => {
            let _lock = machine.lock().await?;
            renewal::resume(machine).await?;
            let identity = renewal::renew(machine).await?;
            let until = identity.certificate.not_after();
            Ok(format!("renewed: valid until {until}"))
        }
        Order::CheckIn => {
            let _lock = machine.lock().await?;
            renewal::check_in(machine).await?;
            Ok("checked in".to_owned())
        }
        Order::Evaluate => {
            let outcome = evaluate(machine, &Selection::All, true, |_| ()).await?;
            Ok(counted(&outcome.found))
        }
        Order::TestScript { script } => {
            let _turn = take_turns(machine, "evaluation.lock").await?;
            trusted_owner(machine)?;
            let task = Task::Test { script };
            let answered = ask(machine, owner.clone(), task, |_| ()).await?;
            let cut_off = || Failure::other("the script was cut off");
            answered.tested.ok_or_else(cut_off)
        }
        // Whoever is told so leaves: see `leave`.
        Order::Uninstall => Err(Failure::other("it is not done like this")),
    }
}

/// `12 rules compliant, 1 non-compliant`.
pub fn counted(found: &[Found]) -> String {
    let counts: Vec<(ComplianceState, usize)> = ComplianceState::ALL
        .iter()
        .map(|state| {
            (
                *state,
                found.iter().filter(|one| one.state == *state).count(),
            )
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    super::standing::counted(&counts)
}

/// Lets one program at a time do this. Waits for its turn, and can be broken off.
pub async fn take_turns(machine: &Machine, name: &str) -> io::Result<File> {
    files::make_folder(&machine.layout.compliance(), 0o700)?;
    let lock = File::create(machine.layout.compliance().join(name))?;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// # Errors
/// When nobody confirmed that the site is the right one: then no script of it runs here.
fn trusted_owner(machine: &Machine) -> Result<(Owner, Identity), Failure> {
    let identity = machine.enrolled()?;
    if !identity.site.trust_verified {
        return Err(Failure::other(delivery::unverified(&identity)));
    }
    let owner = Owner::of(&identity)
        .ok_or_else(|| Failure::other("this computer's certificate names no device"))?;
    Ok((owner, identity))
}

fn schedule_of(machine: &Machine, owner: &Owner) -> Option<Schedule> {
    Schedule::read(&machine.layout).filter(|schedule| schedule.owner == *owner)
}

fn with_moment<T>(machine: &Machine, schedule: &Schedule, ask: impl FnOnce(&Moment<'_>) -> T) -> T {
    let now = machine.now();
    ask(&Moment {
        now,
        known: machine.policy_time(schedule.owner.pin),
        zone: &TimeZone::system(),
        boot: &machine.boot,
        booted: now.saturating_sub(machine.clock.elapsed()).unwrap_or(now),
    })
}

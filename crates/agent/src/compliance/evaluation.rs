//! The agent's half of an evaluation: says what is to be evaluated, starts the process that does it
//! ([`super::evaluator`]), and keeps what that found out. Commands of the site that take long are done
//! here, too. While scripts run the machine's lock is free: tools and renewals go on.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use domain::{BaselineName, ComplianceState, Severity, Timestamp, fault};
use jiff::tz::TimeZone;
use protocol::{CommandId, CommandResult, Order, PolicyVersion, SignedDocument};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::Instant;

use super::commands::Commands;
use super::delivery::{self, read_results};
use super::evaluator::{self, Line, Plan, Task, Whole};
use super::policy::{Owner, PolicyStore, Verifier};
use super::results::{Found, Held};
use super::runner;
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
        deployments,
        remediate,
    };
    let answered = ask(machine, owner.clone(), task, told).await?;
    fault::step("evaluated");
    let _lock = machine.lock().await?;
    keep(machine, &owner, answered)
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

/// Results are kept after so many, or after such a time: who is killed loses no more.
const MOST_UNKEPT: usize = 50;
const LONGEST_UNKEPT: Duration = Duration::from_secs(30);

/// An evaluating process that gives no sign for so long stands still: a script stopped it.
const LONGEST_QUIET: Duration = Duration::from_secs(match cfg!(feature = "test-clock") {
    true => 10,
    false => 300,
});

/// What the evaluating process answered.
#[derive(Default)]
struct Answered {
    version: Option<PolicyVersion>,
    rules: HashSet<protocol::RuleNumber>,
    /// Deployments all of whose items were evaluated.
    whole: Vec<Whole>,
    found: Vec<Found>,
    /// How many of them are on disk.
    kept: usize,
    /// How many results are news.
    changed: usize,
    broken: Vec<(protocol::BodyHash, String)>,
    tested: Option<String>,
    refused: Option<String>,
    ended: bool,
}

impl Answered {
    fn take(&mut self, line: Line) {
        match line {
            Line::Begun {
                version,
                rules,
                deployments,
                settings: _,
            } => {
                self.version = Some(version);
                self.rules.extend(rules);
                self.whole = deployments;
            }
            Line::Broken { body, why } => self.broken.push((body, why)),
            Line::Found(found) => self.found.push(found),
            Line::Tested(text) => self.tested = Some(text),
            Line::Refused(why) => self.refused = Some(why),
            Line::Ended => self.ended = true,
            Line::Alive | Line::Discovered | Line::Remediating { .. } => {}
        }
    }

    fn unkept(&self) -> &[Found] {
        &self.found[self.kept..]
    }

    /// Keeps what was found out and is not on disk yet. `all`: as [`Results::take`] wants it. The caller
    /// holds the machine's lock.
    fn keep(
        &mut self,
        machine: &Machine,
        owner: &Owner,
        all: Option<&HashSet<protocol::RuleNumber>>,
    ) -> Result<(), Failure> {
        let mut results = read_results(machine, owner);
        let changed = results.take(self.unkept().to_vec(), all, machine.best_time());
        results.write(&machine.layout)?;
        self.kept = self.found.len();
        self.changed += changed.len();
        for held in &changed {
            note_event(held);
        }
        Ok(())
    }
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
        owner: owner.clone(),
        now: machine.policy_time(owner.pin),
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
        // A script may have started this program: it is not of that script's evaluation.
        .env_remove(evaluator::MARKER)
        .env_remove(runner::MARK)
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
    let mut keep_at = None;
    let mut quiet_until = Instant::now() + LONGEST_QUIET;
    loop {
        let until = keep_at.map_or(quiet_until, |at| quiet_until.min(at));
        let mut is_time = false;
        match tokio::time::timeout_at(until, lines.next_line()).await {
            Err(_) if Instant::now() >= quiet_until => {
                tracing::error!(event = "evaluation-stands-still", process = child.id());
                child.start_kill()?;
                break;
            }
            Err(_) => is_time = true,
            Ok(line) => {
                quiet_until = Instant::now() + LONGEST_QUIET;
                let Some(line) = line? else { break };
                let Ok(line) = serde_json::from_str::<Line>(&line) else {
                    continue;
                };
                told(&line);
                // What was done to the computer is told, whatever comes next.
                is_time |= matches!(&line, Line::Found(found) if was_remediated(found));
                answered.take(line);
            }
        }
        if is_time || answered.unkept().len() >= MOST_UNKEPT {
            let _lock = machine.lock().await?;
            answered.keep(machine, &owner, None)?;
        }
        keep_at = match answered.unkept() {
            [] => None,
            _ => keep_at.or_else(|| Some(Instant::now() + LONGEST_UNKEPT)),
        };
    }
    let status = child.wait().await?;
    if !answered.ended {
        tracing::error!(event = "evaluation-cut-off", %status);
    }
    Ok(answered)
}

fn was_remediated(found: &Found) -> bool {
    use ComplianceState::{Remediated, RemediationFailed};
    matches!(found.state, Remediated | RemediationFailed)
}

/// Keeps what was found out, also by an evaluation that was cut off.
fn keep(machine: &Machine, owner: &Owner, mut answered: Answered) -> Result<Outcome, Failure> {
    let schedule = schedule_of(machine, owner);
    for (body, why) in &answered.broken {
        let planned = schedule.iter().flat_map(|schedule| &schedule.deployments);
        let mut planned = planned.map(|planned| &planned.items);
        // Another list came meanwhile: nobody misses it.
        if !planned.any(|items| items.contains(body)) {
            continue;
        }
        PolicyStore::new(&machine.layout).remove_body(*body)?;
        let what = format!("the policy body {body} on this computer was refused: {why}");
        delivery::want_again(machine, what)?;
    }
    if let Some(why) = &answered.refused {
        delivery::want_again(machine, format!("nothing runs: {why}"))?;
    }
    let complete = answered.ended && answered.broken.is_empty() && answered.refused.is_none();
    if answered.refused.is_none() && (answered.ended || !answered.unkept().is_empty()) {
        // Without the whole policy nobody knows which rules are gone.
        let rules = std::mem::take(&mut answered.rules);
        answered.keep(machine, owner, complete.then_some(&rules))?;
        fault::step("results-kept");
    }
    if answered.ended
        && answered.refused.is_none()
        && let Some(mut schedule) = schedule
    {
        let of_list = Some(schedule.version) == answered.version;
        let (now, boot) = (machine.now(), &machine.boot);
        schedule.ended(&answered.whole, complete && of_list, now, boot);
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
        changed: answered.changed,
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

/// An evaluation of very many rules takes some minutes. After this time who waits gives up, says for
/// whom, and tries again later.
const LONGEST_TURN: Duration = Duration::from_secs(3600);
/// And after this one it is told already.
const LONG_TURN: Duration = Duration::from_secs(300);

/// Lets one program at a time do this. Waits for its turn, and can be broken off.
///
/// # Errors
/// When its turn does not come.
pub async fn take_turns(machine: &Machine, name: &str) -> io::Result<File> {
    let folder = machine.layout.compliance();
    files::make_folder(&folder, 0o700)?;
    turn_within(&folder.join(name), LONGEST_TURN).await
}

async fn turn_within(path: &Path, at_most: Duration) -> io::Result<File> {
    let mut options = File::options();
    let mut lock = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let begun = Instant::now();
    let mut was_told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => {
                // For those who wait.
                lock.set_len(0)?;
                lock.write_all(std::process::id().to_string().as_bytes())?;
                return Ok(lock);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if !was_told && begun.elapsed() > LONG_TURN {
            was_told = true;
            let holder = std::fs::read_to_string(path).unwrap_or_default();
            tracing::warn!(event = "waits-for-another-program", process = holder);
        }
        if begun.elapsed() > at_most {
            let holder = std::fs::read_to_string(path).unwrap_or_default();
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "another program (process {holder}) was at it for {} minutes: look what it waits \
                     for, or end it",
                    at_most.as_secs() / 60
                ),
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_long_says_for_whom() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = folder.path().join("evaluation.lock");
        let turn = turn_within(&lock, Duration::ZERO).await.expect("a turn");
        let waited = turn_within(&lock, Duration::ZERO).await;
        let told = waited.expect_err("it is another one's turn").to_string();
        let holder = format!("process {}", std::process::id());
        assert!(told.contains(&holder), "{told}");
        drop(turn);
        turn_within(&lock, Duration::ZERO).await.expect("a turn");
    }
}

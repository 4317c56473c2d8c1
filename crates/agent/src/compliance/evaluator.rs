//! The process that evaluates: it reads a [`Plan`] on standard input, verifies the policy on disk
//! again, discovers, judges, remediates, and writes a [`Line`] for each thing that it found out. It
//! never opens the device's key, and its memory goes back when it ends. When its input ends, it stops.
//!
//! Discoveries come first, two at once. Then remediations, one at a time, each followed by another
//! discovery: what is remediated was found non-compliant by this very evaluation.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use domain::compliance::{
    BaselineName, ComplianceRule, Condition, Output, Reading, RemediationWindow, Script, Setting,
    SettingSource, Verdict,
};
use domain::{Clock, ComplianceState, Period, Rng, Timestamp, fault};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use protocol::{
    BodyHash, CommandResult, ItemBody, PolicyList, PolicyVersion, RuleNumber, RuleResult,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::guard::Guards;
use super::policy::{Owner, PolicyProblem, PolicyStore, Verifier};
use super::preference::{self, Preference};
use super::results::Found;
use super::runner::{self, Answer, Order};
use crate::files;
use crate::platform::{self, ChildEnd, Layout};

/// Discoveries at once.
const RUNNERS: usize = 2;
/// How long a script may take that is only tested.
const TEST_LIMIT: Period = Period::from_seconds(60);

/// What to do, from the agent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    pub owner: Owner,
    /// The best knowledge of the time.
    pub now: Timestamp,
    pub os_name: String,
    pub os_version: String,
    pub task: Task,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    Evaluate {
        /// Numbers of deployments.
        deployments: Vec<i64>,
        remediate: bool,
    },
    Test {
        script: Script,
    },
}

/// What was found out, to the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    Begun {
        /// The list that is evaluated.
        version: PolicyVersion,
        /// The rules of the whole policy.
        rules: Vec<RuleNumber>,
        /// All of whose items are evaluated.
        deployments: Vec<Whole>,
        settings: usize,
    },
    /// A body that is not what the site signed. Its rules are not evaluated.
    Broken {
        body: BodyHash,
        why: String,
    },
    /// A setting was discovered.
    Discovered,
    Remediating {
        rule: String,
    },
    Found(Found),
    Tested(String),
    /// A sign that it does not stand still, whatever takes its time.
    Alive,
    /// Nothing runs, and why.
    Refused(String),
    /// All was done.
    Ended,
}

/// A deployment that is evaluated as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    pub number: i64,
    pub items: Vec<BodyHash>,
}

/// How often a sign is given.
const BETWEEN_SIGNS: Duration = Duration::from_secs(match cfg!(feature = "test-clock") {
    true => 2,
    false => 30,
});

/// Set when the agent went away: nothing begins any more.
static ENDS: AtomicBool = AtomicBool::new(false);

/// The program of this process.
///
/// # Errors
/// When there is no plan, or nobody listens any more.
pub fn main(layout: &Layout, clock: &dyn Clock, rng: &dyn Rng) -> io::Result<()> {
    platform::leave_terminal();
    let mut input = BufReader::new(io::stdin());
    let mut line = String::new();
    input.read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line)?;
    // Nothing else comes. Its end is the agent's: then all ends, also a runner that stands still.
    std::thread::spawn(move || {
        let _ = input.read_to_end(&mut Vec::new());
        ENDS.store(true, Ordering::SeqCst);
        runner::kill_all();
        std::process::exit(1);
    });
    std::thread::spawn(|| {
        while write_line(&Line::Alive).is_ok() {
            std::thread::sleep(BETWEEN_SIGNS);
        }
    });
    let mut evaluator = Evaluator::new(layout, clock, rng, plan)?;
    let done = evaluator.run();
    if let Err(error) = &done {
        tracing::error!(event = "evaluation-ends", %error);
    }
    // What a runner left behind that was killed by its script.
    let left = runner::kill_all();
    remove_work(&evaluator.folder);
    if left == 0 {
        files::remove(&mark_file(layout))?;
    }
    done
}

struct Evaluator<'a> {
    layout: &'a Layout,
    clock: &'a dyn Clock,
    rng: &'a dyn Rng,
    plan: Plan,
    /// When the list ends.
    expires_at: Timestamp,
    /// How many remediations there were.
    remediations: usize,
    /// Of all that this evaluation starts.
    mark: String,
    /// By `clock`, when `plan.now` was.
    begun: SignedDuration,
    /// Working directories are made in it.
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

/// A configuration item to evaluate.
struct Item {
    hash: BodyHash,
    body: ItemBody,
    /// Those of its rules that are evaluated here. Two revisions of an item share the rules that are the
    /// same: one of them has each.
    rules: BTreeMap<RuleNumber, Deployed>,
}

/// Where a rule is deployed.
#[derive(Default, Clone)]
struct Deployed {
    baselines: Vec<BaselineName>,
    /// The bodies that it is in.
    bodies: Vec<BodyHash>,
    /// When it may be remediated: in one of these windows, or always. One of its deployments says so,
    /// whichever of them is due.
    remediation: Vec<Option<RemediationWindow>>,
}

impl Item {
    /// The rules that are evaluated here.
    fn own_rules(&self) -> impl Iterator<Item = (RuleNumber, &ComplianceRule)> {
        let rules = self.body.rules();
        rules.filter(|(number, _)| self.rules.contains_key(number))
    }

    fn settings(&self) -> impl Iterator<Item = &Setting> {
        let settings = self.body.content.settings().iter();
        settings.filter(|setting| {
            let mut rules = self.own_rules();
            rules.any(|(_, rule)| rule.setting == setting.name)
        })
    }
}

/// What a discovery gave.
enum Discovery {
    Script(Output),
    Preference(preference::Discovered),
}

/// A setting that was discovered, with what its rules say.
struct Judged<'i> {
    item: &'i Item,
    setting: &'i Setting,
    verdicts: Vec<(RuleNumber, &'i ComplianceRule, Reading, Verdict)>,
    /// After so many remediations.
    after: usize,
}

/// Of the rules of one setting.
#[derive(Default)]
struct Remediated {
    /// Those that were remediated, and why that did not help.
    outcomes: BTreeMap<RuleNumber, Option<String>>,
    /// Those that were not, and why.
    not_tried: BTreeMap<RuleNumber, String>,
}

/// The environment's variable by which all that an evaluation started is known again. Its value is this
/// evaluation's alone, and on disk until it ended.
pub const MARKER: &str = "PERENNIAL_EVALUATION";

fn mark_file(layout: &Layout) -> PathBuf {
    layout.compliance().join("mark")
}

impl<'a> Evaluator<'a> {
    fn new(
        layout: &'a Layout,
        clock: &'a dyn Clock,
        rng: &'a dyn Rng,
        plan: Plan,
    ) -> io::Result<Self> {
        platform::adopt_orphans()?;
        let folder = layout.work();
        // What a run that was killed left behind.
        let file = mark_file(layout);
        if let Ok(mark) = fs::read_to_string(&file) {
            runner::kill_marked(MARKER, &mark);
        }
        platform::cgroup::remove_all();
        let mut bytes = [0; 16];
        rng.fill(&mut bytes);
        let mark = HEXLOWER.encode(&bytes);
        // None of it outlives the machine's run: flushing it would take longer than many scripts do.
        if !layout.compliance().is_dir() {
            files::make_folder(&layout.compliance(), 0o700)?;
        }
        files::write_passing(&file, mark.as_bytes())?;
        remove_work(&folder);
        files::make_passing_folder(&folder, 0o700)?;
        let tools = tools(layout, &folder)?;
        let environment = [
            ("PATH", format!("{tools}:{}", platform::SEARCH_PATH)),
            ("HOME", platform::HOME.to_owned()),
            ("LANG", platform::LANG.to_owned()),
            ("PERENNIAL_ROOT", layout.root().display().to_string()),
            ("PERENNIAL_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
            (MARKER, mark.clone()),
        ];
        Ok(Self {
            layout,
            begun: clock.elapsed(),
            clock,
            rng,
            plan,
            expires_at: Timestamp::MAX,
            remediations: 0,
            mark,
            folder,
            environment: environment
                .map(|(key, value)| (key.to_owned(), value))
                .to_vec(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        match &self.plan.task {
            Task::Test { script } => {
                let script = script.clone();
                let order = self.order(&script, TEST_LIMIT, "test", "", "");
                let tested = self
                    .lane()
                    .and_then(|mut lane| lane.run(&order))
                    .map_or_else(|error| error.to_string(), |output| described(&output));
                self.tell(&Line::Tested(tested))?;
            }
            Task::Evaluate { deployments, .. } => {
                let deployments = deployments.clone();
                self.evaluate(&deployments)?;
            }
        }
        self.tell(&Line::Ended)
    }

    fn evaluate(&mut self, deployments: &[i64]) -> io::Result<()> {
        let Some(items) = self.items(deployments)? else {
            return Ok(());
        };
        let (apply, others): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| {
            let content = &item.body.content;
            content.applies_to(&self.plan.os_name, &self.plan.os_version)
        });
        for item in others {
            for (number, rule) in item.own_rules() {
                let state = ComplianceState::NotApplicable;
                self.found(item, number, rule, state, None, None)?;
            }
        }
        let settings: Vec<(&Item, &Setting)> = apply
            .iter()
            .flat_map(|item| item.settings().map(|setting| (*item, setting)))
            .collect();
        fault::step("discovering");
        let mut to_remediate = Vec::new();
        self.discover_all(&settings, |evaluator, judged| {
            fault::step("discovered");
            evaluator.tell(&Line::Discovered)?;
            let wanting = judged.wanting().into_iter();
            let mut wanting = wanting.map(|(number, _)| &judged.item.rules[&number]);
            if wanting.any(|deployed| evaluator.may_remediate(deployed)) {
                to_remediate.push(judged);
                Ok(())
            } else {
                evaluator.report(&judged, &Remediated::default())
            }
        })?;
        if to_remediate.is_empty() {
            return Ok(());
        }
        let mut lane = self.lane()?;
        for judged in to_remediate {
            self.remediate(judged, &mut lane)?;
        }
        Ok(())
    }

    /// The items of these deployments; none when nothing may run. Rules of the whole policy are told.
    fn items(&mut self, deployments: &[i64]) -> io::Result<Option<Vec<Item>>> {
        let store = PolicyStore::new(self.layout);
        let mut verifier = Verifier::new(self.plan.owner.clone(), self.plan.now);
        let (list, bodies) = loop {
            let list = match store.list(&mut verifier) {
                Ok(list) => list,
                Err(problem) => {
                    self.tell(&Line::Refused(format!("the policy list: {problem}")))?;
                    return Ok(None);
                }
            };
            let bodies = bodies_of(&list, &store, &mut verifier);
            // Bodies go when another list came that does not name them.
            let is_missing = |body: &Result<_, _>| matches!(body, Err(PolicyProblem::Missing));
            let any_missing = bodies.iter().any(|(_, body)| is_missing(body));
            let mut is_same = || {
                store
                    .list(&mut verifier)
                    .is_ok_and(|now| now.version == list.version)
            };
            if !any_missing || is_same() {
                break (list, bodies);
            }
        };
        self.expires_at = list.expires_at;
        let mut good: Vec<(BodyHash, ItemBody)> = Vec::new();
        for (hash, body) in bodies {
            match body {
                Ok(body) => good.push((hash, body)),
                Err(problem) => {
                    let why = problem.to_string();
                    self.tell(&Line::Broken { body: hash, why })?;
                }
            }
        }
        let whole = list.deployments.iter().filter(|one| {
            let is_good = |item: &BodyHash| good.iter().any(|(hash, _)| hash == item);
            deployments.contains(&one.number) && one.items.iter().all(is_good)
        });
        let whole = whole.map(|one| Whole {
            number: one.number,
            items: one.items.clone(),
        });
        let whole = whole.collect();
        let os = (&self.plan.os_name, &self.plan.os_version);
        let applies = |body: &ItemBody| body.content.applies_to(os.0, os.1);
        let (items, rules) = items_of(&list, good, deployments, applies);
        let settings = items
            .iter()
            .filter(|item| applies(&item.body))
            .map(|item| item.settings().count())
            .sum();
        self.tell(&Line::Begun {
            version: list.version,
            rules,
            deployments: whole,
            settings,
        })?;
        Ok(Some(items))
    }

    /// Discovers each setting once, and gives each to `take` as soon as its rules are judged.
    fn discover_all<'i>(
        &mut self,
        settings: &[(&'i Item, &'i Setting)],
        mut take: impl FnMut(&mut Self, Judged<'i>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut orders = VecDeque::new();
        for (at, (item, setting)) in settings.iter().enumerate() {
            match &setting.source {
                SettingSource::Script {
                    discovery,
                    time_limit,
                    ..
                } => orders.push_back((at, self.order_for(item, setting, discovery, *time_limit))),
                SettingSource::Preference { .. } => {
                    self.ends_with_the_list()?;
                    let discovery = self.preference(setting).map(|found| found.discover());
                    if let Some(found) = discovery {
                        let judged = judge(item, setting, &Discovery::Preference(found), 0);
                        take(self, judged)?;
                    }
                }
            }
        }
        let lanes = RUNNERS.min(orders.len());
        let orders = Arc::new(Mutex::new(orders));
        let (done, outputs) = mpsc::channel();
        // How long the list is in force yet, and the clock by which that is told.
        let (clock, begun) = (self.clock, self.begun);
        let in_force = self.expires_at.duration_since(self.plan.now);
        let is_over = move |wait: SignedDuration| clock.elapsed() - begun + wait >= in_force;
        std::thread::scope(|scope| {
            for _ in 0..lanes {
                let (orders, done) = (orders.clone(), done.clone());
                let (layout, mark) = (self.layout, self.mark.clone());
                scope.spawn(move || work(layout, &mark, &orders, &done, &is_over));
            }
            drop(done);
            for (at, output) in outputs {
                let (item, setting) = settings[at];
                take(self, judge(item, setting, &Discovery::Script(output), 0))?;
            }
            match orders.lock().is_ok_and(|orders| orders.is_empty()) {
                true => Ok(()),
                false => Err(list_is_over()),
            }
        })
    }

    /// # Errors
    /// When the list is not in force any more: nothing begins then.
    fn ends_with_the_list(&self) -> io::Result<()> {
        match self.now() < self.expires_at {
            true => Ok(()),
            false => Err(list_is_over()),
        }
    }

    /// A process that runs scripts.
    fn lane(&self) -> io::Result<Lane> {
        Lane::start(self.layout, &self.mark)
    }

    /// Remediates what a setting's rules ask for, discovers again, and tells how they stand.
    fn remediate<'i>(&mut self, mut judged: Judged<'i>, lane: &mut Lane) -> io::Result<()> {
        let (item, setting) = (judged.item, judged.setting);
        self.ends_with_the_list()?;
        // What was found before another remediation may not be so any more.
        if judged.after < self.remediations {
            judged = self.judge_again(&judged, lane)?;
        }
        let mut done = Remediated::default();
        let mut script_ran = None;
        for (number, rule) in judged.wanting() {
            // What was done for another rule of the setting may have been enough.
            if judged.verdict(number) == Some(&Verdict::Compliant) {
                done.outcomes.insert(number, None);
                continue;
            }
            // The window may have ended while other scripts ran.
            let deployed = &item.rules[&number];
            if !self.may_remediate(deployed) {
                continue;
            }
            if let Err(why) = self.policy_still_says_so(item, deployed) {
                done.not_tried.insert(number, why);
                continue;
            }
            let mut guards = match self.may_try(number) {
                Ok(guards) => guards,
                Err(why) => {
                    done.outcomes.insert(number, Some(why));
                    continue;
                }
            };
            let rule_name = rule.name.to_string();
            self.tell(&Line::Remediating { rule: rule_name })?;
            fault::step("remediating");
            self.remediations += 1;
            let why_not = match &setting.source {
                SettingSource::Script {
                    remediation: Some(script),
                    time_limit,
                    ..
                } => match &script_ran {
                    // It does the same for each of the setting's rules.
                    Some(before) => Option::clone(before),
                    None => {
                        let order = self.remediation_order(item, setting, script, *time_limit);
                        let why_not = failure_of(&lane.run(&order)?);
                        script_ran = Some(why_not.clone());
                        why_not
                    }
                },
                SettingSource::Script { .. } => Some("there is no remediation script".to_owned()),
                SettingSource::Preference { .. } => self.write_preference(setting, rule),
            };
            fault::step("remediated");
            judged = self.judge_again(&judged, lane)?;
            done.outcomes.insert(number, why_not);
            let verdict = judged.verdict(number).unwrap_or(&Verdict::NonCompliant);
            let failure = reason(verdict, done.outcomes.get(&number)).map(|why| shown(&why));
            if let Err(error) = guards.end(number, failure) {
                tracing::warn!(event = "remediation-not-noted", %error);
            }
        }
        self.report(&judged, &done)
    }

    /// What a rule's remediations are noted in, with this one, before it runs.
    ///
    /// # Errors
    /// Why it is not tried.
    fn may_try(&self, rule: RuleNumber) -> Result<Guards, String> {
        let now = self.now();
        let not_noted =
            |error: io::Error| format!("it was not tried, as it cannot be noted: {error}");
        let mut guards = Guards::read(self.layout, &self.plan.owner, now).map_err(not_noted)?;
        match guards.refuses(rule, now) {
            Some(why) => Err(why),
            None => guards.begin(rule, now).map_err(not_noted).map(|()| guards),
        }
    }

    /// Reads the list again: another one may have come, and this one may have ended.
    ///
    /// # Errors
    /// Why nothing is remediated.
    fn policy_still_says_so(&self, item: &Item, deployed: &Deployed) -> Result<(), String> {
        let mut verifier = Verifier::new(self.plan.owner.clone(), self.now());
        let list = PolicyStore::new(self.layout).list(&mut verifier);
        let list =
            list.map_err(|problem| format!("it was not remediated: the policy list: {problem}"))?;
        let mut all = list.deployments.iter();
        let is_listed = all.any(|one| one.items.contains(&item.hash));
        let says_so = deployed_in(&list, &deployed.bodies);
        match is_listed && self.may_remediate(&says_so) {
            true => Ok(()),
            false => Err("it was not remediated, as the policy changed meanwhile".to_owned()),
        }
    }

    /// Why a preference could not be written.
    fn write_preference(&self, setting: &Setting, rule: &ComplianceRule) -> Option<String> {
        let expected = match &rule.condition {
            Condition::Value(comparison) => comparison.expected(),
            Condition::Existential(_) => None,
        };
        let (Some(preference), Some(value)) = (self.preference(setting), expected) else {
            return Some("the rule does not say which value to write".to_owned());
        };
        let written = preference.write(value);
        written.err().map(|error| error.to_string())
    }

    /// Discovers a setting again, and judges its rules.
    fn judge_again<'i>(&self, judged: &Judged<'i>, lane: &mut Lane) -> io::Result<Judged<'i>> {
        let (item, setting) = (judged.item, judged.setting);
        let again = match &setting.source {
            SettingSource::Script {
                discovery,
                time_limit,
                ..
            } => {
                let order = self.order_for(item, setting, discovery, *time_limit);
                Discovery::Script(lane.run(&order)?)
            }
            SettingSource::Preference { .. } => Discovery::Preference(
                self.preference(setting)
                    .map_or(Ok(None), |found| found.discover()),
            ),
        };
        Ok(judge(item, setting, &again, self.remediations))
    }

    fn preference<'s>(&self, setting: &'s Setting) -> Option<Preference<'s>>
    where
        'a: 's,
    {
        match &setting.source {
            SettingSource::Preference {
                application_id,
                key,
            } => Some(Preference {
                layout: self.layout,
                application: application_id,
                key,
            }),
            SettingSource::Script { .. } => None,
        }
    }

    fn may_remediate(&self, deployed: &Deployed) -> bool {
        let Task::Evaluate {
            remediate: true, ..
        } = self.plan.task
        else {
            return false;
        };
        let (now, zone) = (self.now(), TimeZone::system());
        let open = |window: &Option<RemediationWindow>| {
            window.is_none_or(|window| window.holds(now, &zone))
        };
        deployed.remediation.iter().any(open)
    }

    fn now(&self) -> Timestamp {
        let since = self.clock.elapsed() - self.begun;
        let now = self.plan.now.saturating_add(since);
        now.unwrap_or(self.plan.now)
    }

    fn order_for(&self, item: &Item, setting: &Setting, script: &Script, limit: Period) -> Order {
        let (item, setting) = (item.body.item.as_str(), setting.name.as_str());
        self.order(script, limit, "discovery", item, setting)
    }

    fn remediation_order(
        &self,
        item: &Item,
        setting: &Setting,
        script: &Script,
        limit: Period,
    ) -> Order {
        let (item, setting) = (item.body.item.as_str(), setting.name.as_str());
        self.order(script, limit, "remediation", item, setting)
    }

    fn order(
        &self,
        script: &Script,
        time_limit: Period,
        purpose: &str,
        item: &str,
        setting: &str,
    ) -> Order {
        let told = [
            ("PERENNIAL_PURPOSE", purpose),
            ("PERENNIAL_ITEM", item),
            ("PERENNIAL_SETTING", setting),
        ];
        let told = told.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut number = [0; 8];
        self.rng.fill(&mut number);
        Order {
            number: u64::from_ne_bytes(number),
            script: script.clone(),
            time_limit,
            environment: self.environment.iter().cloned().chain(told).collect(),
            folder: self.folder.clone(),
        }
    }

    /// Tells how the rules of a setting stand.
    fn report(&mut self, judged: &Judged<'_>, done: &Remediated) -> io::Result<()> {
        for (number, rule, reading, verdict) in &judged.verdicts {
            let tried = done.outcomes.get(number);
            let state = match (verdict, tried) {
                (Verdict::Compliant, None) => ComplianceState::Compliant,
                (Verdict::Compliant, Some(_)) => ComplianceState::Remediated,
                (Verdict::NonCompliant, None) => ComplianceState::NonCompliant,
                (Verdict::Error(_), None) => ComplianceState::Error,
                (_, Some(_)) => ComplianceState::RemediationFailed,
            };
            let reason = match (state, reason(verdict, tried)) {
                (ComplianceState::NonCompliant, None) => done.not_tried.get(number).cloned(),
                (_, reason) => reason,
            };
            let value = match reading {
                Reading::Value(value) => Some(value.as_str()),
                Reading::Missing | Reading::Failed(_) => None,
            };
            self.found(judged.item, *number, rule, state, value, reason.as_deref())?;
        }
        Ok(())
    }

    fn found(
        &mut self,
        item: &Item,
        number: RuleNumber,
        rule: &ComplianceRule,
        state: ComplianceState,
        value: Option<&str>,
        reason: Option<&str>,
    ) -> io::Result<()> {
        let deployed = &item.rules[&number];
        let mends_itself = state == ComplianceState::NonCompliant
            && rule.remediate
            && !deployed.remediation.is_empty();
        self.tell(&Line::Found(Found {
            rule: number,
            item: item.body.item.clone(),
            name: rule.name.clone(),
            severity: rule.severity,
            baselines: deployed.baselines.clone(),
            state,
            mends_itself,
            value: value.map(shown),
            reason: reason.map(shown),
        }))
    }

    fn tell(&mut self, line: &Line) -> io::Result<()> {
        // What is found out while all is killed is no result.
        if ENDS.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        write_line(line)
    }
}

fn write_line(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

/// The bodies of a list, each once.
fn bodies_of(
    list: &PolicyList,
    store: &PolicyStore,
    verifier: &mut Verifier,
) -> Vec<(BodyHash, Result<ItemBody, PolicyProblem>)> {
    let mut hashes: Vec<BodyHash> = Vec::new();
    for hash in list.deployments.iter().flat_map(|one| &one.items) {
        if !hashes.contains(hash) {
            hashes.push(*hash);
        }
    }
    let read = |hash| (hash, store.body(verifier, hash));
    hashes.into_iter().map(read).collect()
}

/// The items of these deployments, each rule in one of them, and all rules of the policy.
fn items_of(
    list: &PolicyList,
    bodies: Vec<(BodyHash, ItemBody)>,
    deployments: &[i64],
    applies: impl Fn(&ItemBody) -> bool,
) -> (Vec<Item>, Vec<RuleNumber>) {
    let mut within: BTreeMap<RuleNumber, Vec<BodyHash>> = BTreeMap::new();
    for (hash, body) in &bodies {
        for number in &body.rules {
            within.entry(*number).or_default().push(*hash);
        }
    }
    let rules = within.keys().copied().collect();
    let is_due = |hash: &BodyHash| {
        let mut all = list.deployments.iter();
        all.any(|one| deployments.contains(&one.number) && one.items.contains(hash))
    };
    let mut due: Vec<(BodyHash, ItemBody)> = bodies;
    due.retain(|(hash, _)| is_due(hash));
    // A rule that several revisions have is one of the newest that is for this system.
    due.sort_by_key(|(_, body)| Reverse((applies(body), body.revision)));
    let mut items = Vec::new();
    for (hash, body) in due {
        let mut own = BTreeMap::new();
        for number in &body.rules {
            if let Some(bodies) = within.remove(number) {
                own.insert(*number, deployed_in(list, &bodies));
            }
        }
        items.push(Item {
            hash,
            body,
            rules: own,
        });
    }
    (items, rules)
}

/// What a list says of a rule that is in these bodies.
fn deployed_in(list: &PolicyList, bodies: &[BodyHash]) -> Deployed {
    let mut deployed = Deployed {
        bodies: bodies.to_vec(),
        ..Deployed::default()
    };
    for one in &list.deployments {
        if !one.items.iter().any(|item| bodies.contains(item)) {
            continue;
        }
        deployed.baselines.push(one.baseline.clone());
        if one.remediate {
            deployed.remediation.push(one.remediation_window);
        }
    }
    deployed
}

fn list_is_over() -> io::Error {
    io::Error::other("the policy list ended while it was evaluated")
}

/// Why a rule stands as it does. `tried`: when it was remediated, why that did not help.
fn reason(verdict: &Verdict, tried: Option<&Option<String>>) -> Option<String> {
    match (verdict, tried) {
        (Verdict::Compliant, _) => None,
        (_, Some(Some(why))) => Some(why.clone()),
        (Verdict::Error(why), Some(None)) => Some(format!("after the remediation: {why}")),
        (Verdict::Error(why), None) => Some(why.clone()),
        (Verdict::NonCompliant, Some(None)) => {
            Some("the remediation ran, and it is still not compliant".to_owned())
        }
        (Verdict::NonCompliant, None) => None,
    }
}

impl<'i> Judged<'i> {
    /// The rules that ask to be remediated.
    fn wanting(&self) -> Vec<(RuleNumber, &'i ComplianceRule)> {
        let wants = self
            .verdicts
            .iter()
            .filter(|(_, rule, _, verdict)| rule.remediate && *verdict == Verdict::NonCompliant);
        wants.map(|(number, rule, _, _)| (*number, *rule)).collect()
    }

    fn verdict(&self, number: RuleNumber) -> Option<&Verdict> {
        let mut verdicts = self.verdicts.iter();
        let found = verdicts.find(|(rule, _, _, _)| *rule == number)?;
        Some(&found.3)
    }
}

fn judge<'i>(
    item: &'i Item,
    setting: &'i Setting,
    discovery: &Discovery,
    after: usize,
) -> Judged<'i> {
    let rules = item.own_rules();
    let rules = rules.filter(|(_, rule)| rule.setting == setting.name);
    let verdicts = rules.map(|(number, rule)| {
        let reading = match discovery {
            Discovery::Script(output) => output.reading(setting.data_type, &rule.condition),
            Discovery::Preference(found) => preference::reading(found, &rule.condition),
        };
        let verdict = rule.condition.judge(&reading);
        (number, rule, reading, verdict)
    });
    Judged {
        item,
        setting,
        verdicts: verdicts.collect(),
        after,
    }
}

/// Why a remediation's script did not do what it is for; none when it ended with status 0.
fn failure_of(output: &Output) -> Option<String> {
    use domain::compliance::Ended;
    let why = match &output.ended {
        Ended::Exit(0) => return None,
        Ended::Exit(status) => format!("the remediation ended with status {status}"),
        Ended::Signal(signal) => format!("the remediation was killed by signal {signal}"),
        Ended::Stopped(why) => format!("the remediation: {why}"),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    match stderr.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => Some(format!("{why}: {}", line.trim())),
        None => Some(why),
    }
}

/// Of a test: all that a person wants to know.
fn described(output: &Output) -> String {
    use domain::compliance::Ended;
    let mut text = match &output.ended {
        Ended::Exit(status) => format!("it ended with status {status}\n"),
        Ended::Signal(signal) => format!("it was killed by signal {signal}\n"),
        Ended::Stopped(why) => format!("{why}\n"),
    };
    for (name, bytes) in [("STDOUT", &output.stdout), ("STDERR", &output.stderr)] {
        if !bytes.is_empty() {
            let half = &bytes[..bytes.len().min(CommandResult::MOST / 2 - 200)];
            text += &format!("{name}:\n{}\n", String::from_utf8_lossy(half).trim_end());
        }
    }
    cut(&text, CommandResult::MOST)
}

/// A text of somebody else, fit to be kept and shown.
fn shown(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() => ' ',
            c => c,
        })
        .collect();
    cut(&plain, RuleResult::MOST_TEXT)
}

/// The text up to so many bytes.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most - 3).rev().find(|at| text.is_char_boundary(*at));
    format!("{}…", &text[..end.unwrap_or(0)])
}

/// Removes the folder in which scripts work.
fn remove_work(folder: &Path) {
    match platform::remove_folder(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(event = "working-folders-left", %error);
        }
        _ => {}
    }
}

/// The folder in which scripts find `defaults` and the other tools of the agent.
fn tools(layout: &Layout, folder: &Path) -> io::Result<String> {
    let installed = layout.tools();
    if installed.join("defaults").exists() {
        return Ok(installed.display().to_string());
    }
    // An agent that was not installed brings its own.
    let tools = folder.join("tools");
    files::make_passing_folder(&tools, 0o700)?;
    for tool in crate::tools::install::TOOLS {
        match std::os::unix::fs::symlink(platform::own_program(), tools.join(tool)) {
            // What an earlier evaluation could not remove.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    Ok(tools.display().to_string())
}

/// The processes that run scripts. Locked while one is started, and while all is killed that belongs to
/// none of them.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn running() -> MutexGuard<'static, BTreeSet<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that runs scripts, one after the other.
struct Lane {
    child: Child,
    /// None once it is to end.
    orders: Option<ChildStdin>,
    answers: Answers,
    layout: Layout,
    /// Of the evaluation.
    mark: String,
    /// Its own, which all that it starts has, too.
    name: String,
    has_ended: bool,
}

impl Drop for Lane {
    /// It ends with its input, unless somebody stopped it.
    fn drop(&mut self) {
        self.orders = None;
        if !self.ends_within(ENDING) {
            self.kill();
        }
    }
}

/// A runner that has nothing to do and does not end in this time stands still.
const ENDING: Duration = Duration::from_secs(10);

impl Lane {
    fn start(layout: &Layout, mark: &str) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("{mark}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut running = running();
        if ENDS.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut child = Command::new(platform::own_program())
            .arg("--root")
            .arg(layout.root())
            .arg("run-scripts")
            .env(MARKER, mark)
            .env(runner::MARK, &name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        running.insert(child.id());
        let missing = || io::Error::other("the runner has no pipes");
        let orders = Some(child.stdin.take().ok_or_else(missing)?);
        let pipe = child.stdout.take().ok_or_else(missing)?;
        Ok(Self {
            child,
            orders,
            answers: Answers {
                pipe,
                read: Vec::new(),
            },
            layout: layout.clone(),
            mark: mark.to_owned(),
            name,
            has_ended: false,
        })
    }

    /// Runs one script. When that ends the runner itself, another one takes its place.
    fn run(&mut self, order: &Order) -> io::Result<Output> {
        let answer = self.send(order).and_then(|()| self.receive(order));
        answer.or_else(|error| {
            self.replace()?;
            Ok(ended_with_its_runner(&error))
        })
    }

    fn send(&mut self, order: &Order) -> io::Result<()> {
        let mut text = serde_json::to_vec(order)?;
        text.push(b'\n');
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        self.orders.as_mut().ok_or(gone)?.write_all(&text)
    }

    /// The answer to the order that it does now.
    fn receive(&mut self, order: &Order) -> io::Result<Output> {
        let line = self
            .answers
            .next(runner::answers_within(order.time_limit))?;
        let answer: Answer = serde_json::from_slice(&line)?;
        match answer.number == order.number {
            true => Ok(answer.into_output()),
            false => Err(io::Error::other("it answered something else")),
        }
    }

    /// Starts another runner, after all is gone that this one left behind.
    fn replace(&mut self) -> io::Result<()> {
        self.kill();
        *self = Self::start(&self.layout.clone(), &self.mark.clone())?;
        Ok(())
    }

    /// Kills it, and all that it started, wherever that is.
    fn kill(&mut self) {
        let _ = self.child.kill();
        if !self.ends_within(ENDING) {
            tracing::error!(event = "runner-cannot-be-killed", process = self.child.id());
            return;
        }
        runner::kill_marked(runner::MARK, &self.name);
        runner::kill_all_but(&running());
    }

    /// True when it ended, or ends in this time.
    fn ends_within(&mut self, at_most: Duration) -> bool {
        if self.has_ended {
            return true;
        }
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Who cannot be watched is not there any more.
        let end = id.and_then(|id| ChildEnd::of(id).ok());
        if !end.is_none_or(|end| is_ready(&end, at_most)) {
            return false;
        }
        let mut running = running();
        // From here on its number may be another one's.
        let _ = self.child.wait();
        running.remove(&self.child.id());
        self.has_ended = true;
        drop(running);
        platform::cgroup::remove(self.child.id());
        true
    }
}

/// What a runner answers, line by line.
struct Answers {
    pipe: ChildStdout,
    /// What came already.
    read: Vec<u8>,
}

impl Answers {
    /// More is no answer: a value and the end of STDERR are shorter.
    const MOST: usize = 1 << 20;

    /// # Errors
    /// When it does not come in this time.
    fn next(&mut self, at_most: Duration) -> io::Result<Vec<u8>> {
        let begun = Instant::now();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            if self.read.len() > Self::MOST {
                return Err(io::Error::other("it answered without an end"));
            }
            let left = at_most.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !is_ready(&self.pipe, left) {
                continue;
            }
            match self.pipe.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => self.read.extend(&chunk[..bytes]),
            }
        }
    }
}

fn is_ready(file: &impl AsFd, at_most: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at_most.subsec_nanos()),
    };
    let mut watched = [PollFd::new(file, PollFlags::IN)];
    poll(&mut watched, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

fn ended_with_its_runner(error: &io::Error) -> Output {
    runner::stopped(match error.kind() {
        io::ErrorKind::TimedOut => "the program that ran it did not answer in time".to_owned(),
        _ => format!("the program that ran it ended with it ({error})"),
    })
}

/// Orders that a runner has at once: one runs, and the next one is there when it ends.
const AHEAD: usize = 2;
/// What fits into a pipe beside another one.
const SMALL: usize = 16 * 1024;

/// Takes orders until none is left, or `is_over`: in a while, or now.
fn work(
    layout: &Layout,
    mark: &str,
    orders: &Mutex<VecDeque<(usize, Order)>>,
    done: &mpsc::Sender<(usize, Output)>,
    is_over: &impl Fn(SignedDuration) -> bool,
) {
    let mut lane = Lane::start(layout, mark);
    let mut asked: VecDeque<(usize, Order)> = VecDeque::new();
    loop {
        loop {
            // What it has already comes first.
            let limits = asked.iter().map(|(_, order)| order.time_limit);
            let wait = limits.map(runner::answers_within).sum::<Duration>();
            if is_over(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)) {
                break;
            }
            let Some((at, order)) = next_order(orders, asked.len()) else {
                break;
            };
            if let Ok(lane) = &mut lane {
                // When it cannot be sent there will be no answer, either.
                let _ = lane.send(&order);
            }
            asked.push_back((at, order));
        }
        let Some((at, order)) = asked.pop_front() else {
            return;
        };
        let output = match &mut lane {
            Err(error) => runner::stopped(format!("it cannot be run: {error}")),
            Ok(running) => running.receive(&order).unwrap_or_else(|error| {
                let replaced = running.replace();
                for (_, order) in &asked {
                    let _ = running.send(order);
                }
                match replaced {
                    Ok(()) => ended_with_its_runner(&error),
                    Err(error) => runner::stopped(format!("it cannot be run: {error}")),
                }
            }),
        };
        if done.send((at, output)).is_err() {
            return;
        }
    }
}

/// An order for a runner that has `asked` ones. It gets one ahead while there are enough for all, and
/// it cannot fill its pipe.
fn next_order(orders: &Mutex<VecDeque<(usize, Order)>>, asked: usize) -> Option<(usize, Order)> {
    let mut orders = orders.lock().ok()?;
    let is_small = |(_, order): &(usize, Order)| order.script.as_str().len() < SMALL;
    let may_have = match asked {
        0 => true,
        asked => {
            asked < AHEAD && orders.len() > 2 * RUNNERS && orders.front().is_some_and(is_small)
        }
    };
    may_have.then(|| orders.pop_front()).flatten()
}

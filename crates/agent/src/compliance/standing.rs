//! How compliance stands on this computer, for people: `status`, `evaluate` and `diagnostics`.

use std::collections::BTreeMap;

use domain::{BaselineName, ComplianceState, Timestamp};
use protocol::PolicyVersion;
use serde::Serialize;

use super::delivery;
use super::policy::Owner;
use super::results::{Held, Results};
use super::schedule::Schedule;
use crate::identity::{Identity, Machine};

/// Of one computer.
#[derive(Debug, Serialize)]
pub struct Standing {
    /// Of the list in force.
    pub version: Option<PolicyVersion>,
    pub expires_at: Option<Timestamp>,
    /// Why nothing runs, or what was refused last.
    pub problem: Option<String>,
    pub evaluated_at: Option<Timestamp>,
    pub next_evaluation: Option<Timestamp>,
    /// Changes that the site does not have.
    pub waiting: usize,
    pub baselines: Vec<BaselineStanding>,
}

/// Of one baseline.
#[derive(Debug, Serialize)]
pub struct BaselineStanding {
    pub baseline: BaselineName,
    /// How many rules are in each state that any is in.
    pub rules: BTreeMap<ComplianceState, usize>,
    /// Since when the state that one should look at first is there.
    pub since: Option<Timestamp>,
}

impl Standing {
    /// None where the site gave no policy.
    pub fn of(machine: &Machine, identity: &Identity) -> Option<Self> {
        let owner = Owner::of(identity)?;
        let state = machine.state();
        let schedule = Schedule::read(&machine.layout).filter(|schedule| schedule.owner == owner);
        let results = Results::on_disk(&machine.layout, &owner);
        let problem = delivery::problem(machine, identity, &state);
        if schedule.is_none() && results.is_none() && problem.is_none() {
            return None;
        }
        let held: Vec<&Held> = results.iter().flat_map(|all| all.held.values()).collect();
        let mut names: Vec<&BaselineName> = Vec::new();
        let planned = schedule.iter().flat_map(|schedule| &schedule.deployments);
        for name in planned.map(|planned| &planned.baseline) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let baselines = names
            .into_iter()
            .map(|name| BaselineStanding::of(name, &held))
            .collect();
        Some(Self {
            version: schedule.as_ref().map(|schedule| schedule.version),
            expires_at: schedule.as_ref().map(|schedule| schedule.expires_at),
            problem,
            evaluated_at: results.as_ref().map(|results| results.header.evaluated_at),
            next_evaluation: super::next_evaluation(machine, identity),
            waiting: results.as_ref().map_or(0, |results| results.header.waiting),
            baselines,
        })
    }

    /// The rules that have a result, for a table; without values and reasons, which may be private.
    pub fn rules(machine: &Machine, identity: &Identity) -> Vec<Held> {
        let results =
            Owner::of(identity).and_then(|owner| Results::on_disk(&machine.layout, &owner));
        results.map_or_else(Vec::new, |results| results.held.into_values().collect())
    }
}

impl BaselineStanding {
    fn of(baseline: &BaselineName, held: &[&Held]) -> Self {
        let of = held
            .iter()
            .filter(|held| held.found.baselines.contains(baseline));
        let mut rules = BTreeMap::new();
        for one in of.clone() {
            *rules.entry(one.found.state).or_default() += 1;
        }
        let worst = rules.keys().next_back().copied();
        let since = of
            .filter(|one| Some(one.found.state) == worst)
            .map(|one| one.since)
            .min();
        Self {
            baseline: baseline.clone(),
            rules,
            since,
        }
    }

    /// `12 rules compliant, 1 non-compliant since …`
    pub fn text(&self, moment: impl Fn(Timestamp) -> String) -> String {
        if self.rules.is_empty() {
            return "not evaluated yet".to_owned();
        }
        let counts: Vec<(ComplianceState, usize)> = self
            .rules
            .iter()
            .map(|(state, count)| (*state, *count))
            .collect();
        match self.since {
            Some(since) => format!("{} since {}", counted(&counts), moment(since)),
            None => counted(&counts),
        }
    }
}

/// `12 rules compliant, 1 non-compliant`
pub fn counted(counts: &[(ComplianceState, usize)]) -> String {
    if counts.is_empty() {
        return "no rules".to_owned();
    }
    let mut text = Vec::new();
    for (at, (state, count)) in counts.iter().enumerate() {
        let rules = match (at, *count) {
            (0, 1) => " rule",
            (0, _) => " rules",
            _ => "",
        };
        text.push(format!("{count}{rules} {state}"));
    }
    text.join(", ")
}

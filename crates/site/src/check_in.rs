//! A device checks in: it reports how it is and learns when to renew and when to come again. A
//! check-in that changes nothing writes nothing but the coalesced last-seen.

use domain::{AlertKind, Timestamp};
use protocol::{CheckIn, CheckInAnswer, PolicyState};
use store::{Change, Kind};

use crate::{DevicePrincipal, Result, Site};

/// A problem is a sentence.
const LONGEST_PROBLEM: usize = 500;

impl Site {
    /// # Errors
    /// When the records cannot be reached.
    pub async fn check_in(
        &self,
        mut device: DevicePrincipal,
        report: CheckIn,
    ) -> Result<CheckInAnswer> {
        let now = self.now();
        let id = device.device();
        let results = self.results_of_check_in(&device, &report, now);
        let mut changes = Vec::new();
        if !device.standing.used {
            let kind = device.first_use();
            changes.push(Change {
                at: now,
                by: device.actor(),
                kind,
            });
        }
        let facts = report.facts.bounded();
        if facts != device.standing.facts {
            let kind = Kind::ReportFacts {
                device: id,
                facts: facts.clone(),
            };
            changes.push(Change {
                at: now,
                by: device.actor(),
                kind,
            });
            device.standing.facts = facts;
        }
        if let Some(state) = report.policy {
            changes.extend(policy_changes(&device, state, now));
        }
        let (commands, late) = self.commands_for(&device, now).await?;
        changes.extend(late);
        let policy = self.policy_notice(&device).await?;
        for outcome in self.0.store.commit(changes).await? {
            outcome?;
        }
        self.0.seen.note(id, now);
        metrics::counter!("site_check_ins_total").increment(1);
        Ok(CheckInAnswer {
            time: now,
            device: id.smsid(),
            renewal: self.renewal_info(&device),
            renewal_mode: self.0.settings.profile.renewal_mode,
            next_check_in: self.0.settings.check_in_interval,
            policy: Some(policy),
            results,
            commands,
        })
    }
}

/// What a device says of its policy, when it is something new. A problem is an alert, too; it stays open
/// until somebody closed it.
fn policy_changes(device: &DevicePrincipal, said: PolicyState, now: Timestamp) -> Vec<Change> {
    let state = PolicyState {
        version: said.version,
        problem: said.problem.map(|problem| {
            let plain = problem.chars().filter(|c| !c.is_control());
            plain.take(LONGEST_PROBLEM).collect()
        }),
    };
    let before = device.standing.policy.as_ref();
    if before == Some(&state) {
        return Vec::new();
    }
    let change = |kind| Change {
        at: now,
        by: device.actor(),
        kind,
    };
    let mut changes = Vec::new();
    if let Some(problem) = &state.problem
        && before.is_none_or(|before| before.problem.as_ref() != Some(problem))
    {
        changes.push(change(Kind::RaiseAlert {
            alert: AlertKind::PolicyRefused,
            device: device.device(),
            detail: problem.clone(),
        }));
    }
    changes.push(change(Kind::ReportPolicy {
        device: device.device(),
        state,
    }));
    changes
}

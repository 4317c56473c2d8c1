//! A device checks in: it reports how it is and learns when to renew and when to come again. A
//! check-in that changes nothing writes nothing but the coalesced last-seen.

use std::net::Ipv4Addr;

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
            changes.extend(self.policy_changes(&device, state, now).await?);
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

impl Site {
    /// What a device says of its policy, when it is something new. While a problem lasts one alert is open,
    /// also when somebody closed the one before. A device that always says something else is heard now and
    /// then.
    async fn policy_changes(
        &self,
        device: &DevicePrincipal,
        said: PolicyState,
        now: Timestamp,
    ) -> Result<Vec<Change>> {
        let state = PolicyState {
            version: said.version,
            problem: said.problem.map(|problem| {
                let plain = problem.chars().filter(|c| !c.is_control());
                plain.take(LONGEST_PROBLEM).collect()
            }),
        };
        let (id, limits) = (device.device(), &self.0.limits);
        let change = |kind| Change {
            at: now,
            by: device.actor(),
            kind,
        };
        let mut changes = Vec::new();
        let before = device.standing.policy.as_ref();
        if let Some(problem) = &state.problem {
            let is_news = before.is_none_or(|before| before.problem.as_ref() != Some(problem));
            let alert = AlertKind::PolicyRefused;
            let raise = is_news || !self.0.store.has_open_alert(alert, id).await?;
            // Wherever it comes from.
            let key = (
                "policy-refused",
                id.to_string(),
                Ipv4Addr::UNSPECIFIED.into(),
            );
            if raise && limits.worth_noting(key, now).is_some() {
                changes.push(change(Kind::RaiseAlert {
                    alert,
                    device: id,
                    detail: problem.clone(),
                }));
            }
        }
        if before != Some(&state) && limits.count_policy_news(id, now).is_ok() {
            changes.push(change(Kind::ReportPolicy { device: id, state }));
        }
        Ok(changes)
    }
}

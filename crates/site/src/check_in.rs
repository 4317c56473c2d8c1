//! A device checks in: it reports how it is and learns when to renew and when to come again. A
//! check-in that changes nothing writes nothing but the coalesced last-seen.

use protocol::{CheckIn, CheckInAnswer};
use store::{Change, Kind};

use crate::{DevicePrincipal, Result, Site};

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
            policy: None,
            results,
            commands: Vec::new(),
        })
    }
}

//! What this computer's users may know of it.

use domain::{ComplianceState, ReminderStage, RenewalKey, RenewalMode, RenewalSchedule, Unused};
use protocol::{LocalIdentity, LocalRule, LocalStatus, LocalTrouble, TroubleOf};

use super::{Caller, look};
use crate::compliance::Standing;
use crate::failure::Failure;
use crate::identity::{Identity, Machine};
use crate::reminder;
use crate::state::State;

pub(super) fn of(machine: &Machine, caller: Caller) -> Result<LocalStatus, Failure> {
    let identity = match machine.enrolled() {
        Err(Failure::NotEnrolled) => None,
        identity => Some(identity?),
    };
    Ok(LocalStatus {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        now: machine.now(),
        identity: identity.map(|identity| of_identity(machine, identity)),
        look: look::of(machine),
        may_choose_server: caller.is_root,
        managed_server: look::server(machine).map(|server| server.to_string()),
    })
}

fn of_identity(machine: &Machine, identity: Identity) -> LocalIdentity {
    let state = machine.state();
    let now = machine.now();
    let schedule = machine.schedule();
    let (not_before, not_after) = (
        identity.certificate.not_before(),
        identity.certificate.not_after(),
    );
    let stage = ReminderStage::at(now, not_after, &schedule);
    let first = not_after - schedule.period_1.effective.duration();
    let put_off_now = State {
        last_reminder: Some(now),
        ..state.clone()
    };
    let most = reminder::most_put_offs(machine);
    let renews_at = state
        .renewal_due(now)
        .filter(|_| state.renewal_mode == RenewalMode::Automatic);
    let again = state.renewal_trouble.as_ref().map(|trouble| trouble.next);
    LocalIdentity {
        user: identity.site.user.clone(),
        server: identity.site.server.to_string(),
        trust_verified: identity.site.trust_verified,
        smsid: machine.preferences().string("SMSID"),
        not_before,
        not_after,
        renewal_mode: state.renewal_mode,
        renews_at: renews_at.map(|at| again.map_or(at, |again| at.max(again))),
        last_check_in: state.last_check_in,
        renewal_settings: schedule.settings(),
        unused_settings: unused(&schedule),
        stage: (now >= first).then_some(stage),
        reminder_waits: reminder::waiting(machine, &state, &identity),
        next_reminder: reminder::next(machine, &state, &identity).map(|next| next.at),
        put_off: state.put_off,
        later_until: reminder::next(machine, &put_off_now, &identity).map(|next| next.at),
        may_put_off: reminder::may_put_off(&state, stage, most),
        site_reachable: !state.is_offline(),
        troubles: troubles(&state),
        compliance: rules(machine, &identity),
    }
}

fn unused(schedule: &RenewalSchedule) -> Vec<(RenewalKey, Unused)> {
    let parts = schedule.parts().into_iter();
    parts
        .filter_map(|(key, part)| Some((key, part.unused.clone()?)))
        .collect()
}

fn troubles(state: &State) -> Vec<LocalTrouble> {
    let of = [
        (TroubleOf::CheckIn, &state.trouble),
        (TroubleOf::Renewal, &state.renewal_trouble),
        (TroubleOf::Policy, &state.policy_trouble),
        (TroubleOf::Results, &state.delivery_trouble),
    ];
    let failed = of.into_iter().filter_map(|(of, trouble)| {
        let trouble = trouble.as_ref()?;
        Some(LocalTrouble {
            of,
            refused: trouble.refused,
            detail: trouble.what.clone(),
        })
    });
    let problems = [
        (TroubleOf::PolicyList, &state.policy_problem),
        (TroubleOf::Command, &state.command_problem),
    ];
    let refused = problems.into_iter().filter_map(|(of, problem)| {
        Some(LocalTrouble {
            of,
            refused: true,
            detail: problem.clone()?,
        })
    });
    failed.chain(refused).collect()
}

fn rules(machine: &Machine, identity: &Identity) -> Option<Vec<LocalRule>> {
    Standing::of(machine, identity)?.evaluated_at?;
    let mut rules = Vec::new();
    for held in Standing::rules(machine, identity) {
        let found = held.found;
        let is_kept = matches!(
            found.state,
            ComplianceState::NotApplicable | ComplianceState::Exempt
        ) || found.state.is_compliant();
        if is_kept {
            continue;
        }
        for baseline in &found.baselines {
            rules.push(LocalRule {
                baseline: baseline.to_string(),
                rule: found.name.to_string(),
                state: found.state,
                since: held.since,
                mends_itself: found.mends_itself,
            });
        }
    }
    Some(rules)
}

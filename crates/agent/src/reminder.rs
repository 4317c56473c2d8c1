//! Reminds people that the certificate has to be renewed, where there are no windows: a notice on
//! the terminals of those who are logged in, and a program of the administrator.

use std::path::Path;

use domain::{NextReminder, ReminderStage, Situation, Timestamp, next_reminder};
use jiff::SignedDuration;
use protocol::PutOff;

use crate::failure::Failure;
use crate::identity::{Identity, Machine};
use crate::platform;
use crate::programs;
use crate::state::State;
use crate::tools::status::to_the_second;

/// The preference that names a program to run at each reminder. It is told what the reminder is
/// about in its environment (`PERENNIAL_REMINDER_…`).
pub const PROGRAM: &str = "RenewalReminderProgram";

/// How often people may put a reminder off in the second period: management's key.
const MOST_PUT_OFFS: &str = "MaximumPutOffs";

/// Since when a reminder waits for a person, if one does.
pub fn waiting(machine: &Machine, state: &State, identity: &Identity) -> Option<Timestamp> {
    let asks = !situation(machine.now(), state, identity).asks_nobody();
    state.reminder_waits.filter(|_| asks)
}

/// The next reminder, as far as is known now.
pub fn next(machine: &Machine, state: &State, identity: &Identity) -> Option<NextReminder> {
    let situation = situation(machine.now(), state, identity);
    // Where nobody is asked, the schedule need not be read.
    if situation.asks_nobody() {
        return None;
    }
    next_reminder(&machine.schedule(), &situation)
}

fn situation(now: Timestamp, state: &State, identity: &Identity) -> Situation {
    Situation {
        now,
        mode: state.renewal_mode,
        not_before: identity.certificate.not_before(),
        not_after: identity.certificate.not_after(),
        window: state.window,
        silent_attempt_failed: state.silent_attempt_failed(now),
        last_shown: state.last_reminder,
    }
}

/// Shows the reminder that is due, if one is, and remembers it. It waits for whoever shows windows
/// until it is put off, or not needed any more. `windows` are the users before whom such a program
/// runs: they are not told on their terminals as well.
pub async fn show_when_due(
    machine: &Machine,
    windows: &dyn Fn() -> Vec<u32>,
) -> Result<(), Failure> {
    let identity = match machine.enrolled() {
        Err(Failure::NotEnrolled) => return Ok(()),
        identity => identity?,
    };
    let mut state = machine.state();
    let now = machine.now();
    let Some(reminder) = next(machine, &state, &identity).filter(|next| next.at <= now) else {
        return Ok(());
    };
    // Remembered first: being killed in between costs one reminder, not a flood of them.
    state.last_reminder = Some(now);
    state.reminder_waits = Some(now);
    machine.write_state(&state)?;
    let notice = Notice::new(machine, &identity, &state, reminder.stage);
    tracing::info!(event = "reminded", stage = %reminder.stage, not_after = %notice.not_after);
    let windows = windows();
    platform::tell_terminals(&machine.layout, &notice.text(), &windows);
    if let Some(program) = machine.preferences().string(PROGRAM) {
        let told = [
            ("PERENNIAL_REMINDER_STAGE", reminder.stage.to_string()),
            ("PERENNIAL_REMINDER_NOT_AFTER", notice.not_after.to_string()),
            ("PERENNIAL_REMINDER_TIME", now.to_string()),
            ("PERENNIAL_REMINDER_USER", identity.site.user.clone()),
            (
                "PERENNIAL_REMINDER_SERVER",
                identity.site.server.to_string(),
            ),
            (
                "PERENNIAL_REMINDER_OFFLINE",
                u8::from(notice.offline).to_string(),
            ),
            ("PERENNIAL_REMINDER_TEXT", notice.text()),
            (
                "PERENNIAL_REMINDER_WINDOWS",
                windows
                    .iter()
                    .map(u32::to_string)
                    .collect::<Vec<_>>()
                    .join(" "),
            ),
        ];
        programs::run(Path::new(&program), &told).await;
    }
    Ok(())
}

/// Who puts a reminder off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Root,
    /// Only one that waits, and only as often as management allows it: who asks in advance, again
    /// and again, would silence those of all others.
    User,
}

/// Puts the reminder off, and counts it in the second period.
///
/// # Errors
/// When there is no identity, or management does not allow it.
pub async fn put_off(machine: &Machine, whose: Whose) -> Result<PutOff, Failure> {
    let identity = machine.enrolled()?;
    let now = machine.now();
    let stage = ReminderStage::at(now, identity.certificate.not_after(), &machine.schedule());
    let most = most_put_offs(machine);
    let mut refused = false;
    let state = machine
        .change_state(|state| {
            let waits = state.reminder_waits.is_some();
            if whose == Whose::User && !waits {
                return;
            }
            if whose == Whose::User && !may_put_off(state, stage, most) {
                refused = true;
                return;
            }
            state.last_reminder = Some(now);
            state.reminder_waits = None;
            if stage == ReminderStage::SecondPeriod {
                state.put_off += 1;
            }
        })
        .await?;
    if refused {
        return Err(Failure::NotAllowed(format!(
            "it was put off {} times, and this computer's management allows no more",
            state.put_off
        )));
    }
    Ok(PutOff {
        until: next(machine, &state, &identity).map(|next| next.at),
        put_off: state.put_off,
    })
}

/// How often management lets people put it off in the second period; none: as often as they like.
pub fn most_put_offs(machine: &Machine) -> Option<u32> {
    let value = machine.preferences().managed(MOST_PUT_OFFS).ok()??;
    match value {
        plist::Value::Integer(number) => number.as_unsigned()?.try_into().ok(),
        plist::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// In the first period, and after the expiry, it can always be put off.
pub fn may_put_off(state: &State, stage: ReminderStage, most: Option<u32>) -> bool {
    stage != ReminderStage::SecondPeriod || most.is_none_or(|most| state.put_off < most)
}

/// What a reminder says.
pub struct Notice {
    pub stage: ReminderStage,
    pub not_after: Timestamp,
    pub left: SignedDuration,
    pub user: String,
    /// The site cannot be reached: a password page could not work.
    pub offline: bool,
}

impl Notice {
    pub fn new(
        machine: &Machine,
        identity: &Identity,
        state: &State,
        stage: ReminderStage,
    ) -> Self {
        let not_after = identity.certificate.not_after();
        Self {
            stage,
            not_after,
            left: not_after.duration_since(machine.now()),
            user: identity.site.user.clone(),
            offline: state.is_offline(),
        }
    }

    /// What stops working, and when.
    pub fn sentence(&self) -> String {
        match self.stage {
            ReminderStage::FirstPeriod | ReminderStage::SecondPeriod => format!(
                "This computer's certificate expires in {}, on {}. From then on the computer is no longer managed.",
                in_words(self.left),
                to_the_second(self.not_after)
            ),
            ReminderStage::Expired => format!(
                "This computer's certificate expired on {}. The computer is not managed any more.",
                to_the_second(self.not_after)
            ),
        }
    }

    /// In words that a person can act on.
    pub fn text(&self) -> String {
        let act = if self.offline {
            "The site cannot be reached: connect to your company's network, it will try again by itself."
                .to_owned()
        } else {
            format!(
                "To renew it with your password: sudo perennial-agent renew --user {}",
                self.user
            )
        };
        format!("{}\n{act}", self.sentence())
    }
}

/// `3 days`, `5 hours`, `20 minutes`.
pub fn in_words(left: SignedDuration) -> String {
    let (number, unit) = match left.as_secs().max(0) {
        seconds if seconds >= 2 * 86_400 => (seconds / 86_400, "day"),
        seconds if seconds >= 2 * 3600 => (seconds / 3600, "hour"),
        seconds => (seconds / 60, "minute"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_left() {
        for (seconds, words) in [
            (45 * 86_400, "45 days"),
            (2 * 86_400, "2 days"),
            (47 * 3600, "47 hours"),
            (7200, "2 hours"),
            (60, "1 minute"),
            (-5, "0 minutes"),
        ] {
            assert_eq!(in_words(SignedDuration::from_secs(seconds)), words);
        }
    }
}

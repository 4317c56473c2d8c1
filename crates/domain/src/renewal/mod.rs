//! When a certificate is renewed: silently in its window, and when people are reminded if that
//! was not possible.

mod reminder;
mod schedule;
mod window;

pub use reminder::{NextReminder, ReminderStage, Situation, next_reminder};
pub use schedule::{
    ConfiguredValue, PreferenceLevel, RawValue, RenewalKey, RenewalSchedule, RenewalSetting, Unused,
};
pub use window::{DEFAULT_RENEWAL_PERIOD_1, Window};

use crate::state::words;

words! {
    /// Who renews: the policy `renewal.mode` of a site.
    #[derive(Default)]
    RenewalMode {
        /// Silently; a person is asked only when that was not possible.
        #[default]
        Automatic = "automatic",
        /// The incumbent's behaviour: people are reminded and renew with their password.
        Prompt = "prompt",
        /// Nobody is reminded, nothing is renewed by itself; `status` still warns.
        Manual = "manual",
    }
}

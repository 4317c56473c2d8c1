//! What the agent remembers between two runs, beside its identity.

use std::fs;
use std::path::Path;

use domain::{Rng, Timestamp, Window};
use serde::{Deserialize, Serialize};

use crate::files;

/// The schedule and the last outcomes. Losing it costs a check-in, never an identity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The site's window for the next silent renewal, and the instant picked in it.
    pub window: Option<Window>,
    pub renew_at: Option<Timestamp>,
    pub next_check_in: Option<Timestamp>,
    pub last_check_in: Option<Timestamp>,
    /// How far the site's clock was ahead of ours, in seconds.
    pub skew: Option<i64>,
    pub last_renewal: Option<Timestamp>,
    /// Why the last check-in did nothing; none after a success.
    pub trouble: Option<Trouble>,
    /// Why the last renewal did nothing; check-ins go on meanwhile.
    pub renewal_trouble: Option<Trouble>,
}

/// A failed attempt and when the next one comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub at: Timestamp,
    pub what: String,
    /// The site said no (as opposed to: it was not there).
    pub refused: bool,
    /// How many attempts failed in a row.
    pub failures: u32,
    pub next: Timestamp,
}

impl State {
    const FILE: &str = "state.json";

    /// What is unreadable counts as forgotten.
    pub fn read(state: &Path) -> Self {
        fs::read(state.join(Self::FILE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub fn write(&self, state: &Path) -> std::io::Result<()> {
        files::replace(
            &state.join(Self::FILE),
            &serde_json::to_vec_pretty(self)?,
            0o600,
        )
    }

    /// Takes the site's window. The instant in it is picked once, and anew only when the window
    /// changes.
    pub fn take_window(&mut self, window: Window, rng: &dyn Rng) {
        if self.window == Some(window) && self.renew_at.is_some() {
            return;
        }
        let mut bytes = [0; 4];
        rng.fill(&mut bytes);
        let fraction = f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0);
        self.window = Some(window);
        self.renew_at = Some(window.instant(fraction));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);
    impl Rng for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn the_instant_stays_until_the_window_changes() {
        let at = |second| Timestamp::from_second(second).expect("a moment");
        let first = Window {
            start: at(1000),
            end: at(2000),
        };
        let mut state = State::default();
        state.take_window(first, &Fixed(0));
        assert_eq!(state.renew_at, Some(at(1000)));
        state.take_window(first, &Fixed(128));
        assert_eq!(state.renew_at, Some(at(1000)));
        state.take_window(
            Window {
                start: at(3000),
                end: at(4000),
            },
            &Fixed(128),
        );
        let picked = state.renew_at.expect("picked");
        assert!(at(3400) < picked && picked < at(3600), "{picked}");
    }
}

//! What is remembered of remediations, so that none is repeated for ever: when each rule's ones were, and
//! how the last one ended. It is written before a remediation runs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use domain::Timestamp;
use domain::compliance::{GUARD_SPAN, RemediationGuard};
use protocol::RuleNumber;
use serde::{Deserialize, Serialize};

use super::policy::Owner;
use crate::files;
use crate::platform::Layout;

const KEEPS_COMING_BACK: &str = "keeps coming back: it was remediated 3 times in 24 hours and did not \
     last; something else on this computer changes it";
const UNREADABLE: &str = "what is remembered of earlier remediations could not be read: nothing is \
     remediated for 24 hours";
const CUT_OFF: &str = "it was cut off";

/// Those of one device.
pub struct Guards {
    file: PathBuf,
    kept: Kept,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Rules' numbers are its site's.
    owner: Owner,
    /// Since when nobody knows what was remediated before.
    unreadable_since: Option<Timestamp>,
    rules: BTreeMap<RuleNumber, Remembered>,
}

#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    at: RemediationGuard,
    /// Why the last one did not help; none when it did, for a while.
    failure: Option<String>,
}

impl Guards {
    /// # Errors
    /// When the disk does not give it. What it gives and is no guard is moved aside.
    pub fn read(layout: &Layout, owner: &Owner, now: Timestamp) -> io::Result<Self> {
        let folder = layout.compliance();
        let file = folder.join("guard.json");
        let nothing = || Kept {
            owner: owner.clone(),
            unreadable_since: None,
            rules: BTreeMap::new(),
        };
        let text = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let kept = nothing();
                return Ok(Self { file, kept });
            }
            read => read?,
        };
        let mut kept = match serde_json::from_slice::<Kept>(&text) {
            Ok(kept) if kept.owner == *owner => kept,
            Ok(_) => nothing(),
            Err(error) => {
                tracing::error!(event = "guard-unreadable", %error);
                let unreadable = Self {
                    kept: Kept {
                        unreadable_since: Some(now),
                        ..nothing()
                    },
                    file,
                };
                files::rename(&unreadable.file, &folder.join("guard.json.unreadable"))?;
                unreadable.write()?;
                return Ok(unreadable);
            }
        };
        kept.rules
            .retain(|_, remembered| !remembered.at.is_idle(now));
        kept.unreadable_since = kept.unreadable_since.filter(|since| is_recent(*since, now));
        Ok(Self { file, kept })
    }

    /// Why a rule is not remediated now.
    pub fn refuses(&self, rule: RuleNumber, now: Timestamp) -> Option<String> {
        if self.kept.unreadable_since.is_some() {
            return Some(UNREADABLE.to_owned());
        }
        let remembered = self.kept.rules.get(&rule);
        let stopped = remembered.filter(|remembered| !remembered.at.allows(now))?;
        Some(match &stopped.failure {
            None => KEEPS_COMING_BACK.to_owned(),
            Some(why) => {
                format!("it is not tried again today, after 3 times in 24 hours: {why}")
            }
        })
    }

    /// Notes that a rule is remediated now, before it is.
    pub fn begin(&mut self, rule: RuleNumber, now: Timestamp) -> io::Result<()> {
        let remembered = self.kept.rules.entry(rule).or_default();
        remembered.at.note(now);
        remembered.failure = Some(CUT_OFF.to_owned());
        self.write()
    }

    /// Notes how that ended.
    pub fn end(&mut self, rule: RuleNumber, failure: Option<String>) -> io::Result<()> {
        if let Some(remembered) = self.kept.rules.get_mut(&rule) {
            remembered.failure = failure;
        }
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            files::make_folder(folder, 0o700)?;
        }
        files::replace(&self.file, &serde_json::to_vec(&self.kept)?, 0o600)
    }
}

/// One in the future was noted under a clock that has been set back since.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) < GUARD_SPAN
}

#[cfg(test)]
mod tests {
    use domain::{DeviceId, KeyDigest, Pin};

    use super::*;

    #[test]
    fn the_last_end_is_remembered_and_for_one_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let owner = |number| Owner {
            pin: Pin::new(KeyDigest::new([0; 32])),
            device: DeviceId::from_entropy([number; 16]).smsid(),
        };
        let at = |hour: i64| Timestamp::from_second(hour * 3600).expect("a moment");
        let rule = RuleNumber(5);
        let read = |number| Guards::read(&layout, &owner(number), at(3)).expect("read");
        for hour in 0..3 {
            let mut guards = read(1);
            assert_eq!(guards.refuses(rule, at(3)), None);
            guards.begin(rule, at(hour)).expect("noted");
        }
        let why = |guards: &Guards| guards.refuses(rule, at(3)).expect("a reason");
        assert!(why(&read(1)).ends_with(CUT_OFF));
        read(1)
            .end(rule, Some("no disk".to_owned()))
            .expect("noted");
        assert!(why(&read(1)).ends_with("no disk"));
        read(1).end(rule, None).expect("noted");
        assert_eq!(why(&read(1)), KEEPS_COMING_BACK);
        assert_eq!(read(1).refuses(RuleNumber(6), at(3)), None);
        assert_eq!(read(2).refuses(rule, at(3)), None);
        assert_eq!(read(1).refuses(rule, at(30)), None);
    }
}

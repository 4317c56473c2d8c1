//! Commands of the site: signed, for this device, done once. A command is remembered before it is done,
//! so that being cut off does not do it twice; and after, so that the same one does nothing when it comes
//! again. Of those that expired long ago only the latest end is remembered, and nothing unknown that ends
//! before it is done: whatever time somebody tells this device, no command is done twice.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use domain::Timestamp;
use protocol::{CommandId, CommandResult, SignedDocument};
use serde::{Deserialize, Serialize};

use super::policy::{Owner, PolicyProblem, Verifier};
use crate::files;
use crate::platform::Layout;

/// More are refused until some are done. Those that are done are in nobody's way.
const MOST_WAITING: usize = 1_000;
/// So many that are over and expired are remembered by their names: as many as nearly every device ever
/// gets.
const REMEMBERED: usize = 256;

/// What is remembered of a site's commands. Read, changed and written by who holds the machine's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    owner: Owner,
    known: BTreeMap<CommandId, Known>,
    /// The latest end of those that were forgotten.
    forgotten: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    issued_at: Timestamp,
    expires_at: Timestamp,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    /// As the site signed it: it is verified again before it is done.
    Waiting(SignedDocument),
    Begun,
    /// The client is to be removed, and with it this.
    Leaving,
    Done(CommandResult),
    /// The site knows. The result is kept while the command could come again: a site whose records were
    /// restored does not know it any more.
    Told(Option<CommandResult>),
}

impl Commands {
    /// # Errors
    /// When it is there and cannot be read: then nobody knows what was done already.
    pub fn read(layout: &Layout, owner: &Owner) -> io::Result<Self> {
        let file = file(layout);
        let nothing = Self {
            owner: owner.clone(),
            known: BTreeMap::new(),
            forgotten: None,
        };
        let text = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nothing),
            read => read.map_err(|error| files::named(&file, &error))?,
        };
        let commands: Self =
            serde_json::from_slice(&text).map_err(|error| files::named(&file, &error.into()))?;
        // Another device's commands are refused for their name: nothing of it need be known.
        Ok(match commands.owner == *owner {
            true => commands,
            false => nothing,
        })
    }

    pub fn write(&self, layout: &Layout) -> io::Result<()> {
        files::make_folder(&layout.compliance(), 0o700)?;
        files::replace(&file(layout), &serde_json::to_vec(self)?, 0o600)
    }

    /// Remembers a command that arrived. False: it is known already, and its result was not told yet.
    ///
    /// # Errors
    /// When it is not one of the site for this device, too late, or was done already: then its result is
    /// told again.
    pub fn take(
        &mut self,
        document: &SignedDocument,
        verifier: &mut Verifier,
        now: Timestamp,
    ) -> Result<bool, PolicyProblem> {
        let command = verifier.command(document, now)?;
        if let Some(known) = self.known.get_mut(&command.id) {
            let Stage::Told(result) = &mut known.stage else {
                return Ok(false);
            };
            if let Some(result) = result.take() {
                known.stage = Stage::Done(result);
            }
            return Err(PolicyProblem::Done(command.id));
        }
        if let Some(forgotten) = self.forgotten
            && command.expires_at <= forgotten
        {
            return Err(PolicyProblem::Forgotten(forgotten));
        }
        let waiting = self.known.values().filter(|known| !known.is_over());
        if waiting.count() >= MOST_WAITING {
            return Err(PolicyProblem::Unreadable(format!(
                "{MOST_WAITING} commands wait already"
            )));
        }
        self.known.insert(
            command.id,
            Known {
                issued_at: command.issued_at,
                expires_at: command.expires_at,
                stage: Stage::Waiting(document.clone()),
            },
        );
        Ok(true)
    }

    /// Forgets results that can not be asked for any more, and the oldest of what is over and expired by
    /// `now`, when there is too much of it. `now` may be wrong, and may have been told by somebody who means
    /// ill.
    pub fn forget(&mut self, now: Timestamp) -> bool {
        let mut changed = false;
        for known in self.known.values_mut() {
            if let Stage::Told(result) = &mut known.stage
                && known.expires_at <= now
            {
                changed |= result.take().is_some();
            }
        }
        let known = self.known.iter();
        let mut over: Vec<(Timestamp, CommandId)> = known
            .filter(|(_, command)| command.is_over() && command.expires_at <= now)
            .map(|(id, command)| (command.expires_at, id.clone()))
            .collect();
        let too_many = over.len().saturating_sub(REMEMBERED);
        over.sort();
        for (expires_at, id) in over.drain(..too_many) {
            self.known.remove(&id);
            self.forgotten = self.forgotten.max(Some(expires_at));
        }
        changed || too_many > 0
    }

    /// The first that waits, in the order in which the site gave them.
    pub fn next_waiting(&self) -> Option<(CommandId, SignedDocument)> {
        let known = self.known.iter();
        let waiting = known.filter_map(|(id, known)| match &known.stage {
            Stage::Waiting(document) => Some((known.issued_at, id, document)),
            _ => None,
        });
        let (_, id, document) = waiting.min_by_key(|(issued_at, id, _)| (*issued_at, *id))?;
        Some((id.clone(), document.clone()))
    }

    /// Marks one as begun: it is not begun again.
    pub fn begin(&mut self, id: &CommandId) {
        self.put(id, Stage::Begun);
    }

    /// The client is to be removed. That is begun again until there is nobody left to do so.
    pub fn leave(&mut self, id: &CommandId) {
        self.put(id, Stage::Leaving);
    }

    pub fn leaving(&self) -> Option<CommandId> {
        let mut known = self.known.iter();
        let leaving = known.find(|(_, known)| known.stage == Stage::Leaving);
        leaving.map(|(id, _)| id.clone())
    }

    fn put(&mut self, id: &CommandId, stage: Stage) {
        if let Some(known) = self.known.get_mut(id) {
            known.stage = stage;
        }
    }

    pub fn end(&mut self, id: &CommandId, result: CommandResult) {
        self.put(id, Stage::Done(result));
    }

    /// What was begun and nobody does any more ends: it is never done twice.
    pub fn end_what_was_cut_off(&mut self, at: Timestamp) -> bool {
        let mut any = false;
        for known in self.known.values_mut() {
            if known.stage == Stage::Begun {
                any = true;
                known.stage = Stage::Done(CommandResult {
                    at,
                    done: false,
                    detail: "the agent was stopped while it did this".to_owned(),
                });
            }
        }
        any
    }

    /// A result that the site does not know, but none of `not`.
    pub fn next_result(&self, not: &[CommandId]) -> Option<(CommandId, CommandResult)> {
        let known = self.known.iter();
        known
            .filter(|(id, _)| !not.contains(id))
            .find_map(|(id, known)| match &known.stage {
                Stage::Done(result) => Some((id.clone(), result.clone())),
                _ => None,
            })
    }

    pub fn is_late(&self, id: &CommandId, now: Timestamp) -> bool {
        let known = self.known.get(id);
        known.is_none_or(|known| known.expires_at <= now)
    }

    pub fn told(&mut self, id: &CommandId) {
        if let Some(known) = self.known.get_mut(id)
            && let Stage::Done(result) = &known.stage
        {
            known.stage = Stage::Told(Some(result.clone()));
        }
    }

    pub fn waits_or_was_cut_off(&self) -> bool {
        self.waits() || self.known.values().any(|known| known.stage == Stage::Begun)
    }

    pub fn waits(&self) -> bool {
        let mut known = self.known.values();
        known.any(|known| matches!(known.stage, Stage::Waiting(_) | Stage::Leaving))
    }
}

impl Known {
    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Told(_))
    }
}

fn file(layout: &Layout) -> PathBuf {
    layout.compliance().join("commands.json")
}

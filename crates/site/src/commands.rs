//! Commands for a device: signed when they are given, done once, and gone when their time is over.

use domain::compliance::{ItemName, SettingName, SettingSource};
use domain::{Action, CommandKind, CommandState, DeviceId, Period, Timestamp};
use protocol::{CommandId, CommandResult, Order, SignedDocument};
use store::{Change, Command, Kind, NewCommand};

use crate::{Administrator, DevicePrincipal, Error, Page, Result, Site};

const SHORTEST: Period = Period::from_seconds(300);
const LONGEST: Period = Period::from_days(30);
/// Bytes of commands in one answer: the rest comes with the next check-in.
const AT_ONCE: usize = 512 * 1024;

/// A command, and what became of it.
#[derive(Debug, Clone)]
pub struct CommandView {
    pub command: Command,
    pub state: CommandState,
}

impl Site {
    /// Tells a device to renew, to evaluate or to check in, at its next check-in.
    ///
    /// # Errors
    /// When there is no such device, it is not active, or this node does not sign.
    pub async fn command_device(
        &self,
        by: &Administrator,
        device: DeviceId,
        what: CommandKind,
        expires: Period,
    ) -> Result<CommandView> {
        by.require(Action::RunCommands)?;
        let order = match what {
            CommandKind::Renew => Order::Renew,
            CommandKind::Evaluate => Order::Evaluate,
            CommandKind::CheckIn => Order::CheckIn,
            CommandKind::Uninstall | CommandKind::TestScript => {
                return Err(Error::Invalid(format!(
                    "{what} is not one of: renew, evaluate, check-in"
                )));
            }
        };
        self.give_command(by, device, (what, order), String::new(), expires)
            .await
    }

    /// Tells a client to leave the site and to remove itself.
    ///
    /// # Errors
    /// As of [`Self::command_device`].
    pub async fn uninstall_client(
        &self,
        by: &Administrator,
        device: DeviceId,
        expires: Period,
    ) -> Result<CommandView> {
        by.require(Action::UninstallClients)?;
        let order = (CommandKind::Uninstall, Order::Uninstall);
        self.give_command(by, device, order, String::new(), expires)
            .await
    }

    /// Runs the discovery script of a setting once on one device. Only a script of a recorded revision:
    /// the audit log says which one ran.
    ///
    /// # Errors
    /// When there is no such setting, or it has no script; and as of [`Self::command_device`].
    pub async fn test_script(
        &self,
        by: &Administrator,
        device: DeviceId,
        item: &ItemName,
        revision: Option<u32>,
        setting: &SettingName,
        expires: Period,
    ) -> Result<CommandView> {
        by.require(Action::TestScripts)?;
        let found = self.revision_of(item, revision).await?;
        let in_item = found
            .content
            .settings()
            .iter()
            .find(|one| one.name == *setting);
        let script = match in_item.map(|one| &one.source) {
            Some(SettingSource::Script { discovery, .. }) => discovery.clone(),
            Some(SettingSource::Preference { .. }) => {
                return Err(Error::Invalid(format!(
                    "the setting `{setting}` is a preference; only scripts are tested"
                )));
            }
            None => {
                return Err(Error::NotFound(format!(
                    "there is no setting `{setting}` in revision {} of the configuration item `{item}`",
                    found.revision
                )));
            }
        };
        let about = format!("{item}, revision {}, setting {setting}", found.revision);
        let order = (CommandKind::TestScript, Order::TestScript { script });
        self.give_command(by, device, order, about, expires).await
    }

    /// A device's commands, newest first.
    ///
    /// # Errors
    /// When the page's beginning is none.
    pub async fn device_commands(
        &self,
        by: &Administrator,
        device: DeviceId,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Page<CommandView>> {
        by.require(Action::ReadDevices)?;
        let page = self.0.store.commands(device, before, limit).await?;
        let now = self.now();
        Ok(Page {
            items: page
                .items
                .into_iter()
                .map(|one| view(by, one, now))
                .collect(),
            next: page.next,
        })
    }

    /// # Errors
    /// When there is no such command.
    pub async fn device_command(
        &self,
        by: &Administrator,
        device: DeviceId,
        id: CommandId,
    ) -> Result<CommandView> {
        by.require(Action::ReadDevices)?;
        let found = self.0.store.command(device, id.clone()).await?;
        let found = found.ok_or_else(|| no_command(&id))?;
        Ok(view(by, found, self.now()))
    }

    /// A device tells what became of a command. It may tell it again: the first time counts.
    ///
    /// # Errors
    /// When the command is not one of this device.
    pub async fn end_command(
        &self,
        device: &DevicePrincipal,
        id: CommandId,
        mut result: CommandResult,
    ) -> Result<()> {
        // What is made up, or told again, costs a reading and no transaction.
        match self.0.store.command(device.device(), id.clone()).await? {
            None => return Err(no_command(&id)),
            Some(known) if known.done.is_some() => return Ok(()),
            Some(_) => {}
        }
        // PostgreSQL's texts have no NUL.
        result.detail = result.detail.replace('\0', "\u{fffd}");
        let mut end = result.detail.len().min(CommandResult::MOST);
        while !result.detail.is_char_boundary(end) {
            end -= 1;
        }
        result.detail.truncate(end);
        let kind = Kind::EndCommand {
            device: device.device(),
            id,
            result,
        };
        self.commit(device.actor(), kind).await?;
        Ok(())
    }

    /// The commands that wait for a device; and the change that ends those whose time passed.
    pub(crate) async fn commands_for(
        &self,
        device: &DevicePrincipal,
        now: Timestamp,
    ) -> Result<(Vec<SignedDocument>, Option<Change>)> {
        if !device.standing.has_commands {
            return Ok((Vec::new(), None));
        }
        let open = self.0.store.open_commands(device.device()).await?;
        let late = open.iter().any(|command| command.expires_at <= now);
        let late = late.then(|| Change {
            at: now,
            by: store::Actor::site(),
            kind: Kind::ExpireCommands {
                device: device.device(),
            },
        });
        let mut commands = Vec::new();
        let mut bytes = 0;
        for command in open {
            if command.expires_at <= now {
                continue;
            }
            bytes += command.document.len();
            if !commands.is_empty() && bytes > AT_ONCE {
                break;
            }
            match serde_json::from_str(&command.document) {
                Ok(document) => commands.push(document),
                Err(error) => tracing::error!(event = "command-not-read", %error),
            }
        }
        Ok((commands, late))
    }

    async fn give_command(
        &self,
        by: &Administrator,
        device: DeviceId,
        (kind, order): (CommandKind, Order),
        about: String,
        expires: Period,
    ) -> Result<CommandView> {
        if !(SHORTEST..=LONGEST).contains(&expires) {
            return Err(Error::Invalid(format!(
                "a command expires after {SHORTEST} to {LONGEST}"
            )));
        }
        let mut id = [0; 16];
        self.0.rng.fill(&mut id);
        let id = CommandId::new(id);
        let issued_at = self.now();
        let expires_at = issued_at + expires.duration();
        let command = protocol::Command {
            device: device.smsid(),
            id: id.clone(),
            issued_at,
            expires_at,
            order,
        };
        let document = self.sign_command(&command).await?;
        let script = match &command.order {
            Order::TestScript { script } => Some(x509::sha256(&[script.as_str().as_bytes()])),
            _ => None,
        };
        let new = NewCommand {
            id: id.clone(),
            device,
            kind,
            about,
            script,
            document: serde_json::to_string(&document).expect("plain data"),
            expires_at,
        };
        self.commit(by.actor(), Kind::IssueCommand(new)).await?;
        self.device_command(by, device, id).await
    }
}

fn no_command(id: &CommandId) -> Error {
    Error::NotFound(format!("there is no command {id} for this device"))
}

/// What a script printed that ran as root is for those who may have scripts run.
fn view(by: &Administrator, mut command: Command, now: Timestamp) -> CommandView {
    if command.kind == CommandKind::TestScript && by.require(Action::TestScripts).is_err() {
        command.detail = None;
    }
    CommandView {
        state: command.state(now),
        command,
    }
}

#[cfg(test)]
mod tests {
    use domain::Role;

    use super::*;

    #[test]
    fn what_a_tested_script_printed_is_for_those_who_may_test() {
        let at = Timestamp::from_second(1_800_000_000).expect("a moment");
        let command = |kind| Command {
            id: CommandId::new([1; 16]),
            device: DeviceId::from_entropy([1; 16]),
            kind,
            about: String::new(),
            issued_at: at,
            issued_by: "ann".to_owned(),
            expires_at: at,
            ended_at: Some(at),
            done: Some(true),
            detail: Some("printed".to_owned()),
        };
        for role in Role::ALL {
            let by = Administrator::in_role(*role);
            let shown = |kind| view(&by, command(kind), at).command.detail.is_some();
            assert!(shown(CommandKind::Renew), "{role}");
            let may = role.may(Action::TestScripts);
            assert_eq!(shown(CommandKind::TestScript), may, "{role}");
        }
    }
}

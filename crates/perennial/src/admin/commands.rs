//! `perennial device command` and `commands`.

use api::{ApiClient, CommandDetail, NewCommand, PageQuery, Uninstall};
use domain::{CommandKind, DeviceId, Period};

use super::{all, confirm, resolve, whole_page};
use crate::cli::{CommandWord, Format};
use crate::output::{Column, done, list, print, to_the_second};

const COMMAND_LIST: [Column; 7] = [
    Column("GIVEN", "/issued_at"),
    Column("COMMAND", "/command"),
    Column("STATE", "/state"),
    Column("ENDED", "/ended_at"),
    Column("BY", "/issued_by"),
    Column("ABOUT", "/about"),
    Column("DETAIL", "/detail"),
];

pub(super) async fn give(
    api: &ApiClient,
    name: &str,
    command: CommandWord,
    expires: Period,
    yes: bool,
    format: Format,
) -> anyhow::Result<()> {
    let device = resolve(api, name).await?;
    let plain = |command| NewCommand { command, expires };
    let given = match command {
        CommandWord::Renew => {
            api.command_device(device, plain(CommandKind::Renew))
                .await?
        }
        CommandWord::Evaluate => {
            api.command_device(device, plain(CommandKind::Evaluate))
                .await?
        }
        CommandWord::CheckIn => {
            api.command_device(device, plain(CommandKind::CheckIn))
                .await?
        }
        CommandWord::Uninstall => {
            confirm(
                &format!("Remove the client from {name}? The computer is then no longer managed."),
                yes,
            )?;
            api.uninstall_client(device, Uninstall { expires }).await?
        }
    };
    let sentence = format!(
        "{name} is told to {} at its next check-in, until {}\nsee: perennial device commands {name}",
        given.command,
        to_the_second(given.expires_at)
    );
    done(format, &sentence, &given)
}

pub(super) async fn run(api: &ApiClient, name: &str, format: Format) -> anyhow::Result<()> {
    let device = resolve(api, name).await?;
    let commands = all(async |after| api.device_commands(device, &whole_page(after)).await).await?;
    list(format, &commands, &COMMAND_LIST)
}

/// The commands that a device was given last.
pub(super) async fn latest(
    api: &ApiClient,
    device: DeviceId,
) -> anyhow::Result<Vec<CommandDetail>> {
    let query = PageQuery {
        after: None,
        limit: Some(10),
    };
    Ok(api.device_commands(device, &query).await?.items)
}

pub(super) async fn print_latest(
    api: &ApiClient,
    device: DeviceId,
    format: Format,
) -> anyhow::Result<()> {
    let commands = latest(api, device).await?;
    if commands.is_empty() {
        return Ok(());
    }
    print("\nCommands, newest first")?;
    list(format, &commands, &COMMAND_LIST)
}

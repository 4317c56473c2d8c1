//! `perennial collection`.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use api::{ApiClient, Devices, MOST_MEMBERS_AT_ONCE, NewCollection, PageQuery};
use domain::DeviceId;

use super::{DEVICE_LIST, Done, all, resolve};
use crate::cli::{Collection, DeviceList, Format};
use crate::output::{Column, done, list, print, record};

/// The longest list of devices that is read from a file, in bytes: more than a million devices.
const LONGEST_FILE: u64 = 64 << 20;

pub(super) async fn run(
    api: &ApiClient,
    command: Collection,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        Collection::Create { name } => {
            let created = api.create_collection(&NewCollection { name }).await?;
            let sentence = format!("created the collection {}", created.name);
            done(format, &sentence, &created)
        }
        Collection::List => {
            let collections = all(async |after| {
                api.collections(&PageQuery {
                    after,
                    limit: Some(100),
                })
                .await
            })
            .await?;
            let columns = [
                Column("NAME", "/name"),
                Column("MEMBERS", "/members"),
                Column("CREATED", "/created_at"),
            ];
            list(format, &collections, &columns)
        }
        Collection::Show { name } => {
            let collection = api.collection(&name).await?;
            let mut members = all(async |after| {
                let query = PageQuery {
                    after,
                    limit: Some(1000),
                };
                api.members(&name, &query).await
            })
            .await?;
            members.sort_by(|a, b| (&a.facts.host_name, a.id).cmp(&(&b.facts.host_name, b.id)));
            if format.json {
                let whole = serde_json::json!({ "collection": collection, "members": members });
                return print(&serde_json::to_string_pretty(&whole)?);
            }
            if !format.csv {
                let columns = [
                    Column("Name", "/name"),
                    Column("Members", "/members"),
                    Column("Created", "/created_at"),
                ];
                record(format, &collection, &columns)?;
                print("")?;
            }
            list(format, &members, &DEVICE_LIST)
        }
        Collection::Add { name, devices } => {
            let mut added = 0;
            let devices = read(api, &devices).await?;
            for some in devices.chunks(MOST_MEMBERS_AT_ONCE) {
                let some = Devices {
                    devices: some.to_vec(),
                };
                added += api.add_members(&name, &some).await?.changed;
            }
            let sentence = format!("added {added} of {} devices to {name}", devices.len());
            let sentence = match devices.len() as u64 - added {
                0 => sentence,
                others => format!("{sentence}; {others} were members already"),
            };
            done(format, &sentence, &api::Changed { changed: added })
        }
        Collection::Remove { name, devices } => {
            let mut removed = 0;
            let devices = read(api, &devices).await?;
            for some in devices.chunks(MOST_MEMBERS_AT_ONCE) {
                let some = Devices {
                    devices: some.to_vec(),
                };
                removed += api.remove_members(&name, &some).await?.changed;
            }
            let sentence = format!("removed {removed} devices from {name}");
            done(format, &sentence, &api::Changed { changed: removed })
        }
        Collection::Delete { name } => {
            api.delete_collection(&name).await?;
            let sentence = format!("deleted the collection {name}; its devices stay");
            done(format, &sentence, &Done {})
        }
    }
}

/// The devices of a command, each once.
async fn read(api: &ApiClient, list: &DeviceList) -> anyhow::Result<Vec<DeviceId>> {
    let mut words = list.devices.clone();
    if let Some(file) = &list.file {
        let text = read_file(file)?;
        let lines = text.lines().map(str::trim);
        words.extend(
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    let mut devices = Vec::with_capacity(words.len());
    for word in words {
        devices.push(resolve(api, &word).await?);
    }
    devices.sort_unstable();
    devices.dedup();
    if devices.is_empty() {
        bail!("the list names no device; nothing was changed");
    }
    Ok(devices)
}

fn read_file(file: &Path) -> anyhow::Result<String> {
    let name = || format!("cannot read {}", file.display());
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin()
            .take(LONGEST_FILE)
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
    } else {
        std::fs::File::open(file)
            .with_context(name)?
            .take(LONGEST_FILE)
            .read_to_string(&mut text)
            .with_context(name)?;
    }
    if text.len() as u64 == LONGEST_FILE {
        bail!("the list of devices is longer than 64 MiB; split it");
    }
    Ok(text)
}

//! `perennial collection`.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use api::{
    ApiClient, CollectionDetail, DeviceDetail, Devices, MOST_MEMBERS_AT_ONCE, NewCollection,
    NewPreview, PageQuery,
};
use domain::{CollectionName, CollectionRules, DeviceId};

use super::{DEVICE_LIST, Done, all, resolve};
use crate::cli::{Collection, DeviceList, Format, RuleChanges};
use crate::output::{Column, done, list, print, record};

/// The longest list of devices that is read from a file, in bytes: more than a million devices.
const LONGEST_FILE: u64 = 64 << 20;

pub(super) async fn run(
    api: &ApiClient,
    command: Collection,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        Collection::Create {
            name,
            limit_to,
            query,
            include,
            exclude,
        } => {
            let mut rules = CollectionRules {
                query,
                include: include.into_iter().collect(),
                exclude: exclude.into_iter().collect(),
                ..CollectionRules::default()
            };
            if let Some(limit) = limit_to {
                rules.limited_to = limit;
            }
            let created = api
                .create_collection(&NewCollection { name, rules })
                .await?;
            let sentence = format!("created the collection {}", created.name);
            done(format, &with_progress(sentence, &created), &created)
        }
        Collection::Set { name, changes } => {
            let before = api.collection(&name).await?;
            let rules = changed(before, changes)?;
            let after = api.set_collection_rules(&name, &rules).await?;
            let sentence = format!("set the rules of {name}");
            done(format, &with_progress(sentence, &after), &after)
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
                Column("KIND", "/kind"),
                Column("LIMITED TO", "/limited_to"),
                Column("CREATED", "/created_at"),
            ];
            list(format, &collections, &columns)
        }
        Collection::Show { name } => show(api, &name, format).await,
        Collection::Members { name } => list(format, &members(api, &name).await?, &DEVICE_LIST),
        Collection::Preview { query, limit_to } => {
            let asked = NewPreview {
                query,
                limited_to: limit_to,
            };
            let found = api.preview_collection(&asked).await?;
            if format.json {
                return print(&serde_json::to_string_pretty(&found)?);
            }
            if !format.csv {
                let more = match found.first.len() as i64 {
                    all if all == found.devices => "",
                    _ => ", the first of them:",
                };
                print(&format!("{} devices{more}", found.devices))?;
            }
            match found.first.is_empty() {
                true => Ok(()),
                false => list(format, &found.first, &DEVICE_LIST),
            }
        }
        Collection::Fields => {
            let columns = [
                Column("FIELD", "/name"),
                Column("TYPE", "/type"),
                Column("EXAMPLE", "/example"),
                Column("MEANING", "/meaning"),
            ];
            list(format, &api.collection_fields().await?, &columns)
        }
        Collection::Add { name, devices } => {
            let (mut added, mut outside) = (0, 0);
            let devices = read(api, &devices).await?;
            for some in devices.chunks(MOST_MEMBERS_AT_ONCE) {
                let some = Devices {
                    devices: some.to_vec(),
                };
                let done = api.add_members(&name, &some).await?;
                added += done.changed;
                outside += done.outside;
            }
            let mut sentence = format!("added {added} of {} devices to {name}", devices.len());
            match devices.len() as u64 - added {
                0 => {}
                others => sentence.push_str(&format!("; {others} were added before")),
            }
            if outside > 0 {
                sentence.push_str(&format!(
                    "; {outside} of them are no members now: they are not in its limiting collection, or are excluded"
                ));
            }
            let changed = api::Changed {
                changed: added,
                outside,
            };
            done(format, &sentence, &changed)
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
            let changed = api::Changed {
                changed: removed,
                outside: 0,
            };
            done(format, &sentence, &changed)
        }
        Collection::Delete { name } => {
            api.delete_collection(&name).await?;
            let sentence = format!("deleted the collection {name}; its devices stay");
            done(format, &sentence, &Done {})
        }
    }
}

/// What was done, and that members are still to be found.
fn with_progress(sentence: String, collection: &CollectionDetail) -> String {
    match collection.evaluated {
        None => sentence,
        Some(_) => format!(
            "{sentence}; its members are being found: perennial collection show '{}'",
            collection.name
        ),
    }
}

/// The rules of a collection after changes.
fn changed(before: CollectionDetail, changes: RuleChanges) -> anyhow::Result<CollectionRules> {
    let Some(limited_to) = changes.limit_to.or(before.limited_to) else {
        bail!("`{}` is built in: nobody changes it", before.name);
    };
    let list = |before: BTreeSet<_>, new: Vec<_>, none: bool| match (new.is_empty(), none) {
        (_, true) => BTreeSet::new(),
        (true, false) => before,
        (false, false) => new.into_iter().collect(),
    };
    Ok(CollectionRules {
        limited_to,
        query: changes.query.or(before.query.filter(|_| !changes.no_query)),
        include: list(before.include, changes.include, changes.no_include),
        exclude: list(before.exclude, changes.exclude, changes.no_exclude),
    })
}

/// Members that `show` prints for people; `members` prints all.
const SHOWN: usize = 100;

async fn show(api: &ApiClient, name: &CollectionName, format: Format) -> anyhow::Result<()> {
    let collection = api.collection(name).await?;
    if format.json || format.csv {
        let members = members(api, name).await?;
        if format.csv {
            return list(format, &members, &DEVICE_LIST);
        }
        let whole = serde_json::json!({ "collection": collection, "members": members });
        return print(&serde_json::to_string_pretty(&whole)?);
    }
    let names = |names: &BTreeSet<CollectionName>| {
        let names: Vec<_> = names.iter().map(CollectionName::as_str).collect();
        names.join(", ")
    };
    let members = match collection.evaluated {
        None => collection.members.to_string(),
        Some(percent) => format!("{} (evaluating, {percent} %)", collection.members),
    };
    let shown = serde_json::json!({
        "name": collection.name, "kind": collection.kind, "members": members,
        "limited_to": collection.limited_to, "query": collection.query,
        "include": names(&collection.include), "exclude": names(&collection.exclude),
        "direct": collection.direct, "created_at": collection.created_at,
    });
    let columns = [
        Column("Name", "/name"),
        Column("Kind", "/kind"),
        Column("Members", "/members"),
        Column("Limited to", "/limited_to"),
        Column("Query", "/query"),
        Column("Includes", "/include"),
        Column("Excludes", "/exclude"),
        Column("Added devices", "/direct"),
        Column("Created", "/created_at"),
    ];
    record(format, &shown, &columns)?;
    print("")?;
    let query = PageQuery {
        after: None,
        limit: u32::try_from(SHOWN).ok(),
    };
    let first = sorted(api.members(name, &query).await?.items);
    list(format, &first, &DEVICE_LIST)?;
    match collection.members - first.len() as i64 {
        ..=0 => Ok(()),
        more => print(&format!(
            "and {more} more: perennial collection members '{name}'"
        )),
    }
}

/// All members, by their names.
async fn members(api: &ApiClient, name: &CollectionName) -> anyhow::Result<Vec<DeviceDetail>> {
    let members = all(async |after| {
        let query = PageQuery {
            after,
            limit: Some(1000),
        };
        api.members(name, &query).await
    })
    .await?;
    Ok(sorted(members))
}

fn sorted(mut devices: Vec<DeviceDetail>) -> Vec<DeviceDetail> {
    devices.sort_by(|a, b| (&a.facts.host_name, a.id).cmp(&(&b.facts.host_name, b.id)));
    devices
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

//! `perennial baseline`.

use std::collections::HashSet;

use anyhow::bail;
use api::{ApiClient, BaselineDetail, NewBaseline, SetBaseline};
use domain::compliance::{BaselineContent, BaselineName, BaselinePart, ItemName};

use super::{Done, all, confirm, whole_page};
use crate::cli::Format;
use crate::cli::compliance::{Baseline, BaselineChange, ItemPart};
use crate::output::{Column, done, list, print, to_the_second};

pub(super) async fn run(api: &ApiClient, command: Baseline, format: Format) -> anyhow::Result<()> {
    match command {
        Baseline::Create {
            name,
            ci,
            baseline,
            description,
            disabled,
        } => {
            let nested = baseline
                .into_iter()
                .map(|name| BaselinePart::Baseline { name });
            let content = BaselineContent {
                description,
                enabled: !disabled,
                parts: ci.into_iter().map(item_part).chain(nested).collect(),
            };
            let created = api.create_baseline(&NewBaseline { name, content }).await?;
            let sentence = format!(
                "created the baseline {}\nnext: perennial deployment create --baseline '{0}' --collection NAME",
                created.name
            );
            done(format, &sentence, &created)
        }
        Baseline::Set { name, change } => {
            let before = api.baseline(&name).await?;
            let set = SetBaseline {
                content: changed(before.content, change)?,
                base: Some(before.version),
            };
            let after = api.set_baseline(&name, &set).await?;
            let sentence = match after.version == before.version {
                true => format!("nothing changes; the baseline {name} stays as it is"),
                false => format!("changed the baseline {name}"),
            };
            done(format, &sentence, &after)
        }
        Baseline::List => {
            let baselines = all(async |after| api.baselines(&whole_page(after)).await).await?;
            let columns = [
                Column("NAME", "/name"),
                Column("ENABLED", "/enabled"),
                Column("PARTS", "/parts"),
                Column("DEPLOYMENTS", "/deployments"),
                Column("CHANGED", "/changed_at"),
            ];
            list(format, &baselines, &columns)
        }
        Baseline::Show { name } => show(&api.baseline(&name).await?, format),
        Baseline::Delete { name, yes } => {
            confirm(&format!("Delete the baseline {name}?"), yes)?;
            api.delete_baseline(&name).await?;
            done(format, &format!("deleted the baseline {name}"), &Done {})
        }
    }
}

fn item_part(part: ItemPart) -> BaselinePart {
    BaselinePart::Item {
        name: part.name,
        revision: part.revision,
    }
}

fn changed(
    mut content: BaselineContent,
    change: BaselineChange,
) -> anyhow::Result<BaselineContent> {
    for name in &change.remove_ci {
        remove(&mut content, name, "configuration item", |part| {
            item_name(part) == Some(name)
        })?;
    }
    for name in &change.remove_baseline {
        remove(
            &mut content,
            name,
            "baseline",
            |part| matches!(part, BaselinePart::Baseline { name: there } if there == name),
        )?;
    }
    for part in change.ci {
        let there = content
            .parts
            .iter_mut()
            .find(|there| item_name(there) == Some(&part.name));
        match there {
            Some(there) => *there = item_part(part),
            None => content.parts.push(item_part(part)),
        }
    }
    for name in change.baseline {
        let part = BaselinePart::Baseline { name };
        if !content.parts.contains(&part) {
            content.parts.push(part);
        }
    }
    if let Some(description) = change.description {
        content.description = description;
    }
    content.enabled = (content.enabled || change.enable) && !change.disable;
    Ok(content)
}

fn item_name(part: &BaselinePart) -> Option<&ItemName> {
    match part {
        BaselinePart::Item { name, .. } => Some(name),
        BaselinePart::Baseline { .. } => None,
    }
}

fn remove(
    content: &mut BaselineContent,
    name: impl std::fmt::Display,
    what: &str,
    is_it: impl Fn(&BaselinePart) -> bool,
) -> anyhow::Result<()> {
    let before = content.parts.len();
    content.parts.retain(|part| !is_it(part));
    if content.parts.len() == before {
        bail!("the {what} `{name}` is not in the baseline");
    }
    Ok(())
}

fn show(baseline: &BaselineDetail, format: Format) -> anyhow::Result<()> {
    let columns = [
        Column("NAME", "/name"),
        Column("ENABLED", "/content/enabled"),
        Column("CHANGED", "/changed_at"),
        Column("DESCRIPTION", "/content/description"),
    ];
    if format.csv {
        return list(format, &[baseline], &columns);
    }
    if format.json {
        return print(&serde_json::to_string_pretty(baseline)?);
    }
    print(&format!("{:<12} {}", "Name", baseline.name))?;
    let enabled = if baseline.content.enabled {
        "yes"
    } else {
        "no"
    };
    print(&format!("{:<12} {enabled}", "Enabled"))?;
    for line in baseline.content.description.lines() {
        print(&format!("{:<12} {line}", "Description"))?;
    }
    print(&format!(
        "{:<12} {}\n",
        "Changed",
        to_the_second(baseline.changed_at)
    ))?;
    print_parts(baseline, baseline, 0, &mut HashSet::new())
}

/// The tree. What stands in it twice is told once: there can be more ways through it than lines that
/// anybody reads.
fn print_parts(
    root: &BaselineDetail,
    baseline: &BaselineDetail,
    depth: usize,
    shown: &mut HashSet<BaselineName>,
) -> anyhow::Result<()> {
    let indent = "    ".repeat(depth);
    for part in &baseline.content.parts {
        match part {
            BaselinePart::Item { name, revision } => {
                let revision = match revision {
                    Some(revision) => format!("revision {revision}"),
                    None => "latest revision".to_owned(),
                };
                print(&format!("{indent}{name} ({revision})"))?;
            }
            BaselinePart::Baseline { name } => {
                let inner = root.inside.iter().find(|inner| inner.name == *name);
                let off = inner.is_some_and(|inner| !inner.content.enabled);
                let word = if off {
                    "baseline, not enabled"
                } else {
                    "baseline"
                };
                if !shown.insert(name.clone()) {
                    print(&format!("{indent}{name} ({word}, see above)"))?;
                    continue;
                }
                print(&format!("{indent}{name} ({word})"))?;
                if let Some(inner) = inner {
                    print_parts(root, inner, depth + 1, shown)?;
                }
            }
        }
    }
    Ok(())
}

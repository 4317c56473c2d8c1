//! `perennial ci`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::{
    ApiClient, CommandDetail, DifferenceQuery, ItemDetail, MOST_ITEM_BYTES, NewItem, ReviseItem,
    TestScript,
};
use domain::compliance::{
    Comparison, ComplianceRule, Condition, DataType, ItemContent, ItemName, OperatingSystem,
    Platform, Script, Setting, SettingSource,
};
use domain::{CommandState, DeviceId, Period};

use super::{Done, all, confirm, resolve, whole_page};
use crate::cli::Format;
use crate::cli::compliance::{
    ConfigurationItem, ItemChange, NewItemSource, Preference, RuleOperator,
};
use crate::output::{Column, done, list, plain, print, to_the_second};

pub(super) async fn run(
    api: &ApiClient,
    command: ConfigurationItem,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        ConfigurationItem::Create { name, source } => {
            let content = match &source.file {
                Some(file) => read_item(file)?,
                None => new_content(&name, &source)?,
            };
            let created = api.create_item(&NewItem { name, content }).await?;
            let sentence = format!(
                "created the configuration item {}, revision 1\nnext: perennial baseline create NAME --ci '{0}'",
                created.name
            );
            done(format, &sentence, &created)
        }
        ConfigurationItem::Set { name, change } => set(api, name, &change, format).await,
        ConfigurationItem::List => {
            let items = all(async |after| api.items(&whole_page(after)).await).await?;
            let columns = [
                Column("NAME", "/name"),
                Column("REVISION", "/revision"),
                Column("TYPE", "/platforms"),
                Column("RULES", "/rules"),
                Column("CHANGED", "/changed_at"),
                Column("BY", "/changed_by"),
            ];
            list(format, &items, &columns)
        }
        ConfigurationItem::Show { name, revision } => {
            show(&api.item(&name, revision).await?, format)
        }
        ConfigurationItem::History { name } => {
            let revisions =
                all(async |after| api.item_history(&name, &whole_page(after)).await).await?;
            let columns = [
                Column("REVISION", "/revision"),
                Column("MADE", "/created_at"),
                Column("BY", "/author"),
                Column("SHA-256", "/body"),
            ];
            list(format, &revisions, &columns)
        }
        ConfigurationItem::Diff { name, from, to } => {
            let difference = api
                .item_difference(&name, DifferenceQuery { from, to })
                .await?;
            let sentence = match difference.text.trim_end() {
                "" => format!("revisions {from} and {to} of {name} say the same"),
                text => format!("--- {name}, revision {from}\n+++ {name}, revision {to}\n{text}"),
            };
            done(format, &sentence, &difference)
        }
        ConfigurationItem::Test {
            item,
            device,
            setting,
            revision,
            expires,
            wait,
        } => {
            let id = resolve(api, &device).await?;
            let test = TestScript {
                item,
                revision,
                setting,
                expires,
            };
            let given = api.test_script(id, &test).await?;
            let ended = wait_for(api, id, given, wait, &device).await?;
            show_test(&ended, &device, format)
        }
        ConfigurationItem::Delete { name, yes } => {
            confirm(&format!("Delete the configuration item {name}?"), yes)?;
            api.delete_item(&name).await?;
            let sentence = format!("deleted the configuration item {name}");
            done(format, &sentence, &Done {})
        }
    }
}

fn show(item: &ItemDetail, format: Format) -> anyhow::Result<()> {
    if format.json {
        // What --file reads.
        return print(&serde_json::to_string_pretty(&item.content)?);
    }
    if format.csv {
        let columns = [
            Column("NAME", "/name"),
            Column("REVISION", "/revision"),
            Column("MADE", "/created_at"),
            Column("BY", "/author"),
            Column("SHA-256", "/body"),
        ];
        return list(format, &[item], &columns);
    }
    print(&format!("{:<12} {}", "Name", item.name))?;
    print(&format!(
        "{:<12} {} of {}, by {}",
        "Revision",
        item.revision,
        to_the_second(item.created_at),
        item.author
    ))?;
    print(&format!("{:<12} {}", "SHA-256", item.body))?;
    print(item.written.trim_end())
}

/// Changes what the options name of the latest revision.
async fn set(
    api: &ApiClient,
    name: ItemName,
    change: &ItemChange,
    format: Format,
) -> anyhow::Result<()> {
    let (content, base) = match &change.file {
        Some(file) => (read_item(file)?, change.if_revision),
        None => {
            let latest = api.item(&name, None).await?;
            let base = change.if_revision.unwrap_or(latest.revision);
            (changed_content(&latest.content, change)?, Some(base))
        }
    };
    let revised = api
        .revise_item(&name, &ReviseItem { content, base })
        .await?;
    let sentence = match (revised.is_new, revised.item.revision) {
        (false, latest) => format!("nothing changes; {name} stays at revision {latest}"),
        (true, new) => format!(
            "{name} has revision {new}\nsee: perennial ci diff '{name}' {} {new}",
            new - 1
        ),
    };
    done(format, &sentence, &revised)
}

fn new_content(name: &ItemName, given: &NewItemSource) -> anyhow::Result<ItemContent> {
    let setting_name = match &given.setting {
        Some(name) => name.clone(),
        None => name.as_str().parse()?,
    };
    let rule_name = match &given.rule {
        Some(name) => name.clone(),
        None => setting_name.as_str().parse()?,
    };
    let (Some(data_type), Some(operator)) = (given.data_type, given.operator) else {
        bail!("say --data-type and --operator, or --file");
    };
    let source = match (&given.discovery, &given.preference) {
        (Some(discovery), None) => SettingSource::Script {
            discovery: read_script(discovery)?,
            remediation: given.remediation.as_deref().map(read_script).transpose()?,
            time_limit: given.time_limit.unwrap_or(Period::from_seconds(60)),
        },
        (None, Some(preference)) => preference_source(preference),
        _ => bail!("say --discovery FILE, or --preference APP:/KEY"),
    };
    let setting = Setting {
        name: setting_name.clone(),
        description: String::new(),
        data_type,
        source,
    };
    let rule = ComplianceRule {
        name: rule_name,
        setting: setting_name,
        condition: condition(data_type, operator, &given.value)?,
        severity: given.severity.unwrap_or_default(),
        remediate: given.remediate,
    };
    Ok(ItemContent::new(
        given.description.clone().unwrap_or_default(),
        given.category.clone(),
        platforms(&given.os),
        vec![setting],
        vec![rule],
    )?)
}

fn changed_content(before: &ItemContent, change: &ItemChange) -> anyhow::Result<ItemContent> {
    let mut settings = before.settings().to_vec();
    let mut rules = before.rules().to_vec();
    let changes_setting = change.data_type.is_some()
        || change.discovery.is_some()
        || change.preference.is_some()
        || change.remediation.is_some()
        || change.no_remediation
        || change.time_limit.is_some();
    if changes_setting || change.setting.is_some() {
        let at = chosen(
            settings.iter().map(|setting| setting.name.as_str()),
            change.setting.as_ref().map(|name| name.as_str()),
            "setting",
        )?;
        change_setting(&mut settings[at], change)?;
        if let Some(data_type) = change.data_type {
            // Rules compare in their setting's type.
            for rule in rules
                .iter_mut()
                .filter(|rule| rule.setting == settings[at].name)
            {
                rule.condition = retyped(&rule.condition, data_type)?;
            }
        }
    }
    let changes_rule = change.operator.is_some()
        || !change.value.is_empty()
        || change.severity.is_some()
        || change.remediate
        || change.no_remediate;
    if changes_rule || change.rule.is_some() {
        let at = chosen(
            rules.iter().map(|rule| rule.name.as_str()),
            change.rule.as_ref().map(|name| name.as_str()),
            "rule",
        )?;
        let data_type = settings
            .iter()
            .find(|setting| setting.name == rules[at].setting)
            .map_or(DataType::String, |setting| setting.data_type);
        change_rule(&mut rules[at], data_type, change)?;
    }
    let description = change.description.clone();
    let categories = match &change.category[..] {
        [] => before.categories().to_vec(),
        given => given.to_vec(),
    };
    let platforms = match &change.os[..] {
        [] => before.platforms().to_vec(),
        given => platforms(given),
    };
    Ok(ItemContent::new(
        description.unwrap_or_else(|| before.description().to_owned()),
        categories,
        platforms,
        settings,
        rules,
    )?)
}

fn change_setting(setting: &mut Setting, change: &ItemChange) -> anyhow::Result<()> {
    if let Some(data_type) = change.data_type {
        setting.data_type = data_type;
    }
    if let Some(preference) = &change.preference {
        setting.source = preference_source(preference);
    }
    let scripted = change.discovery.is_some()
        || change.remediation.is_some()
        || change.no_remediation
        || change.time_limit.is_some();
    if !scripted {
        return Ok(());
    }
    if let (SettingSource::Preference { .. }, Some(file)) = (&setting.source, &change.discovery) {
        setting.source = SettingSource::Script {
            discovery: read_script(file)?,
            remediation: None,
            time_limit: Period::from_seconds(60),
        };
    }
    let SettingSource::Script {
        discovery,
        remediation,
        time_limit,
    } = &mut setting.source
    else {
        bail!(
            "the setting `{}` is a preference; a script needs --discovery",
            setting.name
        );
    };
    if let Some(file) = &change.discovery {
        *discovery = read_script(file)?;
    }
    if let Some(file) = &change.remediation {
        *remediation = Some(read_script(file)?);
    }
    if change.no_remediation {
        *remediation = None;
    }
    if let Some(limit) = change.time_limit {
        *time_limit = limit;
    }
    Ok(())
}

fn change_rule(
    rule: &mut ComplianceRule,
    data_type: DataType,
    change: &ItemChange,
) -> anyhow::Result<()> {
    let operator = match (change.operator, &rule.condition) {
        (Some(operator), _) => operator,
        (None, Condition::Value(comparison)) => RuleOperator::Value(comparison.operator()),
        (None, Condition::Existential(existence)) => RuleOperator::Existential(*existence),
    };
    let values = match (&change.value[..], &rule.condition, operator) {
        ([], Condition::Value(comparison), RuleOperator::Value(_)) => {
            comparison.operands().map(str::to_owned).collect()
        }
        (given, ..) => given.to_vec(),
    };
    rule.condition = condition(data_type, operator, &values)?;
    if let Some(severity) = change.severity {
        rule.severity = severity;
    }
    rule.remediate = (rule.remediate || change.remediate) && !change.no_remediate;
    Ok(())
}

/// Which of several things is meant: the named one, or the only one.
fn chosen<'a>(
    mut names: impl ExactSizeIterator<Item = &'a str>,
    named: Option<&str>,
    what: &str,
) -> anyhow::Result<usize> {
    match named {
        Some(named) => names
            .position(|name| name == named)
            .with_context(|| format!("the configuration item has no {what} `{named}`")),
        None if names.len() == 1 => Ok(0),
        None => bail!(
            "the configuration item has {} {what}s; say which: --{what} NAME",
            names.len()
        ),
    }
}

fn condition(
    data_type: DataType,
    operator: RuleOperator,
    values: &[String],
) -> anyhow::Result<Condition> {
    match operator {
        RuleOperator::Value(operator) => Ok(Condition::Value(Comparison::new(
            data_type,
            operator,
            values.to_vec(),
        )?)),
        RuleOperator::Existential(existence) if values.is_empty() => {
            Ok(Condition::Existential(existence))
        }
        RuleOperator::Existential(existence) => {
            bail!("{existence} takes no value; leave --value out")
        }
    }
}

fn retyped(before: &Condition, data_type: DataType) -> anyhow::Result<Condition> {
    match before {
        Condition::Existential(existence) => Ok(Condition::Existential(*existence)),
        Condition::Value(comparison) => {
            let values: Vec<String> = comparison.operands().map(str::to_owned).collect();
            condition(
                data_type,
                RuleOperator::Value(comparison.operator()),
                &values,
            )
        }
    }
}

fn platforms(systems: &[OperatingSystem]) -> Vec<Platform> {
    let all_versions = |os: &OperatingSystem| Platform {
        os: *os,
        versions: Vec::new(),
    };
    systems.iter().map(all_versions).collect()
}

fn preference_source(preference: &Preference) -> SettingSource {
    SettingSource::Preference {
        application_id: preference.application_id.clone(),
        key: preference.key.clone(),
    }
}

fn read_item(file: &Path) -> anyhow::Result<ItemContent> {
    let text = read(file, 2 * MOST_ITEM_BYTES)?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

fn read_script(file: &Path) -> anyhow::Result<Script> {
    let script = read(file, Script::MOST)?;
    script
        .parse::<Script>()
        .with_context(|| file.display().to_string())
}

/// A file of text that is not longer than what can be in it: a wrong name may be a disk.
fn read(file: &Path, most: usize) -> anyhow::Result<String> {
    use std::io::Read;
    let name = || format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .with_context(name)?
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(name)?;
    if bytes.len() > most {
        bail!("{} is longer than {} KiB", file.display(), most / 1024);
    }
    String::from_utf8(bytes).with_context(|| format!("{} holds no text in UTF-8", file.display()))
}

/// The command as it is when the device answered, or when the time to wait is over.
async fn wait_for(
    api: &ApiClient,
    device: DeviceId,
    given: CommandDetail,
    wait: Period,
    name: &str,
) -> anyhow::Result<CommandDetail> {
    let began = Instant::now();
    let mut found = given;
    if !wait.std().is_zero() {
        eprintln!("waiting for {name} to check in; Ctrl-C stops to wait, and the test goes on");
    }
    while found.state == CommandState::Waiting && began.elapsed() < wait.std() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        found = api.device_command(device, &found.id).await?;
    }
    Ok(found)
}

fn show_test(command: &CommandDetail, device: &str, format: Format) -> anyhow::Result<()> {
    let detail = plain(command.detail.as_deref().unwrap_or_default());
    let sentence = match command.state {
        CommandState::Waiting => format!(
            "{device} did not answer yet; its answer will be in: perennial device commands {device}"
        ),
        CommandState::Done => detail,
        state => format!("{state}: {detail}"),
    };
    done(format, sentence.trim_end(), command)
}

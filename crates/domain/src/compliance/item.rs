//! Configuration items: settings and the rules about them.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ComplianceRule, Condition, DataType, RuleName, SettingName, Version};
use crate::Period;
use crate::state::words;

/// What one revision of a configuration item says. It never changes: another content is another
/// revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ItemContent {
    description: String,
    categories: Vec<String>,
    platforms: Vec<Platform>,
    settings: Vec<Setting>,
    rules: Vec<ComplianceRule>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    description: String,
    #[serde(default)]
    categories: Vec<String>,
    platforms: Vec<Platform>,
    settings: Vec<Setting>,
    rules: Vec<ComplianceRule>,
}

words! {
    /// An operating system that clients run on.
    OperatingSystem {
        /// The incumbent's consoles call it "Mac OS X".
        MacOs = "macOS",
        Linux = "Linux",
    }
}

/// An operating system that an item is for, and its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    pub os: OperatingSystem,
    /// None of them means all versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<PlatformVersions>,
}

/// Versions from one to another; both ends belong to it. `14` as the last one means all of 14.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformVersions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Version>,
}

/// Something on a client that has a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    pub name: SettingName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub data_type: DataType,
    pub source: SettingSource,
}

/// How a setting's value is discovered, and remediated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SettingSource {
    Script {
        discovery: Script,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remediation: Option<Script>,
        /// How long each of them may take.
        #[serde(default = "default_time_limit")]
        time_limit: Period,
    },
    /// Remediation writes the rule's value.
    Preference {
        application_id: ApplicationId,
        key: KeyPath,
    },
}

const fn default_time_limit() -> Period {
    Period::from_seconds(60)
}

/// A script. Its first line names its interpreter; without one it is `/bin/sh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script(String);

impl Script {
    /// The longest, in bytes.
    pub const MOST: usize = 256 * 1024;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The interpreter and its argument, as the kernel reads the first line: what follows the path is
    /// one argument.
    pub fn interpreter(&self) -> (&str, Option<&str>) {
        let first = self.0.lines().next().unwrap_or_default();
        let Some(line) = first.strip_prefix("#!").map(str::trim) else {
            return ("/bin/sh", None);
        };
        match line.split_once([' ', '\t']) {
            Some((path, argument)) => (path, Some(argument.trim())),
            None => (line, None),
        }
    }
}

impl FromStr for Script {
    type Err = InvalidItem;

    fn from_str(given: &str) -> Result<Self, InvalidItem> {
        if given.trim().is_empty() {
            return Err(InvalidItem::Script("is empty"));
        }
        if given.len() > Self::MOST {
            return Err(InvalidItem::Script("is longer than 256 KiB"));
        }
        if given.contains('\0') {
            return Err(InvalidItem::Script("holds a NUL character"));
        }
        let script = Self(given.to_owned());
        if !script.interpreter().0.starts_with('/') {
            return Err(InvalidItem::Script(
                "names an interpreter in its first line that is not an absolute path",
            ));
        }
        Ok(script)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::serde_as_text!(Script);

/// A preference domain (`com.example.app`) or the absolute path of a property list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApplicationId(String);

impl ApplicationId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApplicationId {
    type Err = InvalidItem;

    fn from_str(given: &str) -> Result<Self, InvalidItem> {
        let is_name = |c: char| c.is_alphanumeric() || "._- ".contains(c);
        let hidden = given.chars().any(char::is_control);
        let climbs = given.split('/').any(|part| part == "..");
        let good = if given.starts_with('/') {
            given.len() <= 1024 && !hidden && !climbs && given.len() > 1
        } else {
            !given.is_empty() && given.len() <= 255 && !climbs && given.chars().all(is_name)
        };
        if good {
            Ok(Self(given.to_owned()))
        } else {
            Err(InvalidItem::ApplicationId)
        }
    }
}

impl fmt::Display for ApplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::serde_as_text!(ApplicationId);

/// Where a value is in a property list: `/<dictionary>/<key>`, or `/<key>`. Case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPath(Vec<String>);

impl KeyPath {
    /// The dictionaries from the outermost on, and the key at the end. Never empty.
    pub fn parts(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for KeyPath {
    type Err = InvalidItem;

    fn from_str(given: &str) -> Result<Self, InvalidItem> {
        let path = given.strip_prefix('/').unwrap_or(given);
        let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        let good = given.len() <= 1024
            && parts.len() <= 16
            && parts
                .iter()
                .all(|part| !part.is_empty() && !part.chars().any(char::is_control));
        if good {
            Ok(Self(parts))
        } else {
            Err(InvalidItem::KeyPath)
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.join("/"))
    }
}

crate::serde_as_text!(KeyPath);

/// Why something is no configuration item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidItem {
    #[error("a script {0}")]
    Script(&'static str),
    #[error(
        "an application id is a domain such as com.example.app, or the absolute path of a property list"
    )]
    ApplicationId,
    #[error("a key is written /<dictionary>/<key>, or /<key>")]
    KeyPath,
    #[error("a configuration item is for at least one platform: macOS or Linux")]
    NoPlatform,
    #[error("the platform {0} is there twice")]
    PlatformTwice(OperatingSystem),
    #[error("a configuration item has {0}")]
    Number(&'static str),
    #[error("two settings have the name `{0}`")]
    SettingTwice(SettingName),
    #[error("two rules have the name `{0}`")]
    RuleTwice(RuleName),
    #[error("the rule `{rule}` is about the setting `{setting}`, which is not there")]
    NoSetting {
        rule: RuleName,
        setting: SettingName,
    },
    #[error("the setting `{0}` has no rule; each setting needs at least one")]
    NoRule(SettingName),
    #[error("the rule `{rule}` compares {given}, but its setting is {expected}")]
    OtherType {
        rule: RuleName,
        given: DataType,
        expected: DataType,
    },
    #[error("the rule `{rule}` is to be remediated, but {why}")]
    NoRemediation { rule: RuleName, why: &'static str },
    #[error("a time limit is 1 s to 1 h")]
    TimeLimit,
    #[error("a description has at most 4096 characters, a category 1 to 127")]
    Text,
}

impl ItemContent {
    pub const MOST_SETTINGS: usize = 200;
    pub const MOST_RULES: usize = 500;

    /// # Errors
    /// When its parts do not fit together.
    pub fn new(
        description: String,
        categories: Vec<String>,
        platforms: Vec<Platform>,
        settings: Vec<Setting>,
        rules: Vec<ComplianceRule>,
    ) -> Result<Self, InvalidItem> {
        let bad_category = |category: &String| {
            category.trim().is_empty()
                || category.chars().count() > 127
                || category.chars().any(char::is_control)
        };
        if description.chars().count() > 4096
            || categories.len() > 20
            || categories.iter().any(bad_category)
        {
            return Err(InvalidItem::Text);
        }
        if platforms.is_empty() {
            return Err(InvalidItem::NoPlatform);
        }
        let mut systems = HashSet::new();
        if let Some(twice) = platforms
            .iter()
            .find(|platform| !systems.insert(platform.os))
        {
            return Err(InvalidItem::PlatformTwice(twice.os));
        }
        if !(1..=Self::MOST_SETTINGS).contains(&settings.len()) {
            return Err(InvalidItem::Number("1 to 200 settings"));
        }
        if rules.len() > Self::MOST_RULES {
            return Err(InvalidItem::Number("at most 500 rules"));
        }
        let mut names = HashSet::new();
        if let Some(twice) = settings.iter().find(|setting| !names.insert(&setting.name)) {
            return Err(InvalidItem::SettingTwice(twice.name.clone()));
        }
        let mut names = HashSet::new();
        if let Some(twice) = rules.iter().find(|rule| !names.insert(&rule.name)) {
            return Err(InvalidItem::RuleTwice(twice.name.clone()));
        }
        for rule in &rules {
            let setting = settings.iter().find(|setting| setting.name == rule.setting);
            let Some(setting) = setting else {
                return Err(InvalidItem::NoSetting {
                    rule: rule.name.clone(),
                    setting: rule.setting.clone(),
                });
            };
            fits(rule, setting)?;
        }
        for setting in &settings {
            if let SettingSource::Script { time_limit, .. } = &setting.source
                && !(1..=3600).contains(&time_limit.seconds())
            {
                return Err(InvalidItem::TimeLimit);
            }
            if !rules.iter().any(|rule| rule.setting == setting.name) {
                return Err(InvalidItem::NoRule(setting.name.clone()));
            }
        }
        Ok(Self {
            description,
            categories,
            platforms,
            settings,
            rules,
        })
    }

    pub fn description(&self) -> &str {
        &self.description
    }

    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    pub fn platforms(&self) -> &[Platform] {
        &self.platforms
    }

    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    pub fn rules(&self) -> &[ComplianceRule] {
        &self.rules
    }

    /// The setting that a rule of this item looks at.
    pub fn setting_of(&self, rule: &ComplianceRule) -> &Setting {
        let found = self
            .settings
            .iter()
            .find(|setting| setting.name == rule.setting);
        found.expect("new() saw that every rule has its setting")
    }

    /// True when it is for a client of this operating system and version. A version that is none
    /// matches only where all versions do.
    pub fn applies_to(&self, os: &str, version: &str) -> bool {
        let version = version.parse().ok();
        self.platforms
            .iter()
            .filter(|platform| platform.os.word() == os)
            .any(|platform| {
                platform.versions.is_empty()
                    || version.as_ref().is_some_and(|version| {
                        platform
                            .versions
                            .iter()
                            .any(|versions| versions.hold(version))
                    })
            })
    }
}

impl PlatformVersions {
    fn hold(&self, version: &Version) -> bool {
        let up_to = |to: &Version| {
            // 14 as the end means 14.4.1, too.
            let same = version.parts().iter().take(to.parts().len().max(1));
            version <= to || same.eq(to.parts())
        };
        self.from.as_ref().is_none_or(|from| version >= from) && self.to.as_ref().is_none_or(up_to)
    }
}

fn fits(rule: &ComplianceRule, setting: &Setting) -> Result<(), InvalidItem> {
    if let Condition::Value(comparison) = &rule.condition
        && comparison.data_type() != setting.data_type
    {
        return Err(InvalidItem::OtherType {
            rule: rule.name.clone(),
            given: comparison.data_type(),
            expected: setting.data_type,
        });
    }
    if !rule.remediate {
        return Ok(());
    }
    let one_value = match &rule.condition {
        Condition::Value(comparison) => comparison.expected(),
        Condition::Existential(_) => None,
    };
    let why = match &setting.source {
        SettingSource::Script {
            remediation: Some(_),
            ..
        } => return Ok(()),
        SettingSource::Script { .. } => "its setting has no remediation script",
        SettingSource::Preference { .. } if one_value.is_some() => return Ok(()),
        SettingSource::Preference { .. } => {
            "only Equals says which value to write into a preference"
        }
    };
    Err(InvalidItem::NoRemediation {
        rule: rule.name.clone(),
        why,
    })
}

impl TryFrom<Written> for ItemContent {
    type Error = InvalidItem;

    fn try_from(written: Written) -> Result<Self, InvalidItem> {
        Self::new(
            written.description,
            written.categories,
            written.platforms,
            written.settings,
            written.rules,
        )
    }
}

impl From<ItemContent> for Written {
    fn from(content: ItemContent) -> Self {
        Self {
            description: content.description,
            categories: content.categories,
            platforms: content.platforms,
            settings: content.settings,
            rules: content.rules,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Operator;
    use super::*;

    fn item(platforms: &str) -> ItemContent {
        let text = format!(
            r#"{{"platforms": {platforms},
                "settings": [{{"name": "s", "data_type": "string",
                    "source": {{"script": {{"discovery": "echo x"}}}}}}],
                "rules": [{{"name": "r", "setting": "s",
                    "condition": {{"existential": "must-exist"}}}}]}}"#
        );
        serde_json::from_str(&text).expect("an item")
    }

    #[test]
    fn platforms_and_their_versions() {
        let all = item(r#"[{"os": "macOS"}]"#);
        assert!(all.applies_to("macOS", "26.1") && all.applies_to("macOS", "rolling"));
        assert!(!all.applies_to("Linux", "12"));
        let some = item(
            r#"[{"os": "macOS", "versions": [{"from": "13", "to": "14"}, {"from": "26.1"}]}, {"os": "Linux"}]"#,
        );
        for (version, applies) in [
            ("12.7", false),
            ("13", true),
            ("14.4.1", true),
            ("15", false),
            ("26.0", false),
            ("26.1", true),
            ("27", true),
            ("beta", false),
        ] {
            assert_eq!(some.applies_to("macOS", version), applies, "{version}");
        }
        assert!(some.applies_to("Linux", "anything"));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let good = serde_json::to_value(item(r#"[{"os": "macOS"}]"#)).expect("JSON");
        let refused = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut changed = good.clone();
            change(&mut changed);
            serde_json::from_value::<ItemContent>(changed)
                .expect_err("refused")
                .to_string()
        };
        let told = [
            refused(&|item| item["platforms"] = serde_json::json!([])),
            refused(&|item| item["rules"] = serde_json::json!([])),
            refused(&|item| item["rules"][0]["setting"] = "other".into()),
            refused(&|item| item["rules"][0]["remediate"] = true.into()),
            refused(&|item| item["settings"][0]["source"]["script"]["discovery"] = " ".into()),
            refused(&|item| item["settings"][0]["source"]["script"]["time_limit"] = "2h".into()),
            refused(&|item| {
                item["rules"][0]["condition"] = serde_json::json!({"value":
                {"type": "integer", "operator": "equals", "operands": ["1"]}})
            }),
            refused(&|item| item["unknown"] = true.into()),
        ];
        let expected = [
            "at least one platform",
            "has no rule",
            "not there",
            "no remediation script",
            "is empty",
            "time limit",
            "compares integer",
            "unknown field",
        ];
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_first_line_names_the_interpreter() {
        let interpreter = |text: &str| {
            let script: Script = text.parse().expect(text);
            let (path, argument) = script.interpreter();
            (path.to_owned(), argument.map(str::to_owned))
        };
        assert_eq!(interpreter("echo x"), ("/bin/sh".to_owned(), None));
        assert_eq!(
            interpreter("#!/bin/zsh\necho x"),
            ("/bin/zsh".to_owned(), None)
        );
        assert_eq!(
            interpreter("#! /usr/bin/env -S python3 -I\nprint()"),
            ("/usr/bin/env".to_owned(), Some("-S python3 -I".to_owned()))
        );
        assert!("#!python3\nprint()".parse::<Script>().is_err());
        assert!("echo \0".parse::<Script>().is_err());
    }

    #[test]
    fn a_preference_is_remediated_with_the_one_value_of_equals() {
        let text = |operator: Operator, operands: &str| {
            format!(
                r#"{{"platforms": [{{"os": "macOS"}}],
                "settings": [{{"name": "s", "data_type": "boolean", "source": {{"preference":
                    {{"application_id": "com.example.app", "key": "/Proxies/Enabled"}}}}}}],
                "rules": [{{"name": "r", "setting": "s", "remediate": true, "condition": {{"value":
                    {{"type": "boolean", "operator": "{operator}", "operands": {operands}}}}}}}]}}"#
            )
        };
        let read = |text: String| serde_json::from_str::<ItemContent>(&text);
        assert!(read(text(Operator::Equals, r#"["true"]"#)).is_ok());
        assert!(read(text(Operator::NotEqualTo, r#"["true"]"#)).is_err());
        for bad in ["", "a/b", "../x", "/a/../b", "/", "a\nb"] {
            assert!(bad.parse::<ApplicationId>().is_err(), "{bad:?}");
        }
        for bad in ["", "/", "//a", "/a/", "/a\n"] {
            assert!(bad.parse::<KeyPath>().is_err(), "{bad:?}");
        }
        assert_eq!("Key".parse::<KeyPath>().expect("a key").to_string(), "/Key");
    }
}

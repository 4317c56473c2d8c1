//! A configuration item as people read it: one text for each content, so that two revisions can be
//! compared line by line.

use std::fmt::Write;

use super::{
    ComplianceRule, Condition, Existence, ItemContent, Operator, Platform, PlatformVersions,
    Script, Setting, SettingSource,
};

impl ItemContent {
    /// Everything that it says, scripts too. The same content gives the same text.
    pub fn written(&self) -> String {
        let mut text = String::new();
        for (at, line) in self.description().lines().enumerate() {
            let word = if at == 0 { "Description" } else { "" };
            let _ = writeln!(text, "{word:<12} {line}");
        }
        if !self.categories().is_empty() {
            let _ = writeln!(
                text,
                "{:<12} {}",
                "Categories",
                self.categories().join(", ")
            );
        }
        for platform in self.platforms() {
            let _ = writeln!(text, "{:<12} {}", "Platform", platform_in_words(platform));
        }
        for setting in self.settings() {
            write_setting(&mut text, setting);
        }
        for rule in self.rules() {
            write_rule(&mut text, rule);
        }
        // Whoever reads it decides what runs as root: nothing in it hides the text around it.
        text.chars()
            .flat_map(|c| match is_hidden(c) {
                true => c.escape_unicode().collect(),
                false => vec![c],
            })
            .collect()
    }
}

fn write_setting(text: &mut String, setting: &Setting) {
    let _ = writeln!(text, "\nSetting `{}`", setting.name);
    for (at, line) in setting.description.lines().enumerate() {
        let word = if at == 0 { "Description" } else { "" };
        let _ = writeln!(text, "    {word:<18} {line}");
    }
    match &setting.source {
        SettingSource::Script {
            discovery,
            remediation,
            time_limit,
        } => {
            let _ = writeln!(text, "    {:<18} script", "Setting type");
            let _ = writeln!(text, "    {:<18} {}", "Data type", setting.data_type);
            let _ = writeln!(text, "    {:<18} {time_limit}", "Time limit");
            write_script(text, "Discovery script", discovery);
            if let Some(remediation) = remediation {
                write_script(text, "Remediation script", remediation);
            }
        }
        SettingSource::Preference {
            application_id,
            key,
        } => {
            let _ = writeln!(text, "    {:<18} preference", "Setting type");
            let _ = writeln!(text, "    {:<18} {}", "Data type", setting.data_type);
            let _ = writeln!(text, "    {:<18} {application_id}", "Application id");
            let _ = writeln!(text, "    {:<18} {key}", "Key");
        }
    }
}

fn write_script(text: &mut String, what: &str, script: &Script) {
    let _ = writeln!(text, "    {what}");
    for line in script.as_str().split('\n') {
        let _ = writeln!(text, "        | {line}");
    }
}

/// What changes how a terminal shows the text around it: control characters, and those that turn the
/// direction of writing or take no room ("Trojan Source", Boucher and Anderson, 2021).
fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn write_rule(text: &mut String, rule: &ComplianceRule) {
    let _ = writeln!(text, "\nRule `{}`", rule.name);
    let _ = writeln!(text, "    {:<18} `{}`", "Setting", rule.setting);
    let _ = writeln!(
        text,
        "    {:<18} {}",
        "Condition",
        in_words(&rule.condition)
    );
    let _ = writeln!(text, "    {:<18} {}", "Severity", rule.severity);
    let remediated = if rule.remediate { "yes" } else { "no" };
    let _ = writeln!(text, "    {:<18} {remediated}", "Remediate");
}

fn in_words(condition: &Condition) -> String {
    match condition {
        Condition::Existential(Existence::MustExist) => "must exist".to_owned(),
        Condition::Existential(Existence::MustNotExist) => "must not exist".to_owned(),
        Condition::Value(comparison) => {
            let operands: Vec<String> = comparison
                .operands()
                .map(|operand| format!("{operand:?}"))
                .collect();
            let between = match comparison.operator() {
                Operator::Between => " and ",
                _ => ", ",
            };
            format!(
                "{} {} ({})",
                comparison.operator().word().replace('-', " "),
                operands.join(between),
                comparison.data_type()
            )
        }
    }
}

fn platform_in_words(platform: &Platform) -> String {
    if platform.versions.is_empty() {
        return format!("{}, all versions", platform.os);
    }
    let versions: Vec<String> = platform
        .versions
        .iter()
        .map(|PlatformVersions { from, to }| match (from, to) {
            (Some(from), Some(to)) => format!("{from} to {to}"),
            (Some(from), None) => format!("{from} and later"),
            (None, Some(to)) => format!("up to {to}"),
            (None, None) => "all versions".to_owned(),
        })
        .collect();
    format!("{} {}", platform.os, versions.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_s_own_item_is_read_like_its_procedure() {
        let content: ItemContent = serde_json::from_str(
            r#"{"description": "Lets the client enroll anew.\u001b[2J",
                "platforms": [{"os": "macOS"}],
                "settings": [{"name": "Remove SMSID for Mac", "data_type": "string", "source": {"script": {
                    "discovery": "defaults read com.microsoft.ccmclient SMSID\n",
                    "remediation": "defaults delete com.microsoft.ccmclient SMSID\u202e\n"}}}],
                "rules": [{"name": "Remove SMSID for Mac", "setting": "Remove SMSID for Mac",
                    "remediate": true, "condition": {"value": {"type": "string", "operator": "equals",
                    "operands": ["does not exist"]}}}]}"#,
        )
        .expect("an item");
        let expected = r#"Description  Lets the client enroll anew.\u{1b}[2J
Platform     macOS, all versions

Setting `Remove SMSID for Mac`
    Setting type       script
    Data type          string
    Time limit         1m
    Discovery script
        | defaults read com.microsoft.ccmclient SMSID
        | 
    Remediation script
        | defaults delete com.microsoft.ccmclient SMSID\u{202e}
        | 

Rule `Remove SMSID for Mac`
    Setting            `Remove SMSID for Mac`
    Condition          equals "does not exist" (string)
    Severity           none
    Remediate          yes
"#;
        assert_eq!(content.written(), expected);
    }
}

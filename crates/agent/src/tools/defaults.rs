//! `defaults`: Apple's tool for the agent's preference domains, so that scripts written for a Mac
//! run here too: the same output, exit codes and error texts.

use std::process::ExitCode;

use plist::{Dictionary, Value};

use crate::cli::Defaults;
use crate::failure::Failure;
use crate::identity::Machine;
use crate::platform::Layout;
use crate::preferences::Preferences;

const USAGE: &str = "Command line interface to a user's defaults.
Syntax:

'defaults' followed by one of the following:

  read <domain>                        shows defaults for given domain
  read <domain> <key>                  shows defaults for given domain, key
  write <domain> <key> [-string] <value>   writes key for domain
  delete <domain>                      deletes domain
  delete <domain> <key>                deletes key in domain
";

pub fn run(layout: &Layout, arguments: &Defaults) -> ExitCode {
    let preferences = Preferences::new(layout);
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["read", domain] => read_domain(&preferences, domain),
        ["read", domain, key] => read_key(&preferences, domain, key),
        ["write", domain, key, "-string", value] | ["write", domain, key, value]
            if !value.starts_with('-') || words.len() == 5 =>
        {
            write(layout, &preferences, domain, key, value)
        }
        ["delete", domain] => delete_domain(layout, &preferences, domain),
        ["delete", domain, key] => delete_key(layout, &preferences, domain, key),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(255);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{} defaults[{}:{1}] ", time_stamp(), std::process::id());
            eprintln!("{text}");
            ExitCode::from(1)
        }
    }
}

type Done = Result<(), String>;

fn read_domain(preferences: &Preferences<'_>, domain: &str) -> Done {
    let all = preferences.all(name(domain)?);
    if all.is_empty() {
        return Err(format!("Domain {domain} does not exist"));
    }
    println!("{}", description(&Value::Dictionary(all), 0));
    Ok(())
}

fn read_key(preferences: &Preferences<'_>, domain: &str, key: &str) -> Done {
    match preferences.value(name(domain)?, key) {
        // At the top, a text stands for itself.
        Some((Value::String(text), _)) => println!("{text}"),
        Some((value, _)) => println!("{}", description(&value, 0)),
        None => {
            return Err(format!(
                "The domain/default pair of ({domain}, {key}) does not exist"
            ));
        }
    }
    Ok(())
}

fn write(
    layout: &Layout,
    preferences: &Preferences<'_>,
    domain: &str,
    key: &str,
    value: &str,
) -> Done {
    let domain = name(domain)?;
    may_write(layout)?;
    preferences
        .change(domain, |dictionary| {
            dictionary.insert(key.to_owned(), Value::String(value.to_owned()));
        })
        .map_err(|error| format!("Could not write domain {domain}; exiting: {error}"))?;
    Machine::new(layout.root()).wake_daemon();
    Ok(())
}

fn delete_domain(layout: &Layout, preferences: &Preferences<'_>, domain: &str) -> Done {
    let domain = name(domain)?;
    may_write(layout)?;
    let missing = || format!("\nDomain ({domain}) not found.\nDefaults have not been changed.");
    let had = preferences
        .change(domain, |dictionary| !std::mem::take(dictionary).is_empty())
        .map_err(|error| error.to_string())?;
    if had { Ok(()) } else { Err(missing()) }
}

fn delete_key(layout: &Layout, preferences: &Preferences<'_>, domain: &str, key: &str) -> Done {
    let domain = name(domain)?;
    may_write(layout)?;
    let removed = preferences
        .change(domain, |dictionary: &mut Dictionary| dictionary.remove(key))
        .map_err(|error| error.to_string())?;
    match removed {
        Some(_) => {
            Machine::new(layout.root()).wake_daemon();
            Ok(())
        }
        None => Err(format!(
            "The domain/default pair of ({domain}, {key}) does not exist"
        )),
    }
}

/// A domain's name becomes a file's: it must not lead elsewhere.
fn name(domain: &str) -> Result<&str, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !domain.is_empty() && domain.chars().all(allowed) && !domain.starts_with('.') {
        Ok(domain)
    } else {
        Err(format!("Domain {domain} does not exist"))
    }
}

fn may_write(layout: &Layout) -> Done {
    Machine::new(layout.root())
        .require_root()
        .map_err(|failure: Failure| failure.to_string())
}

/// The old property list style that Apple's tool prints.
fn description(value: &Value, depth: usize) -> String {
    let indent = "    ".repeat(depth + 1);
    let end = "    ".repeat(depth);
    match value {
        Value::Dictionary(dictionary) => {
            let mut keys: Vec<_> = dictionary.keys().collect();
            keys.sort();
            let lines: String = keys
                .into_iter()
                .filter_map(|key| {
                    let text = description(dictionary.get(key)?, depth + 1);
                    Some(format!("{indent}{} = {text};\n", quoted(key)))
                })
                .collect();
            format!("{{\n{lines}{end}}}")
        }
        Value::Array(items) => {
            let lines: Vec<_> = items
                .iter()
                .map(|item| format!("{indent}{}", description(item, depth + 1)))
                .collect();
            format!("(\n{}\n{end})", lines.join(",\n"))
        }
        Value::Boolean(on) => if *on { "1" } else { "0" }.to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => format!("\"{number}\""),
        Value::String(text) => quoted(text),
        Value::Date(date) => format!("\"{}\"", date.to_xml_format()),
        Value::Data(bytes) => format!(
            "{{length = {}, bytes = 0x{}}}",
            bytes.len(),
            data_encoding::HEXLOWER.encode(bytes)
        ),
        _ => "\"\"".to_owned(),
    }
}

/// Letters and digits stand bare; all else in quotation marks.
fn quoted(text: &str) -> String {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric()) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_ascii() => quoted.push(c),
            c => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    quoted.push_str(&format!("\\U{unit:04x}"));
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

/// As the system log of a Mac writes it: `2026-11-22 15:00:00.123`.
fn time_stamp() -> String {
    use domain::Clock;
    let now = clock::SystemClock::new().now().to_string();
    let text = now.trim_end_matches('Z').replace('T', " ");
    let (seconds, fraction) = text.split_once('.').unwrap_or((&text, "000"));
    format!("{seconds}.{:.3}", format!("{fraction:0<3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_property_list_style() {
        let mut inner = Dictionary::new();
        inner.insert("b".to_owned(), Value::Boolean(true));
        let mut outer = Dictionary::new();
        outer.insert("SMSID".to_owned(), Value::String("GUID:1".to_owned()));
        outer.insert("plain".to_owned(), Value::String("abc".to_owned()));
        outer.insert(
            "ü".to_owned(),
            Value::Array(vec![Value::Integer(1.into()), Value::Dictionary(inner)]),
        );
        let expected = "{\n    SMSID = \"GUID:1\";\n    plain = abc;\n    \"\\U00fc\" = (\n        1,\n        {\n            b = 1;\n        }\n    );\n}";
        assert_eq!(description(&Value::Dictionary(outer), 0), expected);
    }

    #[test]
    fn a_domain_is_no_path() {
        for domain in ["", "../x", "/etc/passwd", ".hidden", "a/b"] {
            assert!(name(domain).is_err(), "{domain}");
        }
        assert!(name("com.microsoft.ccmclient").is_ok());
    }
}

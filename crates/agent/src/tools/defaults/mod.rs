//! `defaults`: Apple's tool for the agent's preference domains, so that scripts written for a Mac run
//! here too: the same words, output, exit codes and error texts.
//!
//! Known of Apple's tool, from its manual page, its usage text and public re-implementations that
//! agree: usage goes to standard output and ends with 255; every other refusal ends with 1 and is a
//! line of the system log on standard error (time, program, process and thread, then the text, which
//! often begins with a line of its own); `find` ends with 0 also when it finds nothing.
//!
//! Different here, on purpose:
//! * `read` shows what is in force, of all levels; Apple's shows the caller's own. Writing changes
//!   root's own level, and needs root.
//! * Deleting a key that is not there says "The domain/default pair of …", as `read` does: scripts for
//!   the incumbent look for it. Apple's says "Domain (…) not found."
//! * What is wrong changes nothing, where Apple's would write something else (`-int abc`).
//! * A path as a domain, `-host` and `-app`: see [`arguments`].

mod arguments;
mod description;
#[cfg(test)]
mod golden;
mod old_style;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use ::domain::Clock;
use plist::{Dictionary, Value};

use self::arguments::{Domain, Given, Request};
use self::description::description;
use crate::cli::Defaults;
use crate::files;
use crate::identity::Machine;
use crate::platform::Layout;
use crate::preferences::{GLOBAL, Level, Preferences};
use crate::property_list::{self, Format};

const USAGE: &str = "\
Reads and writes the preferences of this computer's agent.
Syntax:

'defaults' [-currentHost] followed by one of these:

  read                                 prints all domains
  read <domain>                        prints a domain's keys
  read <domain> <key>                  prints a key's value

  read-type <domain> <key>             prints the type of a key's value

  write <domain> <domain_rep>          sets a domain's keys, and removes its other ones
  write <domain> <key> <value>         sets a key

  rename <domain> <old_key> <new_key>  gives a key another name

  delete <domain>                      removes all keys of a domain
  delete <domain> <key>                removes a key

  import <domain> (<path> | -)         adds the keys of a property list, or of standard input
  export <domain> (<path> | -)         saves a domain as a binary list, or prints it as XML

  domains                              prints the names of all domains
  find <word>                          prints what has the word in its name or value
  help                                 prints this

<domain> is ( <domain_name> | -g | -globalDomain | NSGlobalDomain )

<value> is one of these:
  <value_rep>                          a string, or a property list: {a = 1;} (a, b) <0fbd> <dict>…
  -string <text>
  -data <hexadecimal digits>
  -int[eger] <number>
  -float <number>
  -bool[ean] (true | false | yes | no)
  -date <date>                         2026-11-22 15:00:00 +0000
  -array <value> ...
  -array-add <value> ...
  -dict <key> <value> ...
  -dict-add <key> <value> ...
";

pub fn run(layout: &Layout, arguments: &Defaults) -> ExitCode {
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    let (out, complaint, code) = match answer(layout, &words, &mut io::stdin()) {
        Ok(out) => (out.text, out.complaint, 0),
        Err(Refusal::Usage) => (USAGE.to_owned(), None, 255),
        Err(Refusal::Complaint(text)) => (String::new(), Some(text), 1),
    };
    // A reader that went away is no reason to fail: what was to be done is done.
    let _ = io::stdout().write_all(out.as_bytes());
    if let Some(complaint) = complaint {
        let now = time_stamp(&clock::SystemClock::new());
        let _ = writeln!(
            io::stderr(),
            "{}",
            log_line(&now, std::process::id(), &complaint)
        );
    }
    ExitCode::from(code)
}

/// What is printed after success.
#[derive(Debug, Default)]
struct Output {
    text: String,
    /// For standard error, all the same.
    complaint: Option<String>,
}

/// Why nothing was done.
#[derive(Debug)]
enum Refusal {
    Usage,
    Complaint(String),
}

impl Refusal {
    fn complaint(text: &str) -> Self {
        Self::Complaint(text.to_owned())
    }
}

type Done<T> = Result<T, Refusal>;

fn answer(layout: &Layout, words: &[&str], stdin: &mut dyn Read) -> Done<Output> {
    let tool = Tool {
        layout,
        preferences: Preferences::new(layout),
    };
    let text = match Request::parse(words)? {
        Request::Help => USAGE.to_owned(),
        Request::Domains => tool.domains(),
        Request::Find(word) => return Ok(tool.find(word)),
        Request::ReadAll => tool.read_all(),
        Request::Read(domain, None) => tool.read_domain(domain)?,
        Request::Read(domain, Some(key)) => line(&description(&tool.value(domain, key)?)),
        Request::ReadType(domain, key) => {
            line(&format!("Type is {}", type_name(&tool.value(domain, key)?)))
        }
        Request::WriteDomain(domain, new) => {
            tool.change(domain, |keys| {
                *keys = new;
                Ok(())
            })?;
            String::new()
        }
        Request::Write(domain, key, given) => {
            tool.change(domain, |keys| write(keys, key, given))?;
            String::new()
        }
        Request::Rename(domain, old, new) => {
            tool.rename(domain, old, new)?;
            String::new()
        }
        Request::Delete(domain, key) => {
            tool.delete(domain, key)?;
            String::new()
        }
        Request::Import(domain, path) => {
            tool.import(domain, path, stdin)?;
            String::new()
        }
        Request::Export(domain, path) => tool.export(domain, path)?,
    };
    Ok(Output {
        text,
        complaint: None,
    })
}

struct Tool<'a> {
    layout: &'a Layout,
    preferences: Preferences<'a>,
}

impl Tool<'_> {
    fn domains(&self) -> String {
        let mut names = self.preferences.domains();
        names.retain(|name| name != GLOBAL);
        line(&names.join(", "))
    }

    fn read_all(&self) -> String {
        let all: Dictionary = self
            .preferences
            .domains()
            .into_iter()
            .map(|name| {
                let keys = self.preferences.all(&name);
                (shown(&name).to_owned(), Value::Dictionary(keys))
            })
            .collect();
        line(&description(&Value::Dictionary(all)))
    }

    /// Every domain's keys that hold the word, in their name, their value or their domain's name.
    fn find(&self, word: &str) -> Output {
        let wanted = word.to_lowercase();
        let mut text = String::new();
        for name in self.preferences.domains() {
            let mut keys = self.preferences.all(&name);
            keys.retain(|key, value| {
                let value: &Value = value;
                holds(&name, &wanted) || holds(key, &wanted) || value_holds(value, &wanted)
            });
            if !keys.is_empty() {
                let (count, name) = (keys.len(), shown(&name));
                let found = description(&Value::Dictionary(keys));
                text += &format!("Found {count} keys in domain '{name}': {found}\n");
            }
        }
        let complaint = text
            .is_empty()
            .then(|| format!("No domain, key, nor value containing '{word}'"));
        Output { text, complaint }
    }

    fn read_domain(&self, domain: Domain<'_>) -> Done<String> {
        let keys = self.keys(domain)?;
        if keys.is_empty() {
            self.complain_of_unreadable(domain)?;
            return Err(Refusal::Complaint(format!(
                "\nDomain {} does not exist",
                domain.written
            )));
        }
        Ok(line(&description(&Value::Dictionary(keys))))
    }

    fn value(&self, domain: Domain<'_>, key: &str) -> Done<Value> {
        match self.keys(domain)?.remove(key) {
            Some(value) => Ok(value),
            None => {
                self.complain_of_unreadable(domain)?;
                Err(no_pair(domain, key))
            }
        }
    }

    /// What is in force: of all levels, or of the one that the domain names.
    fn keys(&self, domain: Domain<'_>) -> Done<Dictionary> {
        match domain.level {
            None => Ok(self.preferences.all(domain.name)),
            Some(level) => self
                .preferences
                .read(domain.name, level)
                .map_err(|error| unreadable(domain, &error)),
        }
    }

    /// What was not found may be in a list that cannot be read: then "does not exist" would be wrong.
    fn complain_of_unreadable(&self, domain: Domain<'_>) -> Done<()> {
        for level in Level::STRONGEST_FIRST {
            if domain.level.is_none_or(|only| only == level) {
                let read = self.preferences.read(domain.name, level);
                read.map_err(|error| unreadable(domain, &error))?;
            }
        }
        Ok(())
    }

    /// Changes root's own level, all or nothing, and tells the daemon.
    fn change(
        &self,
        domain: Domain<'_>,
        change: impl FnOnce(&mut Dictionary) -> Done<()>,
    ) -> Done<()> {
        if domain.level.is_some() {
            return Err(Refusal::Complaint(format!(
                "Could not write domain {}; exiting. Only root's own preferences are written here: \
                 name the domain without its folder.",
                domain.written
            )));
        }
        let machine = Machine::new(self.layout.root());
        machine.require_root().map_err(|failure| {
            Refusal::Complaint(format!(
                "Could not write domain {}; exiting: {failure}. Nothing was changed: run it with sudo.",
                domain.written
            ))
        })?;
        let changed = self.preferences.change(domain.name, |keys| {
            let mut new = keys.clone();
            change(&mut new)?;
            *keys = new;
            Ok(())
        });
        changed.map_err(|error| {
            Refusal::Complaint(format!(
                "Could not write domain {}; exiting: {error}. Nothing was changed.",
                domain.written
            ))
        })??;
        machine.wake_daemon();
        Ok(())
    }

    fn rename(&self, domain: Domain<'_>, old: &str, new: &str) -> Done<()> {
        self.change(domain, |keys| {
            let value = keys.remove(old).ok_or_else(|| {
                Refusal::Complaint(format!(
                    "Key {old} does not exist in domain {}; leaving defaults unchanged",
                    domain.written
                ))
            })?;
            // A key of the new name is written over.
            keys.insert(new.to_owned(), value);
            Ok(())
        })
    }

    fn delete(&self, domain: Domain<'_>, key: Option<&str>) -> Done<()> {
        self.change(domain, |keys| match key {
            Some(key) => match keys.remove(key) {
                Some(_) => Ok(()),
                None => Err(no_pair(domain, key)),
            },
            None if keys.is_empty() => Err(Refusal::Complaint(format!(
                "\nDomain ({}) not found.\nDefaults have not been changed.",
                domain.in_pair()
            ))),
            None => {
                keys.clear();
                Ok(())
            }
        })
    }

    /// Adds the keys of a property list to the domain's.
    fn import(&self, domain: Domain<'_>, path: &str, stdin: &mut dyn Read) -> Done<()> {
        let read = if path.trim() == "-" {
            bounded(stdin)
        } else {
            File::open(path).and_then(bounded)
        };
        let bytes = read.map_err(|error| {
            Refusal::Complaint(format!("Could not read data from {path}: {error}"))
        })?;
        let list = property_list::decode(&bytes).map_err(|error| {
            Refusal::Complaint(format!(
                "Could not parse property list from {path} due to {error}"
            ))
        })?;
        let Value::Dictionary(new) = list else {
            return Err(Refusal::Complaint(format!(
                "Property list {} was not a dictionary\nDefaults have not been changed.",
                description(&list)
            )));
        };
        self.change(domain, |keys| {
            keys.extend(new);
            Ok(())
        })
    }

    fn export(&self, domain: Domain<'_>, path: &str) -> Done<String> {
        let keys = self.keys(domain)?;
        if keys.is_empty() {
            self.complain_of_unreadable(domain)?;
            return Err(Refusal::Complaint(format!(
                "\nThe domain {} does not exist",
                domain.in_pair()
            )));
        }
        let to_stdout = path.trim() == "-";
        let format = if to_stdout {
            Format::Xml
        } else {
            Format::Binary
        };
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::Complaint(format!(
                "Could not export domain {} to {path} due to {error}",
                domain.in_pair()
            ))
        };
        let bytes = property_list::encode(&Value::Dictionary(keys), format)
            .map_err(|error| failed(&error))?;
        if to_stdout {
            return String::from_utf8(bytes).map_err(|error| failed(&error));
        }
        let file = std::path::absolute(Path::new(path)).map_err(|error| failed(&error))?;
        files::replace(&file, &bytes, 0o600).map_err(|error| failed(&error))?;
        Ok(String::new())
    }
}

fn write(keys: &mut Dictionary, key: &str, given: Given) -> Done<()> {
    let not_a = |kind: &str| {
        Refusal::Complaint(format!(
            "Value for key {key} is not {kind}; cannot append.  Leaving defaults unchanged."
        ))
    };
    let there = keys.get(key).filter(|_| given.add).cloned();
    let value = match (given.value, there) {
        (new, None) => new,
        (Value::Array(new), Some(Value::Array(mut items))) => {
            items.extend(new);
            Value::Array(items)
        }
        (Value::Dictionary(new), Some(Value::Dictionary(mut entries))) => {
            entries.extend(new);
            Value::Dictionary(entries)
        }
        (Value::Array(_), Some(_)) => return Err(not_a("an array")),
        (_, Some(_)) => return Err(not_a("a dictionary")),
    };
    keys.insert(key.to_owned(), value);
    Ok(())
}

/// At most what a property list may have; one byte more is refused when it is decoded.
fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(property_list::MOST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn holds(text: &str, word: &str) -> bool {
    text.to_lowercase().contains(word)
}

/// Apple's tool looks at texts alone, also at those inside of containers.
fn value_holds(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => holds(text, word),
        Value::Array(items) => items.iter().any(|item| value_holds(item, word)),
        Value::Dictionary(entries) => entries
            .iter()
            .any(|(key, value)| holds(key, word) || value_holds(value, word)),
        _ => false,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Data(_) => "data",
        Value::Integer(_) => "integer",
        Value::Real(_) => "float",
        Value::Boolean(_) => "boolean",
        Value::Date(_) => "date",
        Value::Array(_) => "array",
        Value::Dictionary(_) => "dictionary",
        _ => "unknown",
    }
}

fn no_pair(domain: Domain<'_>, key: &str) -> Refusal {
    Refusal::Complaint(format!(
        "\nThe domain/default pair of ({}, {key}) does not exist",
        domain.in_pair()
    ))
}

fn unreadable(domain: Domain<'_>, error: &io::Error) -> Refusal {
    Refusal::Complaint(format!("Could not read domain {}: {error}", domain.written))
}

fn shown(name: &str) -> &str {
    if name == GLOBAL {
        "Apple Global Domain"
    } else {
        name
    }
}

fn line(text: &str) -> String {
    format!("{text}\n")
}

/// As the system log of a Mac writes it, with the process in the place of the thread.
fn log_line(now: &str, process: u32, text: &str) -> String {
    format!("{now} defaults[{process}:{process}] {text}")
}

/// `2026-11-22 15:00:00.123`.
fn time_stamp(clock: &impl Clock) -> String {
    clock.now().strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use ::domain::Timestamp;

    use super::*;

    #[test]
    fn the_global_domain_has_a_list_of_its_own() {
        let root = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(root.path());
        let ran = |words: &[&str]| {
            let output = answer(&layout, words, &mut io::empty()).expect("done");
            output.text
        };
        ran(&["write", "-g", "key", "a"]);
        ran(&["write", "com.example.app", "key", "b"]);
        assert_eq!(ran(&["read", "NSGlobalDomain", "key"]), "a\n");
        assert_eq!(ran(&["domains"]), "com.example.app\n");
        assert!(ran(&["find", "key"]).contains("in domain 'Apple Global Domain': {\n    key = a;"));
    }

    #[test]
    fn a_list_that_was_exported_can_be_imported() {
        let root = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(root.path());
        let file = root.path().join("list.plist");
        let file = file.to_str().expect("a path");
        let ran = |words: &[&str]| {
            let output = answer(&layout, words, &mut io::empty()).expect("done");
            output.text
        };
        ran(&["write", "a", "{ key = (x, y); }"]);
        ran(&["export", "a", file]);
        assert!(std::fs::read(file).expect("there").starts_with(b"bplist00"));
        ran(&["import", "b", file]);
        assert_eq!(ran(&["read", "b"]), ran(&["read", "a"]));
    }

    #[test]
    fn a_complaint_looks_like_a_line_of_the_system_log() {
        struct Fixed;
        impl Clock for Fixed {
            fn now(&self) -> Timestamp {
                "2026-11-22T15:00:00.0625Z".parse().expect("a moment")
            }

            fn elapsed(&self) -> jiff::SignedDuration {
                jiff::SignedDuration::ZERO
            }
        }
        assert_eq!(
            log_line(&time_stamp(&Fixed), 42, "\nDomain x does not exist"),
            "2026-11-22 15:00:00.062 defaults[42:42] \nDomain x does not exist"
        );
    }
}

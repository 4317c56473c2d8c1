//! The words of a command line of `defaults`, as a request.
//!
//! Which words there are, and the texts of the refusals, are those of the manual page defaults(1), of
//! the usage text that the tool prints, and of two independent public re-implementations of it that
//! agree with each other. Where they are lenient in a way that changes something by mistake, this one
//! is not: Apple's `-int` takes what is no number as 0, and here it is wrong usage.

use domain::Timestamp;
use jiff::civil::{Date, DateTime};
use plist::{Dictionary, Value};

use super::Refusal;
use super::old_style;
use crate::preferences::{GLOBAL, Level, is_domain};

/// What is asked for.
#[derive(Debug)]
pub enum Request<'a> {
    Help,
    Domains,
    Find(&'a str),
    ReadAll,
    Read(Domain<'a>, Option<&'a str>),
    ReadType(Domain<'a>, &'a str),
    WriteDomain(Domain<'a>, Dictionary),
    Write(Domain<'a>, &'a str, Given),
    Rename(Domain<'a>, &'a str, &'a str),
    Delete(Domain<'a>, Option<&'a str>),
    Import(Domain<'a>, &'a str),
    Export(Domain<'a>, &'a str),
}

/// A value to write.
#[derive(Debug)]
pub struct Given {
    pub value: Value,
    /// To what is there already (`-array-add`, `-dict-add`).
    pub add: bool,
}

/// A preference domain as somebody wrote it.
#[derive(Debug, Clone, Copy)]
pub struct Domain<'a> {
    /// The name in messages.
    pub written: &'a str,
    pub name: &'a str,
    /// One level alone, where the domain was given as the path of a list.
    pub level: Option<Level>,
}

impl<'a> Domain<'a> {
    /// Preferences of all users on a Mac, and those that device management sets.
    const FOLDERS: [(&'static str, Level); 2] = [
        ("/Library/Preferences/", Level::Machine),
        ("/Library/Managed Preferences/", Level::Managed),
    ];

    /// Apple's tool takes the path of any list for a domain. Here a path is a way to write a level of
    /// one of the agent's own domains, and never the name of a file: what such a path may be read or
    /// changed with would be root's rights.
    fn parse(written: &'a str) -> Result<Self, Refusal> {
        if matches!(
            written,
            "NSGlobalDomain" | "-g" | "-globalDomain" | "Apple Global Domain"
        ) {
            return Ok(Self {
                written: "Apple Global Domain",
                name: GLOBAL,
                level: None,
            });
        }
        for (folder, level) in Self::FOLDERS {
            if let Some(name) = written.strip_prefix(folder) {
                let name = name.strip_suffix(".plist").unwrap_or(name);
                if is_domain(name) {
                    let level = Some(level);
                    return Ok(Self {
                        written,
                        name,
                        level,
                    });
                }
            }
        }
        if written.contains('/') {
            return Err(Refusal::Complaint(format!(
                "Domain {written} is a path; only those of preference domains in \
                 /Library/Preferences and /Library/Managed Preferences are known here; leaving \
                 defaults unchanged."
            )));
        }
        if !is_domain(written) {
            return Err(Refusal::Complaint(format!(
                "\nDomain {written} does not exist"
            )));
        }
        Ok(Self {
            written,
            name: written,
            level: None,
        })
    }

    /// The name that Apple's tool puts into "the domain/default pair of (…)".
    pub fn in_pair(&self) -> &'a str {
        if self.name == GLOBAL {
            "kCFPreferencesAnyApplication"
        } else {
            self.written
        }
    }
}

impl<'a> Request<'a> {
    /// Reads a command line.
    ///
    /// # Errors
    /// With the usage or with the sentence that Apple's tool would print.
    pub fn parse(words: &[&'a str]) -> Result<Self, Refusal> {
        let words = host(words)?;
        let (verb, words) = words.split_first().ok_or(Refusal::Usage)?;
        // Apple's tool takes its verbs in any case.
        let verb = verb.to_ascii_lowercase();
        match (&*verb, words) {
            ("help", _) => return Ok(Self::Help),
            ("domains", _) => return Ok(Self::Domains),
            ("read", []) => return Ok(Self::ReadAll),
            ("find", [word, ..]) => return Ok(Self::Find(word)),
            (
                "read" | "read-type" | "write" | "rename" | "delete" | "remove" | "import"
                | "export",
                [_, ..],
            ) => {}
            _ => return Err(Refusal::Usage),
        }
        let (domain, words) = domain(words)?;
        match (&*verb, words) {
            ("read", []) => Ok(Self::Read(domain, None)),
            ("read", [key, ..]) => Ok(Self::Read(domain, Some(key))),
            ("read-type", [key, ..]) => Ok(Self::ReadType(domain, key)),
            ("write", [text]) => Ok(Self::WriteDomain(domain, whole_domain(text)?)),
            ("write", [key, value @ ..]) => Ok(Self::Write(domain, key, given(value)?)),
            ("rename", [old, new]) => Ok(Self::Rename(domain, old, new)),
            ("delete" | "remove", []) => Ok(Self::Delete(domain, None)),
            ("delete" | "remove", [key]) => Ok(Self::Delete(domain, Some(key))),
            ("import", []) => Err(Refusal::complaint("\nNeed a path to read from")),
            ("import", [path, ..]) => Ok(Self::Import(domain, path)),
            ("export", []) => Err(Refusal::complaint("\nNeed a path to write to")),
            ("export", [path, ..]) => Ok(Self::Export(domain, path)),
            _ => Err(Refusal::Usage),
        }
    }
}

/// The words behind `-currentHost`, which says nothing here: all preferences are this computer's, and
/// no home folder is shared between computers. Those of another one are out of reach.
fn host<'w, 'a>(words: &'w [&'a str]) -> Result<&'w [&'a str], Refusal> {
    match words {
        ["-currentHost", rest @ ..] => Ok(rest),
        ["-host", name, _, ..] => Err(Refusal::Complaint(format!(
            "Preferences of the host {name} are out of reach, only this computer's are here; leaving \
             defaults unchanged."
        ))),
        ["-host", ..] => Err(Refusal::Usage),
        _ => Ok(words),
    }
}

fn domain<'w, 'a>(words: &'w [&'a str]) -> Result<(Domain<'a>, &'w [&'a str]), Refusal> {
    match words {
        ["-app", name, ..] => Err(Refusal::Complaint(format!(
            "Couldn't find an application named \"{name}\"; defaults unchanged"
        ))),
        ["-app"] | [] => Err(Refusal::Usage),
        [written, rest @ ..] => Ok((Domain::parse(written)?, rest)),
    }
}

fn whole_domain(text: &str) -> Result<Dictionary, Refusal> {
    representation(text)?.into_dictionary().ok_or_else(|| {
        Refusal::complaint("\nRep argument is not a dictionary\nDefaults have not been changed.")
    })
}

/// The value of `write DOMAIN KEY …`.
fn given(words: &[&str]) -> Result<Given, Refusal> {
    let (first, rest) = words.split_first().ok_or(Refusal::Usage)?;
    let (value, rest) = match *first {
        "-array" | "-array-add" => (Value::Array(scalars(rest)?), &[][..]),
        "-dict" | "-dict-add" => (Value::Dictionary(entries(rest)?), &[][..]),
        _ => scalar(words)?,
    };
    if let [unexpected, ..] = rest {
        return Err(Refusal::Complaint(format!(
            "Unexpected argument {unexpected}; leaving defaults unchanged."
        )));
    }
    let add = matches!(*first, "-array-add" | "-dict-add");
    Ok(Given { value, add })
}

fn scalars(mut words: &[&str]) -> Result<Vec<Value>, Refusal> {
    let mut values = Vec::new();
    while !words.is_empty() {
        let (value, rest) = scalar(words)?;
        values.push(value);
        words = rest;
    }
    Ok(values)
}

fn entries(mut words: &[&str]) -> Result<Dictionary, Refusal> {
    let mut entries = Dictionary::new();
    while !words.is_empty() {
        let (Value::String(key), rest) = scalar(words)? else {
            return Err(Refusal::complaint("Dictionary keys must be strings"));
        };
        if rest.is_empty() {
            return Err(Refusal::Complaint(format!(
                "Key {key} lacks a corresponding value"
            )));
        }
        let (value, rest) = scalar(rest)?;
        entries.insert(key, value);
        words = rest;
    }
    Ok(entries)
}

/// One value with the type before it, if it has one, and the words behind it.
fn scalar<'w, 'a>(words: &'w [&'a str]) -> Result<(Value, &'w [&'a str]), Refusal> {
    let (first, rest) = words.split_first().ok_or(Refusal::Usage)?;
    let typed: fn(&str) -> Option<Value> = match *first {
        "-string" => |text| Some(text.into()),
        "-data" => |text| hexadecimal(text).map(Value::Data),
        "-int" | "-integer" => |text| text.trim().parse::<i64>().ok().map(Value::from),
        "-float" => |text| {
            let number = text.trim().parse::<f64>().ok();
            number.filter(|number| number.is_finite()).map(Value::Real)
        },
        "-bool" | "-boolean" => |text| match &*text.to_ascii_lowercase() {
            "yes" | "true" => Some(true.into()),
            "no" | "false" => Some(false.into()),
            _ => None,
        },
        "-date" => |text| moment(text).map(Value::Date),
        "-array" | "-array-add" | "-dict" | "-dict-add" => {
            return Err(Refusal::complaint(
                "Cannot nest composite types (arrays and dictionaries); exiting",
            ));
        }
        untyped => return Ok((representation(untyped)?, rest)),
    };
    let (text, rest) = rest.split_first().ok_or(Refusal::Usage)?;
    Ok((typed(text).ok_or(Refusal::Usage)?, rest))
}

/// What a text without a type stands for. One that holds none of the characters that structure a
/// property list is a string, in which escapes count.
fn representation(text: &str) -> Result<Value, Refusal> {
    let quoted;
    let text = if text.contains(|c| "\"()[]{}<>".contains(c)) {
        text
    } else {
        quoted = format!("\"{text}\"");
        &quoted
    };
    old_style::parse(text).ok_or_else(|| {
        Refusal::Complaint(format!("Could not parse: {text}.  Try single-quoting it."))
    })
}

/// Hexadecimal digits; of an odd number, the first one stands alone.
fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let padding = if digits.len() % 2 == 1 { "0" } else { "" };
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(format!("{padding}{digits}").as_bytes())
        .ok()
}

/// `2026-11-22 15:00:00 +0000`, or what RFC 3339 allows. Without a zone it is UTC. The phrases that
/// Apple's tool understands beside it ("next tuesday") are not.
fn moment(text: &str) -> Option<plist::Date> {
    let text = text.trim();
    let zoned = jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S %z", text)
        .and_then(|time| time.to_timestamp());
    let at: Timestamp = zoned
        .or_else(|_| text.parse())
        .or_else(|_| {
            let civil: DateTime = text.parse()?;
            Ok::<_, jiff::Error>(civil.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
        })
        .or_else(|_| {
            let day: Date = text.parse()?;
            Ok::<_, jiff::Error>(day.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
        })
        .ok()?;
    let whole = Timestamp::from_second(at.as_second()).ok()?;
    plist::Date::from_xml_format(&whole.to_string()).ok()
}

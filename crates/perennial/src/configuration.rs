//! The site's one configuration file, `perennial.toml`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, anyhow};
use domain::{HardwareUuid, Period};
use serde::{Deserialize, Serialize};
use site::{EnrollmentProfile, Settings};
use store::Location;

use crate::folder::SiteFolder;

/// Unknown keys are refused, with a hint: a misspelt key that silently means its default is how
/// sites get lost.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    pub name: String,
    pub hostnames: Vec<String>,
    /// `sqlite`, or a `postgres://` URL.
    pub database: String,
    #[serde(default = "default_devices")]
    pub devices: SocketAddr,
    #[serde(default = "default_console")]
    pub console: SocketAddr,
    #[serde(default = "default_check_in_interval")]
    pub check_in_interval: Period,
    #[serde(default = "default_crl_lifetime")]
    pub crl_lifetime: Period,
    /// Stamped into certificates; leave it out unless the list is published there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_url: Option<String>,
    /// Hardware UUIDs that several computers have: they are no reason to look closer.
    #[serde(default)]
    pub excluded_hardware_uuids: Vec<HardwareUuid>,
    /// How long a device runs a policy list; it asks for a new one at half of it.
    #[serde(default = "default_policy_lifetime")]
    pub policy_lifetime: Period,
    /// How long the history of a deleted device is kept.
    #[serde(default = "default_deleted_device_retention")]
    pub deleted_device_retention: Period,
    #[serde(default = "default_compliance_history")]
    pub compliance_history: Period,
    #[serde(default)]
    pub profile: EnrollmentProfile,
}

fn default_deleted_device_retention() -> Period {
    Period::from_days(30)
}

fn default_compliance_history() -> Period {
    Period::from_days(730)
}

fn default_policy_lifetime() -> Period {
    Period::from_days(30)
}

fn default_devices() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8444))
}

fn default_console() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8443))
}

fn default_check_in_interval() -> Period {
    Period::from_seconds(3600)
}

fn default_crl_lifetime() -> Period {
    Period::from_days(7)
}

impl Configuration {
    pub fn new(name: String, hostnames: Vec<String>, database: String) -> Self {
        Self {
            name,
            hostnames,
            database,
            devices: default_devices(),
            console: default_console(),
            check_in_interval: default_check_in_interval(),
            crl_lifetime: default_crl_lifetime(),
            crl_url: None,
            excluded_hardware_uuids: Vec::new(),
            policy_lifetime: default_policy_lifetime(),
            deleted_device_retention: default_deleted_device_retention(),
            compliance_history: default_compliance_history(),
            profile: EnrollmentProfile::default(),
        }
    }

    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| {
            format!(
                "cannot read {}; make a site first: perennial init",
                file.display()
            )
        })?;
        let configuration: Self = toml::from_str(&text)
            .map_err(|error| anyhow!("{}: {}", file.display(), explained(&error, &text)))?;
        configuration
            .check()
            .with_context(|| file.display().to_string())?;
        Ok(configuration)
    }

    /// The file's text, with a word about each key.
    pub fn to_toml(&self) -> anyhow::Result<String> {
        let body = toml::to_string(self)?;
        Ok(format!(
            "# A Perennial site. After a change, restart `perennial serve`.\n\
             # devices, console: where devices and administrators connect.\n\
             # Lengths of time: 90s, 15m, 8h, 45d, 2w.\n\n{body}"
        ))
    }

    /// What types alone do not say.
    pub fn check(&self) -> anyhow::Result<()> {
        let at_least = |key: &str, value: Period, least: u64| {
            let short = value.seconds() < least;
            if short {
                Err(anyhow!(
                    "{key} = \"{value}\" is too short; at least {}",
                    Period::from_seconds(least)
                ))
            } else {
                Ok(())
            }
        };
        at_least("check_in_interval", self.check_in_interval, 60)?;
        at_least("crl_lifetime", self.crl_lifetime, 3600)?;
        at_least("profile.validity", self.profile.validity, 600)?;
        at_least("policy_lifetime", self.policy_lifetime, 86_400)?;
        at_least("compliance_history", self.compliance_history, 30 * 86_400)?;
        if self.policy_lifetime > Period::from_days(365) {
            return Err(anyhow!(
                "policy_lifetime = \"{}\" is too long; at most 365d",
                self.policy_lifetime
            ));
        }
        // Each is a value in the statement that looks for conflicts.
        if self.excluded_hardware_uuids.len() > 1000 {
            return Err(anyhow!(
                "excluded_hardware_uuids has more than 1000 entries"
            ));
        }
        // "… Issuing CA" has to fit into the 64 characters of a common name.
        if self.name.trim().is_empty() || self.name.chars().count() > 48 {
            return Err(anyhow!("name has to have 1 to 48 characters"));
        }
        if self.hostnames.is_empty() {
            return Err(anyhow!(
                "hostnames is empty; clients must reach the site under some name"
            ));
        }
        self.location(&SiteFolder::new("")).map(drop)
    }

    pub fn location(&self, folder: &SiteFolder) -> anyhow::Result<Location> {
        match self.database.as_str() {
            "sqlite" => Ok(Location::Sqlite(folder.database())),
            url if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Ok(Location::Postgres(url.to_owned()))
            }
            // A URL may hold a password: it is not repeated.
            _ => Err(anyhow!(
                "database is neither `sqlite` nor a postgres:// URL"
            )),
        }
    }

    pub fn settings(&self) -> Settings {
        // Administrators on the machine itself reach it by loopback.
        let mut host_names = self.hostnames.clone();
        for local in ["127.0.0.1", "::1"] {
            if !host_names.iter().any(|name| name == local) {
                host_names.push(local.to_owned());
            }
        }
        Settings {
            name: self.name.clone(),
            host_names,
            profile: self.profile.clone(),
            check_in_interval: self.check_in_interval,
            crl_lifetime: self.crl_lifetime,
            crl_url: self.crl_url.clone(),
            excluded_hardware_uuids: self.excluded_hardware_uuids.clone(),
            policy_lifetime: self.policy_lifetime,
            deleted_device_retention: self.deleted_device_retention,
            compliance_history: self.compliance_history,
        }
    }
}

/// A parser's complaint, with its line's number and the key that was probably meant. The line itself
/// is not repeated: it may hold the database's password.
fn explained(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| {
        text[..span.start.min(text.len())].lines().count().max(1)
    });
    let message = error.message();
    match probably_meant(message) {
        Some(meant) => format!("line {line}: {message}\ndid you mean `{meant}`?"),
        None => format!("line {line}: {message}"),
    }
}

/// From "unknown field `x`, expected one of `a`, `b`": the nearest of the expected ones.
fn probably_meant(message: &str) -> Option<&str> {
    let mut quoted = message
        .strip_prefix("unknown field `")?
        .split('`')
        .step_by(2);
    let given = quoted.next()?;
    quoted
        .filter(|known| !known.is_empty())
        .map(|known| (strsim::jaro_winkler(given, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> anyhow::Result<Configuration> {
        let file =
            std::env::temp_dir().join(format!("perennial-{:?}.toml", std::thread::current().id()));
        std::fs::write(&file, text)?;
        let read = Configuration::read(&file);
        std::fs::remove_file(&file)?;
        read
    }

    const LEAST: &str = "name = \"a\"\nhostnames = [\"h\"]\ndatabase = \"sqlite\"\n";

    #[test]
    fn what_is_written_reads_back() {
        let written = Configuration::new("a".to_owned(), vec!["h".to_owned()], "sqlite".to_owned());
        let text = written.to_toml().unwrap();
        assert_eq!(site(&text).unwrap().to_toml().unwrap(), text);
    }

    #[test]
    fn misspelt_keys_are_refused_with_a_hint() {
        for (line, hint) in [
            (
                "chek_in_interval = \"1h\"",
                "did you mean `check_in_interval`?",
            ),
            ("[profile]\nvaliditty = \"1d\"", "did you mean `validity`?"),
        ] {
            let error = site(&format!("{LEAST}{line}\n")).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn impossible_values_are_refused() {
        for line in [
            "check_in_interval = \"1s\"",
            "crl_lifetime = \"soon\"",
            "policy_lifetime = \"1h\"",
            "policy_lifetime = \"366d\"",
            "excluded_hardware_uuids = [\"none\"]",
            "[profile]\nvalidity = \"1m\"",
        ] {
            assert!(site(&format!("{LEAST}{line}\n")).is_err(), "{line}");
        }
        let error = site(&LEAST.replace("sqlite", "mysql://u:secret@h/d")).unwrap_err();
        assert!(!format!("{error:#}").contains("secret"));
        let error = site("database = \"postgres://u:secret@h/d\n").unwrap_err();
        assert!(!format!("{error:#}").contains("secret"), "{error:#}");
    }
}

//! Words and options for configuration items, baselines, deployments, exemptions and policy.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use domain::compliance::{
    ApplicationId, BaselineName, DataType, EvaluationSchedule, ExemptionReason, ItemName, KeyPath,
    OperatingSystem, RemediationWindow, RuleName, SettingName, Severity,
};
use domain::{CollectionName, Period, Timestamp};

#[derive(Subcommand)]
pub enum ConfigurationItem {
    /// Make a configuration item
    ///
    /// With options, an item of one setting and one rule: a script that prints a value, or a
    /// preference, and what the value must be. Anything larger is read from a file: see what
    /// `perennial ci show NAME --json` prints.
    #[command(after_help = "\
Examples:
  perennial ci create 'Remove SMSID for Mac' --type macOS \\
      --setting 'Remove SMSID for Mac' --data-type string \\
      --discovery discover.sh --remediation remove.sh --operator equals \\
      --value 'The domain/default pair of (com.microsoft.ccmclient, SMSID) does not exist' --remediate
  perennial ci create Screensaver --type macOS --data-type integer \\
      --preference com.apple.screensaver:/idleTime --operator less-than-or-equal-to --value 600
  perennial ci create 'CIS 1.1' --file item.json")]
    Create {
        name: ItemName,
        #[command(flatten)]
        source: NewItemSource,
    },
    /// Change a configuration item: this makes a new revision
    ///
    /// Options change what they name and leave the rest. --file replaces everything. Where an item has
    /// several settings or rules, --setting and --rule say which one is changed. What changes nothing
    /// makes no revision.
    Set {
        name: ItemName,
        #[command(flatten)]
        change: ItemChange,
    },
    /// List configuration items
    List,
    /// Show a configuration item with its scripts; with --json, what --file reads
    Show {
        name: ItemName,
        /// An older revision (default: the latest).
        #[arg(long, value_name = "NUMBER")]
        revision: Option<u32>,
    },
    /// List the revisions of a configuration item, newest first: when, and by whom
    History { name: ItemName },
    /// Show what changed between two revisions
    Diff { name: ItemName, from: u32, to: u32 },
    /// Run the discovery script of a setting once on one device, and show what it printed
    ///
    /// The device gets the script at its next check-in. Nothing is compared and nothing is
    /// remediated. The audit log keeps who ran which revision on which device.
    Test {
        item: ItemName,
        /// Identifier or host name.
        device: String,
        /// Which setting.
        #[arg(long, value_name = "NAME")]
        setting: SettingName,
        /// An older revision (default: the latest).
        #[arg(long, value_name = "NUMBER")]
        revision: Option<u32>,
        /// How long the device may take to fetch it.
        #[arg(long, value_name = "PERIOD", default_value = "7d")]
        expires: Period,
        /// How long to wait here for the answer; `0s`: not at all.
        #[arg(long, value_name = "PERIOD", default_value = "15m")]
        wait: Period,
    },
    /// Delete a configuration item that no baseline uses; its revisions stay in the records
    Delete {
        name: ItemName,
        /// Do not ask on the terminal.
        #[arg(long)]
        yes: bool,
    },
}

/// A whole item, or its one setting and its one rule.
#[derive(Args)]
pub struct NewItemSource {
    /// Read the whole item from this JSON file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["os", "description", "category",
        "setting", "data_type", "discovery", "preference", "remediation", "time_limit", "rule",
        "operator", "value", "severity", "remediate"])]
    pub file: Option<PathBuf>,
    /// For which computers: macOS (the incumbent's "Mac OS X") or Linux, all versions; can be repeated.
    #[arg(long = "type", value_name = "TYPE", value_parser = operating_system,
        required_unless_present = "file")]
    pub os: Vec<OperatingSystem>,
    /// What it is for, in your words.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A word to find it by; can be repeated.
    #[arg(long, value_name = "WORD")]
    pub category: Vec<String>,
    /// The setting's name (default: the item's).
    #[arg(long, value_name = "NAME")]
    pub setting: Option<SettingName>,
    /// What the value is: string, integer, floating-point, version, date-and-time or boolean.
    #[arg(long, value_name = "TYPE", required_unless_present = "file")]
    pub data_type: Option<DataType>,
    /// The script that prints the value. Its first line names its interpreter; without one it is
    /// /bin/sh.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["file", "preference"],
        conflicts_with = "preference")]
    pub discovery: Option<PathBuf>,
    /// A preference in the place of a script: domain or property list, and key, such as
    /// com.example.app:/Dictionary/Key.
    #[arg(long, value_name = "APP:/KEY")]
    pub preference: Option<Preference>,
    /// The script that mends it.
    #[arg(long, value_name = "FILE", conflicts_with = "preference")]
    pub remediation: Option<PathBuf>,
    /// How long each script may take, 1s to 1h (default: 60s).
    #[arg(long, value_name = "PERIOD", conflicts_with = "preference")]
    pub time_limit: Option<Period>,
    /// The rule's name (default: the setting's).
    #[arg(long, value_name = "NAME")]
    pub rule: Option<RuleName>,
    /// equals, not-equal-to, greater-than, less-than, between, greater-than-or-equal-to,
    /// less-than-or-equal-to, one-of, none-of; or must-exist, must-not-exist, which take no value.
    #[arg(long, value_name = "OPERATOR", required_unless_present = "file")]
    pub operator: Option<RuleOperator>,
    /// What it is compared with; repeated for between, one-of and none-of.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub value: Vec<String>,
    /// How bad it is when the rule is not kept: none, information, warning, critical or
    /// critical-with-event (default: none).
    #[arg(long, value_name = "SEVERITY")]
    pub severity: Option<Severity>,
    /// Run the specified remediation script when this setting is noncompliant; where the deployment
    /// says so, too. Of a preference: write the value.
    #[arg(long)]
    pub remediate: bool,
}

/// What of an item changes.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct ItemChange {
    /// Replace the whole item by the one in this JSON file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["os", "description", "category",
        "setting", "data_type", "discovery", "preference", "remediation", "no_remediation",
        "time_limit", "rule", "operator", "value", "severity", "remediate", "no_remediate"])]
    pub file: Option<PathBuf>,
    /// Only when this is the latest revision.
    #[arg(long, value_name = "NUMBER")]
    pub if_revision: Option<u32>,
    /// For which computers: macOS or Linux, all versions; replaces the platforms.
    #[arg(long = "type", value_name = "TYPE", value_parser = operating_system)]
    pub os: Vec<OperatingSystem>,
    /// Another description.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Replaces the categories; can be repeated.
    #[arg(long, value_name = "WORD")]
    pub category: Vec<String>,
    /// Which setting is changed; needed when there are several.
    #[arg(long, value_name = "NAME")]
    pub setting: Option<SettingName>,
    /// The data type of the setting and of its rules.
    #[arg(long, value_name = "TYPE")]
    pub data_type: Option<DataType>,
    /// Another script that prints the value.
    #[arg(long, value_name = "FILE", conflicts_with = "preference")]
    pub discovery: Option<PathBuf>,
    /// A preference: com.example.app:/Dictionary/Key.
    #[arg(long, value_name = "APP:/KEY")]
    pub preference: Option<Preference>,
    /// Another script that mends it.
    #[arg(long, value_name = "FILE", conflicts_with = "preference")]
    pub remediation: Option<PathBuf>,
    /// Take the remediation script away.
    #[arg(long, conflicts_with = "remediation")]
    pub no_remediation: bool,
    /// How long each script may take, 1s to 1h.
    #[arg(long, value_name = "PERIOD")]
    pub time_limit: Option<Period>,
    /// Which rule is changed; needed when there are several.
    #[arg(long, value_name = "NAME")]
    pub rule: Option<RuleName>,
    /// Another operator; the words are those of `perennial ci create --help`.
    #[arg(long, value_name = "OPERATOR")]
    pub operator: Option<RuleOperator>,
    /// Another value; repeated for between, one-of and none-of.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub value: Vec<String>,
    /// none, information, warning, critical or critical-with-event.
    #[arg(long, value_name = "SEVERITY")]
    pub severity: Option<Severity>,
    /// Run the remediation when the setting is noncompliant.
    #[arg(long)]
    pub remediate: bool,
    /// Do not run the remediation any more.
    #[arg(long, conflicts_with = "remediate")]
    pub no_remediate: bool,
}

/// The incumbent's name of an operating system is taken, too.
fn operating_system(given: &str) -> Result<OperatingSystem, String> {
    match given.to_ascii_lowercase().as_str() {
        "macos" | "mac os x" => Ok(OperatingSystem::MacOs),
        "linux" => Ok(OperatingSystem::Linux),
        _ => Err("it is macOS or Linux".to_owned()),
    }
}

/// A domain or a property list, and a key in it.
#[derive(Debug, Clone)]
pub struct Preference {
    pub application_id: ApplicationId,
    pub key: KeyPath,
}

impl FromStr for Preference {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let (application, key) = given
            .split_once(":/")
            .ok_or("write it like com.example.app:/Dictionary/Key")?;
        Ok(Self {
            application_id: application.parse().map_err(|error| format!("{error}"))?,
            key: format!("/{key}")
                .parse()
                .map_err(|error| format!("{error}"))?,
        })
    }
}

/// An operator of a value, or whether there must be one.
#[derive(Debug, Clone, Copy)]
pub enum RuleOperator {
    Value(domain::compliance::Operator),
    Existential(domain::compliance::Existence),
}

impl FromStr for RuleOperator {
    type Err = domain::UnknownWord;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        match given.parse() {
            Ok(existence) => Ok(Self::Existential(existence)),
            Err(_) => given.parse().map(Self::Value),
        }
    }
}

#[derive(Subcommand)]
pub enum Baseline {
    /// Make a configuration baseline
    #[command(after_help = "\
Examples:
  perennial baseline create 'Renew Macs' --ci 'Remove SMSID for Mac'
  perennial baseline create Laptops --ci Screensaver@3 --baseline 'Renew Macs'")]
    Create {
        name: BaselineName,
        /// A configuration item: always its latest revision, or with @NUMBER a fixed one; can be
        /// repeated.
        #[arg(
            long,
            value_name = "NAME[@REVISION]",
            required_unless_present = "baseline"
        )]
        ci: Vec<ItemPart>,
        /// Another baseline that becomes a part of it; can be repeated.
        #[arg(long, value_name = "NAME")]
        baseline: Vec<BaselineName>,
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        description: String,
        /// It is evaluated nowhere until it is enabled.
        #[arg(long)]
        disabled: bool,
    },
    /// Change a baseline
    Set {
        name: BaselineName,
        #[command(flatten)]
        change: BaselineChange,
    },
    /// List baselines
    List,
    /// Show a baseline with all that is in it
    Show { name: BaselineName },
    /// Delete a baseline that neither a deployment nor another baseline uses
    Delete {
        name: BaselineName,
        /// Do not ask on the terminal.
        #[arg(long)]
        yes: bool,
    },
}

/// What of a baseline changes.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct BaselineChange {
    /// Add a configuration item, or give one another revision: NAME is the latest, NAME@NUMBER a fixed
    /// one; can be repeated.
    #[arg(long, value_name = "NAME[@REVISION]")]
    pub ci: Vec<ItemPart>,
    /// Take a configuration item out; can be repeated.
    #[arg(long, value_name = "NAME")]
    pub remove_ci: Vec<ItemName>,
    /// Add another baseline; can be repeated.
    #[arg(long, value_name = "NAME")]
    pub baseline: Vec<BaselineName>,
    /// Take another baseline out; can be repeated.
    #[arg(long, value_name = "NAME")]
    pub remove_baseline: Vec<BaselineName>,
    /// Another description.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Evaluate it where it is deployed.
    #[arg(long)]
    pub enable: bool,
    /// Evaluate it nowhere.
    #[arg(long, conflicts_with = "enable")]
    pub disable: bool,
}

/// A configuration item in a baseline. A name may hold an @; `NAME@latest` is always possible.
#[derive(Debug, Clone)]
pub struct ItemPart {
    pub name: ItemName,
    pub revision: Option<u32>,
}

impl FromStr for ItemPart {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let (name, revision) = match given.rsplit_once('@') {
            Some((name, "latest")) => (name, None),
            Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                let revision = number
                    .parse()
                    .ok()
                    .filter(|revision| *revision > 0)
                    .ok_or("revisions are counted from 1")?;
                (name, Some(revision))
            }
            _ => (given, None),
        };
        Ok(Self {
            name: name.parse().map_err(|error| format!("{error}"))?,
            revision,
        })
    }
}

#[derive(Subcommand)]
pub enum Deployment {
    /// Deploy a baseline to the devices of a collection
    #[command(after_help = "\
Examples:
  perennial deployment create --baseline 'Renew Macs' --collection Labs --remediate
  perennial deployment create --baseline Laptops --collection 'All Macs' --cron '0 9 * * 1-5' \\
      --alert-below 90 --alert-at 2027-01-31")]
    Create {
        /// What is evaluated.
        #[arg(long, value_name = "NAME")]
        baseline: BaselineName,
        /// The devices, whoever they are at the time.
        #[arg(long, value_name = "NAME")]
        collection: CollectionName,
        #[command(flatten)]
        options: DeploymentOptions,
    },
    /// Change a deployment: options change what they name and leave the rest
    Set {
        number: i64,
        /// Another baseline.
        #[arg(long, value_name = "NAME")]
        baseline: Option<BaselineName>,
        /// Other devices.
        #[arg(long, value_name = "NAME")]
        collection: Option<CollectionName>,
        #[command(flatten)]
        options: DeploymentOptions,
        /// Only look, do not remediate.
        #[arg(long, conflicts_with = "remediate")]
        no_remediate: bool,
        /// Remediate at any time.
        #[arg(long, conflicts_with = "remediation_window")]
        no_remediation_window: bool,
        /// No alert any more.
        #[arg(long, conflicts_with = "alert_below")]
        no_alert: bool,
    },
    /// List deployments
    List,
    /// Show a deployment, and which revisions its devices get
    Show { number: i64 },
    /// Delete a deployment: its devices stop to evaluate it
    Delete {
        number: i64,
        /// Do not ask on the terminal.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args)]
pub struct DeploymentOptions {
    /// Remediate what is noncompliant, by the rules that say so, too.
    #[arg(long)]
    pub remediate: bool,
    /// How often it is evaluated: 30m, 8h, 7d (default: 7d).
    #[arg(long, value_name = "PERIOD", conflicts_with = "cron", value_parser = every)]
    pub every: Option<EvaluationSchedule>,
    /// When it is evaluated, in the client's local time: minute, hour, day of the month, month, day of
    /// the week.
    #[arg(long, value_name = "'0 9 * * 1-5'", value_parser = cron)]
    pub cron: Option<EvaluationSchedule>,
    /// Clients spread over this time after each planned moment (default: 2h).
    #[arg(long, value_name = "PERIOD")]
    pub spread: Option<Period>,
    /// Remediate only in this part of the day, in the client's local time.
    #[arg(long, value_name = "22:00-06:00")]
    pub remediation_window: Option<RemediationWindow>,
    /// A device that has not reported for so long is unknown (default: 30d).
    #[arg(long, value_name = "PERIOD")]
    pub stale_after: Option<Period>,
    /// Raise an alert when less than this percentage of the devices is compliant at --alert-at.
    #[arg(long, value_name = "PERCENT", requires = "alert_at",
        value_parser = clap::value_parser!(u8).range(1..=100))]
    pub alert_below: Option<u8>,
    /// A date such as 2027-01-31 (its beginning in UTC), or a moment such as 2027-01-31T18:00:00Z.
    #[arg(long, value_name = "DATE", requires = "alert_below")]
    pub alert_at: Option<Date>,
}

fn every(given: &str) -> Result<EvaluationSchedule, String> {
    match given.parse() {
        Ok(EvaluationSchedule::Cron(_)) => {
            Err("that is a cron expression; say it with --cron".to_owned())
        }
        Ok(every) => Ok(every),
        Err(error) => Err(format!("{error}")),
    }
}

fn cron(given: &str) -> Result<EvaluationSchedule, String> {
    match given.parse() {
        Ok(EvaluationSchedule::Every(_)) => {
            Err("that is a length of time; say it with --every".to_owned())
        }
        Ok(cron) => Ok(cron),
        Err(error) => Err(format!("{error}")),
    }
}

/// A date, or a moment.
#[derive(Debug, Clone, Copy)]
pub struct Date(pub Timestamp);

impl FromStr for Date {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let midnight = || format!("{given}T00:00:00Z").parse();
        let moment = given.parse().or_else(|_| midnight());
        moment
            .map(Self)
            .map_err(|_| format!("`{given}` is no date; write 2027-01-31, or 2027-01-31T18:00:00Z"))
    }
}

#[derive(Subcommand)]
pub enum Exemption {
    /// Exempt a device, or the members of a collection, from a rule
    #[command(after_help = "\
Example:
  perennial exemption create --ci Screensaver --rule Screensaver --device lobby-1 \\
      --reason 'a display in the lobby' --until 2027-01-31")]
    Create {
        /// The configuration item.
        #[arg(long, value_name = "NAME")]
        ci: ItemName,
        /// Its rule, in whatever revision.
        #[arg(long, value_name = "NAME")]
        rule: RuleName,
        #[command(flatten)]
        who: Exempted,
        /// Why, in a sentence, for those who come after you.
        #[arg(long, value_name = "TEXT")]
        reason: ExemptionReason,
        /// When it ends: 2027-01-31 (its beginning in UTC), or 2027-01-31T18:00:00Z (default: when it
        /// is removed).
        #[arg(long, value_name = "DATE")]
        until: Option<Date>,
    },
    /// List exemptions, newest first
    List {
        /// Those that ended, too.
        #[arg(long)]
        all: bool,
        /// Of one device itself: identifier or host name.
        #[arg(long)]
        device: Option<String>,
        /// Of one configuration item.
        #[arg(long, value_name = "NAME")]
        ci: Option<ItemName>,
    },
    /// End an exemption; it stays in the records
    Remove { number: i64 },
}

/// Who is exempted.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Exempted {
    /// One device: identifier or host name.
    #[arg(long)]
    pub device: Option<String>,
    /// The members of a collection, whoever they are at the time.
    #[arg(long, value_name = "NAME")]
    pub collection: Option<CollectionName>,
}

#[derive(Subcommand)]
pub enum Policy {
    /// Show the policy's version, and until when it can be signed
    Show,
    /// Make a new policy key in the site's folder
    ///
    /// It needs --site and the root's key (keys/root.key). Running nodes use the new key at their next
    /// signature, without a restart; copy keys/policy.key to the other nodes that sign. Devices take it
    /// at once, also those that slept: it is under the root that they pinned.
    RotateKey {
        /// Do not ask on the terminal.
        #[arg(long)]
        yes: bool,
    },
    /// Let devices take the policy of a site that was restored from a backup
    ///
    /// The counter of a restored site stepped back, and devices refuse lists that are older than those
    /// they saw.
    RaiseEpoch {
        /// Do not ask on the terminal.
        #[arg(long)]
        yes: bool,
    },
}

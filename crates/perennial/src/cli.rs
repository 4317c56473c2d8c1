//! The command line: words, options and their help.

pub mod compliance;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::{
    BaselineName, CertificateState, CollectionName, ComplianceState, DeviceState, ExplanationUrl,
    Filter, Period, Pin, RevocationReason, RuleName, SerialNumber, Timestamp,
};
use transport::ServerAddress;

/// Keeps client computers' identities alive: enrolls them, renews their certificates silently,
/// watches the whole fleet, and revokes what leaves.
#[derive(Parser)]
#[command(
    name = "perennial",
    version,
    after_help = "\
Begin with:
  perennial init --site /srv/perennial --name Example --hostname site.example.com
  perennial serve --site /srv/perennial
  perennial user add ann --site /srv/perennial

Exit codes: 0 done, 1 failed, 2 wrong usage, 4 refused by the site, 5 not reachable."
)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make a new site
    Init(Init),
    /// Run a site
    Serve(Serve),
    #[command(flatten)]
    Administer(Box<Administer>),
}

/// Makes a new site: its folder with keys, database, configuration, and the first administrator's
/// token. Can be repeated: what is there is kept.
#[derive(Args)]
pub struct Init {
    /// The site's name, as people see it.
    #[arg(long)]
    pub name: String,
    /// Name or address under which clients reach the site (can be repeated; default: this
    /// machine's name).
    #[arg(long, value_name = "HOST")]
    pub hostname: Vec<String>,
    /// `sqlite` (a file in the folder) or a `postgres://` URL.
    #[arg(long, default_value = "sqlite")]
    pub database: String,
}

/// Runs the site. Prints one line when it is ready; ends gracefully on SIGTERM or Ctrl-C.
#[derive(Args)]
pub struct Serve {
    /// Where devices connect (default: from the configuration).
    #[arg(long, value_name = "ADDR")]
    pub devices: Option<SocketAddr>,
    /// Where administrators connect (default: from the configuration).
    #[arg(long, value_name = "ADDR")]
    pub console: Option<SocketAddr>,
}

/// How to reach the site: by its folder on this machine, or by address, pin and token.
#[derive(Args, Clone)]
pub struct Connection {
    /// The folder of a site on this machine. The administrator's commands find address, pin and
    /// token there.
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        help_heading = "Connection",
        env = "PERENNIAL_SITE",
        conflicts_with = "server"
    )]
    pub site: Option<PathBuf>,
    /// The console's address; its port is 8443 when it is not said.
    #[arg(
        value_parser = console_address,
        long,
        value_name = "HOST:PORT",
        global = true,
        help_heading = "Connection",
        requires = "pin",
        requires = "token"
    )]
    pub server: Option<ServerAddress>,
    /// The site's pin, as `perennial serve` prints it.
    #[arg(
        long,
        value_name = "sha256:…",
        global = true,
        help_heading = "Connection"
    )]
    pub pin: Option<Pin>,
    /// A file that holds an access token.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Connection")]
    pub token: Option<PathBuf>,
}

fn console_address(given: &str) -> Result<ServerAddress, transport::InvalidAddress> {
    ServerAddress::parse(given, 8443)
}

/// How lists are printed.
#[derive(Args, Clone, Copy)]
pub struct Format {
    /// Print JSON.
    #[arg(long, global = true, conflicts_with = "csv", help_heading = "Output")]
    pub json: bool,
    /// Print comma-separated values (RFC 4180).
    #[arg(long, global = true, help_heading = "Output")]
    pub csv: bool,
}

#[derive(Subcommand)]
pub enum Administer {
    /// Users who may enroll: the site's local accounts
    User {
        #[command(subcommand)]
        command: User,
        #[command(flatten)]
        format: Format,
    },
    /// Enrolled devices
    Device {
        #[command(subcommand)]
        command: Device,
        #[command(flatten)]
        format: Format,
    },
    /// Certificates that the site issued
    Certificate {
        #[command(subcommand)]
        command: Certificate,
        #[command(flatten)]
        format: Format,
    },
    /// The audit log
    Audit {
        #[command(subcommand)]
        command: Audit,
        #[command(flatten)]
        format: Format,
    },
    /// What an administrator should look at
    Alert {
        #[command(subcommand)]
        command: Alert,
        #[command(flatten)]
        format: Format,
    },
    /// The site's clock
    Clock {
        #[command(subcommand)]
        command: Clock,
        #[command(flatten)]
        format: Format,
    },
    /// The revocation list
    Crl {
        #[command(subcommand)]
        command: Crl,
        #[command(flatten)]
        format: Format,
    },
    /// Collections: groups of devices, named or found by rules
    Collection {
        #[command(subcommand)]
        command: Collection,
        #[command(flatten)]
        format: Format,
    },
    /// Configuration items: what you want to know of clients, and how it is mended
    #[command(alias = "configuration-item")]
    Ci {
        #[command(subcommand)]
        command: compliance::ConfigurationItem,
        #[command(flatten)]
        format: Format,
    },
    /// Configuration baselines: configuration items under one name
    Baseline {
        #[command(subcommand)]
        command: compliance::Baseline,
        #[command(flatten)]
        format: Format,
    },
    /// Deployments: a baseline for the devices of a collection
    Deployment {
        #[command(subcommand)]
        command: compliance::Deployment,
        #[command(flatten)]
        format: Format,
    },
    /// Exemptions: rules that some devices need not keep
    Exemption {
        #[command(subcommand)]
        command: compliance::Exemption,
        #[command(flatten)]
        format: Format,
    },
    /// The policy that devices get, and the key that signs it
    Policy {
        #[command(subcommand)]
        command: compliance::Policy,
        #[command(flatten)]
        format: Format,
    },
    /// How devices comply with baselines, now and before
    Compliance {
        #[command(subcommand)]
        command: Compliance,
        #[command(flatten)]
        format: Format,
    },
    /// Renewals that are moved: after a trouble with the CA, or before a holiday
    RenewalWindow {
        #[command(subcommand)]
        command: RenewalWindow,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Subcommand)]
pub enum User {
    /// Add a user; asks for the password
    Add {
        name: String,
        /// The name that certificates carry (default: the user name).
        #[arg(long)]
        common_name: Option<String>,
        /// Read the password from standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// List users
    List,
    /// Remove a user: no more enrollments; devices and certificates stay
    Remove { name: String },
    /// Set a user's password; asks for it
    Passwd {
        name: String,
        /// Read the password from standard input.
        #[arg(long)]
        password_stdin: bool,
    },
}

#[derive(Subcommand)]
pub enum Device {
    /// List devices
    List {
        #[arg(long, value_enum)]
        state: Option<DeviceStateWord>,
        /// Host names that begin like this.
        #[arg(long)]
        name: Option<String>,
    },
    /// Show a device and its certificates
    Show {
        /// Identifier (with or without GUID:) or host name.
        device: String,
    },
    /// Revoke a device's certificates and delete it; its history stays for a retention time
    ///
    /// Until `deleted_device_retention` (30d) has passed, `device list --state deleted` shows it and
    /// `device export` has its history. The records that it replaced go with it.
    Delete { device: String },
    /// Refuse a device until it is unblocked
    Block { device: String },
    /// Accept a blocked device again
    Unblock { device: String },
    /// Let a device renew once after its certificate expired; it still has to prove its old key
    AllowRenewal {
        device: String,
        /// How long the permission lasts: 45d, 8h, 2w.
        #[arg(long, value_name = "PERIOD", default_value = "30d")]
        within: Period,
    },
    /// Tell a device to do something at its next check-in, once
    ///
    /// renew: renew the certificate now. evaluate: evaluate all deployments now. check-in: report
    /// facts. uninstall: leave the site and remove the client.
    Command {
        device: String,
        #[arg(value_enum)]
        command: CommandWord,
        /// When it is not done any more.
        #[arg(long, value_name = "PERIOD", default_value = "7d")]
        expires: Period,
        /// Do not ask on the terminal (for uninstall).
        #[arg(long)]
        yes: bool,
    },
    /// List the commands that a device was given, newest first, and what became of them
    Commands { device: String },
    /// Retire a device and revoke all its certificates
    Revoke {
        device: String,
        /// One of RFC 5280's reasons, such as keyCompromise.
        #[arg(long)]
        reason: Option<RevocationReason>,
    },
    /// List active devices that claim the same hardware
    ///
    /// A computer that enrolled again without proof of its old key has two records. So has a disk
    /// that was cloned, and whoever lies. Answer each pair with one of: device merge OLD --into NEW;
    /// device keep-both OLD NEW; device block DEVICE.
    Conflicts,
    /// Make two records of one computer one
    ///
    /// OLD becomes obsolete: its certificates are revoked, NEW takes its place in collections, and
    /// `device show NEW` has its history. There is no way back. Whoever works on NEW's computer must
    /// be the one who owned OLD's: look at both before.
    Merge {
        /// The record that ends: identifier or host name.
        old: String,
        /// The record that stays.
        #[arg(long, value_name = "NEW")]
        into: String,
        /// Do not ask on the terminal.
        #[arg(long)]
        yes: bool,
    },
    /// Two devices are two, though they claim the same hardware
    KeepBoth { a: String, b: String },
    /// Write all that is known of a device as one JSON document
    ///
    /// The record, its certificates, the records that it replaced, and what the audit log has about
    /// them. Also of a deleted device, by its identifier, until its retention time is over.
    Export {
        device: String,
        /// Write it to this file instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// What `device command` tells a device.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CommandWord {
    Renew,
    Evaluate,
    CheckIn,
    Uninstall,
}

#[derive(Subcommand)]
pub enum Alert {
    /// List open alerts, newest first
    List {
        /// Closed ones, too.
        #[arg(long)]
        all: bool,
        /// Of one device: identifier or host name.
        #[arg(long)]
        device: Option<String>,
    },
    /// Close an alert: somebody looked at it
    Close { number: i64 },
}

#[derive(Subcommand)]
pub enum Clock {
    /// Show what time the site goes by, and whether the machine's clock stepped
    Show,
    /// Believe the machine's clock after it stepped, and issue certificates again
    Accept,
}

#[derive(Subcommand)]
pub enum Certificate {
    /// List certificates, first to expire first
    List {
        /// Valid ones that expire within this time: 45d, 8h, 2w.
        #[arg(long, value_name = "PERIOD")]
        expiring_within: Option<Period>,
        #[arg(long, value_enum)]
        state: Option<CertificateStateWord>,
        /// Of one device: identifier or host name.
        #[arg(long)]
        device: Option<String>,
    },
    /// Show a certificate
    Show {
        serial: SerialNumber,
        /// Print it as PEM.
        #[arg(long)]
        pem: bool,
    },
    /// Revoke a certificate
    Revoke {
        serial: SerialNumber,
        /// One of RFC 5280's reasons, such as keyCompromise.
        #[arg(long)]
        reason: Option<RevocationReason>,
    },
}

#[derive(Subcommand)]
pub enum Audit {
    /// List events, newest first
    List {
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Check that nothing in the log was changed or taken away
    Verify,
}

#[derive(Subcommand)]
pub enum Crl {
    /// Show the revocation list
    Show {
        /// Write it, in DER, to this file instead.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub enum Collection {
    /// Make a collection
    ///
    /// Without a query and inclusions it has the devices that you add. Its limiting collection is All
    /// Devices when you do not say another one.
    #[command(after_help = QUERY_HELP)]
    Create {
        name: CollectionName,
        /// Its limiting collection: only members of that one become members.
        #[arg(long, value_name = "COLLECTION")]
        limit_to: Option<CollectionName>,
        /// Devices that this means become members.
        #[arg(long, value_name = "EXPR")]
        query: Option<Filter>,
        /// Members of that collection become members (can be repeated).
        #[arg(long, value_name = "COLLECTION")]
        include: Vec<CollectionName>,
        /// Members of that collection are no members, whatever else makes them so (can be repeated).
        #[arg(long, value_name = "COLLECTION")]
        exclude: Vec<CollectionName>,
    },
    /// Change a collection's rules; what you do not say stays
    ///
    /// Its members, and those of collections that depend on it, are found in the background: `collection
    /// show` tells how far that is.
    #[command(after_help = QUERY_HELP)]
    Set {
        name: CollectionName,
        #[command(flatten)]
        changes: RuleChanges,
    },
    /// List collections
    List,
    /// Show a collection, its rules and its members
    #[command(visible_alias = "rules")]
    Show { name: CollectionName },
    /// List a collection's members
    Members { name: CollectionName },
    /// Count whom a query means, and show the first ones, without saving it
    #[command(after_help = QUERY_HELP)]
    Preview {
        #[arg(long, value_name = "EXPR")]
        query: Filter,
        /// Among the members of that collection (default: All Devices).
        #[arg(long, value_name = "COLLECTION")]
        limit_to: Option<CollectionName>,
    },
    /// List what a query can ask for
    Fields,
    /// Add devices to a collection
    ///
    /// Devices that were added already stay. When one is unknown, it is named, and none of its
    /// request (1,000 devices) is added: mend the list and repeat.
    Add {
        name: CollectionName,
        #[command(flatten)]
        devices: DeviceList,
    },
    /// Remove devices that were added to a collection; the devices stay
    ///
    /// Devices that are members by a query or an included collection stay members.
    Remove {
        name: CollectionName,
        #[command(flatten)]
        devices: DeviceList,
    },
    /// Delete a collection; its devices stay
    Delete { name: CollectionName },
}

const QUERY_HELP: &str = r#"A query compares fields:
  'os.name == "macOS" && os.version < v"14.4"'
  'certificate.days_left < 45 && !(user.name in ["ann", "bob"])'
  'device.last_seen_days_ago >= 30 || device.last_seen_days_ago == null'
`perennial collection fields` lists the fields; docs/filter-language.md has the grammar."#;

/// What changes about a collection's rules.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct RuleChanges {
    /// Another limiting collection.
    #[arg(long, value_name = "COLLECTION")]
    pub limit_to: Option<CollectionName>,
    /// Another query.
    #[arg(long, value_name = "EXPR", conflicts_with = "no_query")]
    pub query: Option<Filter>,
    /// No query any more.
    #[arg(long)]
    pub no_query: bool,
    /// These collections are included, and no others (can be repeated).
    #[arg(long, value_name = "COLLECTION", conflicts_with = "no_include")]
    pub include: Vec<CollectionName>,
    /// No collection is included any more.
    #[arg(long)]
    pub no_include: bool,
    /// These collections are excluded, and no others (can be repeated).
    #[arg(long, value_name = "COLLECTION", conflicts_with = "no_exclude")]
    pub exclude: Vec<CollectionName>,
    /// No collection is excluded any more.
    #[arg(long)]
    pub no_exclude: bool,
}

/// The states are: compliant; remediated (it was not, and the remediation mended it); non-compliant;
/// remediation-failed; error (it could not be found out); not-applicable (made for another platform);
/// exempt; unknown (not reported yet, or too long ago).
#[derive(Subcommand)]
pub enum Compliance {
    /// Show how many devices comply with each deployment
    ///
    /// A device stands as the worst of the deployment's rules; remediated counts as compliant, and a
    /// failed remediation as non-compliant. It is unknown until it has reported all rules, and again
    /// when it has not evaluated for the deployment's stale time. PERCENT leaves out devices for
    /// which nothing is applicable, and those that are exempt.
    Summary {
        /// One deployment, by its number.
        #[arg(long, value_name = "NUMBER", conflicts_with = "baseline")]
        deployment: Option<i64>,
        /// The deployments of one baseline.
        #[arg(long, value_name = "NAME")]
        baseline: Option<BaselineName>,
    },
    /// Show how many devices of a deployment keep each rule
    Rules {
        #[arg(long, value_name = "NUMBER")]
        deployment: i64,
    },
    /// List the devices of a deployment
    Devices {
        #[arg(long, value_name = "NUMBER")]
        deployment: i64,
        /// Only those in this state, such as non-compliant or unknown.
        #[arg(long)]
        state: Option<ComplianceState>,
    },
    /// Show what concerns a device: its deployments and rules, with what was found, and since when
    Device {
        /// Identifier (with or without GUID:) or host name.
        device: String,
        /// Compliant rules, too, and those that are not applicable.
        #[arg(long)]
        all: bool,
    },
    /// Show how rules stood on a device: since when, until when, and what became of it
    ///
    /// Newest first. `remediated` after `non-compliant` says that the remediation mended it. The
    /// records that the device replaced are part of it.
    History {
        device: String,
        /// Only the rules of this name.
        #[arg(long, value_name = "NAME")]
        rule: Option<RuleName>,
    },
    /// Show how a deployment stood at a moment in the past
    ///
    /// On the devices that were its members then, by its rules of then, as the site knew it then: the
    /// answer about a day never changes afterwards. What was remediated counts as compliant.
    At {
        /// A date (its end, UTC) such as 2026-03-31, or a moment such as 2026-03-31T12:00:00Z.
        #[arg(value_name = "DATE")]
        moment: Moment,
        #[arg(long, value_name = "NUMBER")]
        deployment: i64,
    },
    /// List rules that went back and forth most
    ///
    /// RETURNS counts how often a rule went back to the state before: something undoes what the
    /// remediation, or a person, did. A rule that many devices came to keep has changes only.
    Flapping {
        /// Changes within this time: 30d, 12w.
        #[arg(long, value_name = "PERIOD", default_value = "30d")]
        within: Period,
        /// Only the rules of one deployment.
        #[arg(long, value_name = "NUMBER")]
        deployment: Option<i64>,
    },
}

/// A moment, or the end of a day.
#[derive(Clone, Copy)]
pub struct Moment(pub Timestamp);

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        // The second before midnight, UTC.
        let end_of_day = || format!("{given}T23:59:59Z").parse::<Timestamp>();
        given
            .parse()
            .or_else(|_| end_of_day())
            .map(Self)
            .map_err(|_| format!("`{given}` is no date; write 2026-03-31, or 2026-03-31T12:00:00Z"))
    }
}

#[derive(Subcommand)]
pub enum RenewalWindow {
    /// Let certificates be renewed in a window
    ///
    /// It concerns the certificates that were issued before this command, also of clients that are
    /// switched off now. Clients learn of it at their next check-in and pick an instant in the
    /// window; a window that is over means now. It never delays a renewal beyond the end of the
    /// certificate's own window. Where several concern one certificate, the newest counts.
    #[command(after_help = "\
Examples:
  perennial renewal-window set --all --spread 8h
  perennial renewal-window set --collection Labs --start 2026-12-20T18:00:00Z --spread 3d")]
    Set {
        #[command(flatten)]
        scope: Scope,
        /// When the window begins: `now`, or a moment such as 2026-12-20T18:00:00Z. It may lie in
        /// the past.
        #[arg(long, value_name = "WHEN", default_value = "now")]
        start: When,
        /// How long it is, from 1m to 90d: the renewals spread over it.
        #[arg(long, value_name = "PERIOD", default_value = "24h")]
        spread: Period,
        /// A web page that tells why; EST and ACME clients may show it.
        #[arg(long, value_name = "URL")]
        explanation_url: Option<ExplanationUrl>,
    },
    /// List windows, newest first
    List,
    /// Show a window and how many devices followed it
    Show {
        number: i64,
        /// Go on until all have.
        #[arg(long)]
        watch: bool,
    },
    /// Remove a window: certificates that were not renewed yet go back to their own
    Remove { number: i64 },
}

/// Whose certificates.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Scope {
    /// All devices.
    #[arg(long)]
    pub all: bool,
    /// The members of a collection, whoever they are when they ask.
    #[arg(long, value_name = "NAME")]
    pub collection: Option<CollectionName>,
    /// One device: identifier or host name.
    #[arg(long)]
    pub device: Option<String>,
}

/// A moment, or now by the site's clock.
#[derive(Clone, Copy)]
pub struct When(pub Option<Timestamp>);

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        match given {
            "now" => Ok(Self(None)),
            moment => moment.parse().map(|at| Self(Some(at))).map_err(|_| {
                format!("`{moment}` is no moment; write now, or 2026-12-20T18:00:00Z")
            }),
        }
    }
}

/// Devices, on the command line or in a file.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct DeviceList {
    /// Identifiers (with or without GUID:) or host names.
    #[arg(value_name = "DEVICE")]
    pub devices: Vec<String>,
    /// Read one device for each line of this file; `-` is standard input. Empty lines and lines
    /// that begin with # are left out.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// A state, as a word of the command line.
macro_rules! state_words {
    ($name:ident for $state:ident { $($variant:ident),* }) => {
        #[derive(Clone, Copy, ValueEnum)]
        pub enum $name { $($variant),* }

        impl From<$name> for $state {
            fn from(word: $name) -> Self {
                match word { $($name::$variant => $state::$variant),* }
            }
        }
    };
}
state_words!(DeviceStateWord for DeviceState { Active, Blocked, Retired, Obsolete, Deleted });
state_words!(CertificateStateWord for CertificateState { Valid, Superseded, Revoked });

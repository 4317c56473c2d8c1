//! The command line. The incumbent's tools write long options with a single dash; a small
//! pre-parser turns their command lines into ours.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use domain::{BaselineName, Pin};
use transport::ServerAddress;

/// Keeps this computer's identity alive: enrolls it, renews its certificate silently, and takes
/// leave when it is uninstalled.
#[derive(Parser)]
#[command(
    name = "perennial-agent",
    version,
    after_help = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not enrolled, 4 refused by the server, 5 server or
directory not reachable, 6 certificate expired and not renewable without a person, 7 needs root."
)]
pub struct Cli {
    /// Keep all files below this folder: for tests, and for several agents on one machine.
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        env = "PERENNIAL_ROOT",
        default_value = "/"
    )]
    pub root: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Install this program, its tools and its service
    Install,
    /// Enroll this computer (also: CMEnroll)
    Enroll(Enroll),
    /// Run the agent's daemon
    Run,
    /// Show identity, certificate and schedule
    Status(Output),
    /// Check in with the site now
    CheckIn(Output),
    /// Renew the certificate now: silently, or with --user by name and password
    Renew(Renew),
    /// See or confirm which site this computer trusts
    Trust(Trust),
    /// Leave the site and remove the agent (also: CMUninstall)
    Uninstall(Uninstall),
    /// Collect what helps to find a fault, in a zip (also: CMDiagnostics)
    Diagnostics(Diagnostics),
    /// Evaluate the baselines that are deployed to this computer now
    Evaluate(Evaluate),
    /// Read and write preferences as on a Mac
    Defaults(Defaults),
    /// Open the wizard for the user who is logged in here when a reminder is due; needs no root
    Session,
    /// What the daemon starts when policy, commands, evaluations or results are due
    #[command(hide = true)]
    Comply,
    /// What the agent starts to evaluate: a plan on standard input
    #[command(hide = true)]
    EvaluatePlan,
    /// What an evaluation starts to run scripts
    #[command(hide = true)]
    RunScripts,
}

#[derive(Args)]
#[command(after_help = "\
Exit codes: 0 all rules are compliant, 1 a rule is not or could not be found out, 2 nothing could be
evaluated. Rules that are for another operating system count for nothing.")]
pub struct Evaluate {
    /// This baseline alone.
    pub baseline: Option<BaselineName>,
    /// Change nothing: what is not compliant stays so.
    #[arg(long)]
    pub no_remediation: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Copy)]
pub struct Output {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Enroll {
    /// The site's server: host name and, if it is not 8444, port.
    #[arg(short, long, value_name = "SERVER[:PORT]")]
    pub server: ServerAddress,
    /// Your user name: name, DOMAIN\name or name@domain.
    #[arg(short, long)]
    pub user: String,
    /// Read the password from standard input instead of asking for it.
    #[arg(long)]
    pub password_stdin: bool,
    /// Trust the site with this pin, as its administrator gave it.
    #[arg(long, value_name = "sha256:…", conflicts_with_all = ["ca", "insecure_skip_verify"])]
    pub pin: Option<Pin>,
    /// Trust sites under the certificates in this file (PEM).
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_skip_verify")]
    pub ca: Option<PathBuf>,
    /// Accept any server now, and only this one later; until root confirms it (`trust confirm`) no
    /// script of the site runs here.
    #[arg(long)]
    pub insecure_skip_verify: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Renew {
    /// Renew with this user's name and password, step by step: the Renew Certificate Wizard on a
    /// terminal. The way when a silent renewal is refused, or the certificate expired.
    #[arg(short, long, value_name = "NAME")]
    pub user: Option<String>,
    /// Read the password from standard input, and ask nothing.
    #[arg(long, requires = "user")]
    pub password_stdin: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub struct Trust {
    #[command(subcommand)]
    pub command: TrustCommand,
}

#[derive(Subcommand)]
pub enum TrustCommand {
    /// Show the pinned site
    Show,
    /// Confirm that the pinned site is the right one
    Confirm {
        /// The pin as the site's administrator gave it: it must be the one that is pinned.
        pin: Pin,
    },
}

#[derive(Args, Clone, Copy)]
pub struct Uninstall {
    /// Remove logs and crash logs too.
    #[arg(short = 'c')]
    pub clean_logs: bool,
    /// Retire this computer, but do not revoke its certificate.
    #[arg(long)]
    pub keep_certificate: bool,
}

#[derive(Args)]
pub struct Diagnostics {
    /// The folder for the zip.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct Defaults {
    /// As for Apple's tool: read, write or delete, a domain, a key, a value.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Reads a command line by the name that it was called with.
///
/// # Errors
/// With the exit code, after help or the parser's message was printed.
pub fn parse(arguments: Vec<OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(translated(arguments)).map_err(|error| {
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

fn translated(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().map(PathBuf::from);
    let name = name
        .as_deref()
        .and_then(Path::file_name)
        .and_then(OsStr::to_str)
        .unwrap_or("");
    let command = match name {
        "CMEnroll" => "enroll",
        "CMUninstall" => "uninstall",
        "CMDiagnostics" => "diagnostics",
        "defaults" => return defaults(arguments),
        _ => return arguments,
    };
    for argument in arguments.iter_mut().skip(1) {
        if argument == "-ignorecertchainvalidation" {
            *argument = "--insecure-skip-verify".into();
        } else if let Some(word) = argument.to_str()
            && matches!(word, "-root" | "-pin" | "-ca" | "-output" | "-help")
        {
            *argument = format!("-{word}").into();
        }
    }
    arguments.splice(0..1, ["perennial-agent".into(), command.into()]);
    arguments
}

/// `defaults` has words and options of its own, and values that look like options: all but a root in
/// front of them is passed on as it is.
fn defaults(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let own = match arguments.get(1).and_then(|first| first.to_str()) {
        Some("--root") => arguments.len().min(3),
        Some(first) if first.starts_with("--root=") => 2,
        _ => 1,
    };
    arguments.insert(own, "--".into());
    arguments.splice(0..1, ["perennial-agent".into(), "defaults".into()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Cli {
        let words = line.split(' ').map(OsString::from).collect();
        parse(words).unwrap_or_else(|_| panic!("{line}"))
    }

    #[test]
    fn the_incumbents_command_lines() {
        let cli = parsed("./CMEnroll -s site.example.com -ignorecertchainvalidation -u ann");
        let Command::Enroll(enroll) = cli.command else {
            panic!("not enroll")
        };
        assert_eq!(enroll.server.to_string(), "site.example.com:8444");
        assert_eq!(enroll.user, "ann");
        assert!(enroll.insecure_skip_verify);

        let Command::Uninstall(uninstall) = parsed("/x/Tools/CMUninstall -c").command else {
            panic!("not uninstall")
        };
        assert!(uninstall.clean_logs && !uninstall.keep_certificate);

        let Command::Diagnostics(diagnostics) =
            parsed("./CMDiagnostics -output /somewhere").command
        else {
            panic!("not diagnostics")
        };
        assert_eq!(diagnostics.output, Path::new("/somewhere"));

        let cli = parsed("defaults write com.microsoft.ccmclient RenewalPeriod1 -string 1728000");
        let Command::Defaults(defaults) = cli.command else {
            panic!("not defaults")
        };
        assert_eq!(defaults.words.len(), 5);
    }

    #[test]
    fn the_words_of_defaults_are_passed_on_as_they_are() {
        for words in [
            "-host x read",
            "-currentHost read -g -pin",
            "write a b -string --help",
            "write a b -- --root",
            "--version",
        ] {
            for start in ["defaults", "/x/defaults --root /y", "defaults --root=/y"] {
                let cli = parsed(&format!("{start} {words}"));
                let Command::Defaults(defaults) = cli.command else {
                    panic!("not defaults")
                };
                assert_eq!(defaults.words.join(" "), words);
                let root = if start == "defaults" { "/" } else { "/y" };
                assert_eq!(cli.root, Path::new(root));
            }
        }
    }

    #[test]
    fn trust_is_given_in_one_way_only() {
        let line = format!(
            "perennial-agent enroll -s a -u b --insecure-skip-verify --pin sha256:{}",
            "0".repeat(64)
        );
        assert!(parse(line.split(' ').map(OsString::from).collect()).is_err());
    }
}

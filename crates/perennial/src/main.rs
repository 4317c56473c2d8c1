//! `perennial`: the site's server, and the administrator's command line over its API.

mod admin;
mod cli;
mod configuration;
mod folder;
mod init;
mod listener;
mod output;
mod serve;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // Whatever this program writes is for its owner alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = match &cli.command {
        cli::Command::Serve(_) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build(),
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
    };
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

async fn run(cli: cli::Cli) -> anyhow::Result<()> {
    let folder = || {
        let site = cli.connection.site.as_deref();
        site.map(folder::SiteFolder::new)
            .context("which site? say --site DIR")
    };
    match cli.command {
        cli::Command::Init(arguments) => init::run(&folder()?, &arguments).await,
        cli::Command::Serve(arguments) => serve::run(&folder()?, &arguments).await,
        cli::Command::Administer(command) => admin::run(&cli.connection, *command).await,
    }
}

/// 1 failed, 4 refused by the site, 5 not reachable (2, wrong usage, comes from the parser).
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<api::ClientError>() {
        Some(
            api::ClientError::Refused { .. }
            | api::ClientError::Transport(transport::TransportError::NotTrusted { .. }),
        ) => 4,
        Some(api::ClientError::Transport(_)) => 5,
        _ => match error.downcast_ref::<folder::NotRunning>() {
            Some(_) => 5,
            None => 1,
        },
    }
}

//! `perennial-agent`: the client, with all its tools. Called by one of the incumbent's names
//! (`CMEnroll`, `CMUninstall`, `CMDiagnostics`, or `defaults` in the tool folder) it takes that tool's options.

use std::process::ExitCode;

use agent::cli::{self, Command};
use agent::failure::Failure;
use agent::identity::Machine;
use agent::{daemon, platform, tools};

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // The one tool that answers with exit codes and texts of its own.
    if let Command::Defaults(arguments) = &cli.command {
        return tools::defaults::run(&platform::Layout::new(&cli.root), arguments);
    }
    let done = run(cli);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            if let Some(hint) = failure.hint() {
                eprintln!("{hint}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: cli::Cli) -> Result<(), Failure> {
    let machine = Machine::new(&cli.root);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    match cli.command {
        Command::Status(output) => return tools::status::run(&machine, output),
        Command::Defaults(_) => unreachable!("handled before"),
        _ => machine.require_root()?,
    }
    match cli.command {
        Command::Install => tools::install::run(&machine),
        Command::Enroll(arguments) => runtime.block_on(tools::enroll::run(&machine, &arguments)),
        Command::Renew(arguments) => runtime.block_on(tools::renew::run(&machine, &arguments)),
        Command::CheckIn(output) => runtime.block_on(tools::check_in::run(&machine, output)),
        Command::Trust(arguments) => runtime.block_on(tools::trust::run(&machine, &arguments)),
        Command::Run => runtime.block_on(daemon::run(&machine)),
        Command::Uninstall(arguments) => {
            runtime.block_on(tools::uninstall::run(&machine, &arguments))
        }
        Command::Diagnostics(arguments) => tools::diagnostics::run(&machine, &arguments),
        Command::Status(_) | Command::Defaults(_) => unreachable!("handled before"),
    }
}

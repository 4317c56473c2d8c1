//! `perennial-agent`: the client, with all its tools. Called by one of the incumbent's names
//! (`CMEnroll`, `CMUninstall`, `CMDiagnostics`, or `defaults` in the tool folder) it takes that tool's options.

use std::process::ExitCode;

use agent::cli::{self, Command};
use agent::compliance::{evaluator, runner};
use agent::failure::Failure;
use agent::identity::Machine;
use agent::{daemon, log, platform, session, tools};
use clock::{SystemClock, SystemRng};
use zeroizing_alloc::ZeroAlloc;

/// What is freed is overwritten: a password goes through the buffers of parsers, HTTP and TLS.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // The one tool that answers with exit codes and texts of its own.
    if let Command::Defaults(arguments) = &cli.command {
        return tools::defaults::run(&platform::Layout::new(&cli.root), arguments);
    }
    // Processes of an evaluation, and that of a user's session, which start light.
    let worked = match &cli.command {
        Command::RunScripts => Some(runner::main()),
        Command::EvaluatePlan => {
            let layout = platform::Layout::new(&cli.root);
            log::start(&layout, false);
            Some(evaluator::main(&layout, &SystemClock::new(), &SystemRng))
        }
        Command::Session => {
            let program = platform::own_program().with_file_name(session::PROGRAM);
            let error = session::become_it(&program, &cli.root);
            eprintln!("error: cannot start {}: {error}", program.display());
            eprintln!(
                "reminders come on terminals; to have windows, install the agent again from a folder \
                 with perennial-agent, perennial-session and perennial-wizard"
            );
            return ExitCode::FAILURE;
        }
        _ => None,
    };
    if let Some(worked) = worked {
        // Whoever started them sees how far they came.
        return worked.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let evaluates = matches!(cli.command, Command::Evaluate(_));
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            if let Some(hint) = failure.hint() {
                eprintln!("{hint}");
            }
            ExitCode::from(match evaluates {
                true => tools::evaluate::NOT_EVALUATED,
                false => failure.exit_code(),
            })
        }
    }
}

fn run(cli: cli::Cli) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    let machine = Machine::new(&cli.root);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    match cli.command {
        Command::Status(output) => return tools::status::run(&machine, output).map(done),
        _ => machine.require_root()?,
    }
    match cli.command {
        Command::Install => tools::install::run(&machine),
        Command::Enroll(arguments) => runtime.block_on(tools::enroll::run(&machine, &arguments)),
        Command::Renew(arguments) => runtime.block_on(tools::renew::run(&machine, &arguments)),
        Command::CheckIn(output) => runtime.block_on(tools::check_in::run(&machine, output)),
        Command::Trust(arguments) => runtime.block_on(tools::trust::run(&machine, &arguments)),
        Command::Run => runtime.block_on(daemon::run(&machine)),
        Command::Comply => runtime.block_on(daemon::comply(&machine)),
        Command::Evaluate(arguments) => {
            return runtime.block_on(tools::evaluate::run(&machine, &arguments));
        }
        Command::Uninstall(arguments) => {
            runtime.block_on(tools::uninstall::run(&machine, &arguments))
        }
        Command::Diagnostics(arguments) => tools::diagnostics::run(&machine, &arguments),
        Command::Status(_)
        | Command::Defaults(_)
        | Command::EvaluatePlan
        | Command::RunScripts
        | Command::Session => unreachable!("handled before"),
    }
    .map(done)
}

//! The `pushward` command: parses the arguments, loads the configuration, starts the log and the runtime, runs one command
//! and returns its exit code.

use std::path::Path;
use std::process::ExitCode;

use pushward::cli::{Cli, CliCommand};
use pushward::daemon::DaemonSignals;
use pushward::service::handover::block_signals;
use pushward::{admin, check, daemon, demo, service, setup};

fn main() -> ExitCode {
    let cli = Cli::from_process();
    // Before the runtime has threads: a signal must not be taken by one of them, and lost when the program is replaced.
    if matches!(cli.command(), CliCommand::Run)
        && let Err(error) = block_signals()
    {
        eprintln!("cannot block signals: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(command(cli));
    // A read from a stalled disk cannot be cancelled, and must not delay the end of the process.
    runtime.shutdown_background();
    code
}

async fn command(cli: Cli) -> ExitCode {
    match cli.command() {
        CliCommand::Run => run(&cli.config).await,
        CliCommand::Check => check::run(&cli.config).await,
        CliCommand::Setup(options) => setup::run(&cli.config, options).await,
        CliCommand::Print { what } => service::print::run(what, Cli::definition()),
        CliCommand::Demo(options) => demo::run(options).await,
        CliCommand::Preflight => daemon::preflight::preflight(&cli.config),
        CliCommand::Ask(ask) => admin::command::run(&cli.config, ask.into()).await,
    }
}

async fn run(path: &Path) -> ExitCode {
    match DaemonSignals::install() {
        Ok(signals) => daemon::run::run::<admin::Interface>(signals, path).await,
        Err(error) => {
            eprintln!("cannot install signal handlers: {error}");
            ExitCode::FAILURE
        }
    }
}

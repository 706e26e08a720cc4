//! The `pushward` command: parses the arguments, loads the configuration, starts the log and the runtime, runs one command
//! and returns its exit code.

use std::path::Path;
use std::process::ExitCode;

use pushward::cli::{Cli, CliCommand};
use pushward::config::Config;
use pushward::daemon::DaemonSignals;
use pushward::{admin, check, daemon, demo, exit, log, service, setup};

fn main() -> ExitCode {
    let cli = Cli::from_process();
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
    // First: until then, a signal ends the process.
    let signals = match DaemonSignals::install() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("cannot install signal handlers: {error}");
            return ExitCode::FAILURE;
        }
    };
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    if let Err(error) = log::init(&config.log) {
        eprintln!("cannot set up the log: {error}");
        return ExitCode::FAILURE;
    }
    daemon::run::run::<admin::Interface>(signals, config).await
}

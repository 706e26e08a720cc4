//! The life of the daemon's process: start, signals, and the end, which is a drain or a handover to the next process.

use std::process::ExitCode;

use tokio::select;
use tokio::task::JoinHandle;

use super::hand_over::StoppedDaemon;
use super::previous::Previous;
use super::requests::ProcessRequest;
use super::signals::{DaemonSignals, Received};
use super::{Daemon, OperatorInterface, StartError};
use crate::clock::Instant;
use crate::config::Config;
use crate::service::handover::{InheritedDescriptors, Program, fd_store};
use crate::service::{self, Notify};
use crate::session::RECORD_VERSION;

/// The reason why the daemon stops to serve.
enum StopCause {
    /// It was asked to drain.
    Drain(&'static str),
    /// The service manager ends the process, and may start another one.
    Terminate,
    /// The installed program takes its place.
    Upgrade,
}

/// The result of an end.
enum RunEnd {
    /// The process exits.
    Exit(ExitCode),
    /// No other process could be started or informed: this one goes on with what it has left.
    GoOn(Box<Config>, Box<Previous>),
}

/// Runs until the process is to end, then drains, or hands its sessions over to the next process. Reloads on SIGHUP.
pub async fn run<I: OperatorInterface>(mut signals: DaemonSignals, config: Config) -> ExitCode {
    service::descriptors::raise(&config);
    let inherited = match InheritedDescriptors::from_env() {
        Ok(inherited) => inherited,
        Err(error) => {
            let error = StartError::from(error);
            tracing::error!(%error, "cannot start");
            return error.exit();
        }
    };
    let (mut config, mut previous) = (Box::new(config), Box::new(Previous::of(inherited)));
    let program = Program::current();
    loop {
        let started = select! {
            started = Box::pin(Daemon::start_after::<I>(*config, &mut previous)) => started,
            signal = signals.end() => {
                tracing::info!(signal = signal.name(), "stopped during startup");
                return ExitCode::SUCCESS;
            }
        };
        let daemon = match started {
            Ok(daemon) => daemon,
            Err(error) => {
                tracing::error!(%error, "cannot start");
                return error.exit();
            }
        };
        if previous.drains() {
            return drain(daemon, "SIGTERM").await;
        }
        Notify.ready();
        let watchdog = tokio::spawn(Notify.watch(daemon.relay.clone()));
        let ended = serve(daemon, &mut signals, &program, &watchdog).await;
        watchdog.abort();
        match ended {
            RunEnd::Exit(code) => return code,
            RunEnd::GoOn(same, left) => (config, previous) = (same, left),
        }
    }
}

/// Serves until the end.
async fn serve(
    mut daemon: Daemon,
    signals: &mut DaemonSignals,
    program: &Program,
    watchdog: &JoinHandle<()>,
) -> RunEnd {
    loop {
        let cause = wait(&mut daemon, signals, program).await;
        let began = Instant::now();
        match cause {
            StopCause::Drain(reason) => return RunEnd::Exit(drain(daemon, reason).await),
            StopCause::Terminate => {
                if let Err(reason) = fd_store::probe().await {
                    tracing::debug!(%reason, "service manager does not keep sessions");
                    return RunEnd::Exit(drain(daemon, "SIGTERM").await);
                }
                // A program that does not know the descriptors would fail at each start.
                let config = daemon.relay.current().config.path.clone();
                if let Err(error) = program.preflight(&config, RECORD_VERSION).await {
                    tracing::error!(%error, "installed program cannot take up the sessions: draining");
                    return RunEnd::Exit(drain(daemon, "SIGTERM").await);
                }
                return leave(daemon, began).await;
            }
            StopCause::Upgrade => {
                watchdog.abort();
                match replace(daemon, program, began).await {
                    Ok(ended) => return ended,
                    Err(same) => daemon = *same,
                }
            }
        }
    }
}

/// Waits for a reason to stop.
async fn wait(daemon: &mut Daemon, signals: &mut DaemonSignals, program: &Program) -> StopCause {
    loop {
        select! {
            signal = signals.next() => match signal {
                Received::Terminate => return StopCause::Terminate,
                Received::Interrupt => return StopCause::Drain("SIGINT"),
                Received::HangUp => daemon.reloader().ask(),
                Received::Upgrade => {
                    // A refusal was logged.
                    if may_replace(daemon, program).await.is_ok() {
                        return StopCause::Upgrade;
                    }
                }
            },
            Some(request) = daemon.requests.recv() => match request {
                ProcessRequest::Stop => return StopCause::Drain("stop command"),
                ProcessRequest::Upgrade(reply) => {
                    let answer = may_replace(daemon, program).await;
                    let goes = answer.is_ok();
                    // The operator may have stopped waiting.
                    drop(reply.send(answer));
                    if goes {
                        return StopCause::Upgrade;
                    }
                }
            },
        }
    }
}

/// Asks the installed program whether it can take the place of this process.
///
/// # Errors
/// The reason why it cannot, which was logged.
async fn may_replace(daemon: &Daemon, program: &Program) -> Result<(), String> {
    match program.preflight(&daemon.relay.current().config.path, RECORD_VERSION).await {
        Ok(report) => {
            tracing::info!(version = report.version, program = %program.path().display(), "upgrading");
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, program = %program.path().display(), "upgrade refused: this process goes on");
            Err(error.to_string())
        }
    }
}

async fn drain(daemon: Daemon, reason: &'static str) -> ExitCode {
    tracing::info!(signal = reason, "draining");
    Notify.stopping(daemon.relay.current().config.drain_timeout);
    daemon.stop().await;
    ExitCode::SUCCESS
}

/// Leaves the sessions to the process that the service manager starts next.
async fn leave(daemon: Daemon, began: Instant) -> RunEnd {
    let stopped = match daemon.freeze(began).await {
        Ok(stopped) => stopped,
        Err(daemon) => return RunEnd::Exit(drain(*daemon, "SIGTERM").await),
    };
    let StoppedDaemon { legacy, listeners, config } = stopped;
    let number = legacy.about.number;
    let left = match legacy.seal(Vec::new()) {
        Ok(sealed) => match fd_store::put(number, &sealed, &listeners).await {
            Ok(()) => {
                tracing::info!("sessions left to the service manager");
                return RunEnd::Exit(ExitCode::SUCCESS);
            }
            Err(error) => {
                tracing::error!(%error, "service manager did not take the sessions: draining");
                InheritedDescriptors::own(sealed)
            }
        },
        Err(error) => {
            tracing::error!(%error, "cannot pass the sessions on");
            InheritedDescriptors::default()
        }
    };
    drop(listeners);
    RunEnd::GoOn(Box::new(config), Box::new(Previous::to_drain(left)))
}

/// Executes the installed program in the place of this process. Returns only if that fails.
async fn replace(daemon: Daemon, program: &Program, began: Instant) -> Result<RunEnd, Box<Daemon>> {
    let StoppedDaemon { legacy, listeners, config } = daemon.freeze(began).await?;
    let left = match legacy.seal(listeners) {
        Ok(sealed) => {
            let (error, sealed) = program.execute(sealed);
            tracing::error!(%error, "cannot execute the installed program: this process goes on");
            InheritedDescriptors::own(sealed)
        }
        Err(error) => {
            tracing::error!(%error, "cannot pass the sessions on");
            InheritedDescriptors::default()
        }
    };
    Ok(RunEnd::GoOn(Box::new(config), Box::new(Previous::of(left))))
}

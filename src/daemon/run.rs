//! The life of the daemon's process: start, signals, and the end, which is a drain or a handover to the next process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;
use tokio::select;
use tokio::time::{sleep, timeout};

use super::cause::{StopCause, WantedListeners, stop_cause};
use super::hand_over::StoppedDaemon;
use super::previous::Previous;
use super::requests::{UpgradeReply, take_stop};
use super::signals::{DaemonSignals, Received};
use super::{Daemon, OperatorInterface, StartError, StartSettings};
use crate::clock::Instant;
use crate::config::{Config, ConfigErrors};
use crate::limits::RateLimitedLog;
use crate::metrics::HandoverOutcome;
use crate::relay::snapshot::Snapshot;
use crate::service::handover::{InheritedDescriptors, Program, UnsealedParcel, fd_store};
use crate::service::{self, Notify, Watchdog};
use crate::{exit, log};

/// The time for which a process that is the only one with the sessions of the previous one tries to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The origin of the settings of a start.
enum SettingsOrigin {
    /// The file, which is read at each attempt.
    File(PathBuf),
    /// The settings that were in force before a handover that failed.
    InForce(Box<Snapshot>),
}

/// The reason why an attempt to start has failed.
#[derive(Debug, Error)]
enum AttemptError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The log cannot be set up.
    #[error("cannot set up the log: {0}")]
    Log(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl AttemptError {
    fn exit(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(exit::CONFIG),
            Self::Log(_) => ExitCode::FAILURE,
            Self::Start(error) => error.exit(),
        }
    }

    /// Returns whether a node that joins its cluster again must not try on: another process has its number, or its files are
    /// wrong.
    fn is_final(&self) -> bool {
        match self {
            Self::Config(_) | Self::Log(_) => true,
            Self::Start(error) => error.is_final(),
        }
    }
}

/// The result of an end.
enum RunEnd {
    /// The process exits.
    Exit(ExitCode),
    /// This process goes on with what it has left: no other one could be started or informed, or it is a node that joins its
    /// cluster again.
    GoOn(Box<Snapshot>, Box<Previous>),
}

/// Runs until the process is to end, then drains, or hands its sessions over to the next process. Reloads on SIGHUP.
pub async fn run<I: OperatorInterface>(mut signals: DaemonSignals, path: &Path) -> ExitCode {
    let program = Program::current();
    let mut previous = match InheritedDescriptors::from_env() {
        Ok(inherited) => Box::new(Previous::of(inherited)),
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut origin = SettingsOrigin::File(path.to_owned());
    let mut logs = false;
    loop {
        // A fresh process is not watched before it is ready; one that takes over is.
        let watchdog = (previous.has_sessions() || previous.rejoins()).then(Watchdog::of_start);
        let daemon = match start::<I>(&origin, &mut logs, &mut previous, &mut signals).await {
            Ok(daemon) => daemon,
            Err(code) => return code,
        };
        drop(watchdog);
        if let Some(reason) = previous.drain() {
            return drain(daemon, reason).await;
        }
        Notify.ready();
        let _watchdog = Watchdog::of_relay(daemon.relay.clone());
        match serve(daemon, &mut signals, &program).await {
            RunEnd::Exit(code) => return code,
            RunEnd::GoOn(settings, left) => (origin, previous) = (SettingsOrigin::InForce(settings), left),
        }
    }
}

/// Starts. Where no other process can have the sessions of the previous one, it tries again for some time, because they would
/// end. A start that has sessions is not interrupted by signals: they are handled afterwards.
///
/// # Errors
/// Returns the exit code of the process.
async fn start<I: OperatorInterface>(
    origin: &SettingsOrigin,
    logs: &mut bool,
    previous: &mut Previous,
    signals: &mut DaemonSignals,
) -> Result<Daemon, ExitCode> {
    let (mut deadline, mut ends, failed) = (None, false, RateLimitedLog::default());
    loop {
        let (has_sessions, is_stored) = (previous.has_sessions(), previous.is_stored());
        let attempt = Box::pin(attempt::<I>(origin, logs, previous));
        let attempted = select! {
            attempted = attempt => attempted,
            signal = signals.end(), if !has_sessions => {
                tracing::info!(signal = signal.name(), "stopped during startup");
                return Err(ExitCode::SUCCESS);
            }
        };
        let error = match attempted {
            Ok(daemon) => return Ok(daemon),
            Err(error) => error,
        };
        if previous.rejoins() && !error.is_final() {
            if let Some(suppressed) = failed.next() {
                tracing::error!(%error, suppressed, "cannot join the cluster again yet: trying on");
            }
            if timeout(PAUSE, signals.end()).await.is_ok() {
                return Err(ExitCode::SUCCESS);
            }
            continue;
        }
        report(&error, *logs);
        if !has_sessions {
            return Err(error.exit());
        }
        // Another start takes up what is in the store: not an exit code after which there is none.
        let gives_up = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE) <= Instant::now();
        if is_stored || gives_up || ends {
            return Err(ExitCode::FAILURE);
        }
        select! {
            () = sleep(PAUSE) => {}
            // One more attempt, to end the sessions in order.
            signal = signals.end() => {
                sleep(PAUSE).await;
                previous.drain_for(signal.name());
                ends = true;
            }
        }
    }
}

async fn attempt<I: OperatorInterface>(
    origin: &SettingsOrigin,
    logs: &mut bool,
    previous: &mut Previous,
) -> Result<Daemon, AttemptError> {
    let settings = match origin {
        SettingsOrigin::File(path) => StartSettings::Loaded(Box::new(Config::load(path)?)),
        SettingsOrigin::InForce(settings) => StartSettings::InForce(settings.clone()),
    };
    let config = settings.config();
    if !*logs {
        log::init(&config.log).map_err(|error| AttemptError::Log(Box::new(error)))?;
        *logs = true;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %config.path.display(), "starting");
    }
    service::descriptors::raise(config);
    Ok(Daemon::start_after::<I>(settings, previous).await?)
}

fn report(error: &AttemptError, logs: bool) {
    if logs {
        tracing::error!(%error, "cannot start");
    } else {
        eprintln!("{error}");
    }
}

/// Serves until the end.
async fn serve(mut daemon: Daemon, signals: &mut DaemonSignals, program: &Program) -> RunEnd {
    loop {
        match stop_cause(&mut daemon, signals, program).await {
            StopCause::Drain(reason) => return RunEnd::Exit(drain(daemon, reason).await),
            StopCause::Fenced => {
                let (listeners, settings) = daemon.fenced().await;
                return RunEnd::GoOn(settings, Box::new(Previous::to_rejoin(listeners)));
            }
            StopCause::Leave(wanted) => return leave(daemon, &wanted).await,
            StopCause::Upgrade(wanted, reply) => match replace(daemon, signals, program, &wanted, reply).await {
                Ok(ended) => return ended,
                Err(same) => daemon = *same,
            },
        }
    }
}

async fn drain(daemon: Daemon, reason: &'static str) -> ExitCode {
    tracing::info!(signal = reason, "draining");
    Notify.stopping(daemon.relay.current().config.drain_timeout);
    // Another process has taken the place of this one. A new start takes a place of its own.
    let is_replaced = daemon.store.lease().is_some_and(|lease| lease.epoch().is_none());
    daemon.stop().await;
    if is_replaced { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Leaves the sessions to the process that the service manager starts next.
async fn leave(daemon: Daemon, wanted: &WantedListeners) -> RunEnd {
    let began = Instant::now();
    let Ok(number) = daemon.begin_handover().await else { return RunEnd::Exit(drain(daemon, "SIGTERM").await) };
    store(daemon.freeze(number, began, wanted).await).await
}

/// Stores the sessions with the service manager. If it does not take them, this process goes on and drains.
async fn store(stopped: StoppedDaemon) -> RunEnd {
    let StoppedDaemon { legacy, listeners, settings } = stopped;
    let number = legacy.about.number;
    let (reason, left) = match legacy.into_parcel(Vec::new()).seal() {
        Ok(sealed) => match fd_store::put(number, &sealed, &listeners).await {
            Ok(()) => {
                tracing::info!("sessions left to the service manager");
                return RunEnd::Exit(ExitCode::SUCCESS);
            }
            Err(error) => (error.to_string(), InheritedDescriptors::own(sealed)),
        },
        Err(UnsealedParcel { error, parcel }) => (error.to_string(), InheritedDescriptors::unsealed(parcel)),
    };
    tracing::error!(reason, "cannot leave the sessions to the service manager: draining");
    drop(listeners);
    RunEnd::GoOn(settings, Box::new(Previous::to_drain(left, "SIGTERM")))
}

/// Executes the installed program in the place of this process. Returns only if that fails.
///
/// # Errors
/// Returns the daemon if nothing has changed.
async fn replace(
    mut daemon: Daemon,
    signals: &mut DaemonSignals,
    program: &Program,
    wanted: &WantedListeners,
    reply: Option<UpgradeReply>,
) -> Result<RunEnd, Box<Daemon>> {
    let began = Instant::now();
    let begun = daemon.begin_handover().await;
    if let Some(reply) = reply {
        // The operator may have stopped waiting.
        drop(reply.send(begun.clone().map(drop)));
    }
    let Ok(number) = begun else {
        daemon.relay.metrics().handover(HandoverOutcome::Failed);
        return Err(Box::new(daemon));
    };
    if take_stop(&mut daemon.requests) {
        return Ok(RunEnd::Exit(drain(daemon, "stop command").await));
    }
    // Signals that come from now on wait for the next program.
    let _paused = signals.pause();
    let stopped = daemon.freeze(number, began, wanted).await;
    // The next program does not get those that came before.
    match signals.take_end() {
        None => Ok(execute(stopped, program)),
        Some(Received::Terminate) if fd_store::probe().await.is_ok() => Ok(store(stopped).await),
        Some(signal) => {
            let StoppedDaemon { legacy, settings, .. } = stopped;
            let left = InheritedDescriptors::unsealed(legacy.into_parcel(Vec::new()));
            Ok(RunEnd::GoOn(settings, Box::new(Previous::to_drain(left, signal.name()))))
        }
    }
}

/// Executes the installed program in the place of this process. Returns only if that fails.
fn execute(stopped: StoppedDaemon, program: &Program) -> RunEnd {
    let StoppedDaemon { legacy, listeners, settings } = stopped;
    let (reason, left) = match legacy.into_parcel(listeners).seal() {
        Ok(sealed) => {
            let (error, sealed) = program.execute(sealed);
            (format!("cannot execute {}: {error}", program.path().display()), InheritedDescriptors::own(sealed))
        }
        Err(UnsealedParcel { error, parcel }) => {
            (format!("cannot pass the sessions on: {error}"), InheritedDescriptors::unsealed(parcel))
        }
    };
    tracing::error!(reason, "upgrade failed: running process continues");
    RunEnd::GoOn(settings, Box::new(Previous::after_failure(left, reason)))
}

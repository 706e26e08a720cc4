//! The signals that the daemon handles: [`DaemonSignals`].

use std::io;

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::service::handover::accept_signals;

/// The handlers of all signals. A start installs them first: a signal that comes before would end the process.
#[derive(Debug)]
pub struct DaemonSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    upgrade: Signal,
}

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// SIGTERM: end, or leave the sessions to the process that the service manager starts.
    Terminate,
    /// SIGINT: drain.
    Interrupt,
    /// SIGHUP: reload.
    HangUp,
    /// SIGUSR2: replace the process by the installed program.
    Upgrade,
}

impl Received {
    /// Returns the name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::HangUp => "SIGHUP",
            Self::Upgrade => "SIGUSR2",
        }
    }
}

impl DaemonSignals {
    /// Installs the handlers. Must be called inside a runtime, by the first thread of the process: signals that came while this
    /// program took the place of another one have waited for it.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn install() -> io::Result<Self> {
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        };
        accept_signals();
        Ok(signals)
    }

    /// Waits for the next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> Received {
        select! {
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.interrupt.recv() => Received::Interrupt,
            _ = self.hangup.recv() => Received::HangUp,
            _ = self.upgrade.recv() => Received::Upgrade,
        }
    }

    /// Waits for a signal to end the process. Cancel safe.
    pub(super) async fn end(&mut self) -> Received {
        loop {
            let received = self.next().await;
            if matches!(received, Received::Terminate | Received::Interrupt) {
                return received;
            }
        }
    }
}

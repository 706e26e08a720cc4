//! The signals that the daemon handles: [`DaemonSignals`].

use std::io;
use std::task::{Context, Poll, Waker};

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::service::handover::{PausedSignals, SignalThread};

/// The handlers of all signals. A start installs them first: a signal that comes before would end the process, or wait if
/// [`block_signals`](crate::service::handover::block_signals) was called.
#[derive(Debug)]
pub struct DaemonSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    upgrade: Signal,
    thread: SignalThread,
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
    /// Installs the handlers. Must be called inside a runtime. Signals that came while this program took the place of another one
    /// have waited for it.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            thread: SignalThread::start()?,
        })
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

    /// Waits for a signal to end the process. Other signals wait. Cancel safe.
    pub(super) async fn end(&mut self) -> Received {
        select! {
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.interrupt.recv() => Received::Interrupt,
        }
    }

    /// Takes a signal to end the process that has already come.
    pub(super) fn take_end(&mut self) -> Option<Received> {
        let mut now = Context::from_waker(Waker::noop());
        let mut has_come = |signal: &mut Signal| matches!(signal.poll_recv(&mut now), Poll::Ready(Some(())));
        if has_come(&mut self.interrupt) {
            return Some(Received::Interrupt);
        }
        has_come(&mut self.terminate).then_some(Received::Terminate)
    }

    /// Lets signals wait until the value is dropped, or until the program that replaces this one takes them.
    pub(super) fn pause(&self) -> PausedSignals {
        self.thread.pause()
    }
}

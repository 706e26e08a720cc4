//! Signals during the replacement of the program. The new program has no handlers at first, so a signal would end it. Therefore
//! signals wait until it has installed them.

use std::io;

use nix::sys::signal::{SigSet, Signal};

/// The signals for which the daemon may have handlers.
const HANDLED: [Signal; 5] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals are blocked in this thread until the value is dropped. A program that replaces this one inherits that.
pub(super) struct BlockedSignals(SigSet);

impl BlockedSignals {
    pub(super) fn new() -> io::Result<Self> {
        let before = SigSet::thread_get_mask()?;
        HANDLED.into_iter().collect::<SigSet>().thread_block()?;
        Ok(Self(before))
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        if let Err(error) = self.0.thread_set_mask() {
            tracing::error!(%error, "cannot unblock signals");
        }
    }
}

/// Delivers the signals that waited while this program replaced another one. Must be called by the first thread of the
/// process, once all handlers are installed. Without a replacement it has no effect.
pub fn accept_signals() {
    if let Err(error) = HANDLED.into_iter().collect::<SigSet>().thread_unblock() {
        tracing::error!(%error, "cannot unblock signals");
    }
}

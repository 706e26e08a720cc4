//! Signals during the replacement of the program. The new program has no handlers at first, so a signal would end it, and one
//! that the old program has taken would be lost. Therefore one thread takes all signals ([`SignalThread`]), and it stops doing so
//! before the handover: from then on they wait, also beyond the execution of the new program, until that takes them.

use std::io;
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// The signals for which the daemon may have handlers.
const HANDLED: [Signal; 5] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

fn handled() -> SigSet {
    HANDLED.into_iter().collect()
}

/// Lets signals wait. Must be called before the process has other threads: they inherit it.
///
/// # Errors
/// Returns the error of the operating system.
pub fn block_signals() -> io::Result<()> {
    Ok(handled().thread_block()?)
}

/// An order to the thread, which is confirmed through the sender.
#[derive(Debug)]
struct Order {
    takes: bool,
    done: mpsc::Sender<()>,
}

/// The thread that takes the signals of the process, after [`block_signals`].
#[derive(Debug)]
pub struct SignalThread(mpsc::Sender<Order>);

impl SignalThread {
    /// Starts the thread. All handlers must be installed. Signals that have waited are taken now.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn start() -> io::Result<Self> {
        let (orders, received) = mpsc::channel::<Order>();
        thread::Builder::new().name("signals".into()).spawn(move || {
            set(true);
            for order in received {
                set(order.takes);
                // The other end waits for it.
                order.done.send(()).ok();
            }
            // Without orders, signals are taken to the end: those of a daemon inside another program.
            thread::park();
        })?;
        Ok(Self(orders))
    }

    /// Lets signals wait until the value is dropped, or until the program that replaces this one takes them.
    pub fn pause(&self) -> PausedSignals {
        order(&self.0, false);
        PausedSignals(self.0.clone())
    }
}

fn order(orders: &mpsc::Sender<Order>, takes: bool) {
    let (done, finished) = mpsc::channel();
    if orders.send(Order { takes, done }).is_ok() {
        // The thread does nothing that takes time.
        finished.recv().ok();
    }
}

fn set(takes: bool) {
    let changed = if takes { handled().thread_unblock() } else { handled().thread_block() };
    if let Err(error) = changed {
        tracing::error!(%error, takes, "cannot change which signals are taken");
    }
}

/// Signals wait.
#[derive(Debug)]
pub struct PausedSignals(mpsc::Sender<Order>);

impl Drop for PausedSignals {
    fn drop(&mut self) {
        order(&self.0, true);
    }
}

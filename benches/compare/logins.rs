//! Clients that connect and leave: TLS handshakes, and whole logins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::link::{Link, Target};
use super::proxy::Running;

/// Number of simultaneous clients.
const CLIENTS: usize = 32;
/// The time before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(300);

/// The last step of each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// TCP and a full TLS handshake.
    Handshake,
    /// TCP, a full TLS handshake, SASL PLAIN and a bind.
    LogIn,
}

/// The result of the measurement.
pub(crate) struct Logins {
    /// Number per second.
    pub(crate) rate: f64,
    /// Seconds of the proxy's processor time for each.
    pub(crate) cpu: f64,
}

/// Lets clients connect and leave for this time.
pub(crate) async fn measure(running: &Running, step: Step, time: Duration) -> Logins {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for number in 0..CLIENTS {
        let target = running.target().clone();
        tasks.push(tokio::spawn(again(target, step, number, Arc::clone(&done), Arc::clone(&stop))));
    }
    tokio::time::sleep(WARM_UP).await;
    let (from, cpu, at) = (done.load(Ordering::Relaxed), running.begin(), Instant::now());
    tokio::time::sleep(time).await;
    let (to, cpu, elapsed) = (done.load(Ordering::Relaxed), running.cpu() - cpu, at.elapsed());
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let count = (to - from) as f64;
    Logins { rate: count / elapsed.as_secs_f64(), cpu: cpu.as_secs_f64() / count }
}

async fn again(target: Target, step: Step, number: usize, done: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let link = match step {
            Step::Handshake => Link::connect(&target).await,
            Step::LogIn => Link::log_in(&target, &format!("l{number}")).await,
        };
        link.unwrap().leave().await;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

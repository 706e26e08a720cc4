//! Memory of idle sessions: the first time, and after all clients have left and returned.

use std::ops::Range;

use super::link::Link;
use super::proxy::Running;
use super::stub::Stub;

/// Number of sessions that log in and leave together before the measurement. It is small, so that they leave little
/// memory behind.
const WARM_UP: usize = 64;
/// Number of clients that log in at once.
const AT_ONCE: usize = 32;

/// Bytes of the proxy per idle session.
pub(crate) struct Idle {
    /// After all clients have logged in.
    pub(crate) first: f64,
    /// After all clients have left: memory that is still held.
    pub(crate) left: f64,
    /// After all clients have returned.
    pub(crate) again: f64,
}

/// Logs in this many clients, which then stay idle, twice. Before that, half as many others log in and leave, a few at
/// a time, so that everything with a one-time or fixed cost exists and is full.
pub(crate) async fn measure(running: &Running, stub: &Stub, sessions: usize) -> Idle {
    for from in (sessions..sessions + sessions / 2).step_by(WARM_UP) {
        for link in log_in_all(running, from..from + WARM_UP).await {
            link.leave().await;
        }
        stub.until_online(0).await;
    }
    running.process.settle().await;
    let base = running.process.memory() as f64;
    let per_session = |memory: u64| (memory as f64 - base) / sessions as f64;
    let links = log_in_all(running, 0..sessions).await;
    running.process.settle().await;
    let first = per_session(running.process.memory());
    drop_all(links, running, stub).await;
    let left = per_session(running.process.memory());
    let links = log_in_all(running, 0..sessions).await;
    running.process.settle().await;
    let again = per_session(running.process.memory());
    drop_all(links, running, stub).await;
    Idle { first, left, again }
}

/// Logs in the users with these numbers.
pub(crate) async fn log_in_all(running: &Running, users: Range<usize>) -> Vec<Link> {
    let mut links = Vec::with_capacity(users.len());
    for from in users.clone().step_by(AT_ONCE) {
        let batch = (from..users.end.min(from + AT_ONCE)).map(|number| {
            let target = running.target().clone();
            tokio::spawn(async move { Link::session(&target, &format!("i{number}")).await.unwrap().0 })
        });
        for login in batch.collect::<Vec<_>>() {
            links.push(login.await.unwrap());
        }
    }
    links
}

/// Ends all streams in order.
pub(crate) async fn drop_all(links: Vec<Link>, running: &Running, stub: &Stub) {
    for link in links {
        link.leave().await;
    }
    stub.until_online(0).await;
    running.process.settle().await;
}

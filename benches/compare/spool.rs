//! The work of the disk: commits of the spool for many dark sessions, and the size of its file before and after
//! delivery.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pushward::clock::UnixMillis;
use pushward::jid::BareJid;
use pushward::push::account::{DeviceId, LoginId};
use pushward::seq::Seq;
use pushward::store::{SpoolId, Spooled, Store};
use tempfile::TempDir;

use super::proxy::{Proxy, Running};
use super::report::columns;
use super::{Bench, ORDINARY};

/// Number of dark sessions.
const SESSIONS: usize = 1000;
/// Size of a spooled stanza in bytes.
const STANZA: usize = 200;
/// Maximum time for the file to shrink.
const SHRINK: Duration = Duration::from_secs(70);
/// The time for which stanzas are written to the store.
const TIME: Duration = Duration::from_secs(3);

/// Measures commits of the store alone, then a whole Pushward with messages for dark sessions. Returns a table.
pub(crate) async fn measure(bench: &Bench) -> String {
    let mut rows = vec![["quantity", "value"].map(str::to_owned).to_vec()];
    for sessions in [1, 32, SESSIONS] {
        eprintln!("the store, {sessions} sessions");
        let (stanzas, commits) = commits(sessions).await;
        let text = format!("{stanzas:.0} stanzas/s in {commits:.0} commits/s");
        rows.push(vec![format!("store: {sessions} sessions, each waiting for its own commit"), text]);
    }
    let phones = if bench.options.quick { 50 } else { SESSIONS };
    let each = bench.options.spool_messages.div_ceil(phones);
    eprintln!("{phones} dark sessions, {each} messages each");
    for (quantity, value) in life(bench, phones, each).await {
        rows.push(vec![quantity, value]);
    }
    columns(&rows)
}

/// Returns stanzas and commits per second. Each of this many sessions spools a stanza once the one before is on disk.
async fn commits(sessions: usize) -> (f64, f64) {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let (begin, before) = (Instant::now(), store.commits());
    let tasks: Vec<_> = (0..sessions)
        .map(|number| {
            let (store, done) = (store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let account: BareJid = format!("d{number}@localhost").parse().unwrap();
                let spool = SpoolId { account, login: LoginId(1) };
                for seq in 1.. {
                    if begin.elapsed() > TIME {
                        break;
                    }
                    let bytes = Bytes::from(vec![b'x'; STANZA]);
                    let item = Spooled {
                        seq: Seq::new(seq),
                        received: UnixMillis::new(0),
                        shared: false,
                        archived: false,
                        bytes,
                    };
                    store.spool(&spool, DeviceId(1), vec![item]).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let seconds = begin.elapsed().as_secs_f64();
    let commits = store.commits() - before;
    store.shutdown().await;
    (done.load(Ordering::Relaxed) as f64 / seconds, commits as f64 / seconds)
}

/// Sends messages to dark sessions, which then fetch them. Returns the size of the file at each step.
async fn life(bench: &Bench, phones: usize, each: usize) -> Vec<(String, String)> {
    let running = bench.common.start(Proxy::Pushward, ORDINARY).await;
    let empty = size(&running);
    let home = bench.home(&running);
    let all = home.leave_behind(0..phones).await;
    let (begin, cpu) = (Instant::now(), running.cpu());
    let bytes = home.write(&all, each).await;
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), running.cpu() - cpu);
    let full = size(&running);
    let begin = Instant::now();
    for phone in &all {
        home.resume(phone, each).await;
    }
    let taken = begin.elapsed().as_secs_f64();
    running.process.settle().await;
    let delivered = size(&running);
    let (shrunk, within) = until_shrunk(&running, delivered).await;
    let running = bench.common.restart(running, ORDINARY).await;
    let after = size(&running);
    let count = (phones * each) as f64;
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    vec![
        (format!("messages for {phones} dark sessions"), format!("{count:.0}, {}", mib(bytes as u64))),
        ("taken in and spooled".into(), format!("{:.0} messages/s", count / elapsed)),
        ("CPU of a spooled message".into(), format!("{:.1} µs", cpu.as_secs_f64() * 1e6 / count)),
        ("delivered, one session after the other".into(), format!("{:.0} messages/s", count / taken)),
        ("file before".into(), mib(empty)),
        ("file with all messages".into(), mib(full)),
        ("file when all are delivered".into(), mib(delivered)),
        (format!("file {:.0} s later", within.as_secs_f64()), mib(shrunk)),
        ("file after a restart".into(), mib(after)),
    ]
}

/// Waits until the file has shrunk to a fraction, at most as long as Pushward may delay that. Returns its size.
async fn until_shrunk(running: &Running, from: u64) -> (u64, Duration) {
    let begin = Instant::now();
    loop {
        let (size, elapsed) = (size(running), begin.elapsed());
        if size < from / 4 || elapsed > SHRINK {
            return (size, elapsed);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn size(running: &Running) -> u64 {
    let file: &Path = &running.directory.path().join("state/pushward.redb");
    std::fs::metadata(file).unwrap().len()
}

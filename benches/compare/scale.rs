//! How cost grows with the number of sessions.

use std::time::Duration;

use super::flow::{self, Pace};
use super::proxy::Proxy;
use super::report::columns;
use super::stats::median;
use super::{Bench, ORDINARY, memory};

/// Descriptors that are not for sessions.
const RESERVED: u64 = 400;

/// Memory of a session and processor time of a message with more and more sessions, which talk in turn at a fixed rate; as a
/// table.
pub(crate) async fn measure(bench: &Bench, proxies: &[Proxy], descriptors: u64) -> String {
    // A proxy needs two descriptors for a session, and so does this program, which is client and server.
    let most = ((descriptors - RESERVED) / 2) as usize;
    let mut counts = if bench.options.quick { vec![100, 500] } else { vec![1000, 5000, most] };
    counts.retain(|count| *count <= most);
    let head = ["sessions", "proxy", "memory of a session, KB", "CPU per million messages, s", "p50, µs", "p99, µs"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for sessions in counts {
        for &proxy in proxies.iter().filter(|proxy| **proxy != Proxy::Prosody) {
            let (mut bytes, mut cpu, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for round in 0..bench.options.repeats {
                eprintln!("{sessions} sessions of {}, round {}", proxy.name(), round + 1);
                let (memory, paced) = once(bench, proxy, sessions).await;
                bytes.push(memory / 1e3);
                cpu.push(paced.cpu);
                p50.push(paced.p50 * 1e6);
                p99.push(paced.p99 * 1e6);
            }
            rows.push(vec![
                sessions.to_string(),
                proxy.name().to_owned(),
                format!("{:.1}", median(&bytes)),
                format!("{:.2}", median(&cpu)),
                format!("{:.0}", median(&p50)),
                format!("{:.0}", median(&p99)),
            ]);
        }
    }
    columns(&rows)
}

async fn once(bench: &Bench, proxy: Proxy, sessions: usize) -> (f64, flow::Paced) {
    let running = bench.common.start(proxy, ORDINARY).await;
    let base = running.process.memory() as f64;
    let links = memory::crowd(&running, 0..sessions).await;
    running.process.settle().await;
    let memory = (running.process.memory() as f64 - base) / sessions as f64;
    memory::drop_all(links, &running, &bench.stub).await;
    let time = if bench.options.quick { Duration::from_secs(1) } else { Duration::from_secs(6) };
    let pace = Pace { rate: bench.options.rate, pairs: sessions / 2, time };
    (memory, flow::paced(running.target(), Some(&running), &bench.stub, pace).await)
}

//! Growth of the cost with the number of sessions.

use std::time::Duration;

use super::flow::{self, Pace};
use super::proxy::Proxy;
use super::report::columns;
use super::stats::median;
use super::{Bench, ORDINARY};

/// Number of descriptors that are not for sessions.
const RESERVED: u64 = 400;

/// Number of pairs that log in and leave before the measurement.
const WARM_UP: usize = 32;

/// Measures the memory per session and the processor time per message with more and more sessions, which send in turn
/// at a fixed rate. Returns a table.
pub(crate) async fn measure(bench: &Bench, proxies: &[Proxy], descriptors: u64) -> String {
    // A proxy needs two descriptors per session, and so does this program, which is client and server.
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
    // Everything with a one-time cost exists now.
    flow::paced(running.target(), None, &bench.stub, pace(bench, WARM_UP, Duration::from_millis(200))).await;
    let base = running.process.memory() as f64;
    let pairs = flow::Pairs::log_in(running.target(), &bench.stub, sessions / 2).await;
    running.process.settle().await;
    let memory = (running.process.memory() as f64 - base) / sessions as f64;
    let time = if bench.options.quick { Duration::from_secs(1) } else { Duration::from_secs(5) };
    (memory, flow::exchange(pairs, Some(&running), &bench.stub, pace(bench, sessions / 2, time)).await)
}

fn pace(bench: &Bench, pairs: usize, time: Duration) -> Pace {
    Pace { rate: bench.options.rate, pairs, time }
}

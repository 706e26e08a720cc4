//! How cost grows with the number of sessions.

use std::time::Duration;

use super::flow::{self, Crowd};
use super::proxy::Proxy;
use super::report::columns;
use super::shape::Shape;
use super::stats::median;
use super::{Bench, ORDINARY, memory};

/// Descriptors that are not for sessions.
const RESERVED: u64 = 400;
/// Messages of a pair on the way: nearly every one is a wake-up of its own.
const WINDOW: u64 = 2;

/// Memory of a session and processor time of a message with more and more sessions, all of which talk; as a table.
pub(crate) async fn measure(bench: &Bench, proxies: &[Proxy], descriptors: u64) -> String {
    // A proxy needs two descriptors for a session, and so does this program, which is client and server.
    let most = ((descriptors - RESERVED) / 2) as usize;
    let mut counts = if bench.options.quick { vec![100, 500] } else { vec![1000, 5000, most] };
    counts.retain(|count| *count <= most);
    let mut rows = vec![
        ["sessions", "proxy", "memory of a session, KB", "CPU per million messages, s", "messages, 1/s"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for sessions in counts {
        for &proxy in proxies.iter().filter(|proxy| **proxy != Proxy::Prosody) {
            let (mut bytes, mut cpu, mut rate) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..bench.options.repeats {
                eprintln!("{sessions} sessions of {}, round {}", proxy.name(), round + 1);
                let (memory, throughput) = once(bench, proxy, sessions).await;
                bytes.push(memory / 1e3);
                cpu.push(throughput.cpu);
                rate.push(throughput.rate);
            }
            rows.push(vec![
                sessions.to_string(),
                proxy.name().to_owned(),
                format!("{:.1}", median(&bytes)),
                format!("{:.2}", median(&cpu)),
                format!("{:.0}", median(&rate)),
            ]);
        }
    }
    columns(&rows)
}

async fn once(bench: &Bench, proxy: Proxy, sessions: usize) -> (f64, flow::Throughput) {
    let running = bench.common.start(proxy, ORDINARY).await;
    let base = running.process.memory() as f64;
    let links = memory::crowd(&running, sessions).await;
    running.process.settle().await;
    let memory = (running.process.memory() as f64 - base) / sessions as f64;
    memory::drop_all(links, &running, &bench.stub).await;
    let crowd = Crowd { shape: Shape::Single, pairs: sessions / 2, window: WINDOW };
    let time = if bench.options.quick { Duration::from_secs(1) } else { Duration::from_secs(5) };
    (memory, flow::crowd(&running, &bench.stub, crowd, time).await)
}

//! The return of phones whose sessions are dark, while one message waits: round trips, time, and connections to the server.

use std::sync::Arc;
use std::time::Duration;

use super::proxy::Running;
use super::relay::Relay;
use super::report::columns;
use super::stats::percentile;
use super::stub::Stub;
use super::ways::{Path, Phone, Return, Way};

/// Number of phones that return in one way before others return in the next.
const BATCH: usize = 50;
/// Latency of the slow connection in each direction.
const DELAY: Duration = Duration::from_millis(40);
/// The time from the start of one slow return to the start of the next. Each takes little of the processor.
const PACE: Duration = Duration::from_millis(20);

/// The returns of all rounds.
#[derive(Default)]
pub(crate) struct Returns {
    done: Vec<Batch>,
}

/// Returns in one way over one connection.
struct Batch {
    way: Way,
    speed: Speed,
    returns: Vec<Return>,
    /// Connections to the server during them.
    connections: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speed {
    /// Without added latency.
    Direct,
    /// With [`DELAY`].
    Slow,
}

impl Returns {
    /// Lets this many phones return in each way, and again with added latency.
    pub(crate) async fn measure(&mut self, running: &Running, stub: &Stub, phones: usize) {
        let direct = Path { target: running.target().clone(), round_trip: Duration::ZERO };
        let relay = Relay::start(direct.target.address, DELAY).await;
        let mut slow = Path { round_trip: 2 * DELAY, ..direct.clone() };
        slow.target.address = relay.address;
        let mut all = Vec::new();
        for number in 0..phones {
            all.push(Phone::come_and_go(&direct, number).await.unwrap());
        }
        let mut marks = 0..;
        while !all.is_empty() {
            let mut batch = all.split_off(all.len().saturating_sub(BATCH));
            for (speed, path) in [(Speed::Direct, &direct), (Speed::Slow, &slow)] {
                for way in Way::ALL {
                    let mark = format!("<body>{:06} ", marks.next().unwrap());
                    running.process.settle().await;
                    for phone in &batch {
                        let text = message(phone.number, &mark);
                        stub.user(&format!("d{}", phone.number)).write(text.as_bytes()).await.unwrap();
                    }
                    running.process.settle().await;
                    let before = stub.accepted();
                    let returns = match speed {
                        Speed::Direct => one_by_one(&mut batch, path, way, &mark).await,
                        Speed::Slow => paced(&mut batch, path, way, &mark).await,
                    };
                    let connections = stub.accepted() - before;
                    assert!(!way.is_by_token() || connections == 0, "{connections} connections: {way:?}, {speed:?}");
                    self.done.push(Batch { way, speed, returns, connections });
                }
            }
        }
    }

    /// Returns the table, if anything was measured.
    pub(crate) fn table(&self) -> String {
        if self.done.is_empty() {
            return String::new();
        }
        let round_trip = (2 * DELAY).as_millis();
        let head = [
            "return of a client".to_owned(),
            "round trips, TCP and TLS".to_owned(),
            "after TLS".to_owned(),
            "p50, ms".to_owned(),
            "p95, ms".to_owned(),
            format!("p50 at {round_trip} ms, ms"),
            format!("p95 at {round_trip} ms, ms"),
            "connections to the server".to_owned(),
        ];
        let mut rows = vec![head.to_vec()];
        rows.extend(Way::ALL.map(|way| self.row(way)));
        columns(&rows)
    }

    fn row(&self, way: Way) -> Vec<String> {
        let all = || self.done.iter().filter(|batch| batch.way == way);
        let returns = || all().flat_map(|batch| &batch.returns);
        let times = |speed: Speed| -> Vec<f64> {
            let batches = all().filter(|batch| batch.speed == speed);
            batches.flat_map(|batch| &batch.returns).map(|done| done.time * 1e3).collect()
        };
        let (direct, slow) = (times(Speed::Direct), times(Speed::Slow));
        let connections: usize = all().map(|batch| batch.connections).sum();
        vec![
            way.name().to_owned(),
            range(returns().map(|done| done.connecting)),
            range(returns().map(|done| done.after)),
            format!("{:.2}", percentile(&direct, 0.5)),
            format!("{:.2}", percentile(&direct, 0.95)),
            format!("{:.0}", percentile(&slow, 0.5)),
            format!("{:.0}", percentile(&slow, 0.95)),
            format!("{}", connections as f64 / returns().count() as f64),
        ]
    }
}

async fn one_by_one(phones: &mut [Phone], path: &Path, way: Way, mark: &str) -> Vec<Return> {
    let mut returns = Vec::with_capacity(phones.len());
    for phone in phones {
        returns.push(phone.come_back(path, way, mark).await.unwrap());
    }
    returns
}

/// Lets phones return with [`PACE`] between them, since each waits most of the time.
async fn paced(phones: &mut Vec<Phone>, path: &Path, way: Way, mark: &str) -> Vec<Return> {
    let mark: Arc<str> = mark.into();
    let mut tasks = Vec::with_capacity(phones.len());
    for mut phone in phones.drain(..) {
        let (path, mark) = (path.clone(), Arc::clone(&mark));
        tasks.push(tokio::spawn(async move {
            let done = phone.come_back(&path, way, &mark).await.unwrap();
            (phone, done)
        }));
        tokio::time::sleep(PACE).await;
    }
    let mut returns = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (phone, done) = task.await.unwrap();
        phones.push(phone);
        returns.push(done);
    }
    returns
}

/// Returns the numbers that occur: one, or the smallest and the largest.
fn range(numbers: impl Iterator<Item = u32> + Clone) -> String {
    let (least, most) = (numbers.clone().min().unwrap(), numbers.max().unwrap());
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

fn message(phone: usize, mark: &str) -> String {
    format!("<message from='push.localhost' to='d{phone}@localhost' type='chat' id='m'>{mark}hello</body></message>")
}

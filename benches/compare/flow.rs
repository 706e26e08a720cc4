//! Messages from client to client, each twice through the proxy: as many as possible, and at a fixed rate.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::link::{Link, Socket, Target};
use super::process::own_cpu;
use super::proxy::Running;
use super::shape::{Expected, Shape, Template};
use super::stats::percentile;
use super::stub::Stub;

/// Number of client pairs that send as much as they can.
const PAIRS: usize = 8;
/// The time before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(300);
/// Maximum wait for the last messages.
const DRAIN: Duration = Duration::from_secs(30);

/// The result of a run with as many messages as possible.
pub(crate) struct Throughput {
    /// Messages delivered per second.
    pub(crate) rate: f64,
    /// Seconds of the proxy's processor time per million messages.
    pub(crate) cpu: f64,
    /// The same for this program, which is client and server.
    pub(crate) own: f64,
}

/// The result of a run at a fixed rate.
pub(crate) struct Paced {
    /// Seconds from the sending of a message to its arrival.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Seconds of the proxy's processor time per million messages. 0 without a proxy.
    pub(crate) cpu: f64,
}

/// Two clients and their messages. The first one sends, the second one receives.
struct Pair {
    sender: Sender,
    receiver: Receiver,
    sent: u64,
}

struct Sender {
    link: Link,
    template: Template,
}

struct Receiver {
    link: Link,
    managed: bool,
    expected: Expected,
}

impl Pair {
    async fn log_in(target: &Target, stub: &Stub, shape: Shape, number: usize) -> Self {
        Self::new(Self::links(target, &Self::names(number)).await, target, stub, shape, number)
    }

    /// Returns the names of sender and receiver.
    fn names(number: usize) -> [String; 2] {
        [format!("s{number}"), format!("r{number}")]
    }

    async fn links(target: &Target, [from, to]: &[String; 2]) -> [Link; 2] {
        let (receiver, _) = Link::session(target, to).await.unwrap();
        let (sender, _) = Link::session(target, from).await.unwrap();
        [sender, receiver]
    }

    fn new([sender, receiver]: [Link; 2], target: &Target, stub: &Stub, shape: Shape, number: usize) -> Self {
        let [from, to] = Self::names(number);
        stub.user(&to);
        let template = shape.message(&from, &to);
        let expected = Expected::new(template.clone());
        let receiver = Receiver { link: receiver, managed: target.managed, expected };
        Self { sender: Sender { link: sender, template }, receiver, sent: 0 }
    }

    /// Sends until `stop`, never more than a window ahead of the receiver. Then waits for the remaining messages.
    async fn saturate(mut self, shape: Shape, delivered: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Self {
        let mut record = Vec::new();
        loop {
            let on_the_way = self.sent - self.receiver.expected.received;
            let stopping = stop.load(Ordering::Relaxed);
            if stopping && on_the_way == 0 {
                return self;
            }
            if !stopping && on_the_way <= shape.window() / 2 {
                self.send(shape, shape.window() - on_the_way, &mut record).await;
            }
            self.receiver
                .receive(|_| {
                    delivered.fetch_add(1, Ordering::Relaxed);
                })
                .await;
        }
    }

    /// Encrypts this many messages in the records that their shape requires, and writes them at once.
    async fn send(&mut self, shape: Shape, messages: u64, record: &mut Vec<u8>) {
        let mut left = messages;
        while left > 0 {
            record.clear();
            let count = left.min(shape.per_record() as u64);
            for number in self.sent..self.sent + count {
                self.sender.template.render(number, record);
            }
            self.sent += count;
            left -= count;
            match &mut self.sender.link.tls {
                Some(tls) => tls.writer().write_all(record).unwrap(),
                None => self.sender.link.send(record).await.unwrap(),
            }
        }
        self.sender.link.flush().await.unwrap();
    }

    async fn leave(self) {
        self.sender.link.leave().await;
        self.receiver.leave().await;
    }
}

/// Lets a few clients send as many messages as they can for this time.
pub(crate) async fn saturate(running: &Running, stub: &Stub, shape: Shape, time: Duration) -> Throughput {
    stub.expect(shape.len());
    let (delivered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        pairs.push(Pair::log_in(running.target(), stub, shape, number).await);
    }
    for pair in pairs {
        tasks.push(tokio::spawn(pair.saturate(shape, Arc::clone(&delivered), Arc::clone(&stop))));
    }
    tokio::time::sleep(WARM_UP).await;
    let (from, cpu, own, at) = (delivered.load(Ordering::Relaxed), running.begin(), own_cpu(), Instant::now());
    tokio::time::sleep(time).await;
    let (to, cpu, own) = (delivered.load(Ordering::Relaxed), running.cpu() - cpu, own_cpu() - own);
    let elapsed = at.elapsed();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        tokio::time::timeout(DRAIN, task).await.expect("the last messages").unwrap().leave().await;
    }
    stub.until_online(0).await;
    let messages = (to - from) as f64;
    Throughput {
        rate: messages / elapsed.as_secs_f64(),
        cpu: cpu.as_secs_f64() / messages * 1e6,
        own: own.as_secs_f64() / messages * 1e6,
    }
}

/// Number of clients that log in at once.
const AT_ONCE: usize = 16;

/// A fixed rate of messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Messages per second.
    pub(crate) rate: u64,
    /// Number of client pairs that share the rate.
    pub(crate) pairs: usize,
    pub(crate) time: Duration,
}

/// Logged-in pairs of clients, for messages of 200 B.
pub(crate) struct Pairs(Vec<Pair>);

impl Pairs {
    /// Logs in this many pairs.
    pub(crate) async fn log_in(target: &Target, stub: &Stub, count: usize) -> Self {
        let mut pairs = Vec::with_capacity(count);
        for from in (0..count).step_by(AT_ONCE) {
            let batch = (from..count.min(from + AT_ONCE)).map(|number| {
                let (target, names) = (target.clone(), Pair::names(number));
                tokio::spawn(async move { Pair::links(&target, &names).await })
            });
            for (number, links) in batch.collect::<Vec<_>>().into_iter().enumerate() {
                let links = links.await.unwrap();
                pairs.push(Pair::new(links, target, stub, Shape::Single, from + number));
            }
        }
        Self(pairs)
    }
}

/// Sends messages of 200 B at a fixed rate. Without a proxy, clients connect directly to the server and without TLS.
pub(crate) async fn paced(target: &Target, running: Option<&Running>, stub: &Stub, pace: Pace) -> Paced {
    exchange(Pairs::log_in(target, stub, pace.pairs).await, running, stub, pace).await
}

/// The same with pairs that have logged in. They leave afterwards.
pub(crate) async fn exchange(pairs: Pairs, running: Option<&Running>, stub: &Stub, pace: Pace) -> Paced {
    stub.expect(Shape::Single.len());
    // Each pair sends the same number.
    let each = (pace.rate as f64 * pace.time.as_secs_f64()) as usize / pace.pairs;
    let total = each * pace.pairs;
    let start = Instant::now();
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..total).map(|_| AtomicU64::new(0)).collect());
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for (number, pair) in pairs.0.into_iter().enumerate() {
        senders.push(pair.sender);
        receivers.push(tokio::spawn(pair.receiver.latencies((number, pace.pairs), Arc::clone(&sent), start)));
    }
    let cpu = running.map(Running::begin);
    let sending = std::thread::spawn(move || send_all(senders, &sent, pace.rate, start));
    let mut latencies = Vec::new();
    let mut finished = Vec::new();
    for receiver in receivers {
        let (receiver, seen) = tokio::time::timeout(pace.time + DRAIN, receiver).await.expect("all messages").unwrap();
        latencies.extend(seen);
        finished.push(receiver);
    }
    let cpu = running.zip(cpu).map_or(Duration::ZERO, |(running, before)| running.cpu() - before);
    for link in sending.join().unwrap() {
        link.leave().await;
    }
    for receiver in finished {
        receiver.leave().await;
    }
    stub.until_online(0).await;
    Paced {
        p50: percentile(&latencies, 0.5),
        p99: percentile(&latencies, 0.99),
        cpu: cpu.as_secs_f64() / total as f64 * 1e6,
    }
}

impl Receiver {
    /// Reads messages, and answers the proxy's ack requests.
    async fn receive(&mut self, arrived: impl FnMut(u64)) {
        self.link.read().await.unwrap();
        self.expected.take(&mut self.link.inbox, arrived);
        if std::mem::take(&mut self.expected.asked) {
            self.acknowledge().await;
        }
    }

    async fn acknowledge(&mut self) {
        let answer = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.expected.received);
        self.link.send(answer.as_bytes()).await.unwrap();
    }

    /// Ends the stream. Messages not acknowledged before would wait for the next session.
    async fn leave(mut self) {
        if self.managed {
            self.acknowledge().await;
        }
        self.link.leave().await;
    }

    /// Receives all messages of one of this many pairs. Returns the seconds that each was in transit.
    async fn latencies(
        mut self,
        (pair, pairs): (usize, usize),
        sent: Arc<Vec<AtomicU64>>,
        start: Instant,
    ) -> (Self, Vec<f64>) {
        let mut latencies = Vec::with_capacity(sent.len() / pairs);
        while latencies.len() < sent.len() / pairs {
            self.receive(|number| {
                let sent = sent[number as usize * pairs + pair].load(Ordering::Relaxed);
                latencies.push((start.elapsed().as_nanos() as u64 - sent) as f64 / 1e9);
            })
            .await;
        }
        (self, latencies)
    }
}

/// Sends messages at their times, on each pair in turn. Runs on a thread of its own, because the runtime's timers are
/// too coarse.
fn send_all(mut senders: Vec<Sender>, sent: &[AtomicU64], rate: u64, start: Instant) -> Vec<Link> {
    let begin = Instant::now() + Duration::from_millis(10);
    let pairs = senders.len();
    let mut message = Vec::new();
    for (number, at) in sent.iter().enumerate() {
        let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let Sender { link, template } = &mut senders[number % pairs];
        message.clear();
        template.render((number / pairs) as u64, &mut message);
        at.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        match &mut link.tls {
            Some(tls) => {
                tls.writer().write_all(&message).unwrap();
                // A few hundred bytes, for which the connection has room.
                while tls.wants_write() {
                    tls.write_tls(&mut Socket(&link.tcp)).unwrap();
                }
            }
            None => assert_eq!(link.tcp.try_write(&message).unwrap(), message.len()),
        }
    }
    senders.into_iter().map(|sender| sender.link).collect()
}

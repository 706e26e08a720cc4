//! Measurements of dark phones: their cost while nothing and while messages wait, the delay of notifications, and the
//! time until waiting messages arrive after a phone returns. The same for Pushward and for a server that does all this
//! itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{Link, Target, attribute};
use super::process::Process;
use super::prosody::Component;
use super::published::Published;
use super::stats::percentile;
use super::stub::Stub;

/// Number of phones that log in at once.
const AT_ONCE: usize = 32;
/// Number of phones that log in and leave before anything is measured. Their numbers follow those of the others.
const WARM_UP: usize = 16;
/// Number of bytes in a message's text.
const BODY: usize = 120;
/// Maximum wait for outstanding notifications after the last message.
const DRAIN: Duration = Duration::from_secs(10);

/// A phone that is dark.
pub(crate) struct Phone {
    number: usize,
    previd: String,
}

/// The sender of messages to the phones.
#[derive(Clone, Copy)]
pub(crate) enum Writer<'a> {
    Stub(&'a Stub),
    Component(&'a Component),
}

/// The proxy or server that phones connect to, with their sender and push service.
#[derive(Clone, Copy)]
pub(crate) struct Home<'a> {
    pub(crate) target: &'a Target,
    pub(crate) process: &'a Process,
    pub(crate) writer: Writer<'a>,
    pub(crate) published: &'a Arc<Published>,
}

/// Memory per dark phone, and the time to deliver waiting messages.
pub(crate) struct Away {
    /// Bytes of memory while nothing waits.
    pub(crate) empty: f64,
    /// Bytes of memory while messages wait.
    pub(crate) queued: f64,
    /// The bytes of these messages.
    pub(crate) bytes: f64,
    /// Seconds from connecting to the last message, median.
    pub(crate) resume: f64,
}

/// The delay and cost of notifications.
pub(crate) struct Pushes {
    /// Seconds from the message to the publish.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Seconds of processor time per publish.
    pub(crate) cpu: f64,
    /// Publishes per message.
    pub(crate) share: f64,
}

impl Home<'_> {
    /// Measures the memory of this many dark phones, then with this many messages waiting for each. Then some phones
    /// return.
    pub(crate) async fn away(&self, phones: usize, messages: usize, returning: usize) -> Away {
        self.published.reset(0);
        self.write(&self.leave_behind(phones..phones + WARM_UP).await, messages).await;
        let base = self.process.memory() as f64;
        let per_phone = |memory: u64| (memory as f64 - base) / phones as f64;
        let all = self.leave_behind(0..phones).await;
        let empty = per_phone(self.process.memory());
        let bytes = self.write(&all, messages).await as f64 / phones as f64;
        let queued = per_phone(self.process.memory());
        let mut times = Vec::new();
        for phone in all.iter().take(returning) {
            times.push(self.resume(phone, messages).await.as_secs_f64());
        }
        Away { empty, queued, bytes, resume: percentile(&times, 0.5) }
    }

    /// Sends messages to this many dark phones in turn, at a fixed rate.
    pub(crate) async fn pushes(&self, phones: usize, rate: u64, messages: usize) -> Pushes {
        self.published.reset(0);
        let all = self.leave_behind(0..phones).await;
        self.published.reset(phones);
        let (cpu, begin) = (self.process.begin(), Instant::now());
        for number in 0..messages {
            let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
            let phone = all[number % phones].number;
            self.published.sent(phone);
            self.send(phone, &message(phone, number)).await;
        }
        let until = Instant::now() + DRAIN;
        while self.published.delays().len() < messages && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (count, delays) = (self.published.count(), self.published.delays());
        assert!(!delays.is_empty(), "nothing was published");
        Pushes {
            p50: percentile(&delays, 0.5),
            p99: percentile(&delays, 0.99),
            cpu: (self.process.cpu() - cpu).as_secs_f64() / count as f64,
            share: count as f64 / messages as f64,
        }
    }

    /// Logs in phones, registers them for notifications, and cuts their connections.
    pub(crate) async fn leave_behind(&self, numbers: std::ops::Range<usize>) -> Vec<Phone> {
        let mut phones = Vec::with_capacity(numbers.len());
        for from in numbers.clone().step_by(AT_ONCE) {
            let batch = (from..numbers.end.min(from + AT_ONCE)).map(|number| {
                let target = self.target.clone();
                tokio::spawn(async move { come_and_go(&target, number).await })
            });
            for phone in batch.collect::<Vec<_>>() {
                phones.push(phone.await.unwrap());
            }
        }
        self.process.settle().await;
        phones
    }

    /// Sends this many messages to each phone. Returns their bytes.
    pub(crate) async fn write(&self, phones: &[Phone], messages: usize) -> usize {
        let mut bytes = 0;
        for number in 0..messages {
            for phone in phones {
                let message = message(phone.number, number);
                bytes += message.len();
                self.send(phone.number, &message).await;
            }
        }
        self.process.settle().await;
        bytes
    }

    async fn send(&self, phone: usize, message: &str) {
        match self.writer {
            Writer::Stub(stub) => stub.user(&format!("d{phone}")).write(message.as_bytes()).await.unwrap(),
            Writer::Component(component) => component.send(message).await,
        }
    }

    /// Returns the time from connecting until a phone has all its waiting messages.
    pub(crate) async fn resume(&self, phone: &Phone, messages: usize) -> Duration {
        let begin = Instant::now();
        let mut link = Link::connect(self.target).await.unwrap();
        link.authenticate(&format!("d{}", phone.number)).await.unwrap();
        let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='0'/>", phone.previd);
        link.send(resume.as_bytes()).await.unwrap();
        link.until(b"<resumed").await.unwrap();
        for number in 0..messages {
            let came = link.until(b"</message>").await.unwrap();
            assert!(came.contains(&mark(number)), "message {number} is not the next: {came}");
        }
        let elapsed = begin.elapsed();
        link.send(format!("<a xmlns='urn:xmpp:sm:3' h='{messages}'/>").as_bytes()).await.unwrap();
        link.leave().await;
        elapsed
    }
}

async fn come_and_go(target: &Target, number: usize) -> Phone {
    let (mut link, id) = Link::session(target, &format!("d{number}")).await.unwrap();
    let enable = format!(
        "<iq type='set' id='push'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n{number}'/></iq>"
    );
    link.send(enable.as_bytes()).await.unwrap();
    // The server's own presence may come before it, and the match may be the end of the start tag.
    loop {
        let came = link.until(b">").await.unwrap();
        if came.contains("<iq ") {
            assert_eq!(attribute(&came, "type").as_deref(), Some("result"), "{came}");
            break;
        }
    }
    link.reset();
    Phone { number, previd: id.expect("stream management") }
}

fn mark(number: usize) -> String {
    format!("<body>{number:06} ")
}

fn message(phone: usize, number: usize) -> String {
    format!(
        "<message from='push.localhost' to='d{phone}@localhost' type='chat' id='m{number}'>{}{}</body></message>",
        mark(number),
        "x".repeat(BODY)
    )
}

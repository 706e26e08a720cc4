//! The cost of the parts of the hot path, so that a regression can be located: `cargo bench --bench micro`.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails should do so where it fails")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pushward::clock::UnixMillis;
use pushward::jid::BareJid;
use pushward::push::account::{DeviceId, LoginId};
use pushward::push::classify::{Context, read};
use pushward::push::rooms::Rooms;
use pushward::seq::Seq;
use pushward::session::queue::{Placement, Queue, Queued};
use pushward::store::{SpoolId, Spooled, Store};
use pushward::xml::{Element, Frame, FrameLimits, Framer, stream_header};

const LIMITS: FrameLimits = FrameLimits::new(1 << 20, 128);
/// Number of stanzas in one read.
const BATCH: usize = 32;

/// An iq with tags of many attributes (XEP-0166, XEP-0167, XEP-0176).
const CALL: &str = "<iq from='romeo@example.net/x' to='juliet@example.org/y' id='1' type='set'>\
    <jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' initiator='romeo@example.net/x' sid='a73sjjvkla37jfea'>\
    <content creator='initiator' name='voice'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>\
    <payload-type id='111' name='opus' clockrate='48000' channels='2'><parameter name='minptime' value='10'/>\
    <parameter name='useinbandfec' value='1'/></payload-type><payload-type id='8' name='PCMA' clockrate='8000'/>\
    </description><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' pwd='asd88fgpdd777uzjYhagZg' ufrag='8hhy'>\
    <candidate component='1' foundation='1' generation='0' id='el0747fg11' ip='10.0.1.1' network='1' port='8998' \
    priority='2130706431' protocol='udp' type='host'/><candidate component='1' foundation='2' generation='0' \
    id='y3s2b30v3r' ip='192.0.2.3' network='1' port='45664' priority='1694498815' protocol='udp' \
    rel-addr='10.0.1.1' rel-port='8998' type='srflx'/></transport></content></jingle></iq>";

/// Returns a message of this many bytes, filled with text.
fn text(len: usize) -> String {
    repeated(len, "Shall we meet? ")
}

/// Returns a message as long as whole characters allow, filled with this text.
fn repeated(len: usize, text: &str) -> String {
    let (start, end) =
        ("<message from='romeo@example.net/x' to='juliet@example.org' type='chat' id='1'><body>", "</body></message>");
    let mut message = start.to_owned();
    for letter in text.chars().cycle() {
        if message.len() + letter.len_utf8() + end.len() > len {
            break;
        }
        message.push(letter);
    }
    message + end
}

/// Returns a message of this many bytes, filled with small elements.
fn tags(len: usize) -> String {
    let (start, end) =
        ("<message from='romeo@example.net/x' to='juliet@example.org' type='chat' id='1'>", "</message>");
    let mut message = start.to_owned();
    for number in 0.. {
        let tag = format!("<f n='{}'><v k='t'>{}</v></f>", number % 10, number % 7);
        if message.len() + tag.len() + end.len() > len {
            break;
        }
        message.push_str(&tag);
    }
    message + end
}

fn opened() -> Framer {
    let mut framer = Framer::new(LIMITS);
    framer.buffer().extend_from_slice(&stream_header("example.org", "1", None));
    assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
    framer
}

fn element(xml: &str) -> Element {
    let mut framer = opened();
    framer.buffer().extend_from_slice(xml.as_bytes());
    match framer.next_frame() {
        Ok(Some(Frame::Element(element))) => element,
        other => panic!("{other:?}"),
    }
}

fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("framing");
    for (name, stanza, count) in [
        ("200 B, one a read", text(200), 1),
        ("200 B, 32 a read", text(200), BATCH),
        ("4 KiB of text", text(4096), 1),
        ("4 KiB of Cyrillic text", repeated(4096, "Встретимся? "), 1),
        ("4 KiB of small tags", tags(4096), 1),
        ("a call", CALL.to_owned(), 1),
    ] {
        let bytes = stanza.repeat(count);
        let mut framer = opened();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                framer.buffer().extend_from_slice(black_box(bytes.as_bytes()));
                for _ in 0..count {
                    black_box(framer.next_frame().unwrap().unwrap());
                }
            });
        });
    }
    group.finish();
}

fn classification(c: &mut Criterion) {
    let mut group = c.benchmark_group("classification");
    let account: BareJid = "juliet@example.org".parse().unwrap();
    let rooms = Rooms::default();
    let receipt = "<message from='romeo@example.net/x' id='1'><received xmlns='urn:xmpp:receipts' id='2'/></message>";
    for (name, stanza) in
        [("a chat message", text(200)), ("4 KiB of small tags", tags(4096)), ("a receipt", receipt.to_owned())]
    {
        let element = element(&stanza);
        let context = Context { account: &account, rooms: &rooms };
        group.bench_function(name, |bencher| bencher.iter(|| black_box(read(black_box(&element), context)).class));
    }
    group.finish();
}

fn queue(c: &mut Criterion) {
    let message = element(&text(200));
    let mut queue = Queue::new(4 << 20);
    c.bench_function("queue/32 stanzas in, written, acknowledged", |bencher| {
        bencher.iter(|| {
            for _ in 0..BATCH {
                let Placement::Memory(seq) = queue.place(message.bytes().len()) else { panic!("no room") };
                queue.hold(Queued::new(message.clone(), seq, UnixMillis::new(0)).durable());
            }
            for _ in 0..BATCH {
                black_box(queue.write_next());
            }
            black_box(queue.acknowledge(BATCH));
        });
    });
}

/// Measures commits of the spool. One commit is one sync of the disk, however many sessions share it.
fn spool(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let mut seq = Seq::ZERO;
    let mut group = c.benchmark_group("spool");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for sessions in [1, BATCH] {
        group.throughput(Throughput::Elements(sessions as u64));
        group.bench_function(format!("{sessions} sessions commit a stanza"), |bencher| {
            bencher.iter_custom(|rounds| {
                let begin = Instant::now();
                for _ in 0..rounds {
                    seq = seq.next();
                    runtime.block_on(commit(&store, sessions, seq));
                }
                begin.elapsed()
            });
        });
    }
    group.bench_function("read back", |bencher| {
        let spool = spool_of(0);
        bencher.iter_batched(
            || spool.clone(),
            |spool| runtime.block_on(store.spooled(&spool, Seq::ZERO, 64 << 10)).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    runtime.block_on(store.shutdown());
}

fn spool_of(number: usize) -> SpoolId {
    SpoolId { account: format!("user{number}@example.org").parse().unwrap(), login: LoginId(1) }
}

async fn commit(store: &Store, sessions: usize, seq: Seq) {
    let tasks = (0..sessions).map(|number| {
        let (store, spool) = (store.clone(), spool_of(number));
        let item =
            Spooled { seq, received: UnixMillis::new(0), shared: true, archived: false, bytes: Bytes::from(text(200)) };
        tokio::spawn(async move { store.spool(&spool, DeviceId(1), vec![item]).await.unwrap() })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

criterion_group!(benches, framing, classification, queue, spool);
criterion_main!(benches);

//! The cost of the parts of the hot path, so that a regression can be located: `cargo bench --bench micro`.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails should do so where it fails")]

mod stanzas;

use pushward::clock::Instant;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pushward::clock::UnixMillis;
use pushward::jid::BareJid;
use pushward::push::account::{DeviceId, LoginId};
use pushward::push::classify::{Context, read};
use pushward::push::rooms::Rooms;
use pushward::seq::Seq;
use pushward::session::queue::Queue;
use pushward::store::{SpoolId, Spooled, Store};

use stanzas::{BATCH, CALL, element, opened, pass_batch, repeated, tags, text};

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
            pass_batch(&mut queue, &message);
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

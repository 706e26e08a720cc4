//! The work of the hot paths, for `benches/guard`, which counts its instructions under Callgrind.
//!
//! Without an argument the program lists the benchmarks, with `--processor` it prints the instruction set that the framer uses,
//! and with the name of a benchmark it runs that one and prints the number of rounds. Only [`counted_round`] is counted; the
//! preparation of a round is not. Inputs, times and random numbers are the same in each run.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails should do so where it fails")]

mod stanzas;

use pushward::clock::Instant;
use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pushward::clock::{UnixMillis, UnixSecs};
use pushward::jid::{BareJid, FullJid, Jid};
use pushward::push::account::{Account, Change, DeviceId, DeviceRecognition, LoginId};
use pushward::push::classify::{Context, read};
use pushward::push::outcome::Outcome;
use pushward::push::registration::{Extensions, Registration, Target};
use pushward::push::rooms::Rooms;
use pushward::session::mechanism_filter::Leg;
use pushward::session::negotiate::{LoginInput, LoginOutput, Negotiation};
use pushward::session::queue::Queue;
use pushward::session::rewrite::offers::ServerFeatures;
use pushward::session::{Bound, Clock, Input, Output, Owner, PublishResult, Session, Settings, Stored};
use pushward::xml::{Element, Frame, Header, stream_header};

use stanzas::{BATCH, CALL, element, opened, pass_batch, repeated, tags, text};

/// The rounds before the count begins: tables have their size then, and the processor has been detected.
const WARM_UP: usize = 20;
const ROUNDS: usize = 100;

const DEVICE: DeviceId = DeviceId(1);
const CLIENT_HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='example.org' version='1.0'>";

/// The benchmarks, by name.
const BENCHMARKS: [(&str, fn()); 13] = [
    ("framing, a message of 200 B", || framing(&text(200), 1)),
    ("framing, 32 messages in one read", || framing(&text(200), BATCH)),
    ("framing, 4 KiB of text", || framing(&text(4096), 1)),
    ("framing, 4 KiB of Cyrillic text", || framing(&repeated(4096, "Встретимся? "), 1)),
    ("framing, 4 KiB of small tags", || framing(&tags(4096), 1)),
    ("framing, a call in reads of 64 B", framing_in_pieces),
    ("classification, message, receipt, call", classification),
    ("queue, 32 stanzas in, written, acked", queue),
    ("session, message to a live client", message_to_a_live_client),
    ("session, message from the client", message_from_the_client),
    ("session, message to a dark client", message_to_a_dark_client),
    ("login, SASL and bind", login),
    ("account, change, encode, decode", account),
];

fn main() {
    match std::env::args().nth(1).as_deref() {
        None => BENCHMARKS.iter().for_each(|(name, _)| println!("{name}")),
        Some("--processor") => println!("{:?}", fearless_simd::Level::new()),
        Some(wanted) => {
            let (_, run) = BENCHMARKS.iter().find(|(name, _)| *name == wanted).unwrap();
            run();
            println!("{ROUNDS}");
        }
    }
}

/// The function whose instructions `benches/guard` counts, with those that it calls.
#[inline(never)]
fn counted_round(work: &mut dyn FnMut()) {
    work();
    // Prevents a tail call, after which Callgrind would not see the return.
    black_box(work);
}

/// Runs this work on what was prepared for it, once a round.
fn measure<T>(mut prepare: impl FnMut() -> T, mut work: impl FnMut(T)) {
    for _ in 0..WARM_UP {
        work(prepare());
    }
    for _ in 0..ROUNDS {
        let mut prepared = Some(prepare());
        counted_round(&mut || work(prepared.take().unwrap()));
    }
}

fn framing(stanza: &str, count: usize) {
    let (bytes, mut framer) = (stanza.repeat(count), opened());
    let work = |bytes: &str| {
        framer.buffer().extend_from_slice(bytes.as_bytes());
        for _ in 0..count {
            black_box(framer.next_frame().unwrap().unwrap());
        }
    };
    measure(|| black_box(&*bytes), work);
}

fn framing_in_pieces() {
    let mut framer = opened();
    let work = |bytes: &str| {
        let mut found = 0;
        for piece in bytes.as_bytes().chunks(64) {
            framer.buffer().extend_from_slice(piece);
            found += usize::from(black_box(framer.next_frame().unwrap()).is_some());
        }
        assert_eq!(found, 1);
    };
    measure(|| black_box(CALL), work);
}

fn classification() {
    let (account, rooms): (BareJid, _) = ("juliet@example.org".parse().unwrap(), Rooms::default());
    let receipt = "<message from='romeo@example.net/x' id='1'><received xmlns='urn:xmpp:receipts' id='2'/></message>";
    let elements = [element(&text(200)), element(receipt), element(CALL)];
    let work = |elements: &[Element]| {
        for element in elements {
            black_box(read(element, Context { account: &account, rooms: &rooms }).class);
        }
    };
    measure(|| black_box(&elements[..]), work);
}

fn queue() {
    let message = element(&text(200));
    let mut queue = Queue::new(4 << 20);
    let work = |message: &Element| {
        pass_batch(&mut queue, message);
    };
    measure(|| black_box(&message), work);
}

/// A session with stream management on both legs and one registration, and what it has put out.
struct Rig {
    session: Session,
    now: Instant,
    account: Account,
    to_client: Vec<Bytes>,
    to_server: Vec<Bytes>,
    notifications: usize,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        let mut account = Account::default();
        account.apply(log_in());
        let header = header();
        let jid = FullJid::new("juliet@example.org/phone").unwrap();
        let server = ServerFeatures { csi: true, sm: true };
        let bound = Bound { server, ..Bound::new(jid, Arc::clone(&header), header) };
        let recognition = DeviceRecognition::Guessed;
        let owner = Owner { device: DEVICE, recognition, account: account.clone(), waits: false, older: false };
        let settings = Settings { session_queue: 1 << 20, ..Settings::default() };
        let clock = Clock { now, wall: UnixMillis::new(1000) };
        let session = Session::new(Arc::new(settings), bound, owner, random, clock);
        let mut rig = Self { session, now, account, to_client: Vec::new(), to_server: Vec::new(), notifications: 0 };
        rig.server(frame("<enabled xmlns='urn:xmpp:sm:3'/>"));
        rig.client(frame("<enable xmlns='urn:xmpp:sm:3' resume='true'/>"));
        rig.client(frame("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>"));
        rig.client(frame("<a xmlns='urn:xmpp:sm:3' h='1'/>"));
        rig.clear();
        rig
    }

    fn client(&mut self, frame: Frame) {
        let attachment = self.session.attachment();
        self.input(Input::Client { attachment, frame });
        self.input(Input::Quiet);
    }

    fn server(&mut self, frame: Frame) {
        self.input(Input::Upstream(frame));
        self.input(Input::Quiet);
    }

    fn input(&mut self, input: Input) {
        self.session.handle(self.now, input);
        while let Some(output) = self.session.poll() {
            if let Some(answer) = self.perform(output) {
                self.session.handle(self.now, answer);
            }
        }
    }

    /// Performs an effect. Returns the answer to it.
    #[allow(clippy::wildcard_enum_match_arm, reason = "other effects need no answer")]
    fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::ToClient(bytes) | Output::ReplyToClient(bytes) => self.to_client.push(bytes),
            Output::ToUpstream(bytes) | Output::ReplyToUpstream(bytes) => self.to_server.push(bytes),
            Output::Store { token, change } => {
                let device = self.account.apply(*change);
                let changed = Input::Changed(Some(Box::new(self.account.clone())));
                let Some(token) = token else { return Some(changed) };
                self.session.handle(self.now, changed);
                return Some(Input::Stored { token, stored: Stored::Durable(device) });
            }
            Output::Spool(stanzas) => return stanzas.last().map(|last| Input::Spooled { up_to: last.seq }),
            Output::Publish(publish) => {
                self.notifications += 1;
                let result = PublishResult { id: publish.id, target: publish.target, outcome: Outcome::Accepted };
                return Some(Input::Published(Box::new(result)));
            }
            other => drop(black_box(other)),
        }
        None
    }

    /// Lets time pass, with each timeout at its moment.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.session.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
            self.input(Input::Quiet);
        }
        self.now = until;
    }

    fn clear(&mut self) {
        self.to_client.clear();
        self.to_server.clear();
    }

    fn wrote(&self, bytes: &[u8]) -> bool {
        self.to_client.iter().chain(&self.to_server).any(|written| **written == *bytes)
    }
}

/// Relays a message to the client, which acknowledges it, and acknowledges it to the server.
fn message_to_a_live_client() {
    let (mut rig, mut number) = (Rig::new(), 0);
    let prepare = || {
        number += 1;
        let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", number + 1);
        (message(number), frame(&ack), frame("<r xmlns='urn:xmpp:sm:3'/>"))
    };
    let work = |(message, ack, request): (Element, Frame, Frame)| {
        rig.server(Frame::Element(message.clone()));
        rig.client(ack);
        rig.server(request);
        assert!(rig.wrote(message.bytes()) && rig.session.queued().0 == 0);
        rig.clear();
    };
    measure(prepare, work);
}

/// Relays a message to the server, which acknowledges it, and acknowledges it to the client.
fn message_from_the_client() {
    let (mut rig, mut number) = (Rig::new(), 0);
    let prepare = || {
        number += 1;
        let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{number}'/>");
        (message(number), frame(&ack), frame("<r xmlns='urn:xmpp:sm:3'/>"))
    };
    let work = |(message, ack, request): (Element, Frame, Frame)| {
        rig.client(Frame::Element(message.clone()));
        rig.server(ack);
        rig.client(request);
        assert!(rig.wrote(message.bytes()) && rig.to_client.len() == 1);
        rig.clear();
    };
    measure(prepare, work);
}

/// Spools a message and notifies the push service.
fn message_to_a_dark_client() {
    let prepare = || {
        let mut rig = Rig::new();
        let attachment = rig.session.attachment();
        rig.input(Input::ClientLost(attachment));
        rig.input(Input::Quiet);
        rig.clear();
        (rig, message(1))
    };
    let work = |(mut rig, message): (Rig, Element)| {
        rig.server(Frame::Element(message));
        rig.pass(Duration::from_secs(30));
        assert_eq!(rig.notifications, 1);
    };
    measure(prepare, work);
}

/// Takes a login from the first header to the bind.
fn login() {
    const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
    const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
    let (hosts, now) = (Arc::new(HashSet::from(["example.org".to_owned()])), Instant::now());
    let settings = Arc::new(Settings { stanza: 1 << 20, session_queue: 1 << 20, ..Settings::default() });
    let prepare = || {
        let (client, server) = (|xml| LoginInput::Client(frame(xml)), |xml| LoginInput::Upstream(frame(xml)));
        let to_host = || Frame::Open(Arc::new(Header::parse(Bytes::from_static(CLIENT_HEADER)).unwrap()));
        let headers = || [LoginInput::Client(to_host()), LoginInput::Upstream(Frame::Open(header()))];
        let ([to, from], [to_again, from_again]) = (headers(), headers());
        [
            to,
            LoginInput::Connected(Leg::Plain),
            from,
            server(&format!(
                "<stream:features><mechanisms xmlns='{SASL}'><mechanism>PLAIN</mechanism></mechanisms></stream:features>"
            )),
            client(&format!("<auth xmlns='{SASL}' mechanism='PLAIN'>AGp1bGlldABzZWNyZXQ=</auth>")),
            server(&format!("<success xmlns='{SASL}'/>")),
            to_again,
            from_again,
            server(&format!("<stream:features><bind xmlns='{BIND}'/><sm xmlns='urn:xmpp:sm:3'/></stream:features>")),
            client(&format!("<iq type='set' id='b'><bind xmlns='{BIND}'><resource>phone</resource></bind></iq>")),
            server(&format!(
                "<iq type='result' id='b'><bind xmlns='{BIND}'><jid>juliet@example.org/phone</jid></bind></iq>"
            )),
        ]
    };
    let work = |inputs: [LoginInput; 11]| {
        let deadline = now + Duration::from_secs(30);
        let mut negotiation = Negotiation::new(Arc::clone(&hosts), Arc::clone(&settings), random, deadline);
        let mut bound = false;
        for input in inputs {
            negotiation.handle(input);
            while let Some(output) = negotiation.poll() {
                bound |= matches!(black_box(output), LoginOutput::Bound(_));
            }
        }
        assert!(bound);
    };
    measure(prepare, work);
}

/// Reads an account's record, adds a registration, and writes the record, as the store does.
fn account() {
    let mut account = Account::default();
    account.apply(log_in());
    for number in 0..4 {
        account.apply(enable(number));
    }
    let record = serde_json::to_vec(&account).unwrap();
    let work = |(record, change): (&[u8], Change)| {
        let mut account: Account = serde_json::from_slice(record).unwrap();
        account.apply(change);
        black_box(serde_json::to_vec(&account).unwrap());
    };
    measure(|| (black_box(&*record), enable(4)), work);
}

fn log_in() -> Change {
    Change::Login {
        candidate: DEVICE,
        login: LoginId(1),
        resource: "phone".into(),
        agent: None,
        presented: None,
        at: UnixSecs::new(0),
    }
}

fn enable(number: usize) -> Change {
    let registration = Registration {
        target: Target { service: Jid::new("push.example"), node: Some(format!("node-{number}")) },
        options: None,
        extensions: Box::<Extensions>::default(),
        device: DEVICE,
        last_seen: UnixSecs::new(0),
        errors: 0,
        last_success: None,
        undelivered_since: None,
    };
    Change::Enable { registration, recognition: DeviceRecognition::Guessed, max_devices: 16 }
}

/// Returns a message with its own id: a repeated message is recognized.
fn message(number: usize) -> Element {
    element(&text(200).replace("id='1'", &format!("id='{number:04}'")))
}

fn frame(xml: &str) -> Frame {
    Frame::Element(element(xml))
}

fn header() -> Arc<Header> {
    Arc::new(Header::parse(stream_header("example.org", "1", None)).unwrap())
}

/// Returns the same number each time: the tests of randomness are elsewhere.
fn random() -> u128 {
    42
}

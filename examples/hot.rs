#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::indexing_slicing)]
use bytes::{Bytes, BytesMut};
use pushward::jid::FullJid;
use pushward::push::account::{Account, Device, DeviceId, LoginId};
use pushward::session::*;
use pushward::xml::*;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const LIMITS: FrameLimits = FrameLimits { bytes: 1 << 20, depth: 128 };
fn text(len: usize) -> String {
    let (start, end) = (
        "<message from='romeo@example.net/x' to='juliet@example.org' type='chat' id='m0000000001'><body>",
        "</body></message>",
    );
    format!("{start}{}{end}", "Shall we meet? ".chars().cycle().take(len - start.len() - end.len()).collect::<String>())
}
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
fn dice() -> u128 {
    77
}
fn header() -> Arc<Header> {
    Arc::new(Header::parse(stream_header("example.org", "1", None)).unwrap())
}
struct Rig {
    session: Session,
    client: Framer,
    upstream: Framer,
    now: Instant,
    to_client: BytesMut,
    to_up: BytesMut,
    up_asks: usize,
    cl_asks: usize,
}
impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        let mut bound = Bound {
            jid: FullJid::new("juliet@example.org/phone").unwrap(),
            identity: None,
            client_header: header(),
            server_header: header(),
            presented: None,
            agent: None,
            enabled: None,
            inactive: false,
            server_csi: true,
            server_sm: false,
        };
        let client = opened();
        let upstream = opened();
        let _ = &mut bound;
        let device = Device {
            id: DeviceId(7),
            resource: "phone".into(),
            agent: None,
            sm_ids: Vec::new(),
            last_seen: 0,
            open: vec![LoginId(1)],
        };
        let account = Account { devices: vec![device], ..Account::default() };
        let owner = Owner { device: DeviceId(7), certain: false, account, last_seq: 0, backlog: false };
        let clock = Clock { now, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1) };
        let settings = Settings { session_queue: 4 << 20, ..Settings::default() };
        let session = Session::new(Arc::new(settings), bound, owner, dice, clock);
        let mut rig = Rig {
            session,
            client,
            upstream,
            now,
            to_client: BytesMut::new(),
            to_up: BytesMut::new(),
            up_asks: 0,
            cl_asks: 0,
        };
        rig.drain();
        rig.from_client(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        rig
    }
    fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::ToClient(bytes) => {
                    if bytes.starts_with(b"<r ") {
                        self.cl_asks += 1
                    }
                    self.to_client.extend_from_slice(&bytes)
                }
                Output::ToUpstream(bytes) => {
                    if bytes.starts_with(b"<iq") {
                        self.up_asks += 1
                    }
                    self.to_up.extend_from_slice(&bytes)
                }
                _ => {}
            }
        }
    }
    fn from_client(&mut self, bytes: &[u8]) {
        self.client.buffer().extend_from_slice(bytes);
        while let Some(frame) = self.client.next_frame().unwrap() {
            self.session.handle(self.now, Input::Client(self.session.attachment(), frame));
            self.drain();
        }
        if self.client.buffer().is_empty() {
            *self.client.buffer() = BytesMut::new();
        }
    }
    fn from_up(&mut self, bytes: &[u8]) {
        self.upstream.buffer().extend_from_slice(bytes);
        while let Some(frame) = self.upstream.next_frame().unwrap() {
            self.session.handle(self.now, Input::Upstream(frame));
            self.drain();
        }
        if self.upstream.buffer().is_empty() {
            *self.upstream.buffer() = BytesMut::new();
        }
    }
    fn end(&mut self) {
        self.session.handle(self.now, Input::Quiet);
        self.drain();
        black_box(self.session.deadline());
        self.to_client = BytesMut::new();
        self.to_up = BytesMut::new();
    }
}
fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap();
    let rounds: usize = args.next().unwrap().parse().unwrap();
    let (stanza, count) = match &what[1..] {
        "b" => (text(200), 32),
        "s" => (text(200), 1),
        "t" => (text(4096), 4),
        "g" => (tags(4096), 4),
        _ => panic!(),
    };
    let bytes = stanza.repeat(count);
    if what.starts_with('f') {
        let mut framer = opened();
        for _ in 0..rounds {
            framer.buffer().extend_from_slice(bytes.as_bytes());
            for _ in 0..count {
                black_box(framer.next_frame().unwrap().unwrap());
            }
            *framer.buffer() = BytesMut::new();
        }
        return;
    }
    let mut rig = Rig::new();
    let mut h = 0u32;
    println!(
        "Session {} Output {} Input {} Element {} Queued {} Frame {} Framer {}",
        size_of::<Session>(),
        size_of::<Output>(),
        size_of::<Input>(),
        size_of::<Element>(),
        size_of::<queue::Queued>(),
        size_of::<Frame>(),
        size_of::<Framer>()
    );
    if what.starts_with('d') {
        // client to server
        for round in 0..rounds {
            rig.now += Duration::from_millis(1);
            rig.from_client(bytes.as_bytes());
            rig.end();
            if rig.up_asks > 0 && round % 4 == 0 {
                rig.up_asks = 0;
                let id = format!("{}", 0);
                let _ = id;
            }
        }
    } else {
        for round in 0..rounds {
            rig.now += Duration::from_millis(1);
            h = h.wrapping_add(count as u32);
            rig.from_up(bytes.as_bytes());
            rig.end();
            if rig.cl_asks > 0 || round % 4 == 3 {
                rig.cl_asks = 0;
                let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>");
                rig.from_client(ack.as_bytes());
                rig.end();
            }
        }
    }
    println!("{} {}", what, rig.session.queued().0);
    black_box(Bytes::new());
}

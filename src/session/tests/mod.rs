//! The core under virtual time: a session between a scripted client and a scripted server.

mod login;
mod push;
mod resume;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::sasl::SaslIdentity;
use super::{Attachment, Bound, EndReason, Event, Input, Output, Resumption, Session, Settings, sm};
use crate::jid::{FullJid, Jid};
use crate::push::notification::Publish;
use crate::push::registration::{Change, Registration, Target};
use crate::xml::{Element, Frame, Header};

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Dice that never show the same twice, which is all that the core relies on.
pub(crate) fn dice() -> u128 {
    u128::from(NUMBERS.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn header() -> Arc<Header> {
    let bytes = crate::xml::stream_header("example.org", "1", None);
    Arc::new(Header::parse(bytes).unwrap())
}

pub(crate) fn element(xml: &str) -> Element {
    Element::parse(Bytes::copy_from_slice(xml.as_bytes()), &header()).unwrap()
}

fn frame(xml: &str) -> Frame {
    Frame::Element(element(xml))
}

fn message(n: usize) -> String {
    format!("<message from='romeo@example.net/x' type='chat' id='{n}'><body>text {n}</body></message>")
}

/// A session, its clock, and what it has put out.
struct Rig {
    session: Session,
    now: Instant,
    to_client: Vec<String>,
    to_upstream: Vec<String>,
    publishes: Vec<Publish>,
    stored: Vec<Change>,
    events: Vec<Event>,
    closed: usize,
    ended: Option<EndReason>,
    previd: Option<String>,
    /// What the store holds.
    list: Vec<Registration>,
}

impl Rig {
    fn new() -> Self {
        Self::with(Settings { session_queue: 1 << 20, ..Settings::default() })
    }

    fn with(settings: Settings) -> Self {
        let now = Instant::now();
        let bound = Bound {
            jid: FullJid::new("juliet@example.org/phone").unwrap(),
            identity: Some(SaslIdentity { host: "example.org".into(), authcid: "juliet".into() }),
            client_header: header(),
            server_header: header(),
            server_csi: true,
        };
        let session = Session::new(Arc::new(settings), bound, dice, now, SystemTime::UNIX_EPOCH);
        let mut rig = Self {
            session,
            now,
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            publishes: Vec::new(),
            stored: Vec::new(),
            events: Vec::new(),
            closed: 0,
            ended: None,
            previd: None,
            list: Vec::new(),
        };
        rig.input(Input::Registrations(Vec::new()));
        rig
    }

    /// A session with stream management, resumable, that sees a `push.example` registration.
    fn with_push() -> Self {
        Self::new().pushing()
    }

    fn pushing(mut self) -> Self {
        self.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        self.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>");
        self.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
        self.clear();
        self
    }

    fn clear(&mut self) {
        self.to_client.clear();
        self.to_upstream.clear();
        self.events.clear();
        self.stored.clear();
    }

    fn input(&mut self, input: Input) {
        self.session.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        while let Some(output) = self.session.poll() {
            match output {
                Output::ToClient(bytes) => self.to_client.push(text(bytes)),
                Output::ToUpstream(bytes) => self.to_upstream.push(text(bytes)),
                Output::Resumable(id) => self.previd = Some(id.as_str().to_owned()),
                Output::Store(token, change) => {
                    self.stored.push(change.clone());
                    change.apply(&mut self.list);
                    self.session.handle(self.now, Input::Registrations(self.list.clone()));
                    if let Some(token) = token {
                        self.session.handle(self.now, Input::Stored(token, true));
                    }
                }
                Output::Publish(publish) => self.publishes.push(publish),
                Output::CloseClient(_) => self.closed += 1,
                Output::Event(event) => self.events.push(event),
                Output::End(reason) => self.ended = Some(reason),
            }
        }
    }

    fn client(&mut self, xml: &str) {
        self.input(Input::Client(self.session.attachment(), frame(xml)));
        self.input(Input::Quiet);
    }

    fn upstream(&mut self, xml: &str) {
        self.input(Input::Upstream(frame(xml)));
        self.input(Input::Quiet);
    }

    /// Lets time pass, with every timeout at its moment.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.session.deadline().filter(|at| *at <= until && self.ended.is_none()) {
            assert!(at >= self.now || self.session.deadline() == Some(at));
            self.now = self.now.max(at);
            self.input(Input::Timeout);
            self.input(Input::Quiet);
            assert!(self.session.deadline() != Some(at) || self.ended.is_some(), "a deadline that does not move");
        }
        self.now = until;
    }

    fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    fn lose_client(&mut self) {
        self.input(Input::ClientLost(self.session.attachment()));
    }

    fn resume(&mut self, h: u32) {
        let h = sm::Handled::new(h);
        assert_eq!(self.session.check_resume(h), Ok(()));
        self.input(Input::Attach(Resumption { h, server_header: header() }));
        self.input(Input::Quiet);
    }

    /// The ids of the messages written to the client, in order.
    fn delivered(&self) -> Vec<usize> {
        let ids = self.to_client.iter().filter(|xml| xml.starts_with("<message"));
        ids.map(|xml| element(xml).node().attr("id").unwrap().parse().unwrap()).collect()
    }
}

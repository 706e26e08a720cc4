//! Tests of the session core under virtual time. [`Rig`] is a session between a scripted client and a scripted server.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod broken;
#[cfg(test)]
mod csi;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod fast;
#[cfg(test)]
mod found;
#[cfg(test)]
mod fronted;
#[cfg(test)]
mod inherit;
#[cfg(test)]
mod login;
#[cfg(test)]
mod memory;
pub(crate) mod model;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod peculiar;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod push;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod record;
#[cfg(test)]
mod refusal;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod sasl2;
#[cfg(test)]
mod sender;
#[cfg(test)]
mod sizes;
#[cfg(test)]
mod skipped;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod spilled;
#[cfg(test)]
mod successor;
#[cfg(test)]
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::queue::{Budget, Inherited, Load, Spooled};
use super::rewrite::offers::ServerFeatures;
use super::sasl::SaslIdentity;
use super::{
    Attachment, Bound, Clock, DeviceMemory, EndReason, Event, Input, Output, Owner, Peer, PublishResult, Resumption,
    Session, Settings, Stored, WakeReason, sm,
};
use crate::clock::{Instant, UnixMillis, UnixSecs};
use crate::jid::{FullJid, Jid};
use crate::push::absent::Notice;
use crate::push::account::{Account, Change, Device, DeviceId, DeviceRecognition, LoginId};
use crate::push::notification::{Publish, PublishId};
use crate::push::registration::Target;
use crate::push::settings::PushSettings;
use crate::seq::Seq;
use crate::xml::{Element, Frame, Header};

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Returns numbers that never repeat. The core relies on nothing else.
pub(crate) fn random() -> u128 {
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

pub(crate) fn message(n: usize) -> String {
    format!("<message from='romeo@example.net/x' type='chat' id='{n}'><body>text {n}</body></message>")
}

/// Replaces a session by one that continues from its record, as another process would. Checks that its record is the same.
fn replace(session: &mut Session, random: fn() -> u128) {
    let record = session.freeze();
    let thawed = Session::thaw(&record, Arc::clone(&session.settings), random).unwrap();
    *session = thawed;
    assert!(record == session.freeze(), "the session that continues has another record");
}

/// A session, its clock, and its outputs so far.
struct Rig {
    session: Session,
    now: Instant,
    to_client: Vec<String>,
    to_upstream: Vec<String>,
    publishes: Vec<Publish>,
    /// Publishes that go through the session's own stream, by number.
    published_on_stream: Vec<Target>,
    absent_notices: Vec<Notice>,
    stored: Vec<Change>,
    events: Vec<Event>,
    /// Number of times that the session reported a sign of life to a newer session of its device.
    both_stay: usize,
    /// The memory that the device's sessions share.
    memory: Arc<DeviceMemory>,
    /// The memory budget that all sessions share.
    budget: Arc<Budget>,
    closed: usize,
    /// Peers that the session asked the relay to watch.
    watched: Vec<Peer>,
    ended: Option<EndReason>,
    previd: Option<String>,
    /// The account as the store has it.
    account: Account,
    spool: BTreeMap<Seq, Spooled>,
    /// The spools of the device's earlier sessions.
    earlier: BTreeMap<LoginId, BTreeMap<Seq, Spooled>>,
    /// Stanzas that wait for another device.
    orphans: Vec<Spooled>,
    /// True while the disk does not answer. Stanzas are read at once nevertheless.
    disk_is_slow: bool,
    /// True while stanzas are not read.
    reads_are_slow: bool,
    /// True while the store does not answer changes of the account.
    store_is_late: bool,
    /// True while the spool refuses everything.
    spool_refuses: bool,
    unanswered: Vec<Input>,
    tombstones: Vec<u32>,
    wakes: Vec<WakeReason>,
    /// True if the server answers pings and `<r/>` by itself.
    server_confirms: bool,
}

const DEVICE: DeviceId = DeviceId(7);

impl Rig {
    fn new() -> Self {
        Self::with(Settings { session_queue: 1 << 20, ..Settings::default() })
    }

    fn with(settings: Settings) -> Self {
        Self::start(settings, Vec::new())
    }

    fn set(adjust: impl FnOnce(&mut PushSettings)) -> Self {
        let mut push = PushSettings::default();
        adjust(&mut push);
        Self::with(Settings { session_queue: 1 << 20, push: Arc::new(push), ..Settings::default() })
    }

    fn start(settings: Settings, earlier: Vec<Spooled>) -> Self {
        Self::begin(settings, earlier, |_| {})
    }

    fn start_with_server_sm(settings: Settings, earlier: Vec<Spooled>) -> Self {
        Self::begin(settings, earlier, |bound| bound.server.sm = true)
    }

    fn begin(settings: Settings, earlier: Vec<Spooled>, adjust: impl FnOnce(&mut Bound)) -> Self {
        let now = Instant::now();
        let mut bound = Bound {
            identity: Some(SaslIdentity { host: "example.org".into(), authcid: "juliet".into() }),
            server: ServerFeatures { csi: true, sm: false },
            ..Bound::new(FullJid::new("juliet@example.org/phone").unwrap(), header(), header())
        };
        adjust(&mut bound);
        let device = Device {
            id: DEVICE,
            resource: "phone".into(),
            agent: None,
            sm_ids: Vec::new(),
            last_seen: UnixSecs::new(0),
            open: vec![LoginId(1)],
            guard: None,
        };
        let account = Account { devices: vec![device], ..Account::default() };
        let (waits, recognition) = (!earlier.is_empty(), DeviceRecognition::Guessed);
        let owner = Owner { device: DEVICE, recognition, account: account.clone(), waits, older: false };
        let clock = Clock { now, wall: UnixMillis::new(1000) };
        let session = Session::new(Arc::new(settings), bound, owner, random, clock);
        let mut rig = Self {
            session,
            now,
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            publishes: Vec::new(),
            published_on_stream: Vec::new(),
            absent_notices: Vec::new(),
            stored: Vec::new(),
            events: Vec::new(),
            both_stay: 0,
            memory: Arc::default(),
            budget: Arc::default(),
            closed: 0,
            watched: Vec::new(),
            ended: None,
            previd: None,
            account,
            spool: BTreeMap::new(),
            earlier: BTreeMap::new(),
            orphans: Vec::new(),
            disk_is_slow: false,
            reads_are_slow: false,
            store_is_late: false,
            spool_refuses: false,
            unanswered: Vec::new(),
            tombstones: Vec::new(),
            wakes: Vec::new(),
            server_confirms: true,
        };
        rig.share(Arc::default());
        rig.leave(1, earlier);
        rig.drain();
        rig
    }

    /// Makes the session use this memory, which other sessions of the device share.
    fn share(&mut self, memory: Arc<DeviceMemory>) {
        self.session.share_device_memory(Arc::clone(&memory));
        self.memory = memory;
    }

    /// Makes the session share memory with others.
    fn share_budget(&mut self, budget: Arc<Budget>) {
        self.session.share_memory(Arc::clone(&budget));
        self.budget = budget;
    }

    /// Adds an earlier session that has left these stanzas.
    fn leave(&mut self, login: u64, stanzas: Vec<Spooled>) {
        if !stanzas.is_empty() {
            self.earlier.insert(LoginId(login), stanzas.into_iter().map(|item| (item.seq, item)).collect());
        }
    }

    /// Starts a session with resumable stream management and a `push.example` registration.
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
        self.watched.clear();
        self.stored.clear();
    }

    /// Passes an event to the session. Another session continues from its record, so that every test shows that the record
    /// is complete.
    fn input(&mut self, input: Input) {
        self.session.handle(self.now, input);
        self.drain();
        replace(&mut self.session, random);
        self.session.share_memory(Arc::clone(&self.budget));
        self.session.share_device_memory(Arc::clone(&self.memory));
    }

    #[allow(clippy::too_many_lines, reason = "it names every effect once")]
    fn drain(&mut self) {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        while let Some(output) = self.session.poll() {
            match output {
                Output::ToClient(bytes) | Output::ReplyToClient(bytes) => self.to_client.push(text(bytes)),
                Output::ToUpstream(bytes) | Output::ReplyToUpstream(bytes) => self.to_upstream.push(text(bytes)),
                Output::Watch(peer) => self.watched.push(peer),
                Output::Resumable(id) => self.previd = Some(id.as_str().to_owned()),
                Output::Store { token, change } if self.store_is_late => {
                    self.stored.push((*change).clone());
                    let device = self.account.apply(*change);
                    self.unanswered.push(Input::Changed(Some(Box::new(self.account.clone()))));
                    self.unanswered.extend(token.map(|token| Input::Stored { token, stored: Stored::Durable(device) }));
                }
                Output::Store { token, change } => {
                    self.stored.push((*change).clone());
                    let device = self.account.apply(*change);
                    self.session.handle(self.now, Input::Changed(Some(Box::new(self.account.clone()))));
                    if let Some(token) = token {
                        self.session.handle(self.now, Input::Stored { token, stored: Stored::Durable(device) });
                    }
                }
                Output::Spool(_) if self.spool_refuses => self.disk_says(Input::SpoolRefused),
                Output::Spool(items) => {
                    let last = items.last().unwrap().seq;
                    assert!(items.iter().map(|i| i.seq).is_sorted() && self.spool.keys().all(|k| *k < items[0].seq));
                    self.spool.extend(items.into_iter().map(|item| (item.seq, item)));
                    self.disk_says(Input::Spooled { up_to: last });
                }
                Output::Unspool { spool, places } => self.spool_of(spool).retain(|seq, _| !places.contains(seq)),
                Output::TakeOver => {
                    let filled = self.earlier.iter().filter(|(_, spool)| !spool.is_empty());
                    let inherited = |(spool, items): (&LoginId, &BTreeMap<Seq, Spooled>)| Inherited {
                        spool: *spool,
                        last_seq: *items.keys().last().unwrap(),
                    };
                    let spools = filled.map(inherited).collect();
                    self.disk_says(Input::TookOver(spools));
                }
                Output::Load(load) => self.read(load),
                Output::Adopt { places, .. } => {
                    let (mut seq, last) = (*places.start(), *places.end());
                    for item in std::mem::take(&mut self.orphans) {
                        self.spool.insert(seq, Spooled { seq, ..item });
                        seq = seq.next();
                    }
                    self.disk_says(Input::Spooled { up_to: last });
                }
                Output::SaveTombstone { h, .. } => self.tombstones.push(h.get()),
                Output::Wake(reason) => self.wakes.push(reason),
                Output::Publish(publish) => self.publishes.push(*publish),
                Output::PublishedOnStream { number, outcome } => {
                    let target = self.published_on_stream[usize::try_from(number).unwrap()].clone();
                    let result = PublishResult { id: PublishId::default(), target, outcome: *outcome };
                    self.session.handle(self.now, Input::Published(Box::new(result)));
                }
                Output::NotifyAbsent(notice) => self.absent_notices.push(*notice),
                Output::BothStay => self.both_stay += 1,
                Output::CloseClient(_) => self.closed += 1,
                Output::Event(event) => self.events.push(*event),
                Output::End(reason) => self.ended = Some(reason),
            }
        }
    }

    fn spool_of(&mut self, spool: Option<LoginId>) -> &mut BTreeMap<Seq, Spooled> {
        match spool {
            Some(login) => self.earlier.entry(login).or_default(),
            None => &mut self.spool,
        }
    }

    fn read(&mut self, Load { spool, after, weight }: Load) {
        let (mut items, mut left) = (Vec::new(), weight);
        for item in self.spool_of(spool).range(after.next()..).map(|(_, item)| item) {
            if !items.is_empty() && item.weight() > left {
                break;
            }
            left = left.saturating_sub(item.weight());
            items.push(item.clone());
        }
        if self.reads_are_slow {
            self.unanswered.push(Input::Loaded(items));
        } else {
            self.session.handle(self.now, Input::Loaded(items));
        }
    }

    fn disk_says(&mut self, answer: Input) {
        if self.disk_is_slow {
            self.unanswered.push(answer);
        } else {
            self.session.handle(self.now, answer);
        }
    }

    /// Passes all pending answers of the disk to the session.
    fn sync(&mut self) {
        for answer in std::mem::take(&mut self.unanswered) {
            self.input(answer);
        }
        self.input(Input::Quiet);
    }

    /// Answers the ack requests and pings that the core has sent to the server, and removes them from the output.
    fn confirm(&mut self) {
        if self.server_confirms
            && self.ended.is_none()
            && self.to_upstream.last().is_some_and(|xml| xml == "</stream:stream>")
        {
            self.input(Input::Upstream(Frame::Close));
        }
        while self.server_confirms {
            let is_ping = |xml: &String| xml.starts_with("<iq type='get'") && xml.contains("<ping ");
            let Some(at) = self.to_upstream.iter().position(is_ping) else { return };
            let ping = self.to_upstream.remove(at);
            let ping = element(&ping);
            let (id, from) = (ping.node().attr("id").unwrap(), ping.node().attr("to").unwrap());
            self.input(Input::Upstream(frame(&format!("<iq type='result' id='{id}' from='{from}'/>"))));
            self.input(Input::Quiet);
        }
    }

    fn client(&mut self, xml: &str) {
        self.input(Input::Client { attachment: self.session.attachment(), frame: frame(xml) });
        self.input(Input::Quiet);
        self.confirm();
    }

    fn upstream(&mut self, xml: &str) {
        self.input(Input::Upstream(frame(xml)));
        self.input(Input::Quiet);
        self.confirm();
    }

    /// Lets time pass, and delivers each timeout when it is due.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.session.deadline().filter(|at| *at <= until && self.ended.is_none()) {
            assert!(at >= self.now || self.session.deadline() == Some(at));
            self.now = self.now.max(at);
            self.input(Input::Timeout);
            self.input(Input::Quiet);
            self.confirm();
            assert!(self.session.deadline() != Some(at) || self.ended.is_some(), "a deadline that does not move");
        }
        self.now = until;
    }

    fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    fn lose_client(&mut self) {
        self.input(Input::ClientLost(self.session.attachment()));
        self.input(Input::Quiet);
        self.confirm();
    }

    fn resume(&mut self, h: u32) {
        let h = sm::Handled::new(h);
        assert_eq!(self.session.check_resume(h), Ok(()));
        self.input(Input::Attach(Box::new(Resumption {
            h,
            server_header: header(),
            success: None,
            tokens: Default::default(),
        })));
        self.input(Input::Quiet);
    }

    /// Returns the ids of the messages written to the client, in order.
    fn delivered(&self) -> Vec<usize> {
        let ids = self.to_client.iter().filter(|xml| xml.starts_with("<message"));
        ids.map(|xml| element(xml).node().attr("id").unwrap().parse().unwrap()).collect()
    }
}

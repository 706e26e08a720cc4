//! A property test of the session core: a session runs between a server, a client and a disk that do anything which the
//! rules of their protocols allow, and each of them may fail between any two steps.
//!
//! [`World`] plays all parties except the session, and knows the place of every stanza. `oracle.rs` checks what must
//! hold. A failure prints the shortest list of [`Action`]s that was found for it, and a trace of the events.

mod actors;
mod decode;
mod disk;
mod older;
mod oracle;
#[cfg(test)]
mod random;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::super::queue::{Budget, Full};
use super::super::{
    Attachment, Bound, Clock, DeviceMemory, EndReason, Event, Input, Output, Owner, Resumption, Session, Settings, sm,
};
use super::{DEVICE, header, random};
use crate::clock::{Instant, UnixMillis, UnixSecs};
use crate::jid::FullJid;
use crate::push::account::{Account, Device, DeviceId, DeviceRecognition, LoginId};
use crate::push::registration::{Registration, Target};
use crate::seq::Seq;
use crate::session::rewrite::offers::ServerFeatures;
use crate::session::settings::{Hibernation, StreamManagement};
use crate::xml::{Element, Frame, Header};
use actors::{Client, Leg};
pub(crate) use decode::fuzz;
use disk::Disk;
use older::Older;
use oracle::{Handed, number};

/// The maximum number of steps in a case.
const STEPS: usize = 640;
/// Small, so that waiting stanzas overflow to the disk all the time.
const SESSION_QUEUE: usize = 1600;

/// The kind of client and server in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variant {
    /// True if the server has stream management.
    server_sm: bool,
    /// True if the client has stream management.
    client_sm: bool,
    /// True if the device has a registration.
    registered: bool,
    /// True if the queue is so large that it seldom overflows.
    roomy: bool,
    /// The number of steps after which another session continues from the record of the session. 0 means never.
    replaced_every: usize,
}

/// One event. An action that makes no sense in the current state does nothing.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// The server sends this many messages in one wake-up.
    Messages(u8),
    /// The server sends a message that fills much of the queue.
    BigMessage,
    /// The server sends a message that causes no notification.
    Noise,
    Subscribe,
    /// The server sends an iq request for the client.
    Version,
    /// The server sends a ping for the client.
    PeerPing,
    /// A contact comes online (true) or goes offline.
    Presence(u8, bool),
    /// A message arrives that waits for another device of the account.
    Orphan,
    /// The server reads this much of what was written to it.
    ServerReads(u8),
    ServerAsks,
    /// The upstream leg ends. If `reads`, the server has read all that was written to it, otherwise no more of it.
    ServerEnds {
        how: End,
        reads: bool,
    },
    /// The client binds again while its old session still treats the old connection as alive.
    BindBeside {
        same_address: bool,
        hello: Hello,
    },
    /// The server sends this many messages to the older session.
    OlderMessages(u8),
    /// The older session learns that its client is gone.
    OlderVanishes,
    /// The older session's server reads this much.
    OlderServerReads(u8),
    /// The older session's disk does this many half steps.
    OlderDisk(u8),
    OlderServerEnds(End),
    /// The client opens a new connection, in whatever state the old one is.
    Connect {
        resume: bool,
        hello: Hello,
    },
    Say,
    /// The client sends a request to the server.
    Ask,
    /// The client reads this much of what was written to it, and answers requests at once or later.
    ClientReads {
        count: u8,
        answers: bool,
    },
    /// The client acknowledges and answers what it has read.
    ClientAnswers,
    ClientAsks,
    Available,
    Unavailable,
    EnablePush,
    /// Everything that the client writes from now on is lost.
    Cut,
    /// The client is gone, and with it everything that it has not read.
    Vanish,
    /// The session learns that the client is gone.
    NoticeVanished,
    /// Late events of a connection that was taken over: a frame, then its end.
    LateEvents,
    ClientCloses,
    /// The disk does this many half steps: a commit, its answer, the next commit …
    Disk(u8),
    /// The disk refuses the next spool jobs, this many times.
    DiskIsFull(u8),
    /// Older sessions of the device have ended, or stay.
    OlderSettles,
    /// An older session of the device ends and leaves this many messages.
    Inherit(u8),
    Pass(u16),
    /// Time passes while deadlines are not served.
    Stall(u16),
    /// All parties catch up.
    Settle,
    Crash {
        reads: bool,
        revives: bool,
    },
    Drain,
    /// Another process goes on with the sessions. Their clients are disconnected.
    HandOver,
}

/// The end of the upstream leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Footer,
    /// With a stream error and no footer.
    Error,
    /// The server process ends.
    Killed,
    /// The connection breaks. The server still runs, and sends again all that was not acknowledged to it.
    Broken,
}

/// The stanzas and nonzas that a client sends after its bind.
#[derive(Clone, Copy, Debug)]
enum Hello {
    EnableThenPresence,
    PresenceThenEnable,
    Enable,
    /// All in one write, together with a message.
    Burst,
}

/// The number of times that the runs have reached each situation. A model that never reaches them proves nothing.
#[derive(Debug, Default)]
struct Coverage {
    steps: AtomicU64,
    resumptions: AtomicU64,
    takeovers: AtomicU64,
    resends: AtomicU64,
    failed_resumptions: AtomicU64,
    impatient_resumptions: AtomicU64,
    late_events: AtomicU64,
    suspicions: AtomicU64,
    overflows: AtomicU64,
    loads: AtomicU64,
    rests: AtomicU64,
    adoptions: AtomicU64,
    orphans: AtomicU64,
    crashes: AtomicU64,
    re_routed: AtomicU64,
    disk_failures: AtomicU64,
    inherits: AtomicU64,
    gates: AtomicU64,
    returned: AtomicU64,
    shed: AtomicU64,
    pauses: AtomicU64,
    pushes: AtomicU64,
    lingering: AtomicU64,
    by_server: AtomicU64,
    expired: AtomicU64,
    superseded: AtomicU64,
    squeezes: AtomicU64,
    closed: AtomicU64,
    drained: AtomicU64,
    redelivered: AtomicU64,
    agains: AtomicU64,
    kept: AtomicU64,
    late_handovers: AtomicU64,
    besides: AtomicU64,
    replaced: AtomicU64,
    handovers: AtomicU64,
}

impl Coverage {
    #[allow(clippy::too_many_lines, reason = "it names every counter once")]
    fn all(&self) -> Vec<(&'static str, u64)> {
        let Self {
            steps,
            resumptions,
            takeovers,
            resends,
            failed_resumptions,
            impatient_resumptions,
            late_events,
            suspicions,
            overflows,
            loads,
            rests,
            adoptions,
            orphans,
            crashes,
            re_routed,
            disk_failures,
            inherits,
            gates,
            returned,
            shed,
            pauses,
            pushes,
            lingering,
            by_server,
            expired,
            superseded,
            squeezes,
            closed,
            drained,
            besides,
            replaced,
            handovers,
            late_handovers,
            kept,
            agains,
            redelivered,
        } = self;
        let counters = [
            ("steps", steps),
            ("resumptions", resumptions),
            ("takeovers", takeovers),
            ("resends", resends),
            ("failed resumptions", failed_resumptions),
            ("impatient resumptions", impatient_resumptions),
            ("late events", late_events),
            ("suspicions", suspicions),
            ("overflows", overflows),
            ("loads", loads),
            ("rests", rests),
            ("adoptions", adoptions),
            ("orphans", orphans),
            ("crashes", crashes),
            ("re-routed", re_routed),
            ("disk failures", disk_failures),
            ("inherits", inherits),
            ("gates", gates),
            ("returned", returned),
            ("shed", shed),
            ("pauses", pauses),
            ("pushes", pushes),
            ("lingering", lingering),
            ("ends by server", by_server),
            ("expired", expired),
            ("superseded", superseded),
            ("squeezes", squeezes),
            ("closed by client", closed),
            ("drained", drained),
            ("redelivered", redelivered),
            ("agains", agains),
            ("kept", kept),
            ("late handovers", late_handovers),
            ("besides", besides),
            ("replaced", replaced),
            ("handovers", handovers),
        ];
        counters.map(|(name, counter)| (name, counter.load(Ordering::Relaxed))).to_vec()
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The state of one session from its bind to its end, with everything of it that is still under way afterwards.
struct Life {
    number: u32,
    /// Number of older sessions of the device that have left something.
    older_sessions: u64,
    /// True if the session has given up stanzas.
    shed: bool,
    /// The connection that the session writes to, if there is one.
    attached: Option<u64>,
    /// Attachments that were taken over.
    old: Vec<Attachment>,
    resumable: Option<String>,
    leg: Leg,
    /// The number of the server's requests that the session received.
    requests: usize,
    /// The client's stanzas that the session received, and the number of them at `<enable/>`.
    fed: Vec<oracle::Fed>,
    enabled_at: Option<usize>,
    /// The largest `h` that was sent to the client.
    last_h: u64,
    /// Numbered stanzas for the client in order, and the number of those that the client has read.
    sent: Vec<usize>,
    next: usize,
    /// The stanzas that the client has read, and the number of those that it has acknowledged.
    reads: Vec<usize>,
    acked: usize,
    /// The last stanza that came from an earlier life.
    last_of_backlog: Option<(Option<u32>, usize)>,
    /// True once the client has read a stanza that the server sent after the client's presence: no backlog may follow.
    backlog_is_over: bool,
    /// Contacts: as the server last sent them, and as the client last read them.
    contacts: [BTreeMap<u8, bool>; 2],
    ended: Option<EndReason>,
}

/// All parties around the session.
struct World {
    variant: Variant,
    coverage: Arc<Coverage>,
    steps: usize,
    now: Instant,
    wall: UnixMillis,
    /// The last time at which the session's deadline was served.
    minded: Instant,
    began: Instant,
    /// The memory budget that all sessions share.
    memory: Arc<Budget>,
    settings: Arc<Settings>,
    header: Arc<Header>,
    session: Option<Session>,
    life: Life,
    client: Client,
    disk: Disk,
    /// Numbered stanzas for the client.
    handed: Vec<Handed>,
    /// The number of stanzas that the server sent without a number.
    unnumbered: usize,
    /// An older session of the device, and whether it is the one that acts at present.
    older: Option<Older>,
    is_older: bool,
    /// Stanzas that the server sends again once the client is available.
    again: Vec<usize>,
    /// Stanzas of durable kinds that are neither delivered nor lost yet.
    open: BTreeSet<usize>,
    publishes: Vec<crate::push::notification::Publish>,
    /// The memory that the device's sessions share.
    device_memory: Arc<DeviceMemory>,
    /// Number of stanzas that the session has reported as lost.
    lost: usize,
    /// The first check that failed.
    broken: Option<String>,
    trace: Option<String>,
}

impl World {
    fn new(variant: Variant, coverage: Arc<Coverage>, traced: bool) -> Self {
        let stream_management = StreamManagement {
            resume_timeout: Duration::from_secs(40),
            wake_before_expiry: Duration::from_secs(5),
            ..StreamManagement::default()
        };
        let hibernation = Hibernation { max_timeout: Duration::from_secs(60), ..Hibernation::default() };
        let now = Instant::now();
        let mut world = Self {
            variant,
            coverage,
            steps: 0,
            now,
            wall: UnixMillis::new(1000),
            minded: now,
            began: now,
            memory: Arc::default(),
            settings: Arc::new(Settings {
                stream_management,
                hibernation,
                session_queue: if variant.roomy { 20 * SESSION_QUEUE } else { SESSION_QUEUE },
                seed: 1,
                ..Settings::default()
            }),
            header: header(),
            session: None,
            life: Life::new(0, false),
            client: Client::default(),
            disk: Disk::new(account(variant)),
            handed: Vec::new(),
            unnumbered: 0,
            older: None,
            is_older: false,
            again: Vec::new(),
            open: BTreeSet::new(),
            publishes: Vec::new(),
            device_memory: Arc::default(),
            lost: 0,
            broken: None,
            trace: traced.then(String::new),
        };
        world.connect(false, Hello::EnableThenPresence);
        world
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "    {}", line()).unwrap();
        }
    }

    fn check(&mut self, holds: bool, complaint: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(complaint());
        }
    }

    fn step(&mut self, action: Action) {
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{action:?}").unwrap();
        }
        count(&Arc::clone(&self.coverage).steps);
        self.act(action);
        self.wake();
        self.steps += 1;
        if self.steps.is_multiple_of(self.variant.replaced_every) {
            self.replace();
            self.in_older(Self::replace);
        }
        self.check_step();
    }

    #[allow(clippy::too_many_lines, reason = "it names every action once")]
    fn act(&mut self, action: Action) {
        match action {
            Action::Messages(count) => (0..count).for_each(|_| self.send_message("<body>x</body>", true)),
            Action::BigMessage => {
                let body = format!("<body>{}</body>", "x".repeat(700));
                self.send_message(&body, true);
            }
            Action::Noise => self.send_message("<composing xmlns='http://jabber.org/protocol/chatstates'/>", true),
            Action::Subscribe => self
                .send_numbered(true, |id| format!("<presence type='subscribe' from='nurse@example.net' id='{id}'/>")),
            Action::Version => self.send_numbered(false, |id| {
                format!("<iq type='get' id='{id}' from='romeo@example.net/x'><query xmlns='jabber:iq:version'/></iq>")
            }),
            Action::PeerPing => self.server_sends(
                "<iq type='get' id='peer' from='romeo@example.net/x'><ping xmlns='urn:xmpp:ping'/></iq>".into(),
            ),
            Action::Presence(who, here) => self.send_presence(who, here),
            Action::Orphan => self.wait_for_another_device(),
            Action::ServerReads(count) => self.server_reads(usize::from(count)),
            Action::ServerAsks => {
                if self.life.leg.on {
                    self.server_sends("<r xmlns='urn:xmpp:sm:3'/>".into());
                }
            }
            Action::ServerEnds { how, reads } => self.server_ends(how, reads),
            Action::BindBeside { same_address, hello } => self.bind_beside(same_address, hello),
            Action::OlderMessages(count) => {
                self.in_older(|world| (0..count).for_each(|_| world.send_message("<body>x</body>", true)));
            }
            Action::OlderVanishes => self.older_client_is_lost(),
            Action::OlderServerReads(count) => self.in_older(|world| world.server_reads(usize::from(count))),
            Action::OlderDisk(half_steps) => {
                self.in_older(|world| (0..half_steps).for_each(|_| world.disk_works()));
            }
            Action::OlderServerEnds(how) => self.in_older(|world| world.server_ends(how, true)),
            Action::Connect { resume, hello } => self.connect(resume, hello),
            Action::Say => self.client_says(),
            Action::Ask => self.client_requests(),
            Action::ClientReads { count, answers } => self.client_reads(usize::from(count), answers),
            Action::ClientAnswers => self.client_answers(),
            Action::ClientAsks => self.client_asks(),
            Action::Available => self.client_presence(""),
            Action::Unavailable => self.client_presence(" type='unavailable'"),
            Action::EnablePush => self.enable_push(),
            Action::Cut => self.client.cut(),
            Action::Vanish => self.client.conn = None,
            Action::NoticeVanished => self.notice_vanished(),
            Action::LateEvents => self.late_events(),
            Action::ClientCloses => self.client_closes(),
            Action::Disk(half_steps) => (0..half_steps).for_each(|_| self.disk_works()),
            Action::DiskIsFull(times) => self.disk.refusals = times,
            Action::OlderSettles => self.settle_older(),
            Action::Inherit(messages) => self.inherit(messages),
            Action::Pass(ms) => self.pass(Duration::from_millis(ms.into())),
            Action::Stall(ms) => {
                self.now += Duration::from_millis(ms.into());
                self.wall = self.wall.plus(Duration::from_millis(ms.into()));
            }
            Action::Settle => self.catch_up(false),
            Action::Crash { reads, revives } => self.crash(reads, revives),
            Action::Drain => {
                self.handle(Input::Drain);
                self.in_older(|world| world.handle(Input::Drain));
            }
            Action::HandOver => {
                self.client.conn = None;
                self.hand_over();
                self.in_older(Self::hand_over);
            }
        }
    }

    fn frame(&self, xml: &str) -> Frame {
        if xml == "</stream:stream>" {
            return Frame::Close;
        }
        Frame::Element(Element::parse(Bytes::copy_from_slice(xml.as_bytes()), &self.header).unwrap())
    }

    // The session

    fn handle(&mut self, input: Input) {
        let Some(session) = &mut self.session else { return };
        // In some periods other sessions have taken all the memory.
        let is_squeezed = self.now.duration_since(self.began).as_secs() / 4 % 3 == 2;
        self.memory.update(if is_squeezed { 1 } else { usize::MAX });
        session.handle(self.now, input);
        self.drain();
        for publish in std::mem::take(&mut self.publishes) {
            self.handle(Input::PublishOnStream { number: 0, publish: Box::new(publish) });
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.as_mut().and_then(Session::poll) {
            if self.life.ended.is_some() {
                self.check(false, || format!("{output:?} after the end"));
            }
            self.perform(output);
        }
        if self.life.ended.is_some() {
            self.session = None;
            self.life.attached = None;
            self.life.resumable = None;
            if !self.is_older {
                self.client.hang_up(None);
            }
            self.resolve_leg(true);
        }
    }

    /// Lets another session continue from the record of the session, as in a process that takes over.
    fn replace(&mut self) {
        let Some(session) = &mut self.session else { return };
        count(&self.coverage.replaced);
        super::replace(session, random);
        session.share_memory(Arc::clone(&self.memory));
        session.share_device_memory(Arc::clone(&self.device_memory));
    }

    /// Does what the driver of a session does before and after a handover.
    fn hand_over(&mut self) {
        let Some(session) = &self.session else { return };
        if !session.is_to_be_held() && !session.is_dark() {
            return self.handle(Input::Drain);
        }
        count(&self.coverage.handovers);
        self.handle(Input::HandOver);
        while self.session.is_some() && !self.disk.is_idle() {
            self.disk_works();
        }
        self.replace();
        if let Some(attachment) = self.session.as_ref().map(Session::attachment)
            && self.life.attached.take().is_some()
        {
            self.handle(Input::ClientLost(attachment));
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::ToClient(bytes) | Output::ReplyToClient(bytes) => self.written_to_client(str_of(&bytes).to_owned()),
            Output::ToUpstream(bytes) | Output::ReplyToUpstream(bytes) => {
                self.written_upstream(str_of(&bytes).to_owned())
            }
            Output::Resumable(id) => self.life.resumable = Some(id.as_str().to_owned()),
            Output::Publish(publish) => {
                count(&self.coverage.pushes);
                self.publishes.push(*publish);
            }
            Output::PublishedOnStream { .. } | Output::NotifyAbsent(_) | Output::BothStay | Output::Watch(_) => {}
            Output::CloseClient(closing) => {
                self.say(|| format!("session closes the connection: {closing:?}"));
                let conn = self.life.attached.take();
                self.client.hang_up(conn);
            }
            Output::Event(event) => self.event(*event),
            Output::End(reason) => {
                self.say(|| format!("session ends: {reason:?}"));
                count(match reason {
                    EndReason::UpstreamClosed | EndReason::UpstreamLost | EndReason::UpstreamSilent => {
                        &self.coverage.by_server
                    }
                    EndReason::Expired => &self.coverage.expired,
                    EndReason::Superseded | EndReason::Crowded => &self.coverage.superseded,
                    EndReason::Drained | EndReason::Fenced => &self.coverage.drained,
                    EndReason::ClientClosed => &self.coverage.closed,
                    EndReason::ClientLost | EndReason::ClientError | EndReason::Exhausted => return self.ended(reason),
                });
                self.ended(reason);
            }
            Output::Wake(_) => {}
            Output::SaveTombstone { .. }
            | Output::Store { .. }
            | Output::Spool(_)
            | Output::Unspool { .. }
            | Output::Load(_)
            | Output::TakeOver
            | Output::Adopt { .. } => {
                let rests = |session: &Session| session.device.delivery().queue().has_spilled();
                if matches!(output, Output::Load(_)) && self.session.as_ref().is_some_and(rests) {
                    count(&self.coverage.rests);
                }
                self.ask_disk(output);
            }
        }
    }

    fn ended(&mut self, reason: EndReason) {
        self.life.ended = Some(reason);
        self.check(reason != EndReason::ClientError, || "a client without fault was told of an error".into());
        self.check(reason != EndReason::ClientLost || !self.variant.client_sm || self.client.previd.is_none(), || {
            "a resumable session was not held".into()
        });
    }

    fn event(&mut self, event: Event) {
        self.say(|| format!("session: {event:?}"));
        match event {
            Event::Redelivered => count(&self.coverage.redelivered),
            Event::Suspect => count(&self.coverage.suspicions),
            Event::Resumed { .. } => count(&self.coverage.resumptions),
            Event::Lingering => count(&self.coverage.lingering),
            Event::ServerSilent => {}
            Event::QueueFull(Full::All) => count(&self.coverage.squeezes),
            Event::Shed(shed) => {
                count(&self.coverage.shed);
                self.life.shed = true;
                self.lost += usize::try_from(shed.lost).unwrap();
            }
            Event::Unreadable => panic!("the disk has what it was handed"),
            Event::Dark { .. }
            | Event::SpoolLate
            | Event::QueueFull(Full::Session)
            | Event::PushEnabled(_)
            | Event::PushDisabled
            | Event::Judged(_)
            | Event::Published(..)
            | Event::PublishOutcome(..)
            | Event::PushRevoked(_)
            | Event::Kept(_)
            | Event::TooOld
            | Event::Suspected(_)
            | Event::SetAside(_)
            | Event::GivenBack(_)
            | Event::SpoolRefuses
            | Event::SpoolAccepts => {}
        }
    }

    /// Ends a wake-up. The session may then accept frames that it had to refuse before.
    fn wake(&mut self) {
        loop {
            self.handle(Input::Quiet);
            let fed = self.feed_upstream() | self.feed_client();
            if !fed || self.broken.is_some() {
                return;
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.session.as_ref().and_then(Session::deadline)
    }

    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        let next = |world: &Self| world.deadline().into_iter().chain(world.older_deadline()).min();
        while let Some(at) = next(self).filter(|at| *at <= until) {
            self.wall = self.wall.plus(at.duration_since(self.now));
            self.now = self.now.max(at);
            if self.deadline().is_some_and(|at| at <= self.now) {
                self.handle(Input::Timeout);
                self.wake();
            }
            self.older_timeout();
            let late = next(self).filter(|at| *at <= self.now).map(|at| self.now - at);
            self.check(late.is_none(), || format!("the deadline does not move: {late:?} late"));
            if self.broken.is_some() {
                return;
            }
        }
        self.wall = self.wall.plus(until.duration_since(self.now));
        self.now = until;
        self.minded = until;
    }

    /// Starts the session of a client that has just bound.
    fn bind(&mut self) {
        let jid = FullJid::new("juliet@example.org/phone").unwrap();
        let bound = Bound {
            server: ServerFeatures { csi: true, sm: self.variant.server_sm },
            ..Bound::new(jid, Arc::clone(&self.header), Arc::clone(&self.header))
        };
        let owner = Owner {
            device: DEVICE,
            recognition: DeviceRecognition::Certain,
            account: self.disk.account.clone(),
            waits: !self.disk.spools.is_empty(),
            older: self.older.is_some() || self.life.number % 3 == 2,
        };
        if owner.older {
            count(&self.coverage.gates);
        }
        let number = self.lives().map(|life| life.number).max().unwrap_or_default() + 1;
        let login = LoginId(u64::from(number) * 1000);
        let line = &mut self.disk.line;
        (line.own, line.last_seq, line.handed_over) = (login, Seq::ZERO, Seq::ZERO);
        self.disk.open = self.lives().skip(1).map(Life::login).chain([login]).collect();
        let clock = Clock { now: self.now, wall: self.wall };
        let mut session = Session::new(Arc::clone(&self.settings), bound, owner, random, clock);
        session.share_memory(Arc::clone(&self.memory));
        session.share_device_memory(Arc::clone(&self.device_memory));
        self.life = Life::new(number, self.variant.server_sm);
        self.session = Some(session);
        self.say(|| format!("life {number}"));
        self.life.attached = Some(self.client.connected(number));
        self.drain();
    }

    /// Ends the process without warning.
    fn crash(&mut self, reads: bool, revives: bool) {
        count(&self.coverage.crashes);
        self.disk.died_with.clear();
        let sessions = [self.session.take(), self.crash_older(reads)];
        let refused = sessions.into_iter().flatten().filter(|session| !session.spool_accepts()).collect::<Vec<_>>();
        self.device_memory = Arc::default();
        self.life.ended = None;
        self.life.attached = None;
        self.life.resumable = None;
        self.client.hang_up(None);
        self.disk.crash(revives);
        let held = refused.iter().flat_map(|session| {
            session.device.delivery().queue().iter().chain(session.device.delivery().queue().in_flight())
        });
        self.disk.died_with.extend(held.filter_map(|item| number(str_of(item.element.bytes()))));
        self.resolve_leg(reads);
        // A crash of the process leaves the server's memory intact.
        for n in std::mem::take(&mut self.again) {
            self.open.remove(&n);
        }
        self.excuse_crash();
    }
}

impl Life {
    fn login(&self) -> LoginId {
        LoginId(u64::from(self.number) * 1000)
    }

    fn new(number: u32, server_sm: bool) -> Self {
        Self {
            number,
            older_sessions: 0,
            shed: false,
            attached: None,
            old: Vec::new(),
            resumable: None,
            leg: Leg::new(number > 0, server_sm),
            requests: 0,
            fed: Vec::new(),
            enabled_at: None,
            last_h: 0,
            sent: Vec::new(),
            next: 0,
            reads: Vec::new(),
            acked: 0,
            last_of_backlog: None,
            backlog_is_over: false,
            contacts: [BTreeMap::new(), BTreeMap::new()],
            ended: None,
        }
    }
}

fn account(variant: Variant) -> Account {
    let device = |id, resource: &str| Device {
        id,
        resource: resource.into(),
        agent: None,
        sm_ids: Vec::new(),
        last_seen: UnixSecs::new(0),
        open: (id == DEVICE).then_some(LoginId(1)).into_iter().collect(),
        guard: None,
    };
    let target = Target { service: crate::jid::Jid::new("push.example"), node: Some("n".into()) };
    let registration = Registration {
        target,
        options: None,
        device: DEVICE,
        last_seen: UnixSecs::new(0),
        errors: 0,
        last_success: None,
        undelivered_since: None,
        extensions: Default::default(),
    };
    Account {
        revision: 0,
        devices: vec![device(DEVICE, "phone"), device(DeviceId(8), "tablet")],
        registrations: variant.registered.then_some(registration).into_iter().collect(),
        ..Account::default()
    }
}

fn str_of(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn run(variant: Variant, actions: &[Action], coverage: &Arc<Coverage>, traced: bool) -> (Option<String>, String) {
    let mut world = World::new(variant, Arc::clone(coverage), traced);
    for action in actions {
        world.step(*action);
        if world.broken.is_some() {
            break;
        }
    }
    if world.broken.is_none() {
        world.catch_up(true);
    }
    (world.broken, world.trace.unwrap_or_default())
}

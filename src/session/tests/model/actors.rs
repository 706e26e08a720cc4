//! The server and the client of the model's [`World`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::oracle::{Fed, attr, client_number, is_stanza, number};
use super::*;

/// The server's end of an upstream leg.
pub(super) struct Leg {
    pub(super) alive: bool,
    offers_sm: bool,
    /// True from the point at which the server counts what it sends.
    pub(super) on: bool,
    /// Written to the server, and not yet read by it.
    pub(super) inbox: VecDeque<String>,
    /// Sent by the server, and not yet taken by the session.
    pub(super) wire: VecDeque<Sent>,
    /// Number of counted stanzas that the server sent, and of those that the session received.
    sent: u64,
    pub(super) fed: u64,
    /// The session's last `h`, and the last one that the server read.
    pub(super) acked: u64,
    pub(super) acked_read: u64,
    /// Number of stanzas that the session wrote, that the server read, and that the server confirmed to the session.
    pub(super) written: u64,
    handled: u64,
    pub(super) confirmed: u64,
    /// True if the session has written its footer.
    pub(super) footer: bool,
    saw_presence: bool,
}

/// A frame on its way from the server.
pub(super) struct Sent {
    xml: String,
    number: Option<usize>,
    counted: bool,
    confirms: Option<u64>,
    contact: Option<(u8, bool)>,
    /// True if the session had the stanza before, and kept it.
    again: bool,
}

impl Leg {
    pub(super) fn new(alive: bool, offers_sm: bool) -> Self {
        Self {
            alive,
            offers_sm,
            on: false,
            inbox: VecDeque::new(),
            wire: VecDeque::new(),
            sent: 0,
            fed: 0,
            acked: 0,
            acked_read: 0,
            written: 0,
            handled: 0,
            confirmed: 0,
            footer: false,
            saw_presence: false,
        }
    }

    fn send(&mut self, xml: String) -> Option<&mut Sent> {
        if !self.alive {
            return None;
        }
        let counted = self.on && is_stanza(&xml);
        self.sent += u64::from(counted);
        self.wire.push_back(Sent { xml, number: None, counted, confirms: None, contact: None, again: false });
        self.wire.back_mut()
    }
}

impl World {
    pub(super) fn server_sends(&mut self, xml: String) {
        self.unnumbered += usize::from(is_stanza(&xml));
        self.life.leg.send(xml);
    }

    pub(super) fn send_numbered(&mut self, durable: bool, stanza: impl FnOnce(String) -> String) {
        let n = self.handed.len();
        let leg = &mut self.life.leg;
        let xml = stanza(format!("s{n}"));
        let Some(sent) = leg.send(xml.clone()) else { return };
        sent.number = Some(n);
        let server_seq = sent.counted.then_some(leg.sent);
        let life = Some(self.life.number);
        let after_presence = leg.saw_presence && durable;
        self.handed.push(Handed { life, server_seq, after_presence, xml, ..Handed::orphan() });
        if durable {
            self.open.insert(n);
        }
    }

    /// Sends again the stanzas that were not acknowledged on a leg that broke.
    fn send_again(&mut self) {
        for n in std::mem::take(&mut self.again) {
            let kept = self.handed[n].fed.is_some();
            let delay = "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='2026-01-01T00:00:00Z'/></message>";
            let xml = self.handed[n].xml.replace("</message>", delay);
            let leg = &mut self.life.leg;
            let Some(sent) = leg.send(xml) else { continue };
            (sent.number, sent.again) = (Some(n), kept);
            let server_seq = sent.counted.then_some(leg.sent);
            if kept {
                self.handed[n].again = Some(self.life.number);
            } else {
                let handed = &mut self.handed[n];
                (handed.life, handed.server_seq, handed.after_presence) = (Some(self.life.number), server_seq, true);
            }
        }
    }

    pub(super) fn send_message(&mut self, child: &str, durable: bool) {
        self.send_numbered(durable, |id| {
            format!("<message from='romeo@example.net/x' type='chat' id='{id}'>{child}</message>")
        });
    }

    pub(super) fn send_presence(&mut self, who: u8, here: bool) {
        if !self.life.leg.saw_presence {
            return;
        }
        let kind = if here { "" } else { " type='unavailable'" };
        let sent = self.life.leg.send(format!("<presence from='friend{who}@example.net/x'{kind}/>"));
        if let Some(sent) = sent {
            sent.contact = Some((who, here));
            self.unnumbered += 1;
        }
    }

    /// Passes frames of the server to the session for as long as it accepts them.
    pub(super) fn feed_upstream(&mut self) -> bool {
        let mut fed = false;
        while self.session.as_ref().is_some_and(Session::can_read_upstream) {
            let Some(sent) = self.life.leg.wire.pop_front() else { break };
            fed = true;
            self.say(|| format!("server: {}", sent.xml));
            self.life.leg.fed += u64::from(sent.counted);
            self.life.requests += usize::from(sent.xml.starts_with("<iq type='get'"));
            if let Some(n) = sent.number.filter(|_| !sent.again) {
                self.handed[n].fed = Some(self.now);
                self.life.sent.push(n);
                if !self.variant.registered && self.life.enabled_at.is_none() {
                    // Nobody can know whether the client has received it.
                    self.open.remove(&n);
                }
            }
            if let Some((who, here)) = sent.contact {
                self.life.contacts[0].insert(who, here);
            }
            self.life.leg.confirmed = self.life.leg.confirmed.max(sent.confirms.unwrap_or_default());
            let frame = self.frame(&sent.xml);
            self.handle(Input::Upstream(frame));
        }
        fed
    }

    pub(super) fn server_reads(&mut self, count: usize) {
        for _ in 0..count {
            let Some(xml) = self.life.leg.inbox.pop_front().filter(|_| self.life.leg.alive) else { return };
            self.server_read(&xml);
        }
    }

    fn server_read(&mut self, xml: &str) {
        let leg = &mut self.life.leg;
        if is_stanza(xml) {
            leg.handled += 1;
            leg.saw_presence |=
                xml.starts_with("<presence") && client_number(xml).is_some() && attr(xml, "type").is_none();
            if leg.saw_presence && !self.again.is_empty() {
                self.send_again();
            }
            self.server_answers(xml);
        } else if xml.starts_with("<enable ") && leg.offers_sm {
            leg.send("<enabled xmlns='urn:xmpp:sm:3'/>".into());
            leg.on = true;
        } else if xml.starts_with("<r ") {
            let handled = leg.handled;
            if let Some(sent) = leg.send(format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>")) {
                sent.confirms = Some(handled);
            }
        } else if xml.starts_with("<a ") {
            leg.acked_read = attr(xml, "h").unwrap().parse().unwrap();
        } else if xml == "</stream:stream>" {
            self.resolve_leg(false);
            self.handle(Input::Upstream(Frame::Close));
        }
    }

    fn server_answers(&mut self, xml: &str) {
        let handled = self.life.leg.handled;
        if let Some(id) = client_number(xml).filter(|_| xml.starts_with("<message")) {
            self.server_receives(id);
        } else if let Some(id) = client_number(xml).filter(|_| xml.starts_with("<iq type='get'")) {
            self.send_numbered(false, |n| {
                format!("<iq type='result' id='c{id}' from='example.org'><query xmlns='urn:model' n='{n}'/></iq>")
            });
        } else if xml.contains("<pubsub ") && !handled.is_multiple_of(3) {
            let id = attr(xml, "id").unwrap();
            self.server_sends(format!("<iq type='result' id='{id}' from='push.example'/>"));
        } else if xml.contains("<ping ") && xml.starts_with("<iq type='get'") {
            let id = attr(xml, "id").unwrap();
            if let Some(sent) = self.life.leg.send(format!("<iq type='result' id='{id}' from='example.org'/>")) {
                sent.confirms = Some(handled);
            }
        }
    }

    /// Oracle 3: the client's messages arrive in order, and twice only where a loss could not be excluded.
    fn server_receives(&mut self, id: usize) {
        let gapless = self.variant.client_sm;
        let before = self.client.sent_messages.range(..id).any(|(_, sent)| sent.received == 0) && gapless;
        let Some(sent) = self.client.sent_messages.get_mut(&id) else { return };
        sent.received += 1;
        let (first, doubled) = (sent.received == 1, sent.received > 1 && !sent.may_double);
        self.check(!doubled, || format!("the server got c{id} twice"));
        self.check(!(first && before), || format!("the server got c{id} before an earlier one"));
    }

    pub(super) fn server_ends(&mut self, how: End, reads: bool) {
        if self.session.is_none() || !self.life.leg.alive {
            return;
        }
        if reads {
            self.server_reads(usize::MAX);
        }
        match how {
            End::Footer => {
                self.resolve_leg(false);
                self.handle(Input::Upstream(Frame::Close));
            }
            End::Error => {
                self.resolve_leg(false);
                let shutdown = "<system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>";
                let error = self.frame(&format!("<stream:error>{shutdown}</stream:error>"));
                self.handle(Input::Upstream(error));
                self.handle(Input::UpstreamLost);
            }
            End::Killed | End::Broken if self.life.leg.alive => {
                self.break_leg(how == End::Killed);
                self.handle(Input::UpstreamLost);
            }
            End::Killed | End::Broken => {}
        }
    }
}

/// The client, with the state that it keeps across connections.
#[derive(Default)]
pub(super) struct Client {
    pub(super) conn: Option<Conn>,
    connections: u64,
    pub(super) previd: Option<String>,
    /// True if the client counts the stanzas that it reads, and those that it writes.
    counts_in: bool,
    counts_out: bool,
    h_in: u32,
    /// Stanzas written and not acknowledged.
    pub(super) out: VecDeque<(usize, String)>,
    out_h: u64,
    last_id: usize,
    sent_messages: BTreeMap<usize, SentMessage>,
    /// The ids of the client's requests, by which it recognises the answers.
    requests: BTreeSet<usize>,
    /// Answers that the client has not written yet, each with the number of stanzas read before the question.
    pending_answers: Vec<(String, usize)>,
    ack_due: bool,
}

/// A message of the client.
#[derive(Default)]
struct SentMessage {
    received: u32,
    may_double: bool,
}

/// One connection of the client.
pub(super) struct Conn {
    id: u64,
    life: u32,
    /// Written to the client, and not yet read.
    inbox: VecDeque<String>,
    /// Written by the client and not yet taken by the session, each with the number of read stanzas that it
    /// acknowledges.
    up: VecDeque<(String, usize)>,
    cut: bool,
    /// True if the client may write stanzas.
    ready: bool,
    eof: bool,
}

impl Client {
    pub(super) fn connected(&mut self, life: u32) -> u64 {
        self.connections += 1;
        let (id, inbox, up) = (self.connections, VecDeque::new(), VecDeque::new());
        self.conn = Some(Conn { id, life, inbox, up, cut: false, ready: true, eof: false });
        id
    }

    pub(super) fn receive(&mut self, conn: u64, xml: String) {
        if let Some(conn) = self.conn.as_mut().filter(|c| c.id == conn) {
            conn.inbox.push_back(xml);
        }
    }

    /// Closes this connection from the other end, or any connection if `None`.
    pub(super) fn hang_up(&mut self, conn: Option<u64>) {
        if let Some(current) = self.conn.as_mut().filter(|c| conn.is_none_or(|id| id == c.id)) {
            current.eof = true;
        }
    }

    pub(super) fn cut(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.cut = true;
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.cut)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.conn.as_ref().is_some_and(|c| c.ready && c.inbox.is_empty() && c.up.is_empty())
            && self.pending_answers.is_empty()
    }

    pub(super) fn may_double(&mut self, id: usize) {
        if let Some(sent) = self.sent_messages.get_mut(&id) {
            sent.may_double = true;
        }
    }

    pub(super) fn unreceived(&self) -> impl Iterator<Item = usize> {
        self.sent_messages.iter().filter(|(_, sent)| sent.received == 0).map(|(id, _)| *id)
    }

    /// Starts a stream without earlier state. Returns the messages that were not acknowledged on the stream before.
    pub(super) fn start_new_stream(&mut self) -> Vec<(usize, String)> {
        let out = std::mem::take(&mut self.out);
        let unacked: Vec<_> = out.into_iter().filter(|(_, xml)| xml.starts_with("<message")).collect();
        for (id, _) in &unacked {
            self.may_double(*id);
        }
        let (sent_messages, last_id, connections) =
            (std::mem::take(&mut self.sent_messages), self.last_id, self.connections);
        *self = Self { sent_messages, last_id, connections, ..Self::default() };
        unacked
    }

    pub(super) fn is_ready(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.ready)
    }

    fn id(&mut self) -> usize {
        self.last_id += 1;
        self.last_id
    }

    /// Writes a frame that acknowledges this many of the stanzas read.
    fn write(&mut self, xml: String, acks: usize) {
        if let Some(conn) = self.conn.as_mut().filter(|conn| conn.ready && !conn.cut) {
            conn.up.push_back((xml, acks));
        }
    }

    fn send(&mut self, id: usize, xml: String, acks: usize) {
        if self.counts_out {
            self.out.push_back((id, xml.clone()));
        }
        self.write(xml, acks);
    }
}

impl World {
    /// Connects the client. It resumes if it can, otherwise it binds again as the same device.
    pub(super) fn connect(&mut self, resume: bool, hello: Hello) {
        self.client.conn = None;
        let fresh = !resume || self.session.is_none() || self.life.resumable != self.client.previd;
        if fresh {
            self.finish_older();
        }
        let previd = self.client.previd.clone().filter(|_| resume);
        if previd.is_some() && self.session.is_some() && self.life.resumable == previd {
            return self.resume();
        }
        if let Some(previd) = previd {
            count(&self.coverage.failed_resumptions);
            if let Some(h) = self.disk.tombstones.get(&previd).copied() {
                self.client_gets_ack(h.into());
            }
        }
        self.end_old_session();
        self.disk_catches_up();
        self.check_requests();
        if self.broken.is_some() {
            return;
        }
        let unacked = self.client.start_new_stream();
        self.bind();
        self.send_hello(hello, unacked);
    }

    fn resume(&mut self) {
        let session = self.session.as_mut().unwrap();
        let h = sm::Handled::new(self.client.h_in);
        let (check, attachment) = (session.check_resume(h), session.attachment());
        self.check(check.is_ok(), || format!("a true h is refused: {check:?}"));
        if self.life.attached.is_some() {
            count(&self.coverage.takeovers);
        }
        self.life.old.push(attachment);
        self.client_acked(self.life.reads.len());
        self.life.attached = Some(self.client.connected(self.life.number));
        if let Some(conn) = &mut self.client.conn {
            conn.ready = false;
        }
        self.say(|| format!("client resumes: {h:?}"));
        self.handle(Input::Attach(Box::new(Resumption {
            h,
            server_header: Arc::clone(&self.header),
            success: None,
            tokens: Default::default(),
        })));
    }

    /// Ends the old session, as the relay and the server do when the resource is bound again.
    fn end_old_session(&mut self) {
        let Some(session) = &self.session else { return };
        if session.is_dark() {
            self.handle(Input::EndIfHeld(EndReason::Superseded));
        } else if !self.life.leg.footer {
            self.server_ends(End::Footer, true);
        }
        for _ in 0..12 {
            if self.session.is_none() || self.broken.is_some() {
                return;
            }
            self.disk_catches_up();
            self.server_reads(usize::MAX);
            self.wake();
            self.pass(Duration::from_secs(1));
        }
        self.check(false, || "a superseded session does not end".into());
    }

    pub(super) fn send_hello(&mut self, hello: Hello, unacked: Vec<(usize, String)>) {
        if matches!(hello, Hello::PresenceThenEnable | Hello::Burst) {
            self.client_presence("");
        }
        if self.variant.client_sm {
            self.client.write("<enable xmlns='urn:xmpp:sm:3' resume='true'/>".into(), 0);
            self.client.counts_out = true;
        }
        for (id, xml) in unacked {
            self.client.send(id, xml, 0);
        }
        match hello {
            Hello::EnableThenPresence => self.client_presence(""),
            Hello::Burst => self.client_says(),
            Hello::PresenceThenEnable | Hello::Enable => {}
        }
    }

    /// Passes frames of the client to the session for as long as it accepts them.
    pub(super) fn feed_client(&mut self) -> bool {
        let mut fed = false;
        while self.session.as_ref().is_some_and(Session::can_read_client) {
            let attached = self.life.attached;
            let conn = self.client.conn.as_mut().filter(|conn| Some(conn.id) == attached);
            let Some((xml, acks)) = conn.and_then(|conn| conn.up.pop_front()) else { break };
            fed = true;
            self.say(|| format!("client: {xml}"));
            if is_stanza(&xml) {
                // The client answers pings of the session itself, which have neither a number nor this id.
                let own = xml.starts_with("<iq type='result'") && !xml.contains("id='peer'") && number(&xml).is_none();
                let consumed = own || xml.contains("urn:xmpp:push:0");
                self.life.fed.push(Fed { id: client_number(&xml).unwrap(), consumed, index: None });
            } else if xml.starts_with("<enable ") {
                self.life.enabled_at = Some(self.life.fed.len());
            }
            self.client_acked(acks);
            let attachment = self.session.as_ref().unwrap().attachment();
            let frame = self.frame(&xml);
            self.handle(Input::Client { attachment, frame });
        }
        fed
    }

    // Writes of the client

    pub(super) fn client_says(&mut self) {
        if !self.client.is_ready() || self.variant.client_sm && !self.client.counts_out {
            return;
        }
        let id = self.client.id();
        self.client.sent_messages.insert(id, SentMessage::default());
        self.client.send(id, format!("<message to='romeo@example.net' type='chat' id='c{id}'/>"), 0);
    }

    pub(super) fn client_requests(&mut self) {
        if !self.client.is_ready() {
            return;
        }
        let id = self.client.id();
        self.client.requests.insert(id);
        let xml = format!("<iq type='get' id='c{id}' to='example.org'><query xmlns='urn:model'/></iq>");
        self.client.send(id, xml, 0);
    }

    pub(super) fn enable_push(&mut self) {
        if !self.client.is_ready() || !self.variant.registered {
            return;
        }
        let id = self.client.id();
        self.client.requests.insert(id);
        let enable = "<enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/>";
        self.client.send(id, format!("<iq type='set' id='c{id}'>{enable}</iq>"), 0);
    }

    pub(super) fn client_presence(&mut self, kind: &str) {
        if self.client.is_ready() {
            let id = self.client.id();
            self.client.send(id, format!("<presence id='c{id}'{kind}/>"), 0);
        }
    }

    pub(super) fn client_asks(&mut self) {
        if self.client.counts_out {
            self.client.write("<r xmlns='urn:xmpp:sm:3'/>".into(), 0);
        }
    }

    pub(super) fn client_answers(&mut self) {
        if !self.client.is_ready() {
            return;
        }
        for (answer, acks) in std::mem::take(&mut self.client.pending_answers) {
            let id = self.client.id();
            self.client.send(id, answer.replace("c?", &format!("c{id}")), acks);
        }
        if self.client.counts_in {
            let h = self.client.h_in;
            self.client.write(format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"), self.life.reads.len());
        }
    }

    pub(super) fn client_closes(&mut self) {
        self.client.write("</stream:stream>".into(), 0);
        if let Some(conn) = &mut self.client.conn {
            conn.ready = false;
        }
    }

    // Reads of the client

    pub(super) fn client_reads(&mut self, count: usize, answers: bool) {
        for _ in 0..count {
            let Some(conn) = &mut self.client.conn else { return };
            let (life, eof) = (conn.life, conn.eof);
            match conn.inbox.pop_front() {
                Some(xml) => self.client_read(&xml, life),
                None if eof => self.client.conn = None,
                None => break,
            }
        }
        if answers && (std::mem::take(&mut self.client.ack_due) || !self.client.pending_answers.is_empty()) {
            self.client_answers();
        }
    }

    fn client_read(&mut self, xml: &str, life: u32) {
        self.say(|| format!("client reads {xml}"));
        let client = &mut self.client;
        if is_stanza(xml) {
            client.h_in += u32::from(client.counts_in);
            self.client_reads_stanza(xml, life);
        } else if xml.starts_with("<enabled ") {
            client.counts_in = true;
            client.previd = attr(xml, "id").map(str::to_owned);
        } else if xml.starts_with("<resumed ") {
            self.client_gets_ack(attr(xml, "h").unwrap().parse().unwrap());
            self.client_resumed();
        } else if xml.starts_with("<a ") {
            self.client_gets_ack(attr(xml, "h").unwrap().parse().unwrap());
        } else if xml.starts_with("<r ") {
            client.ack_due = true;
        } else if xml.starts_with("</") || xml.starts_with("<stream:error") {
            client.conn = None;
        } else {
            self.check(false, || format!("the client does not understand {xml}"));
        }
    }

    fn client_reads_stanza(&mut self, xml: &str, life: u32) {
        if let Some(n) = number(xml) {
            self.read_number(n, life);
        }
        let reads = self.life.reads.len();
        let id = attr(xml, "id").unwrap_or_default();
        if xml.starts_with("<iq") && attr(xml, "type") == Some("get") {
            let answer = format!("<iq type='result' id='{id}' to='{}' n='c?'/>", attr(xml, "from").unwrap());
            self.client.pending_answers.push((answer, reads));
        } else if xml.starts_with("<iq") {
            let known = client_number(xml).is_some_and(|id| self.client.requests.contains(&id));
            self.check(known, || format!("the client did not ask for {xml}"));
        } else if let Some((_, from)) = xml.split_once(" from='friend").filter(|_| life == self.life.number) {
            let who = from.split_once('@').unwrap().0.parse().unwrap();
            self.life.contacts[1].insert(who, attr(xml, "type").is_none());
        }
    }

    fn client_gets_ack(&mut self, h: u64) {
        let client = &mut self.client;
        let newly = h.checked_sub(client.out_h).and_then(|newly| usize::try_from(newly).ok());
        let possible = newly.filter(|newly| *newly <= client.out.len());
        let (before, open) = (client.out_h, client.out.len());
        let Some(newly) = possible else {
            return self.check(false, || format!("the client is told {h} after {before}, with {open} open"));
        };
        client.out.drain(..newly);
        client.out_h = h;
    }

    fn client_resumed(&mut self) {
        let Some(conn) = &mut self.client.conn else { return };
        conn.ready = true;
        for (_, xml) in self.client.out.clone() {
            count(&self.coverage.resends);
            self.client.write(xml, 0);
        }
    }

    // Loss of the client

    pub(super) fn notice_vanished(&mut self) {
        let Some(session) = &self.session else { return };
        let here = self.client.conn.as_ref().map(|conn| conn.id);
        if self.life.attached.is_some() && self.life.attached != here {
            self.life.attached = None;
            let attachment = session.attachment();
            self.say(|| "the client is lost".into());
            self.handle(Input::ClientLost(attachment));
        }
    }

    /// Invariant 10: only the owner detaches.
    pub(super) fn late_events(&mut self) {
        for attachment in self.life.old.clone() {
            let frame = self.frame("<message id='late'/>");
            let Some(session) = &mut self.session else { return };
            let before = (session.is_dark(), session.attachment());
            session.handle(self.now, Input::Client { attachment, frame });
            session.handle(self.now, Input::ClientLost(attachment));
            let (output, after) = (session.poll(), (session.is_dark(), session.attachment()));
            count(&self.coverage.late_events);
            self.check(output.is_none() && before == after, || format!("a late event of {attachment:?}: {output:?}"));
        }
    }
}

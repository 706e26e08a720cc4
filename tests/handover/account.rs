//! The server's side of one session: everything that was written to it and that came from it, in numbers.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::content::{Content, Direction, Kind};
use crate::findings::Findings;
use crate::xml::Element;

/// The maximum time for the answer to a ping or an `<r/>`, a handover included.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// A notification that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) round: u32,
    pub(crate) at: Instant,
    /// Its `message-count`.
    pub(crate) count: u64,
}

/// The account of one session. Accounts with an even number have stream management at the server.
#[derive(Debug)]
pub(crate) struct Account {
    number: usize,
    seed: u64,
    to_client: Option<mpsc::UnboundedSender<String>>,
    /// Stream management is enabled.
    managed: bool,
    /// Number of stanzas written since then.
    pub(crate) written: u32,
    /// The last count of Pushward.
    pub(crate) acked: u32,
    /// Number of stanzas read since then.
    handled: u32,
    /// Number of messages to the client, and of those that notify.
    pub(crate) messages: u64,
    pub(crate) notifying: u64,
    /// Number of the client's numbered stanzas that arrived.
    pub(crate) received: u64,
    pub(crate) presences: usize,
    pub(crate) binds: usize,
    pings: HashMap<u64, Instant>,
    pub(crate) pings_sent: u64,
    requests: VecDeque<Instant>,
    pub(crate) requests_sent: u64,
    pub(crate) slowest_ping: Duration,
    pub(crate) slowest_ack: Duration,
    pub(crate) publishes: Vec<Publish>,
}

pub(crate) fn is_managed(account: usize) -> bool {
    account.is_multiple_of(2)
}

impl Account {
    pub(crate) fn new(number: usize, seed: u64) -> Self {
        Self {
            number,
            seed,
            to_client: None,
            managed: false,
            written: 0,
            acked: 0,
            handled: 0,
            messages: 0,
            notifying: 0,
            received: 0,
            presences: 0,
            binds: 0,
            pings: HashMap::new(),
            pings_sent: 0,
            requests: VecDeque::new(),
            requests_sent: 0,
            slowest_ping: Duration::ZERO,
            slowest_ack: Duration::ZERO,
            publishes: Vec::new(),
        }
    }

    /// Starts to write to this connection, on which a session is bound.
    pub(crate) fn attach(&mut self, to_client: mpsc::UnboundedSender<String>) {
        self.binds += 1;
        self.to_client = Some(to_client);
    }

    fn write(&self, xml: String) {
        // A connection that is closed is counted by the server.
        self.to_client.as_ref().map(|to_client| to_client.send(xml).ok());
    }

    fn write_stanza(&mut self, xml: String) {
        self.written = self.written.wrapping_add(u32::from(self.managed));
        self.write(xml);
    }

    pub(crate) fn message(&mut self, kind: Kind) {
        let content =
            Content { seed: self.seed, account: self.number, direction: Direction::ToClient, number: self.messages };
        self.messages += 1;
        self.notifying += u64::from(kind.notifies());
        self.write_stanza(content.message(kind));
    }

    pub(crate) fn ping(&mut self) {
        let (id, account) = (self.pings_sent, self.number);
        self.pings_sent += 1;
        self.pings.insert(id, Instant::now());
        self.write_stanza(format!(
            "<iq type='get' id='ping-{id}' from='localhost' to='user-{account}@localhost/phone'>\
             <ping xmlns='urn:xmpp:ping'/></iq>"
        ));
    }

    /// Requests an acknowledgement, if there is stream management.
    pub(crate) fn request(&mut self) {
        if self.managed {
            self.requests_sent += 1;
            self.requests.push_back(Instant::now());
            self.write("<r xmlns='urn:xmpp:sm:3'/>".into());
        }
    }

    /// Returns the number of pings and `<r/>` that were not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.pings.len() + self.requests.len()
    }

    /// Processes an element of a session that is logged in.
    pub(crate) fn element(&mut self, xml: &str, round: u32, findings: &Findings) {
        let element = Element::parse(xml);
        if element.ns == "urn:xmpp:sm:3" {
            return self.nonza(&element, findings);
        }
        self.handled = self.handled.wrapping_add(1);
        match element.name.as_str() {
            "presence" => self.presence(&element),
            "iq" => self.iq(&element, round, findings),
            _ => self.numbered(&element, findings),
        }
    }

    fn nonza(&mut self, nonza: &Element, findings: &Findings) {
        match nonza.name.as_str() {
            "enable" => {
                (self.managed, self.handled, self.written) = (true, 0, 0);
                self.write("<enabled xmlns='urn:xmpp:sm:3'/>".into());
            }
            "r" => self.write(format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled)),
            "a" => self.acked(nonza, findings),
            _ => findings.add("no unknown nonza reaches the server", format!("{nonza:?}")),
        }
    }

    fn acked(&mut self, nonza: &Element, findings: &Findings) {
        let h: u32 = nonza.attribute("h").and_then(|h| h.parse().ok()).unwrap_or_default();
        if h < self.acked || h > self.written {
            let (number, acked, written) = (self.number, self.acked, self.written);
            let detail = format!("account {number}: h={h} after {acked}, {written} stanzas written");
            findings.add("the count of Pushward grows, up to what was written", detail);
        }
        self.acked = h;
        // Pushward also sends <a/> that nothing requested.
        if let Some(at) = self.requests.pop_front() {
            self.slowest_ack = self.slowest_ack.max(at.elapsed());
        }
    }

    fn presence(&mut self, presence: &Element) {
        self.presences += 1;
        if let Some(to) = presence.attribute("to").filter(|to| to.starts_with("room@")) {
            let account = self.number;
            self.write_stanza(format!(
                "<presence from='{to}' to='user-{account}@localhost/phone'><x xmlns='http://jabber.org/protocol/muc#user'>\
                 <item affiliation='member' role='participant'/><status code='110'/></x></presence>"
            ));
        }
    }

    fn iq(&mut self, iq: &Element, round: u32, findings: &Findings) {
        let id = iq.attribute("id").unwrap_or_default();
        if !matches!(iq.attribute("type"), Some("get" | "set")) {
            let sent = id.strip_prefix("ping-").and_then(|number| self.pings.remove(&number.parse().ok()?));
            match sent {
                Some(at) => self.slowest_ping = self.slowest_ping.max(at.elapsed()),
                None => findings.add("each ping is answered once", format!("account {}: {iq:?}", self.number)),
            }
            return;
        }
        if id.starts_with("client-") {
            self.numbered(iq, findings);
        }
        if iq.attribute("to") == Some("push.localhost") {
            self.publish(iq, round, findings);
        }
        let payload = match iq.children.first().map(|child| child.name.as_str()) {
            Some("bind") => format!(
                "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>user-{}@localhost/phone</jid></bind>",
                self.number
            ),
            Some("query") => "<query xmlns='jabber:iq:version'><name>in memory</name></query>".to_owned(),
            _ => String::new(),
        };
        let from = iq.attribute("to").map(|to| format!(" from='{to}'")).unwrap_or_default();
        self.write_stanza(format!("<iq type='result' id='{id}'{from}>{payload}</iq>"));
    }

    fn publish(&mut self, iq: &Element, round: u32, findings: &Findings) {
        let node = iq.all("publish").first().and_then(|publish| publish.attribute("node")).map(str::to_owned);
        findings.equal(
            "a notification is for the node of its account",
            (node, Some(format!("n{}", self.number))),
            "node",
        );
        let field = iq.all("field").into_iter().find(|field| field.attribute("var") == Some("message-count"));
        let count = field.and_then(|field| field.all("value").first()?.text.parse().ok()).unwrap_or_default();
        self.publishes.push(Publish { round, at: Instant::now(), count });
    }

    /// Checks that a stanza of the client is the next one.
    fn numbered(&mut self, stanza: &Element, findings: &Findings) {
        let id = stanza.attribute("id").and_then(|id| id.strip_prefix("client-")?.parse::<u64>().ok());
        let (account, expected) = (self.number, self.received);
        let content = Content { seed: self.seed, account, direction: Direction::ToServer, number: expected };
        if id != Some(expected) || !content.is_in(stanza) {
            let detail = format!("account {account}: {stanza:?}, expected number {expected}");
            findings.add("stanzas of clients arrive once, in order and unchanged", detail);
        }
        self.received = id.map_or(expected, |id| id + 1);
    }
}

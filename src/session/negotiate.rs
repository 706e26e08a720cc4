//! From the first stream header over TLS to a bound or resumed session: opening, SASL, features, bind, resume.
//!
//! The same contract as [`super::Session`], plus [`Negotiation::wants_client`]: while an answer of the server decides what the
//! next bytes of the client mean, the client's further frames stay where they are.

mod bind;
mod contract;
mod exchange;
mod inline;
mod resume;
mod success;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

pub use contract::{Answer, CloseReason, Ended, Held, Input, Output, Owed, Proof, Stop};
use inline::{Ask, Inline};

use super::answer::unreadable;
use super::rewrite::Phase;
use super::rewrite::offers::{Offer, Terms};
use super::sasl::{Exchange, SaslIdentity};
use super::sieve::{Hidden, Leg, Notice};
use super::starttls::{refusal, served};
use super::{Bound, Dice, Settings, SmId, sm};
use crate::jid::BareJid;
use crate::xml::{self, Element, Frame, Header, Kind, ns};

/// How many elements a connection may send before it is authenticated. A login needs a handful.
const ELEMENTS: u32 = 64;

/// A resumption that is under way.
#[derive(Debug)]
struct Claim {
    id: SmId,
    h: sm::Handled,
}

#[derive(Debug)]
enum State {
    /// The client's header is awaited.
    Start,
    /// The server is being connected.
    Connecting,
    /// The header was forwarded: the server's header and features are awaited.
    Opening,
    /// SASL. `answer_due`: the server has the client's last SASL message.
    Authenticating { answer_due: bool },
    /// The registry is asked for the session that an `<authenticate/>` wants.
    Deciding(Box<Ask>),
    /// A held session is given the connection; else this `<success/>` is the client's.
    HandingOver(Element, Box<Inline>),
    /// SASL2's `<success/>` was passed on: the server's features are awaited, then the session begins that it bound, if any.
    Welcomed(Option<Box<Bound>>),
    /// `<success/>` was passed on: the client restarts its stream (RFC 6120 §6.4.6).
    Restarting,
    /// The restart was forwarded: the server's header and features are awaited.
    Reopening,
    /// The client binds or resumes.
    Binding,
    /// A bind of the client is on its way, with this iq id; empty if it has none.
    BindSent(String),
    /// The registry is being asked.
    Finding(Claim),
    /// The server is asked who this is, by a bind of our own with this iq id.
    Probing(String, Claim, BareJid),
    /// The connection was handed over, bound or closed.
    Done,
}

/// One connection on its way to a session.
pub struct Negotiation {
    hosts: Arc<HashSet<String>>,
    settings: Arc<Settings>,
    dice: Dice,
    state: State,
    host: String,
    client_header: Option<Arc<Header>>,
    server_header: Option<Arc<Header>>,
    leg: Leg,
    hidden: Hidden,
    exchange: Exchange,
    /// What the client asked for with the `<authenticate/>` that the server has.
    inline: Inline,
    identity: Option<SaslIdentity>,
    /// Whom the server says that it let in.
    account: Option<BareJid>,
    agent: Option<String>,
    presented: Option<SmId>,
    /// Log-ins are answered here, and how many were.
    locked_out: bool,
    refused: u32,
    probed: bool,
    /// The server's stream header is awaited.
    header_due: bool,
    /// How many of its answers have come.
    given: u64,
    /// Elements of the client before it is authenticated.
    elements: u32,
    authenticated: bool,
    server_csi: bool,
    server_sm: bool,
    deadline: Instant,
    outputs: VecDeque<Output>,
}

impl Negotiation {
    /// A connection over TLS on which nothing was said yet.
    pub fn new(hosts: Arc<HashSet<String>>, settings: Arc<Settings>, dice: Dice, deadline: Instant) -> Self {
        Self {
            hosts,
            settings,
            dice,
            state: State::Start,
            host: String::new(),
            client_header: None,
            server_header: None,
            leg: Leg::Plain,
            hidden: Hidden::default(),
            exchange: Exchange::default(),
            inline: Inline::default(),
            identity: None,
            account: None,
            agent: None,
            presented: None,
            locked_out: false,
            refused: 0,
            probed: false,
            header_due: false,
            given: 0,
            elements: 0,
            authenticated: false,
            server_csi: false,
            server_sm: false,
            deadline,
            outputs: VecDeque::new(),
        }
    }

    /// Whether the client's next frame can be taken now.
    pub fn wants_client(&self) -> bool {
        matches!(
            self.state,
            State::Start | State::Authenticating { answer_due: false } | State::Restarting | State::Binding
        )
    }

    /// The connection has sent so many elements before, in the clear.
    pub fn sent_before(&mut self, elements: u32) {
        self.elements = elements;
    }

    /// What the server has to send next, if it is the server that is waited for.
    pub fn owed(&self) -> Option<Owed> {
        let answer = match &self.state {
            State::Opening | State::Reopening if self.header_due => Answer::Header,
            State::Opening | State::Reopening | State::Welcomed(_) => Answer::Features,
            State::Authenticating { answer_due: true } => Answer::Sasl,
            State::BindSent(_) | State::Probing(..) => Answer::Bind,
            State::Start
            | State::Connecting
            | State::Authenticating { answer_due: false }
            | State::Deciding(_)
            | State::HandingOver(..)
            | State::Restarting
            | State::Binding
            | State::Finding(_)
            | State::Done => return None,
        };
        Some(Owed { answer, given: self.given })
    }

    /// Whether log-ins are refused from now on, without the server being asked.
    pub fn lock_out(&mut self, locked_out: bool) {
        self.locked_out = locked_out;
    }

    /// When [`Stop::Timeout`] is due.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next effect, `None` when all are taken.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes one event. Drain [`Negotiation::poll`] before the next.
    pub fn handle(&mut self, input: Input) {
        if matches!(self.state, State::Done) {
            return;
        }
        match input {
            Input::Client(Frame::Whitespace | Frame::Skipped(_)) | Input::Upstream(Frame::Whitespace) => {}
            Input::Upstream(Frame::Skipped(skipped)) => self.server_skipped(&skipped.element),
            Input::Client(Frame::Close) => self.client_closed(),
            Input::Client(Frame::Open(header)) => self.client_header(&header),
            Input::Client(Frame::Element(element)) => self.client_element(&as_usual(element)),
            Input::Upstream(Frame::Close) => {
                self.write_client(Bytes::from_static(xml::STREAM_CLOSE));
                self.close(CloseReason::UpstreamClosed);
            }
            Input::Upstream(Frame::Open(header)) => self.server_header(&header),
            Input::Upstream(Frame::Element(element)) => self.server_element(&as_usual(element)),
            Input::Connected(leg) => self.connected(leg),
            Input::UpstreamLost => self.upstream_lost(),
            Input::Found(held) => self.found(held),
            Input::Gone(ended) => self.gone(ended),
            Input::TooHigh(too_high) => {
                let text = too_high.to_string();
                let error = xml::stream_error("undefined-condition", Some(&too_high.condition()), Some(&text));
                self.refuse_with(error, CloseReason::ClientError);
            }
            Input::Stop(Stop::StoreLate) => self.refuse("internal-server-error", None, CloseReason::StoreLate),
            Input::Stop(Stop::ServerSilent) => self.give_up_server(CloseReason::ServerSilent),
            Input::Stop(Stop::Timeout) => self.refuse("connection-timeout", None, CloseReason::Timeout),
            Input::Stop(Stop::Crowded) => {
                let text = "Too many connections have not logged in";
                self.refuse("resource-constraint", Some(text), CloseReason::Crowded);
            }
            Input::Stop(Stop::Shutdown) => self.refuse("system-shutdown", None, CloseReason::Shutdown),
        }
    }

    // The stream headers

    fn client_header(&mut self, header: &Arc<Header>) {
        let header = header.usual();
        let restart = matches!(self.state, State::Restarting);
        if !restart && !matches!(self.state, State::Start) {
            return self.refuse("bad-format", None, CloseReason::ClientError);
        }
        let host = match served(&self.hosts, &header) {
            Ok(host) if !restart || host == self.host => host,
            Ok(_) | Err("host-unknown") => {
                return self.refuse_host(&header, "host-unknown", restart);
            }
            Err(condition) => return self.refuse_host(&header, condition, restart),
        };
        if restart {
            self.out(Output::ToUpstream(Bytes::copy_from_slice(header.bytes())));
            (self.state, self.header_due) = (State::Reopening, true);
        } else {
            self.out(Output::Connect(host.clone()));
            self.state = State::Connecting;
            self.host = host;
        }
        self.client_header = Some(header);
    }

    fn refuse_host(&mut self, header: &Header, condition: &str, restart: bool) {
        let reply = refusal(header, condition, self.dice);
        self.reply(reply);
        if restart {
            self.out(Output::ToUpstream(Bytes::from_static(xml::STREAM_CLOSE)));
        }
        self.close(CloseReason::HostUnknown);
    }

    fn connected(&mut self, leg: Leg) {
        self.leg = leg;
        if let (State::Connecting, Some(header)) = (&self.state, &self.client_header) {
            self.outputs.push_back(Output::ToUpstream(Bytes::copy_from_slice(header.bytes())));
            (self.state, self.header_due) = (State::Opening, true);
        }
    }

    fn server_header(&mut self, header: &Arc<Header>) {
        let header = header.usual();
        if !matches!(self.state, State::Opening | State::Reopening) {
            return self.upstream_error();
        }
        self.answered();
        self.header_due = false;
        self.write_client(Bytes::copy_from_slice(header.bytes()));
        self.server_header = Some(header);
    }

    /// The server has sent what was awaited.
    fn answered(&mut self) {
        self.given += 1;
    }

    fn upstream_lost(&mut self) {
        self.give_up_server(CloseReason::UpstreamLost);
    }

    fn give_up_server(&mut self, reason: CloseReason) {
        match (&self.server_header, &self.client_header) {
            // Nothing was answered yet: the error needs a header in front (RFC 6120 §4.9.1.2).
            (None, Some(header)) => {
                let reply = refusal(header, "remote-connection-failed", self.dice);
                self.reply(reply);
                self.close(reason);
            }
            _ => self.refuse("remote-connection-failed", None, reason),
        }
    }

    fn client_closed(&mut self) {
        if self.server_header.is_some() {
            self.out(Output::ToUpstream(Bytes::from_static(xml::STREAM_CLOSE)));
        }
        self.reply(Bytes::from_static(xml::STREAM_CLOSE));
        self.close(CloseReason::ClientClosed);
    }

    // The client's elements

    fn client_element(&mut self, element: &Element) {
        self.elements = self.elements.saturating_add(1);
        if self.elements > ELEMENTS && !self.authenticated {
            let text = "Too many elements before authentication";
            return self.refuse("policy-violation", Some(text), CloseReason::TooManyElements);
        }
        if matches!(self.state, State::Authenticating { .. }) {
            self.client_authenticates(element);
        } else if matches!(self.state, State::Binding) {
            self.client_binds(element);
        } else {
            self.refuse("bad-format", None, CloseReason::ClientError);
        }
    }

    /// Elements that would change the upstream stream behind our back are never forwarded.
    fn refuse_element(&mut self, element: &Element) {
        let condition = if element.kind() == Kind::Other { "unsupported-stanza-type" } else { "not-authorized" };
        self.refuse(condition, None, CloseReason::ClientError);
    }

    // The server's elements

    fn server_element(&mut self, element: &Element) {
        let node = element.node();
        if node.is("error", ns::STREAMS) {
            // RFC 6120 §4.9.3.19: where the server sends its clients, nobody is there for ours.
            if node.child("see-other-host", ns::STREAM_ERRORS).is_some() {
                return self.upstream_lost();
            }
            return self.write_client(element.bytes().clone());
        }
        match &self.state {
            State::Opening if node.is("features", ns::STREAMS) => self.first_features(element),
            State::Reopening if node.is("features", ns::STREAMS) => {
                self.authenticated_features(element, Phase::Authenticated);
            }
            State::Welcomed(_) if node.is("features", ns::STREAMS) => self.features_follow(element),
            State::Authenticating { answer_due } => {
                let answer_due = *answer_due;
                self.server_authenticates(element, &node, answer_due);
            }
            State::BindSent(id) if self.is_bind_answer(element, &node, id) => self.bind_answered(element, &node),
            State::Probing(id, ..) if self.is_bind_answer(element, &node, id) => self.probe_answered(&node),
            // What the server sends to the probe's resource is nobody's.
            State::Finding(_) | State::Probing(..) => {}
            State::Restarting | State::Binding | State::BindSent(_) => self.write_client(element.bytes().clone()),
            State::Start
            | State::Connecting
            | State::Opening
            | State::Deciding(_)
            | State::HandingOver(..)
            | State::Welcomed(_)
            | State::Reopening
            | State::Done => self.upstream_error(),
        }
    }

    /// The server has sent what no client could have read. If it is what is awaited, the login ends.
    fn server_skipped(&mut self, element: &Element) {
        let node = element.node();
        match &self.state {
            State::BindSent(id) | State::Probing(id, ..) if self.is_bind_answer(element, &node, id) => {
                self.upstream_error()
            }
            State::Restarting | State::Binding | State::BindSent(_)
                if element.kind() == Kind::Iq && matches!(node.attr("type").as_deref(), Some("result" | "error")) =>
            {
                self.write_client(unreadable(&node));
            }
            State::Start
            | State::Connecting
            | State::Opening
            | State::Authenticating { .. }
            | State::Deciding(_)
            | State::HandingOver(..)
            | State::Welcomed(_)
            | State::Reopening => {
                if element.kind() == Kind::Other {
                    self.upstream_error();
                }
            }
            State::Restarting
            | State::Binding
            | State::BindSent(_)
            | State::Finding(_)
            | State::Probing(..)
            | State::Done => {}
        }
    }

    fn first_features(&mut self, element: &Element) {
        let offer = self.offer(element, Phase::Unauthenticated, self.settings.unauthenticated_stanza);
        if self.leg == Leg::Plain && offer.requires_tls {
            self.out(Output::Notice(self.host.clone(), Notice::TlsRequired));
            return self.refuse("remote-connection-failed", None, CloseReason::UpstreamWantsTls);
        }
        self.answered();
        self.hidden = offer.hidden;
        self.write_client(offer.shown.clone());
        self.state = State::Authenticating { answer_due: false };
    }

    /// What the server's features come to, where a client's stanza may have so many bytes.
    fn offer(&self, features: &Element, phase: Phase, max_bytes: usize) -> Arc<Offer> {
        self.settings.offers.read(features, Terms { phase, leg: self.leg, max_bytes })
    }

    // Ends

    fn upstream_error(&mut self) {
        self.refuse("internal-server-error", Some("The server broke the protocol"), CloseReason::UpstreamError);
    }

    /// The stream error for bytes of the client that are no XML stream.
    pub fn refuse_bytes(&mut self, error: &xml::FrameError) {
        self.refuse_with(error.stream_error(), CloseReason::ClientError);
    }

    fn refuse(&mut self, condition: &str, text: Option<&str>, reason: CloseReason) {
        self.refuse_with(xml::stream_error(condition, None, text), reason);
    }

    fn refuse_with(&mut self, error: Bytes, reason: CloseReason) {
        if self.server_header.is_some() {
            self.reply(error);
            self.out(Output::ToUpstream(Bytes::from_static(xml::STREAM_CLOSE)));
        } else {
            let mut reply = xml::stream_header(&self.host, &format!("{:032x}", (self.dice)()), None).to_vec();
            reply.extend_from_slice(&error);
            self.reply(reply.into());
        }
        self.close(reason);
    }

    fn close(&mut self, reason: CloseReason) {
        self.out(Output::Close(reason));
        self.state = State::Done;
    }

    fn write_client(&mut self, bytes: Bytes) {
        self.out(Output::ToClient(bytes));
    }

    /// Answers what the client itself has sent.
    fn reply(&mut self, bytes: Bytes) {
        self.out(Output::ReplyToClient(bytes));
    }

    fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }
}

/// An element as it stands on a stream whose header is written in the usual style: it is passed on as it is.
fn as_usual(element: Element) -> Element {
    let usual = element.header().usual();
    if Arc::ptr_eq(&usual, element.header()) {
        return element;
    }
    Element::parse(element.on_stream(&usual), &usual).unwrap_or(element)
}

//! Fuzz target: a login between a client that sends anything and a scripted server.
//!
//! The options (letters of the first line) choose what the server and the daemon do, see [`Script`]. Each further line is what the
//! client sends, with these exceptions: a line that begins with `S ` is sent by the server, besides what it answers by itself, and
//! one that begins with `! ` is an event, see [`World::event`].

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{
    AccountPlace, Awaited, Ended, HeldSession, Lockout, LoginInput, LoginOutput, Negotiation, Stop, TokenRefusal,
};
use crate::clock::Instant;
use crate::jid::BareJid;
use crate::secret::Secret;
use crate::session::fronting::Fronting;
use crate::session::mechanism_filter::{ChannelBinding, Leg};
use crate::session::sasl::SaslIdentity;
use crate::session::tests::random;
use crate::session::{Settings, sm};
use crate::xml::fuzzing::options;
use crate::xml::{Element, Frame, FrameLimits, Framer, Node, ns};

const HOST: &str = "example.org";
/// The user of the held session.
const HOLDER: &str = "juliet";
/// The user that is let in if the client names none.
const OTHER: &str = "mallory";
const LIMITS: FrameLimits = FrameLimits::client(10_000, 32);
const FEATURES: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism>\
    <mechanism>SCRAM-SHA-1</mechanism><mechanism>SCRAM-SHA-1-PLUS</mechanism></mechanisms>\
    <authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism><inline><bind xmlns='urn:xmpp:bind:0'><inline>\
    <feature var='urn:xmpp:carbons:2'/><feature var='urn:xmpp:sm:3'/></inline></bind><sm xmlns='urn:xmpp:sm:3'/>\
    <fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast></inline></authentication>\
    <sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-server-end-point'/>\
    </sasl-channel-binding></stream:features>";
const STARTTLS: &str = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
    </stream:features>";
const LOGGED_IN: &str = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/>\
    <csi xmlns='urn:xmpp:csi:0'/></stream:features>";
const STREAM: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' from='example.org' id='1' version='1.0'>";

/// The behaviour of the server and of the daemon.
#[derive(Clone, Copy)]
struct Script<'d> {
    options: &'d [u8],
}

impl Script<'_> {
    fn has(self, option: u8) -> bool {
        self.options.contains(&option)
    }

    /// `T`, `E`: TLS to the server, with channel binding stripped or passed.
    fn leg(self) -> Leg {
        match self {
            _ if self.has(b'T') => Leg::Tls(ChannelBinding::Strip),
            _ if self.has(b'E') => Leg::Tls(ChannelBinding::ServerEndPoint),
            _ => Leg::Plain,
        }
    }

    /// `s`: the server wants TLS. `m`: it has no SASL2, and Pushward offers it.
    fn features(self) -> String {
        match self {
            _ if self.has(b's') => STARTTLS.to_owned(),
            _ if self.has(b'm') => {
                let sasl2 = FEATURES.find("<authentication").zip(FEATURES.find("<sasl-channel-binding"));
                let (from, to) = sasl2.unwrap_or_default();
                FEATURES.get(..from).into_iter().chain(FEATURES.get(to..)).collect()
            }
            _ => FEATURES.to_owned(),
        }
    }

    /// `n`, `N`: no session is found; without and with a tombstone. `o`: the login of the session is not known.
    fn found(self) -> Result<HeldSession, Option<Ended>> {
        if self.has(b'n') {
            return Err(None);
        }
        if self.has(b'N') {
            return Err(Some(ended()));
        }
        let identity = SaslIdentity { host: HOST.to_owned(), authcid: HOLDER.to_owned() };
        Ok(HeldSession { account: holder(), identity: Some(identity).filter(|_| !self.has(b'o')) })
    }

    /// `l`, `w`: each login is looked up, and this node may serve it, or nobody knows. `W`, `X`: another node owns the account; it
    /// takes the stream, or does not.
    fn place(self) -> AccountPlace {
        match self {
            _ if self.has(b'W') || self.has(b'X') => AccountPlace::OtherNode,
            _ if self.has(b'w') => AccountPlace::Unknown,
            _ => AccountPlace::Here,
        }
    }

    /// `g`, `G`: the session is gone; without and with a tombstone. `h`: the client counts too high. Else it takes the connection.
    fn handed_over(self, h: sm::Handled) -> Option<LoginInput> {
        match self {
            _ if self.has(b'g') => Some(LoginInput::Gone(None)),
            _ if self.has(b'G') => Some(LoginInput::Gone(Some(ended()))),
            _ if self.has(b'h') => Some(LoginInput::TooHigh(sm::TooHigh { h, sent: sm::Handled::new(0) })),
            _ => None,
        }
    }
}

fn holder() -> BareJid {
    BareJid::new(&format!("{HOLDER}@{HOST}")).unwrap_or_else(|error| panic!("{error:?}"))
}

fn ended() -> Ended {
    Ended { account: holder(), h: sm::Handled::new(5) }
}

/// The server: it reads what is written to it, and answers.
struct Server<'d> {
    script: Script<'d>,
    framer: Framer,
    /// The user that it has let in.
    user: Option<String>,
    /// The exchange that is under way.
    asks: Option<Exchange>,
    inline_bind: bool,
    attempts: u32,
    /// The fuzzer has written something in its name: it may have said anything.
    is_forged: bool,
    /// A stream binds the prefix `stream` to another namespace. Such a header is passed on as it is, and nothing that Pushward
    /// writes can be read behind it.
    is_odd: bool,
    says: VecDeque<String>,
}

/// A SASL exchange, as the server sees it.
struct Exchange {
    ns: &'static str,
    mechanism: String,
    /// The user that the client's first message names.
    user: Option<String>,
}

impl Exchange {
    /// Takes a message of the client. The first one may be that of its first `<response/>`.
    fn take(&mut self, message: &str) {
        if self.user.is_none() && !message.is_empty() {
            self.user = Some(named(&self.mechanism, message).unwrap_or_else(|| OTHER.to_owned()));
        }
    }
}

/// Returns the user that a message names in the clear.
fn named(mechanism: &str, message: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(message.trim()).ok()?).ok()?;
    let user = if mechanism == "PLAIN" {
        match text.split('\0').collect::<Vec<_>>()[..] {
            ["", user, _] | [user, _, _] => user.to_owned(),
            _ => return None,
        }
    } else {
        match text.split(',').collect::<Vec<_>>()[..] {
            [_, "", user, ..] => user.strip_prefix("n=")?.replace("=2C", ",").replace("=3D", "="),
            _ => return None,
        }
    };
    Some(user).filter(|user| !user.contains(['<', '&', '\'']))
}

impl Server<'_> {
    fn say(&mut self, xml: impl Into<String>) {
        self.says.push_back(xml.into());
    }

    fn read(&mut self, bytes: &[u8]) {
        self.framer.buffer().extend_from_slice(bytes);
        loop {
            match self.framer.next_frame() {
                // `q`: it is silent once it has let the client in.
                Ok(Some(Frame::Open(_))) if self.user.is_some() && self.script.has(b'q') => {}
                Ok(Some(Frame::Open(_))) => {
                    self.say(STREAM);
                    let features = if self.user.is_some() { LOGGED_IN.to_owned() } else { self.script.features() };
                    self.say(features);
                }
                Ok(Some(Frame::Element(element))) => self.answer(&element),
                Ok(Some(Frame::Whitespace | Frame::Close | Frame::Skipped(_))) => {}
                Ok(None) => return,
                Err(error) => {
                    assert!(self.is_odd, "{error} in what is written to the server: {}", bytes.escape_ascii());
                    return;
                }
            }
        }
    }

    fn answer(&mut self, element: &Element) {
        let node = element.node();
        match (node.name(), node.ns()) {
            ("auth", ns::SASL) => self.begin(&node, ns::SASL, &node.text()),
            ("authenticate", ns::SASL2) => {
                self.inline_bind = node.children().any(|child| child.name() == "bind");
                let initial = node.children().find(|child| child.name() == "initial-response");
                let message = initial.map(|initial| initial.text().into_owned()).unwrap_or_default();
                self.begin(&node, ns::SASL2, &message);
            }
            ("response", ns::SASL | ns::SASL2) => {
                self.asks.iter_mut().for_each(|exchange| exchange.take(&node.text()));
                self.decide();
            }
            ("abort", ns::SASL | ns::SASL2) => {
                self.asks = None;
                self.say(format!("<failure xmlns='{}'><aborted/></failure>", node.ns()));
            }
            ("iq", _) => self.answer_iq(&node),
            _ => {}
        }
    }

    /// `c`: there is a challenge.
    fn begin(&mut self, node: &Node<'_>, ns: &'static str, message: &str) {
        let mechanism = node.attr("mechanism").unwrap_or_default().into_owned();
        let mut exchange = Exchange { ns, mechanism, user: None };
        exchange.take(message);
        self.asks = Some(exchange);
        if self.script.has(b'c') {
            self.say(format!("<challenge xmlns='{ns}'>cj14LHM9eCxpPTEsaD14</challenge>"));
        } else {
            self.decide();
        }
    }

    /// `f`: the first attempt fails, `F`: all fail.
    fn decide(&mut self) {
        let Some(Exchange { ns, user, .. }) = self.asks.take() else { return };
        let user = user.unwrap_or_else(|| OTHER.to_owned());
        self.attempts += 1;
        if self.script.has(b'F') || self.script.has(b'f') && self.attempts == 1 {
            self.say(format!("<failure xmlns='{ns}'><not-authorized/></failure>"));
            return;
        }
        if ns == ns::SASL {
            self.say(format!("<success xmlns='{ns}'/>"));
        } else {
            let (resource, bound) = match self.inline_bind {
                true => ("/phone", "<bound xmlns='urn:xmpp:bind:0'/>"),
                false => ("", ""),
            };
            let id = format!("<authorization-identifier>{user}@{HOST}{resource}</authorization-identifier>");
            self.say(format!("<success xmlns='{ns}'>{id}{bound}</success>"));
            self.say(LOGGED_IN);
        }
        self.user = Some(user);
    }

    /// `e`: binds fail; `k`: the answer is an element that no client can read.
    fn answer_iq(&mut self, node: &Node<'_>) {
        let id = crate::xml::excerpt(&node.attr("id").unwrap_or_default()).replace(['<', '&', '\''], "");
        let user = self.user.clone().unwrap_or_default();
        self.say(match self.script {
            _ if self.script.has(b'k') => format!("<iq type='result' id='{id}'><p:bind/></iq>"),
            _ if self.script.has(b'e') => format!("<iq type='error' id='{id}'><error type='cancel'/></iq>"),
            _ => format!(
                "<iq type='result' id='{id}'><bind xmlns='{}'><jid>{user}@{HOST}/phone</jid></bind></iq>",
                ns::BIND
            ),
        });
    }
}

/// A login, and what it has put out.
struct World<'d> {
    script: Script<'d>,
    negotiation: Negotiation,
    client: Framer,
    upstream: Framer,
    server: Server<'d>,
    /// Reads what is written to the client.
    reader: Framer,
    /// Bytes that went in, and that came out.
    bytes_in: usize,
    bytes_out: usize,
    inputs: usize,
    /// The connection is a session, was handed over, or is closed.
    is_done: bool,
    /// A held session has the connection: the negotiation is dropped.
    is_handed_over: bool,
}

/// Plays a login.
pub(crate) fn negotiation(data: &[u8]) {
    let (options, rest) = options(data);
    let mut world = World::new(Script { options });
    for line in rest.split_inclusive(|byte| *byte == b'\n') {
        let trimmed = line.strip_suffix(b"\n").unwrap_or(line);
        match line {
            [b'S', b' ', ..] => world.server_says(trimmed.get(2..).unwrap_or_default()),
            [b'!', b' ', ..] => world.event(trimmed.get(2..).unwrap_or_default()),
            _ => world.client_says(line),
        }
        if world.is_done {
            break;
        }
    }
    world.end();
}

impl<'d> World<'d> {
    fn new(script: Script<'d>) -> Self {
        let hosts = Arc::new(HashSet::from([HOST.to_owned()]));
        let fronted = script.has(b'm').then(|| HOST.to_owned());
        let fronting = Arc::new(Fronting::new(fronted, Secret::new(1)));
        let settings =
            Arc::new(Settings { stanza: LIMITS.bytes, session_queue: 1 << 20, fronting, ..Settings::default() });
        let mut upstream = Framer::new(FrameLimits::server(1 << 16));
        upstream.skip_unfit(None);
        let server = Server {
            script,
            framer: Framer::new(FrameLimits::server(1 << 20)),
            user: None,
            asks: None,
            inline_bind: false,
            attempts: 0,
            is_forged: false,
            is_odd: false,
            says: VecDeque::new(),
        };
        let mut negotiation = Negotiation::new(hosts, settings, random, Instant::now());
        if b"lwWX".iter().any(|option| script.has(*option)) {
            negotiation.locate_logins();
        }
        Self {
            script,
            negotiation,
            client: Framer::new(LIMITS),
            upstream,
            server,
            reader: Framer::new(FrameLimits::server(1 << 20)),
            bytes_in: 0,
            bytes_out: 0,
            inputs: 0,
            is_done: false,
            is_handed_over: false,
        }
    }

    fn client_says(&mut self, bytes: &[u8]) {
        self.bytes_in += bytes.len();
        self.client.buffer().extend_from_slice(bytes);
        self.turn();
    }

    fn server_says(&mut self, bytes: &[u8]) {
        self.server.is_forged = true;
        self.upstream_says(bytes);
        self.turn();
    }

    /// `k`, `u`: logins are locked out, or not any more. The others end the login.
    fn event(&mut self, event: &[u8]) {
        let input = match event {
            b"k" => return self.negotiation.set_lockout(Lockout::Active),
            b"u" => return self.negotiation.set_lockout(Lockout::Inactive),
            b"l" => LoginInput::UpstreamLost,
            b"s" => LoginInput::Stop(Stop::ServerSilent),
            b"d" => LoginInput::Stop(Stop::StoreLate),
            b"c" => LoginInput::Stop(Stop::Crowded),
            b"z" => LoginInput::Stop(Stop::Shutdown),
            _ => return,
        };
        self.take(input);
        assert!(self.is_done, "the event must end the login");
    }

    /// Takes all frames that can be taken.
    fn turn(&mut self) {
        loop {
            while let Some(xml) = self.server.says.pop_front() {
                self.upstream_says(xml.as_bytes());
            }
            if self.is_done {
                return;
            }
            let awaits = self.negotiation.awaits();
            if !self.negotiation.can_read_client() {
                assert!(awaits.is_some(), "nobody is waited for");
                return;
            }
            match self.client.next_frame() {
                Ok(Some(frame)) => self.take(LoginInput::Client(frame)),
                Ok(None) => return,
                Err(error) => {
                    self.negotiation.refuse_bytes(&error);
                    self.perform();
                    assert!(self.is_done, "bytes that are no XML end the login");
                }
            }
        }
    }

    fn upstream_says(&mut self, bytes: &[u8]) {
        self.bytes_in += bytes.len();
        self.upstream.buffer().extend_from_slice(bytes);
        while !self.is_done {
            match self.upstream.next_frame() {
                Ok(Some(frame)) => self.take(LoginInput::Upstream(frame)),
                Ok(None) => return,
                Err(_) => self.take(LoginInput::UpstreamLost),
            }
        }
    }

    fn take(&mut self, input: LoginInput) {
        let before: Option<Awaited> = self.negotiation.awaits();
        let is_client = matches!(input, LoginInput::Client(_));
        if let LoginInput::Client(Frame::Open(header)) | LoginInput::Upstream(Frame::Open(header)) = &input {
            self.server.is_odd |= header.prefixes().any(|(prefix, uri)| prefix == "stream" && uri != ns::STREAMS);
        }
        self.inputs += 1;
        self.negotiation.handle(input);
        self.perform();
        let after = self.negotiation.awaits();
        assert!(!is_client || before.is_none() || after.is_none() || before == after, "the server has not answered");
        let most = 2 * self.bytes_in + 4096 * (self.inputs + 4);
        assert!(self.bytes_out <= most, "{} bytes were written for {}", self.bytes_out, self.bytes_in);
    }

    /// Performs outputs, as the daemon does.
    fn perform(&mut self) {
        loop {
            let mut answer = None;
            while let Some(output) = self.negotiation.poll() {
                assert!(!self.is_done, "{output:?} behind the end");
                answer = self.perform_one(output).or(answer);
            }
            match answer {
                Some(input) => self.negotiation.handle(input),
                None => return,
            }
        }
    }

    fn perform_one(&mut self, output: LoginOutput) -> Option<LoginInput> {
        match output {
            LoginOutput::ToClient(bytes) | LoginOutput::ReplyToClient(bytes) => self.write_client(&bytes),
            LoginOutput::ToUpstream(bytes) => {
                self.bytes_out += bytes.len();
                self.server.read(&bytes);
            }
            LoginOutput::Connect(host) => {
                assert_eq!(host, HOST);
                // `u`: the server cannot be reached.
                let up = !self.script.has(b'u');
                return Some(if up { LoginInput::Connected(self.script.leg()) } else { LoginInput::UpstreamLost });
            }
            LoginOutput::Authenticated(_) => self.client.set_limits(FrameLimits::client(1 << 16, 64)),
            LoginOutput::Claim(_) if self.script.has(b'O') => return Some(LoginInput::Stop(Stop::OtherOwner)),
            LoginOutput::Claim(_) => {}
            LoginOutput::Restart => {
                self.client.restart();
                self.upstream.restart();
                self.server.framer.restart();
                self.reader.restart();
            }
            LoginOutput::RestartServer => {
                self.upstream.restart();
                self.server.framer.restart();
            }
            LoginOutput::Locate(_) => return Some(LoginInput::Located(self.script.place())),
            LoginOutput::PassOn(_) if self.script.has(b'X') => return Some(LoginInput::NotPassedOn),
            LoginOutput::PassOn(passed) => {
                assert!(self.client.buffer().len() + passed.message.bytes().len() <= self.bytes_in);
                (self.is_done, self.is_handed_over) = (true, true);
            }
            LoginOutput::Find(_) => return Some(LoginInput::Found(self.script.found())),
            LoginOutput::CheckToken { .. } => return Some(LoginInput::TokenRefused(TokenRefusal::NotAuthorized)),
            LoginOutput::IssueToken { .. } => return Some(LoginInput::TokenIssued(None)),
            LoginOutput::HandOver { resumption, .. } if resumption.tokens.proof.is_some() => {
                // No session has such a token.
                return Some(LoginInput::TokenRefused(TokenRefusal::Expired));
            }
            LoginOutput::HandOver { resumption, .. } => {
                let is_proven = self.server.user.as_deref() == Some(HOLDER);
                assert!(is_proven || self.server.is_forged, "{:?} gets another's session", self.server.user);
                let answer = self.script.handed_over(resumption.h);
                (self.is_done, self.is_handed_over) = (answer.is_none(), answer.is_none());
                return answer;
            }
            LoginOutput::Bound(bound) => {
                assert!(!bound.jid.resource().is_empty());
                self.is_done = true;
            }
            LoginOutput::Close(_) => self.is_done = true,
            LoginOutput::SaslFailed(_)
            | LoginOutput::RoundTripsSaved(_)
            | LoginOutput::Answered
            | LoginOutput::RevokeTokens(_)
            | LoginOutput::LoginFailed
            | LoginOutput::LoginRefused
            | LoginOutput::Release { .. }
            | LoginOutput::UpstreamWarning { .. } => {}
        }
        None
    }

    /// Reads as a client does: what it gets is an XML stream.
    fn write_client(&mut self, bytes: &Bytes) {
        self.bytes_out += bytes.len();
        self.reader.buffer().extend_from_slice(bytes);
        loop {
            match self.reader.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    assert!(self.server.is_odd, "{error} in what the client gets: {}", bytes.escape_ascii());
                    return;
                }
            }
        }
    }

    /// The time for the login is over.
    fn end(mut self) {
        if !self.is_done {
            self.take(LoginInput::Stop(Stop::Timeout));
        }
        assert!(self.is_done, "the login does not end");
        if self.is_handed_over {
            return;
        }
        assert!(self.negotiation.awaits().is_none() && !self.negotiation.can_read_client());
        for stop in [Stop::Timeout, Stop::Shutdown] {
            self.negotiation.handle(LoginInput::Stop(stop));
            assert!(self.negotiation.poll().is_none(), "output behind the end");
        }
    }
}

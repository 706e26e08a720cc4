//! The login: from the first stream header over TLS to a bound or resumed session. The relay drives one [`Negotiation`] for
//! each connection.
//!
//! The contract is that of [`super::Session`], plus [`Negotiation::can_read_client`]: while an answer of the server decides how
//! to interpret the client's next bytes, the client's frames are not taken.
//!
//! ```text
//!  Start ─▶ Connecting ─▶ Opening ─▶ Authenticating ─┬─ SASL ──▶ Restarting ─▶ Reopening ─┬─▶ Binding ─┬─▶ bound
//!                                                    ├─ SASL2 ─┬─▶ Welcomed ──────────────┤            └─▶ handed over
//!                                                    │         │      ▲  └─▶ bound        │
//!                                                    │         └─▶ HandingOver ─▶ handed over
//!                                                    └─ SASL2 in front ─▶ Fronted ────────┘
//!                                                                           └─▶ bound, handed over
//! ```
//!
//! Each state is a type with the data that exists in it. Its methods take one event and return the state that follows, or the
//! `LoginEnd`. `Legs` collects the outputs.
//!
//! | file | contents |
//! |---|---|
//! | `contract` | inputs and outputs |
//! | `end` | the ends of a login without a session: reason, stream error |
//! | `legs` | outputs; the streams that an end has to close |
//! | `streams`, `login` | data of several states: the open streams, and the accepted login |
//! | `early`, `opening`, `features` | the first offer: from memory, before the server is connected; `Opening`; from its features |
//! | `owner` | the node that owns the account, and a stream that goes on there |
//! | `authenticating`, `inline` | `Authenticating` (SASL, SASL2), and the requests inside `<authenticate/>` |
//! | `fronted` | `Fronted` (SASL2 in front of a server that lacks it) |
//! | `restart` | `Restarting`, `Reopening` (SASL) |
//! | `welcome` | `HandingOver`, `Welcomed` (SASL2) |
//! | `binding` | `AwaitingBind`: bind, resume |

mod authenticating;
mod binding;
mod contract;
mod early;
mod end;
mod features;
mod fronted;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod inline;
mod legs;
mod login;
mod opening;
mod owner;
mod proof;
mod restart;
mod state;
mod streams;
mod welcome;

use std::collections::HashSet;
use std::sync::Arc;

use authenticating::AttemptTerms;
use end::LoginEnd;
use legs::Legs;
use opening::OpeningLogin;
use owner::ClientBytes;
use state::LoginState;
use streams::{LoginClientStream, as_usual};

use super::hosts::served_host;
use super::mechanism_filter::Leg;
use super::{RandomSource, Settings};
use crate::clock::Instant;
use crate::xml::{Element, Frame, FrameError, Header, Kind, Skipped, StreamCondition, ns};

pub use contract::{
    Awaited, CloseReason, Ended, Lockout, LoginInput, LoginOutput, SaslFailure, ServerAnswer, Stop, TokenRefusal,
};
pub use owner::{AccountPlace, LocateRequest, LoginName, PassedStream, ShownOffer, offered_carbons};
pub use proof::{HeldSession, Proof};

/// The number of elements that a connection may send before it is authenticated. A login needs only a few.
const ELEMENTS: u32 = 64;

/// One connection before it has a session.
pub struct Negotiation {
    hosts: Arc<HashSet<String>>,
    settings: Arc<Settings>,
    state: LoginState,
    legs: Legs,
    lockout: Lockout,
    /// The channel binding of the client's TLS connection (RFC 9266), if it has one.
    channel: Option<[u8; 32]>,
    own_bytes: ClientBytes,
    /// The number of awaited answers that the server has sent.
    given: u64,
    /// The number of elements that the client has sent.
    elements: u32,
    deadline: Instant,
}

impl Negotiation {
    /// Creates the negotiation of a new connection over TLS.
    pub fn new(hosts: Arc<HashSet<String>>, settings: Arc<Settings>, random: RandomSource, deadline: Instant) -> Self {
        let (state, legs) = (LoginState::Start, Legs::new(random));
        let (lockout, channel, own_bytes) = (Lockout::Inactive, None, ClientBytes::default());
        Self { hosts, settings, state, legs, lockout, channel, own_bytes, given: 0, elements: 0, deadline }
    }

    /// Returns whether the client's next frame can be taken now.
    pub fn can_read_client(&self) -> bool {
        self.state.can_read_client()
    }

    /// Sets the channel binding of the client's TLS connection (RFC 9266).
    pub fn set_channel(&mut self, channel: Option<[u8; 32]>) {
        self.channel = channel;
    }

    /// Has the owner of the account looked up before each login.
    pub fn locate_logins(&mut self) {
        self.own_bytes = ClientBytes::kept();
    }

    /// Forgets the offer from memory that the client has, if it was for nothing: a node that has passed the client on may have
    /// refused it as outdated.
    pub fn forget_unused_offer(&self) {
        if let (LoginState::Authenticating(sasl), 0) = (&self.state, self.elements) {
            sasl.forget_unused_offer(&self.settings);
        }
    }

    /// Counts the elements that the connection has sent before, in the clear.
    pub fn sent_before(&mut self, elements: u32) {
        self.elements = elements;
    }

    /// The answer that the server has to send next, if the login waits for the server.
    pub fn awaits(&self) -> Option<Awaited> {
        self.state.awaits().map(|answer| Awaited { answer, given: self.given })
    }

    /// Sets whether logins are refused from now on, without asking the server.
    pub fn set_lockout(&mut self, lockout: Lockout) {
        self.lockout = lockout;
    }

    /// The time at which [`Stop::Timeout`] is due.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next effect, `None` when all are taken.
    pub fn poll(&mut self) -> Option<LoginOutput> {
        self.legs.poll()
    }

    /// Takes one event. Drain [`Negotiation::poll`] before the next.
    pub fn handle(&mut self, input: LoginInput) {
        if matches!(self.state, LoginState::Done) {
            return;
        }
        let (awaited, from_server) = (self.state.awaits(), matches!(input, LoginInput::Upstream(_)));
        let state = std::mem::replace(&mut self.state, LoginState::Done);
        match self.next(state, input) {
            Ok(next) => self.state = next,
            Err(end) => self.legs.end(&end),
        }
        if from_server && awaited.is_some() && awaited != self.state.awaits() {
            self.given += 1;
        }
    }

    /// Ends the login with the stream error for client bytes that are not an XML stream.
    pub fn refuse_bytes(&mut self, error: &FrameError) {
        self.legs.end(&LoginEnd::from(error));
        self.state = LoginState::Done;
    }

    /// Returns the state that follows.
    fn next(&mut self, mut state: LoginState, input: LoginInput) -> Result<LoginState, LoginEnd> {
        match input {
            LoginInput::Client(Frame::Whitespace | Frame::Skipped(_)) | LoginInput::Upstream(Frame::Whitespace) => {
                Ok(state)
            }
            LoginInput::Client(Frame::Open(header)) => {
                self.own_bytes.on_header(&header);
                self.on_client_header(state, header.usual())
            }
            LoginInput::Client(Frame::Element(element)) => {
                self.own_bytes.on_element(&element);
                self.on_client_element(state, &as_usual(element))
            }
            LoginInput::Client(Frame::Close) => Err(LoginEnd::ClientClosed),
            LoginInput::Upstream(Frame::Open(header)) => self.on_server_header(state, header.usual()),
            LoginInput::Upstream(Frame::Element(element)) => self.on_server_element(state, &as_usual(element)),
            LoginInput::Upstream(Frame::Skipped(skipped)) => self.on_server_skipped(state, skipped),
            // The client waits for one answer, which it cannot get any more.
            LoginInput::Upstream(Frame::Close) if matches!(state, LoginState::Fronted(_)) => Err(LoginEnd::ServerLost),
            LoginInput::Upstream(Frame::Close) => Err(LoginEnd::ServerClosed),
            LoginInput::Connected(leg) => Ok(self.on_connected(state, leg)),
            LoginInput::UpstreamLost => Err(LoginEnd::ServerLost),
            LoginInput::Found(found) => {
                state.on_found(found, &mut self.legs)?;
                Ok(state)
            }
            LoginInput::Located(place) => {
                state.on_located(place, self.lockout, &mut self.own_bytes, &mut self.legs)?;
                Ok(state)
            }
            LoginInput::NotPassedOn => Err(LoginEnd::NotPassedOn),
            LoginInput::Gone(ended) => state.on_gone(ended, &self.settings, &mut self.legs),
            LoginInput::TooHigh(too_high) => Err(too_high.into()),
            LoginInput::TokenRefused(refusal) => {
                state.on_token_refused(refusal, &mut self.legs);
                Ok(state)
            }
            LoginInput::TokenIssued(issued) => state.on_token_issued(issued, &self.settings, &mut self.legs),
            LoginInput::Stop(Stop::ServerSilent) => self.on_server_silent(state),
            LoginInput::Stop(stop) => Err(stop.into()),
        }
    }

    // Stream headers

    fn on_client_header(&mut self, state: LoginState, header: Arc<Header>) -> Result<LoginState, LoginEnd> {
        match state {
            LoginState::Start => {
                let host = self.host(&header)?;
                self.legs.on_client_header(&header);
                let client = LoginClientStream::new(host, header, self.channel);
                Ok(early::begin(client, &self.settings, &mut self.legs))
            }
            LoginState::Restarting(restarting) => {
                if self.host(&header)? != restarting.host() {
                    return Err(LoginEnd::HostUnknown { condition: StreamCondition::HostUnknown, header });
                }
                Ok(LoginState::Reopening(restarting.on_header(header, &mut self.legs)))
            }
            LoginState::Connecting(_)
            | LoginState::Opening(_)
            | LoginState::Authenticating(_)
            | LoginState::HandingOver(_)
            | LoginState::Welcomed(_)
            | LoginState::Fronted(_)
            | LoginState::Reopening(_)
            | LoginState::Binding(_)
            | LoginState::Done => Err(LoginEnd::OutOfOrder),
        }
    }

    /// Returns the served host that a header is addressed to.
    fn host(&self, header: &Arc<Header>) -> Result<String, LoginEnd> {
        let refused = |condition| LoginEnd::HostUnknown { condition, header: Arc::clone(header) };
        served_host(&self.hosts, header).map_err(refused)
    }

    fn on_connected(&mut self, state: LoginState, leg: Leg) -> LoginState {
        match state {
            LoginState::Connecting(client) => LoginState::Opening(OpeningLogin::new(client, leg, &mut self.legs)),
            LoginState::Authenticating(mut sasl) => {
                sasl.on_connected(leg, &mut self.legs);
                LoginState::Authenticating(sasl)
            }
            LoginState::Start
            | LoginState::Opening(_)
            | LoginState::HandingOver(_)
            | LoginState::Welcomed(_)
            | LoginState::Fronted(_)
            | LoginState::Restarting(_)
            | LoginState::Reopening(_)
            | LoginState::Binding(_)
            | LoginState::Done => state,
        }
    }

    fn on_server_header(&mut self, mut state: LoginState, header: Arc<Header>) -> Result<LoginState, LoginEnd> {
        match &mut state {
            LoginState::Opening(opening) => opening.on_header(header, &mut self.legs),
            LoginState::Reopening(reopening) => reopening.on_header(header, &mut self.legs),
            LoginState::Fronted(fronted) => fronted.on_header(&header)?,
            LoginState::Authenticating(sasl) => sasl.on_header(&header, &self.settings)?,
            LoginState::Start
            | LoginState::Connecting(_)
            | LoginState::HandingOver(_)
            | LoginState::Welcomed(_)
            | LoginState::Restarting(_)
            | LoginState::Binding(_)
            | LoginState::Done => return Err(LoginEnd::ServerError),
        }
        Ok(state)
    }

    // The elements

    fn on_client_element(&mut self, mut state: LoginState, element: &Element) -> Result<LoginState, LoginEnd> {
        self.elements = self.elements.saturating_add(1);
        if self.elements > ELEMENTS && !state.is_authenticated() {
            return Err(LoginEnd::TooManyElements);
        }
        match &mut state {
            LoginState::Authenticating(sasl) => {
                let terms = AttemptTerms { lockout: self.lockout, owner: self.own_bytes.lookup() };
                sasl.on_client(element, terms, &mut self.legs)?;
            }
            LoginState::Binding(binding) => binding.on_client(element, &mut self.legs)?,
            LoginState::Start
            | LoginState::Connecting(_)
            | LoginState::Opening(_)
            | LoginState::HandingOver(_)
            | LoginState::Welcomed(_)
            | LoginState::Fronted(_)
            | LoginState::Restarting(_)
            | LoginState::Reopening(_)
            | LoginState::Done => return Err(LoginEnd::OutOfOrder),
        }
        Ok(state)
    }

    fn on_server_element(&mut self, state: LoginState, element: &Element) -> Result<LoginState, LoginEnd> {
        let (node, settings, legs) = (element.node(), &self.settings, &mut self.legs);
        if node.is("error", ns::STREAMS) {
            // RFC 6120 §4.9.3.19: the other host is for clients of the server, and Pushward does not connect there.
            if node.child("see-other-host", ns::STREAM_ERRORS).is_some() {
                return Err(LoginEnd::ServerLost);
            }
            legs.pass_to_client(element);
            return state.on_stream_error(&node, legs);
        }
        let is_features = node.is("features", ns::STREAMS);
        match state {
            LoginState::Opening(opening) if is_features => {
                opening.on_features(element, settings, legs).map(|sasl| LoginState::Authenticating(Box::new(sasl)))
            }
            LoginState::Authenticating(mut sasl) => {
                if sasl.on_late_features(element, self.lockout, settings, legs)? {
                    return Ok(LoginState::Authenticating(sasl));
                }
                LoginState::after_sasl(sasl.on_server(element, settings, legs)?, settings, legs)
            }
            LoginState::Fronted(fronted) => {
                Ok(LoginState::after_fronted(fronted.on_server(element, settings, legs)?, legs))
            }
            LoginState::Welcomed(welcomed) if is_features => {
                Ok(LoginState::after_bind(welcomed.on_features(element, settings, legs), legs))
            }
            LoginState::Reopening(reopening) if is_features => {
                Ok(LoginState::Binding(Box::new(reopening.on_features(element, settings, legs))))
            }
            LoginState::Restarting(_) => {
                legs.pass_to_client(element);
                Ok(state)
            }
            LoginState::Binding(binding) => Ok(LoginState::after_bind(binding.on_server(element, legs)?, legs)),
            LoginState::Start
            | LoginState::Connecting(_)
            | LoginState::Opening(_)
            | LoginState::HandingOver(_)
            | LoginState::Welcomed(_)
            | LoginState::Reopening(_)
            | LoginState::Done => Err(LoginEnd::ServerError),
        }
    }

    /// Takes an element of the server that is too large or malformed for any client. If it is the awaited answer, the login
    /// ends.
    fn on_server_skipped(&mut self, state: LoginState, skipped: Box<Skipped>) -> Result<LoginState, LoginEnd> {
        let element = &skipped.element;
        match &state {
            LoginState::Fronted(_) => return self.on_fronted_skipped(state, skipped),
            LoginState::Restarting(_) => binding::pass_skipped_answer(element, &element.node(), &mut self.legs),
            LoginState::Binding(binding) => binding.on_skipped(element, &mut self.legs)?,
            LoginState::Start
            | LoginState::Connecting(_)
            | LoginState::Opening(_)
            | LoginState::Authenticating(_)
            | LoginState::HandingOver(_)
            | LoginState::Welcomed(_)
            | LoginState::Reopening(_) => {
                if element.kind() == Kind::Other {
                    return Err(LoginEnd::ServerError);
                }
            }
            LoginState::Done => {}
        }
        Ok(state)
    }

    fn on_fronted_skipped(&mut self, state: LoginState, skipped: Box<Skipped>) -> Result<LoginState, LoginEnd> {
        let LoginState::Fronted(fronted) = state else { return Ok(state) };
        let step = fronted.on_skipped(skipped, &self.settings, &mut self.legs)?;
        Ok(LoginState::after_fronted(step, &mut self.legs))
    }

    /// Takes the notice that the server has not answered in time. Some answers are not needed.
    fn on_server_silent(&mut self, state: LoginState) -> Result<LoginState, LoginEnd> {
        let LoginState::Fronted(fronted) = state else { return Err(LoginEnd::ServerSilent) };
        let step = fronted.on_late(&self.settings, &mut self.legs)?;
        Ok(LoginState::after_fronted(step, &mut self.legs))
    }
}

//! SASL in both profiles (RFC 6120 §6, XEP-0388), one exchange at a time. Messages pass through unchanged, or are translated if
//! the server lacks SASL2.

mod attempt;
mod front;
mod token;

use std::sync::Arc;

use super::contract::{Ended, Lockout, LoginOutput, SaslFailure, ServerAnswer};
use super::end::LoginEnd;
use super::fronted::FrontedLogin;
use super::inline::InlineResume;
use super::legs::Legs;
use super::login::AcceptedLogin;
use super::owner::{self, OwnerLookup, ShownOffer};
use super::proof::HeldSession;
use super::restart::Restarting;
use super::streams::Streams;
use super::welcome::Sasl2Success;
use crate::jid::{BareJid, Jid};
use crate::session::Settings;
use crate::session::mechanism_filter::UpstreamWarning;
use crate::session::rewrite::fronted;
use crate::session::rewrite::offers::Offer;
use crate::session::rewrite::sasl2::{self, authenticate};
use crate::session::sasl::{LoginMethod, Profile, SaslIdentity};
use crate::session::sm::nonza;
use crate::xml::{Element, ErrorType, Kind, Node, StanzaCondition, excerpt, ns, stanza_error};
pub(super) use attempt::AttemptTerms;
use attempt::{SaslAttempt, SaslTurn, ServerLink, sasl_message};

/// The number of login attempts that are answered on a connection whose address is locked out.
const RETRIES: u32 = 3;

/// The client authenticates.
#[derive(Debug)]
pub(super) struct Authenticating {
    streams: Streams,
    offer: Arc<Offer>,
    link: ServerLink,
    attempt: SaslAttempt,
    /// The number of attempts that were refused here.
    refused: u32,
    turn: SaslTurn,
}

/// The result of an element of the server.
#[derive(Debug)]
pub(super) enum SaslStep {
    /// SASL continues.
    GoesOn(Box<Authenticating>),
    /// The login is complete: both streams restart.
    Restart(Box<Restarting>),
    /// The login is complete, by SASL2.
    Sasl2Success(Box<Sasl2Success>),
    /// The login is complete, by SASL2 in front of a server that lacks it.
    Fronted(Box<FrontedLogin>),
}

impl Authenticating {
    /// Creates the state after the client got the offer of the server.
    pub(super) fn new(streams: Streams, offer: Arc<Offer>) -> Self {
        let (link, turn) = (ServerLink::Open, SaslTurn::Client);
        Self { streams, offer, link, attempt: SaslAttempt::default(), refused: 0, turn }
    }

    /// Creates the state after the client got an earlier offer of the server, which is not connected.
    pub(super) fn without_server(streams: Streams, offer: Arc<Offer>) -> Self {
        Self { link: ServerLink::Absent, ..Self::new(streams, offer) }
    }

    /// Returns whether the client's next element can be taken now.
    pub(super) fn can_read_client(&self) -> bool {
        matches!(self.turn, SaslTurn::Client)
    }

    /// The answer that the server has to send next, if any.
    pub(super) fn awaits(&self) -> Option<ServerAnswer> {
        match &self.turn {
            SaslTurn::Server => Some(ServerAnswer::Sasl),
            SaslTurn::Late(late) => late.awaits(),
            SaslTurn::Client
            | SaslTurn::Registry(_)
            | SaslTurn::Session
            | SaslTurn::Directory(_)
            | SaslTurn::OtherNode => None,
        }
    }

    /// Takes an element of the client.
    pub(super) fn on_client(
        &mut self,
        element: &Element,
        terms: AttemptTerms,
        legs: &mut Legs,
    ) -> Result<(), LoginEnd> {
        if !self.can_read_client() {
            return Err(LoginEnd::OutOfOrder);
        }
        let node = element.node();
        if element.kind() == Kind::Iq && self.link == ServerLink::Open {
            on_unauthenticated_iq(element, legs);
            return Ok(());
        }
        if terms.lockout == Lockout::Active && (node.is("auth", ns::SASL) || node.is("authenticate", ns::SASL2)) {
            return self.refuse(node.ns(), legs);
        }
        if self.mixes_profiles(&node) {
            return Err(LoginEnd::not_forwarded(element.kind()));
        }
        if terms.owner == OwnerLookup::Due
            && let Some(question) = owner::question(&self.streams, &node)
        {
            legs.out(LoginOutput::Locate(Box::new(question)));
            self.turn = SaslTurn::Directory(Box::new(element.clone()));
            return Ok(());
        }
        if self.needs_server(element, &node) {
            self.connect(element, legs);
            return Ok(());
        }
        if self.has_nothing_to_abort(&node) {
            legs.reply(fronted::refusal(node.ns(), "aborted"));
            return Ok(());
        }
        let own = node.ns() == self.attempt.exchange.profile().ns();
        match node.name() {
            "auth" if node.ns() == ns::SASL => self.attempt = SaslAttempt::begin(Profile::Sasl, &node),
            "authenticate" if node.ns() == ns::SASL2 => {
                self.on_authenticate(element, legs);
                return Ok(());
            }
            "response" | "abort" if own && self.is_fronted() => {
                self.on_fronted_client(&node, legs);
                return Ok(());
            }
            "response" if own => self.attempt.exchange.client_message(&sasl_message(&node)),
            "abort" if own => {}
            // XEP-0388 §2.6.2: further tasks, such as a second factor.
            "next" | "task-data" if own && node.ns() == ns::SASL2 && !self.is_fronted() => {}
            _ => return Err(LoginEnd::not_forwarded(element.kind())),
        }
        legs.pass_to_server(element);
        self.turn = SaslTurn::Server;
        Ok(())
    }

    /// Goes on with the login whose owner was looked up, since this node may serve it.
    pub(super) fn on_located_here(&mut self, lockout: Lockout, legs: &mut Legs) -> Result<(), LoginEnd> {
        let SaslTurn::Directory(element) = std::mem::replace(&mut self.turn, SaslTurn::Client) else { return Ok(()) };
        self.on_client(&element, AttemptTerms { lockout, owner: OwnerLookup::Done }, legs)
    }

    /// Leaves the login whose owner was looked up to another node. Returns the offer that the client has.
    pub(super) fn pass_on(&mut self) -> ShownOffer {
        self.turn = SaslTurn::OtherNode;
        ShownOffer::new(self.streams.server_header().clone(), self.offer.shown.clone())
    }

    /// Forgets what is known of the server, unless the server itself has made the offer.
    pub(super) fn forget_unused_offer(&self, settings: &Settings) {
        if self.link == ServerLink::Absent {
            settings.fronting.forget(self.streams.host());
        }
    }

    /// Returns whether the owner of the account is being looked up.
    pub(super) fn is_locating(&self) -> bool {
        matches!(self.turn, SaslTurn::Directory(_))
    }

    /// Returns whether the server gets SASL2's messages in RFC 6120's profile.
    fn is_fronted(&self) -> bool {
        self.offer.fronted.is_some() && self.attempt.exchange.profile() == Profile::Sasl2
    }

    /// Refuses an attempt. RFC 6120 §6.5.10: correct or not, it may be tried again later. A client that does not wait is
    /// closed (§6.4.5).
    fn refuse(&mut self, profile: &str, legs: &mut Legs) -> Result<(), LoginEnd> {
        legs.out(LoginOutput::LoginRefused);
        self.refused += 1;
        if self.refused > RETRIES {
            return Err(LoginEnd::LockedOut);
        }
        legs.reply(fronted::refusal(profile, "temporary-auth-failure"));
        Ok(())
    }

    /// Takes an `<authenticate/>`. Whether it resumes must be decided before the server gets it: if it contained a bind,
    /// the server would end the session that is about to be resumed.
    fn on_authenticate(&mut self, element: &Element, legs: &mut Legs) {
        let node = element.node();
        self.attempt = SaslAttempt::begin(Profile::Sasl2, &node);
        if let Some(mechanism) = self.token_mechanism(&node) {
            return self.on_token(mechanism, element, legs);
        }
        if let Some(refusal) = self.refusal_of_start(&node) {
            self.attempt.exchange.end();
            return legs.reply(fronted::refusal(ns::SASL2, refusal));
        }
        let Some(resume) = node.child("resume", ns::SM) else {
            return self.forward_authenticate(element, legs);
        };
        let Some(resume) = nonza::Resume::read(&resume) else {
            self.attempt.inline.resume = InlineResume::Malformed;
            return self.forward_authenticate(element, legs);
        };
        self.attempt.presented = Some(resume.previd.clone());
        legs.find(&resume.previd);
        self.turn = SaslTurn::Registry(Box::new((element.clone(), resume)));
    }

    /// Takes the answer to [`LoginOutput::Find`].
    pub(super) fn on_found(&mut self, found: Result<HeldSession, Option<Ended>>, legs: &mut Legs) {
        let SaslTurn::Registry(asked) = std::mem::replace(&mut self.turn, SaslTurn::Client) else { return };
        let (element, resume) = *asked;
        if self.attempt.token.is_some() {
            return self.on_token_found(found, &resume, legs);
        }
        self.attempt.inline.resume = match found {
            Ok(held) if self.may_be(&held.account) => InlineResume::Held(resume, held),
            // This proves nothing yet, but a client cannot resume the session of another account.
            Ok(_) => InlineResume::Unknown(None),
            Err(ended) => InlineResume::Unknown(ended),
        };
        self.forward_authenticate(&element, legs);
    }

    /// Returns whether the client claims to be this account, or does not name an account.
    fn may_be(&self, account: &BareJid) -> bool {
        let same = |from: &str| Jid::new(from).bare() == account.as_str();
        self.streams.host() == account.domain() && self.streams.client_header().from().is_none_or(same)
    }

    fn forward_authenticate(&mut self, element: &Element, legs: &mut Legs) {
        self.turn = SaslTurn::Server;
        if self.is_fronted() {
            return legs.write_server(fronted::auth(&element.node()));
        }
        let bind = match self.attempt.inline.resume {
            InlineResume::Held(..) => sasl2::InlineBind::Withhold,
            InlineResume::None | InlineResume::Unknown(_) | InlineResume::Malformed => sasl2::InlineBind::Forward,
        };
        legs.write_server(authenticate(element, bind));
    }

    /// Takes an element of the server.
    pub(super) fn on_server(
        mut self: Box<Self>,
        element: &Element,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<SaslStep, LoginEnd> {
        if let SaslTurn::Registry(_) | SaslTurn::Session | SaslTurn::Late(_) | SaslTurn::OtherNode = self.turn {
            return Err(LoginEnd::ServerError);
        }
        let node = element.node();
        let answers: &[&str] = match node.ns() {
            ns::SASL => &["challenge", "success", "failure"],
            ns::SASL2 => &["challenge", "success", "failure", "continue", "task-data"],
            _ => &[],
        };
        if !answers.contains(&node.name()) {
            legs.pass_to_client(element);
            return Ok(SaslStep::GoesOn(self));
        }
        let expected = if self.is_fronted() { ns::SASL } else { self.attempt.exchange.profile().ns() };
        if !matches!(self.turn, SaslTurn::Server) || node.ns() != expected {
            return Err(LoginEnd::ServerError);
        }
        self.warn_of_hidden(&node, legs);
        self.note_bound_offers(&node, settings, legs);
        if node.name() == "success" {
            return self.on_success(element, legs);
        }
        if node.name() == "failure" {
            self.attempt.exchange.end();
            legs.out(LoginOutput::SaslFailed(self.failure(&node)));
            if is_clients_fault(&node) {
                legs.out(LoginOutput::LoginFailed);
            }
            self.revoke_tokens(&node, legs);
        }
        if self.is_fronted() {
            self.on_fronted_answer(&node, legs)?;
        } else {
            legs.pass_to_client(element);
        }
        self.turn = SaslTurn::Client;
        Ok(SaslStep::GoesOn(self))
    }

    fn failure(&self, failure: &Node<'_>) -> SaslFailure {
        let condition = failure.children().find(|child| child.ns() == ns::SASL && child.name() != "text");
        SaslFailure {
            host: self.streams.host().to_owned(),
            mechanism: excerpt(self.attempt.exchange.mechanism()),
            condition: excerpt(condition.map_or("", |condition| condition.name())),
        }
    }

    fn on_success(self: Box<Self>, success: &Element, legs: &mut Legs) -> Result<SaslStep, LoginEnd> {
        if self.is_fronted() {
            return self.on_fronted_success(&success.node(), legs).map(SaslStep::Fronted);
        }
        let SaslAttempt { exchange, inline, agent, presented, .. } = self.attempt;
        let host = self.streams.host().to_owned();
        let identity = exchange.authcid().map(|authcid| SaslIdentity { host, authcid });
        let login = AcceptedLogin::new(identity, presented, agent);
        Ok(match exchange.profile() {
            Profile::Sasl => {
                legs.out(LoginOutput::Authenticated(LoginMethod::Sasl1));
                login.claim(legs);
                legs.pass_to_client(success);
                legs.restart(self.streams.client_header());
                SaslStep::Restart(Box::new(Restarting::new(self.streams, login)))
            }
            Profile::Sasl2 => {
                legs.out(LoginOutput::Authenticated(LoginMethod::Sasl2));
                let success = Sasl2Success::new(self.streams, login, success.clone(), inline);
                SaslStep::Sasl2Success(Box::new(success))
            }
        })
    }

    /// Warns if the offers hidden from the client may be the reason why the server refuses the login.
    fn warn_of_hidden(&self, answer: &Node<'_>, legs: &mut Legs) {
        let exchange = &self.attempt.exchange;
        let warning = match answer.name() {
            "challenge" if self.offer.hidden.anything && exchange.hashes_offers(&answer.text()) => {
                UpstreamWarning::OffersHashed
            }
            "failure" if self.offer.hidden.binding && exchange.missed_binding() => UpstreamWarning::BindingMissed,
            _ => return,
        };
        legs.out(LoginOutput::UpstreamWarning { host: self.streams.host().to_owned(), warning });
    }
}

/// Answers or forwards an iq before SASL. In-band registration works then. A login by XEP-0078 would go unnoticed, so it is
/// refused here.
fn on_unauthenticated_iq(element: &Element, legs: &mut Legs) {
    let node = element.node();
    if node.children().any(|child| child.ns() == ns::IQ_AUTH_QUERY) {
        legs.reply(stanza_error(&node, ErrorType::Cancel, StanzaCondition::ServiceUnavailable));
    } else {
        legs.pass_to_server(element);
    }
}

/// Returns whether a login failed because of the data that the client sent, and not because it gave up or the server could
/// not check it.
fn is_clients_fault(failure: &Node<'_>) -> bool {
    !failure.children().any(|condition| matches!(condition.name(), "aborted" | "temporary-auth-failure"))
}

//! SASL2 in front of a server that lacks it: its messages go to the server in RFC 6120's profile. The server is connected late if the
//! client got what the server offered to others before.

use super::Authenticating;
use super::attempt::{AttemptTerms, LateServer, SaslAttempt, SaslTurn, ServerLink};
use crate::session::Settings;
use crate::session::mechanism_filter::{Leg, UpstreamWarning};
use crate::session::negotiate::contract::{Lockout, LoginOutput, ServerAnswer};
use crate::session::negotiate::end::LoginEnd;
use crate::session::negotiate::features;
use crate::session::negotiate::fronted::FrontedLogin;
use crate::session::negotiate::legs::Legs;
use crate::session::negotiate::login::AcceptedLogin;
use crate::session::negotiate::owner::OwnerLookup;
use crate::session::rewrite::fronted;
use crate::session::rewrite::offers::Offer;
use crate::session::sasl::{LoginMethod, Profile, SaslIdentity};
use crate::xml::{Element, Header, Kind, Node, ns};

impl Authenticating {
    /// Returns whether an element of one profile comes while an exchange of the other is open.
    pub(super) fn mixes_profiles(&self, node: &Node<'_>) -> bool {
        let other = match node.ns() {
            ns::SASL => Profile::Sasl2,
            ns::SASL2 => Profile::Sasl,
            _ => return false,
        };
        self.offer.fronted.is_some() && self.attempt.exchange.is_open(other)
    }

    /// Returns whether an element would end or continue an exchange that is not open, and the server does not expect it: it is not
    /// connected, or has never seen the profile.
    pub(super) fn has_nothing_to_abort(&self, node: &Node<'_>) -> bool {
        let (is_sasl1, is_sasl2) = (node.ns() == ns::SASL, node.ns() == ns::SASL2 && self.offer.fronted.is_some());
        let unexpected =
            is_sasl1 && self.link == ServerLink::Absent || is_sasl2 && !self.attempt.exchange.is_open(Profile::Sasl2);
        matches!(node.name(), "abort" | "response") && unexpected
    }

    /// Returns the condition with which an `<authenticate/>` is refused before the server is asked, if it is.
    pub(super) fn refusal_of_start(&self, authenticate: &Node<'_>) -> Option<&'static str> {
        let offered = self.offer.fronted.as_ref()?;
        if !offered.has(&authenticate.attr("mechanism").unwrap_or_default()) {
            return Some("invalid-mechanism");
        }
        self.refusal_of_names()
    }

    /// Returns the condition with which the names in the client's first message are refused, if it has come.
    fn refusal_of_names(&self) -> Option<&'static str> {
        let Some(names) = self.attempt.exchange.names()? else { return Some("malformed-request") };
        let Some(account) = names.account(self.streams.host()) else { return Some("malformed-request") };
        names.ask_for_other_than(&account).then_some("invalid-authzid")
    }

    /// Takes a `<response/>` or `<abort/>`.
    pub(super) fn on_fronted_client(&mut self, node: &Node<'_>, legs: &mut Legs) {
        self.turn = SaslTurn::Server;
        if node.name() == "abort" {
            return legs.write_server(fronted::abort());
        }
        self.attempt.exchange.client_message(&node.text());
        self.attempt.refusal = self.refusal_of_names();
        let message = if self.attempt.refusal.is_some() { fronted::abort() } else { fronted::response(node) };
        legs.write_server(message);
    }

    /// Passes a `<challenge/>` or `<failure/>` of the server on.
    pub(super) fn on_fronted_answer(&mut self, answer: &Node<'_>, legs: &mut Legs) -> Result<(), LoginEnd> {
        match (answer.name(), self.attempt.refusal.take()) {
            ("failure", Some(refusal)) => legs.reply(fronted::refusal(ns::SASL2, refusal)),
            (_, Some(_)) => return Err(LoginEnd::ServerError),
            ("failure", None) => legs.write_client(fronted::failure(answer)),
            (_, None) => legs.write_client(fronted::challenge(answer)),
        }
        Ok(())
    }

    /// Takes the `<success/>` of the server.
    pub(super) fn on_fronted_success(self, success: &Node<'_>, legs: &mut Legs) -> Result<Box<FrontedLogin>, LoginEnd> {
        let SaslAttempt { exchange, inline, agent, presented, refusal, .. } = self.attempt;
        let host = self.streams.host().to_owned();
        let account = exchange.names().flatten().and_then(|names| names.account(&host)).filter(|_| refusal.is_none());
        let account = account.ok_or(LoginEnd::ServerError)?;
        let identity = exchange.authcid().map(|authcid| SaslIdentity { host, authcid });
        let login = AcceptedLogin::new(identity, presented, agent).announcing(account);
        legs.out(LoginOutput::Authenticated(LoginMethod::FrontedSasl2));
        login.claim(legs);
        let data = fronted::data(&success.text()).map(str::to_owned);
        FrontedLogin::begin(self.streams, login, data, inline, legs)
    }

    /// Ends the tokens of an account that the server does not let in any more.
    pub(super) fn revoke_tokens(&self, failure: &Node<'_>, legs: &mut Legs) {
        let ends = ["account-disabled", "credentials-expired"];
        let is_ended = failure.children().any(|condition| ends.contains(&condition.name()));
        let account = self.attempt.exchange.names().flatten().and_then(|names| names.account(self.streams.host()));
        if let Some(account) = account.filter(|_| is_ended && self.offer.fronted.is_some()) {
            legs.out(LoginOutput::RevokeTokens(account));
        }
    }

    /// Notes that a challenge depends on the server's own offers: SASL2 would be another list of offers.
    pub(super) fn note_bound_offers(&self, answer: &Node<'_>, settings: &Settings, legs: &mut Legs) {
        let host = self.streams.host();
        if answer.name() == "challenge"
            && self.attempt.exchange.depends_on_offers(&answer.text())
            && settings.fronting.on_bound_offers(host)
        {
            legs.out(LoginOutput::UpstreamWarning { host: host.to_owned(), warning: UpstreamWarning::FrontingEnds });
        }
    }

    // A server that is connected late

    /// Returns whether an element needs a server that is not connected yet.
    pub(super) fn needs_server(&self, element: &Element, node: &Node<'_>) -> bool {
        let begins = node.is("auth", ns::SASL) || node.is("authenticate", ns::SASL2);
        let is_for_server = element.kind() == Kind::Iq || begins && self.token_mechanism(node).is_none();
        self.link == ServerLink::Absent && is_for_server
    }

    /// Connects to the server. The element waits.
    pub(super) fn connect(&mut self, element: &Element, legs: &mut Legs) {
        legs.out(LoginOutput::Connect(self.streams.host().to_owned()));
        self.turn = SaslTurn::Late(Box::new(LateServer { element: element.clone(), awaits: None }));
    }

    /// Passes the client's header on to the server that is connected now.
    pub(in crate::session::negotiate) fn on_connected(&mut self, leg: Leg, legs: &mut Legs) {
        if let SaslTurn::Late(late) = &mut self.turn {
            late.awaits = Some(ServerAnswer::Header);
            self.streams.on_leg(leg);
            legs.open_server(self.streams.client_header());
        }
    }

    /// Takes the server's header. The client has one that declares the same.
    pub(in crate::session::negotiate) fn on_header(
        &mut self,
        header: &Header,
        settings: &Settings,
    ) -> Result<(), LoginEnd> {
        match &mut self.turn {
            SaslTurn::Late(late) if late.awaits == Some(ServerAnswer::Header) => {
                if !self.streams.server_header().declares_the_same(header) {
                    settings.fronting.forget(self.streams.host());
                    return Err(LoginEnd::OfferChanged(profile_of(&late.element.node()).ns()));
                }
                late.awaits = Some(ServerAnswer::Features);
                Ok(())
            }
            SaslTurn::Late(_)
            | SaslTurn::Client
            | SaslTurn::Server
            | SaslTurn::Registry(_)
            | SaslTurn::Session
            | SaslTurn::Directory(_)
            | SaslTurn::OtherNode => Err(LoginEnd::ServerError),
        }
    }

    /// Takes the server's features, if they are awaited: the client's element goes on. Returns whether they were.
    pub(in crate::session::negotiate) fn on_late_features(
        &mut self,
        sent: &Element,
        lockout: Lockout,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<bool, LoginEnd> {
        let SaslTurn::Late(late) = &self.turn else { return Ok(false) };
        if late.awaits != Some(ServerAnswer::Features) || !sent.is("features", ns::STREAMS) {
            return Ok(false);
        }
        let element = late.element.clone();
        let offer = features::admit(&self.streams, sent, settings, legs)?;
        let node = element.node();
        let mechanism = node.attr("mechanism").unwrap_or_default();
        let profile = profile_of(&node);
        let has = |offer: &Offer| match profile {
            Profile::Sasl => offer.sasl1.iter().any(|offered| *offered == mechanism),
            Profile::Sasl2 => offer.fronted.as_ref().is_some_and(|fronted| fronted.has(&mechanism)),
        };
        // A mechanism that neither offer has is refused as any other.
        if element.kind() != Kind::Iq && has(&self.offer) && !has(&offer) {
            return Err(LoginEnd::OfferChanged(profile.ns()));
        }
        (self.offer, self.link, self.turn) = (offer, ServerLink::Open, SaslTurn::Client);
        self.on_client(&element, AttemptTerms { lockout, owner: OwnerLookup::Done }, legs)?;
        Ok(true)
    }
}

/// Returns the profile of the element that begins a login.
fn profile_of(begin: &Node<'_>) -> Profile {
    if begin.name() == "auth" { Profile::Sasl } else { Profile::Sasl2 }
}

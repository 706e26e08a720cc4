//! SASL2 in front of a server that lacks it: its messages go to the server in RFC 6120's profile.

use super::{Authenticating, SaslAttempt, SaslTurn};
use crate::session::Settings;
use crate::session::mechanism_filter::UpstreamWarning;
use crate::session::negotiate::contract::LoginOutput;
use crate::session::negotiate::end::LoginEnd;
use crate::session::negotiate::fronted::FrontedLogin;
use crate::session::negotiate::legs::Legs;
use crate::session::negotiate::login::AcceptedLogin;
use crate::session::rewrite::fronted;
use crate::session::sasl::{LoginMethod, Profile, SaslIdentity};
use crate::xml::{Node, ns};

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
        if !self.attempt.exchange.is_open(Profile::Sasl2) {
            return legs.reply(fronted::refusal(ns::SASL2, "aborted"));
        }
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
        let SaslAttempt { exchange, inline, agent, presented, refusal } = self.attempt;
        let host = self.streams.host().to_owned();
        let account = exchange.names().flatten().and_then(|names| names.account(&host)).filter(|_| refusal.is_none());
        let account = account.ok_or(LoginEnd::ServerError)?;
        let identity = exchange.authcid().map(|authcid| SaslIdentity { host, authcid });
        let login = AcceptedLogin::new(identity, presented, agent).telling(account);
        legs.out(LoginOutput::Authenticated(LoginMethod::FrontedSasl2));
        let data = fronted::data(&success.text()).map(str::to_owned);
        FrontedLogin::begin(self.streams, login, data, inline, legs)
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
}

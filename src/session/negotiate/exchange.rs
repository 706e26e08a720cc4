//! SASL, in both profiles (RFC 6120 §6, XEP-0388): it passes through, one exchange at a time.

use super::{CloseReason, Negotiation, Output, State};
use crate::session::answer;
use crate::session::sasl::{Exchange, Profile, SaslIdentity};
use crate::session::sieve::Notice;
use crate::xml::{Element, ErrorType, Kind, Node, StanzaCondition, XmlWriter, ns};

/// Log-ins that are answered on a connection whose address is locked out.
const RETRIES: u32 = 3;

impl Negotiation {
    pub(super) fn client_authenticates(&mut self, element: &Element) {
        if element.kind() == Kind::Iq {
            return self.unauthenticated_iq(element);
        }
        let node = element.node();
        if self.locked_out && (node.is("auth", ns::SASL) || node.is("authenticate", ns::SASL2)) {
            return self.refuse_login(node.ns());
        }
        let own = node.ns() == self.exchange.profile().ns();
        match node.name() {
            "auth" if node.ns() == ns::SASL => self.begin(Profile::Sasl, &node),
            "authenticate" if node.ns() == ns::SASL2 => return self.client_asks(element),
            "response" if own => self.exchange.client_message(&node.text()),
            "abort" if own => {}
            // XEP-0388 §2.6.2: further tasks, such as a second factor.
            "next" | "task-data" if own && node.ns() == ns::SASL2 => {}
            _ => return self.refuse_element(element),
        }
        self.out(Output::ToUpstream(element.bytes().clone()));
        self.state = State::Authenticating { answer_due: true };
    }

    /// RFC 6120 §6.5.10: right or wrong, it may be tried again later; who does not wait is closed (§6.4.5).
    fn refuse_login(&mut self, profile: &str) {
        self.out(Output::LoginRefused);
        self.refused += 1;
        if self.refused > RETRIES {
            let text = "Too many log-ins have failed from this address";
            return self.refuse("policy-violation", Some(text), CloseReason::LockedOut);
        }
        let mut xml = XmlWriter::new();
        xml.start("failure").attr("xmlns", profile);
        xml.start("temporary-auth-failure").attr("xmlns", ns::SASL).end();
        self.reply(xml.finish());
    }

    /// Begins an exchange: what any before it said and asked for counts no more.
    pub(super) fn begin(&mut self, profile: Profile, node: &Node<'_>) {
        let mechanism = node.attr("mechanism").unwrap_or_default().into_owned();
        self.exchange = Exchange::begin(profile, mechanism);
        (self.presented, self.agent) = (None, None);
        match profile {
            Profile::Sasl => self.exchange.client_message(&node.text()),
            Profile::Sasl2 => {
                let initial = node.child("initial-response", ns::SASL2);
                self.exchange.client_message(&initial.map(|initial| initial.text()).unwrap_or_default());
            }
        }
    }

    /// In-band registration works before SASL; a login by XEP-0078 would pass unseen, so it is answered here.
    fn unauthenticated_iq(&mut self, element: &Element) {
        let node = element.node();
        if node.children().any(|child| child.ns() == ns::IQ_AUTH_QUERY) {
            let reply = answer::iq_error(&node, ErrorType::Cancel, StanzaCondition::ServiceUnavailable);
            return self.reply(reply);
        }
        self.out(Output::ToUpstream(element.bytes().clone()));
    }

    pub(super) fn server_authenticates(&mut self, element: &Element, node: &Node<'_>, answer_due: bool) {
        let answers: &[&str] = match node.ns() {
            ns::SASL => &["challenge", "success", "failure"],
            ns::SASL2 => &["challenge", "success", "failure", "continue", "task-data"],
            _ => &[],
        };
        if !answers.contains(&node.name()) {
            return self.write_client(element.bytes().clone());
        }
        let profile = self.exchange.profile();
        if !answer_due || node.ns() != profile.ns() {
            return self.upstream_error();
        }
        self.answered();
        self.heed_hidden(node);
        if node.name() == "failure" {
            self.out(Output::SaslFailed);
            if is_clients_fault(node) {
                self.out(Output::LoginFailed);
            }
        }
        if node.name() != "success" {
            self.state = State::Authenticating { answer_due: false };
            return self.write_client(element.bytes().clone());
        }
        self.authenticated = true;
        let host = self.host.clone();
        self.identity = self.exchange.authcid().map(|authcid| SaslIdentity { host, authcid });
        self.out(Output::Authenticated);
        match profile {
            Profile::Sasl => {
                self.write_client(element.bytes().clone());
                self.out(Output::Restart);
                self.state = State::Restarting;
            }
            Profile::Sasl2 => self.succeeded(element),
        }
    }

    /// What was hidden from the client may be what the server now fails the log-in for.
    fn heed_hidden(&mut self, answer: &Node<'_>) {
        let notice = match answer.name() {
            "challenge" if self.hidden.anything && self.exchange.hashes_offers(&answer.text()) => Notice::OffersHashed,
            "failure" if self.hidden.binding && self.exchange.missed_binding() => Notice::BindingMissed,
            _ => return,
        };
        self.out(Output::Notice(self.host.clone(), notice));
    }
}

/// Whether a log-in failed for what the client sent: not since it gave up, nor since the server could not ask.
fn is_clients_fault(failure: &Node<'_>) -> bool {
    !failure.children().any(|condition| matches!(condition.name(), "aborted" | "temporary-auth-failure"))
}

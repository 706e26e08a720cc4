//! The handling of a stanza from a bound client (RFC 6121 §4, §8).

use std::sync::Arc;

use super::answer::{self, Responder};
use super::edit::with_attribute;
use super::push;
use super::router::{BindingId, ClientLink, Presence, Router};
use crate::jid::{BareJid, FullJid, Jid};
use crate::xml::{Element, Kind, Node, StreamCondition, XmlWriter, ns};

/// A protocol violation of the client: the condition of the stream error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation(pub(super) StreamCondition);

/// A bound client.
pub(super) struct BoundClient {
    pub(super) router: Arc<Router>,
    pub(super) jid: FullJid,
    pub(super) binding: BindingId,
    pub(super) link: ClientLink,
}

/// The addressee of a stanza.
enum Addressee {
    Domain,
    PushService,
    OwnAccount,
    Account(BareJid),
    OnlineSession(FullJid),
    OtherDomain,
}

impl BoundClient {
    /// Handles a stanza of the client.
    pub(super) async fn handle(&self, element: &Element) -> Result<(), Violation> {
        let element = self.stamped(element)?;
        match element.kind() {
            Kind::Message => self.message(&element).await,
            Kind::Presence => self.presence(&element).await,
            Kind::Iq => self.iq(&element).await,
            Kind::Other => return Err(Violation(StreamCondition::UnsupportedStanzaType)),
        }
        Ok(())
    }

    /// Returns the stanza with the sender's address, which the client cannot choose (RFC 6120 §8.1.2.1).
    fn stamped(&self, element: &Element) -> Result<Element, Violation> {
        match element.node().attr("from") {
            None => Ok(with_attribute(element, "from", self.jid.as_str())),
            Some(from) => match Jid::new(&from) {
                from if from == self.jid || from == self.jid.to_bare() => Ok(element.clone()),
                _ => Err(Violation(StreamCondition::InvalidFrom)),
            },
        }
    }

    fn target(&self, node: &Node<'_>) -> Addressee {
        let Some(to) = node.attr("to") else { return Addressee::OwnAccount };
        let to = Jid::new(&to);
        let domain = self.router.domain();
        match (to.node(), to.domain()) {
            (None, to) if to == domain => Addressee::Domain,
            (None, to) if to.strip_prefix("push.") == Some(domain) => Addressee::PushService,
            (Some(_), to_domain) if to_domain == domain => match FullJid::new(to.as_str()) {
                Ok(full) => Addressee::OnlineSession(full),
                Err(_) if to == self.jid.to_bare() => Addressee::OwnAccount,
                Err(_) => Addressee::Account(to.into_bare()),
            },
            _ => Addressee::OtherDomain,
        }
    }

    async fn bounce(&self, node: &Node<'_>, condition: &str) {
        let answer = matches!(node.attr("type").as_deref(), Some("error" | "result"));
        if !answer {
            self.link.send(answer::error(node, "cancel", condition)).await;
        }
    }

    // Messages

    async fn message(&self, element: &Element) {
        let node = element.node();
        match self.target(&node) {
            Addressee::OwnAccount => self.message_to_account(&self.jid.to_bare(), element).await,
            Addressee::Account(account) => self.message_to_account(&account, element).await,
            Addressee::OnlineSession(jid) => match self.router.session(&jid) {
                Some(link) => link.deliver(element).await,
                None => self.message_to_account(&jid.to_bare(), element).await,
            },
            Addressee::Domain | Addressee::PushService => self.bounce(&node, "service-unavailable").await,
            Addressee::OtherDomain => self.bounce(&node, "remote-server-not-found").await,
        }
    }

    async fn message_to_account(&self, account: &BareJid, element: &Element) {
        let receivers = self.router.receivers(account);
        for link in &receivers {
            link.deliver(element).await;
        }
        let node = element.node();
        let keeps = matches!(node.attr("type").as_deref(), None | Some("chat" | "normal"))
            && node.child("body", ns::CLIENT).is_some()
            && self.router.has_account(account);
        if receivers.is_empty() && !(keeps && self.router.keep(account, element)) {
            self.bounce(&node, "service-unavailable").await;
        }
    }

    // Presence

    async fn presence(&self, element: &Element) {
        let node = element.node();
        let kind = node.attr("type");
        match (node.attr("to"), kind.as_deref()) {
            (None, None) => {
                let presence = Presence { element: element.clone(), priority: priority(&node) };
                let before = self.router.set_presence(&self.jid, self.binding, Some(presence));
                self.broadcast(element).await;
                if !before {
                    self.probe_contacts().await;
                }
            }
            (None, Some("unavailable")) => {
                if self.router.set_presence(&self.jid, self.binding, None) {
                    self.broadcast(element).await;
                }
            }
            (Some(_), None | Some("unavailable")) => self.directed_presence(element).await,
            // The roster is fixed, so subscriptions do not change.
            (_, Some(_)) => {}
        }
    }

    async fn directed_presence(&self, element: &Element) {
        let links = match self.target(&element.node()) {
            Addressee::OnlineSession(jid) => self.router.session(&jid).into_iter().collect(),
            Addressee::Account(account) => self.router.audience(&account),
            Addressee::OwnAccount => self.router.audience(&self.jid.to_bare()),
            Addressee::Domain | Addressee::PushService | Addressee::OtherDomain => Vec::new(),
        };
        for link in links {
            link.deliver(element).await;
        }
    }

    /// Sends a presence to the contacts and to the account's own sessions, including this one (RFC 6121 §4.2.2).
    async fn broadcast(&self, element: &Element) {
        let own = self.jid.to_bare();
        for account in self.router.contacts(&own).into_iter().chain([own]) {
            let addressed = with_attribute(element, "to", account.as_str());
            for link in self.router.audience(&account) {
                link.deliver(&addressed).await;
            }
        }
    }

    /// Sends the presences of contacts and of the other own sessions to a session that has just become available.
    async fn probe_contacts(&self) {
        let own = self.jid.to_bare();
        for account in self.router.contacts(&own).into_iter().chain([own]) {
            for presence in self.router.presences(&account) {
                if presence.node().attr("from").as_deref() != Some(self.jid.as_str()) {
                    self.link.deliver(&with_attribute(&presence, "to", self.jid.as_str())).await;
                }
            }
        }
    }

    /// Handles the end of the stream. Contacts get an unavailable presence, unless the client has sent one.
    pub(super) async fn leave(&self) {
        if !self.router.leave(&self.jid, self.binding) {
            return;
        }
        let mut xml = XmlWriter::new();
        xml.start("presence").attr("type", "unavailable").attr("from", self.jid.as_str());
        match Element::parse(xml.finish(), &self.link.header) {
            Ok(element) => self.broadcast(&element).await,
            Err(error) => tracing::error!(%error, "embedded server wrote an invalid presence"),
        }
    }

    // Requests

    async fn iq(&self, element: &Element) {
        let node = element.node();
        let request = matches!(node.attr("type").as_deref(), Some("get" | "set"));
        match self.target(&node) {
            Addressee::OnlineSession(jid) => match self.router.session(&jid) {
                Some(link) => link.deliver(element).await,
                None => self.bounce(&node, "service-unavailable").await,
            },
            // An answer to the server, which sends no requests.
            _ if !request => {}
            Addressee::Domain => self.answer(&node, Responder::Domain).await,
            Addressee::OwnAccount => self.answer(&node, Responder::Account).await,
            Addressee::PushService => {
                let (answer, notification) = push::answer(&node, self.jid.as_str());
                if let Some(notification) = notification {
                    self.router.notify(notification);
                }
                self.link.send(answer).await;
            }
            Addressee::Account(_) => self.bounce(&node, "service-unavailable").await,
            Addressee::OtherDomain => self.bounce(&node, "remote-server-not-found").await,
        }
    }

    async fn answer(&self, request: &Node<'_>, responder: Responder) {
        let roster: Vec<String> = self.router.contacts(&self.jid.to_bare()).iter().map(ToString::to_string).collect();
        self.link.send(answer::answer(request, responder, &roster)).await;
    }
}

fn priority(presence: &Node<'_>) -> i8 {
    presence.child("priority", ns::CLIENT).and_then(|p| p.text().trim().parse().ok()).unwrap_or(0)
}

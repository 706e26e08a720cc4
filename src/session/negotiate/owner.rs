//! The owner of an account: the node of a cluster that has its sessions. Before a login is begun, its account is looked up by the
//! client's first SASL message. If another node owns the account, the client's stream goes on there.

use std::sync::Arc;

use bytes::Bytes;

use super::streams::Streams;
use crate::jid::{BareJid, Jid};
use crate::session::SmId;
use crate::session::sasl::{SaslNames, clear_names};
use crate::session::sm::nonza;
use crate::xml::{Element, Header, Node, ns};

/// The name with which a client logs in. It proves nothing: it only chooses the node that asks the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginName {
    /// The authentication identity of the first SASL message, byte for byte, and the host of the stream.
    Authcid {
        /// The served host.
        host: String,
        /// The authentication identity.
        authcid: String,
    },
    /// An account of the host of the stream: the authorization identity, or the `from` of the stream header.
    Account(BareJid),
}

impl LoginName {
    /// Returns the account that has this name if no other account is known for it.
    pub fn account(&self) -> Option<BareJid> {
        match self {
            Self::Authcid { host, authcid } => {
                SaslNames { authcid: authcid.clone(), authzid: String::new() }.account(host)
            }
            Self::Account(account) => Some(account.clone()),
        }
    }

    /// Reads the name from the names in a SASL message, and the `from` of the header, at this host.
    fn read(names: Option<SaslNames>, from: Option<&str>, host: &str) -> Option<Self> {
        let here = |name: &str| {
            let account = Jid::new(name).to_bare();
            (account.domain() == host && account.node().is_some()).then_some(Self::Account(account))
        };
        let named = names.and_then(|SaslNames { authcid, authzid }| {
            let authcid = (!authcid.is_empty()).then_some(authcid);
            here(&authzid).or_else(|| Some(Self::Authcid { host: host.to_owned(), authcid: authcid? }))
        });
        named.or_else(|| from.and_then(here))
    }
}

/// The question for the owner of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocateRequest {
    /// The name of the login, if the client has named any.
    pub login: Option<LoginName>,
    /// The session that the client requests to resume inside its login. Its id names a node.
    pub previd: Option<SmId>,
}

/// The answer to a [`LocateRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountPlace {
    /// This node owns the account, or no node does.
    Here,
    /// Another node owns the account.
    OtherNode,
    /// The owner could not be found out.
    Unknown,
}

/// A client's stream that goes on at another node.
#[derive(Debug)]
pub struct PassedStream {
    /// The header of the client.
    pub header: Arc<Header>,
    /// The first SASL message of the client, which has not been forwarded.
    pub message: Element,
    /// The offer that the client has. The other node has to make the same.
    pub shown: ShownOffer,
}

/// The header and the features that a client has got before its login.
#[derive(Debug)]
pub struct ShownOffer {
    header: Arc<Header>,
    features: Bytes,
}

impl ShownOffer {
    pub(super) fn new(header: Arc<Header>, features: Bytes) -> Self {
        Self { header, features }
    }

    /// Returns whether another offer means the same to the client. The `id` of the stream is its own, `to` may be absent, and
    /// mechanisms and features have no order. What is offered in front of the server may be more: each node learns by itself
    /// what the server refuses, and a client does not use what it was not shown.
    pub fn is_same(&self, header: &Header, features: &Element) -> bool {
        let is_same_header = self.header.means_the_same(header)
            && self.header.from() == header.from()
            && self.header.version() == header.version();
        let is_same_content = || {
            let Ok(shown) = Element::parse(self.features.clone(), &self.header) else { return false };
            let carbons = offered_carbons(&shown.node());
            let is_more = |node: &Node<'_>| match carbons {
                None => node.is("authentication", ns::SASL2),
                Some(false) => is_carbons(node),
                Some(true) => false,
            };
            content(&shown.node(), &|_| false) == content(&features.node(), &is_more)
        };
        is_same_header && (self.features == features.bytes() || is_same_content())
    }
}

/// Returns whether features offer message carbons inside SASL2; `None` if they do not offer SASL2.
pub fn offered_carbons(features: &Node<'_>) -> Option<bool> {
    let sasl2 = features.child("authentication", ns::SASL2)?;
    let bind = sasl2.child("inline", ns::SASL2).and_then(|inline| inline.child("bind", ns::BIND2));
    let inline = bind.and_then(|bind| bind.child("inline", ns::BIND2));
    Some(inline.is_some_and(|inline| inline.children().any(|feature| is_carbons(&feature))))
}

fn is_carbons(feature: &Node<'_>) -> bool {
    feature.is("feature", ns::BIND2) && feature.attr("var").as_deref() == Some(ns::CARBONS)
}

/// Returns an element in a form that does not depend on the order of child elements, without those for which `skips` returns true.
fn content(node: &Node<'_>, skips: &dyn Fn(&Node<'_>) -> bool) -> String {
    let children = node.children().filter(|child| !skips(child));
    let mut children: Vec<_> = children.map(|child| content(&child, skips)).collect();
    children.sort_unstable();
    format!("<{}>{}{}</>", node.tag(), node.text().trim(), children.concat())
}

/// The decision about the look-up of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerLookup {
    /// The login goes on here: there are no other nodes, the owner was looked up, or another node has passed the client on.
    Done,
    /// The owner of the account is looked up first.
    Due,
}

/// The client's own bytes, for the owner of its account. Nothing is kept if no owner is looked up.
#[derive(Debug, Default)]
pub(super) struct ClientBytes(Option<Box<KeptBytes>>);

#[derive(Debug, Default)]
struct KeptBytes {
    header: Option<Arc<Header>>,
    message: Option<Element>,
}

impl ClientBytes {
    /// Creates the value that keeps bytes.
    pub(super) fn kept() -> Self {
        Self(Some(Box::default()))
    }

    /// Returns whether owners are looked up.
    pub(super) fn lookup(&self) -> OwnerLookup {
        if self.0.is_some() { OwnerLookup::Due } else { OwnerLookup::Done }
    }

    /// Takes the header.
    pub(super) fn on_header(&mut self, header: &Arc<Header>) {
        if let Some(kept) = &mut self.0 {
            kept.header = Some(Arc::clone(header));
        }
    }

    /// Takes an element. The one before is forgotten.
    pub(super) fn on_element(&mut self, element: &Element) {
        if let Some(kept) = &mut self.0 {
            kept.message = Some(element.clone());
        }
    }

    /// Forgets the element, which this node has taken.
    pub(super) fn on_taken(&mut self) {
        if let Some(kept) = &mut self.0 {
            kept.message = None;
        }
    }

    /// Returns the stream of the client, with the offer that it has.
    pub(super) fn passed(&mut self, shown: ShownOffer) -> Option<PassedStream> {
        let KeptBytes { header, message } = *self.0.take()?;
        Some(PassedStream { header: header?, message: message?, shown })
    }
}

/// Returns the question for the owner if an element begins a login. `None` if nobody is named.
pub(super) fn question(streams: &Streams, node: &Node<'_>) -> Option<LocateRequest> {
    let message = match node.name() {
        // With child elements it is passed on without being read, as a server may read it in another way.
        "auth" if node.ns() == ns::SASL => node.children().next().is_none().then(|| node.text()),
        "authenticate" if node.ns() == ns::SASL2 => {
            node.child("initial-response", ns::SASL2).map(|initial| initial.text())
        }
        _ => return None,
    };
    let mechanism = node.attr("mechanism").unwrap_or_default();
    let names = message.and_then(|message| clear_names(&mechanism, &message));
    let login = LoginName::read(names, streams.client_header().from(), streams.host());
    let resume = node.child("resume", ns::SM).and_then(|resume| nonza::Resume::read(&resume));
    let previd = resume.map(|resume| resume.previd);
    (login.is_some() || previd.is_some()).then_some(LocateRequest { login, previd })
}

//! The client's iq requests that concern Pushward: registrations (XEP-0357), account features, the archive, account
//! removal, another password, another bind.

use crate::push::registration::{Request, RequestError};
use crate::push::settings::PushSettings;
use crate::session::identity::Identity;
use crate::xml::{Element, ns};

/// A request of the client that concerns Pushward.
#[derive(Debug)]
pub(in crate::session) enum ClientRequest {
    /// A request for the features of the account. Its answer is rewritten.
    Features,
    /// A bind of another resource (RFC 6120 §7.7.3.2). A session has one JID, so Pushward refuses it.
    Bind,
    /// The removal of the account.
    Removal,
    /// Another password for the account (XEP-0077 §3.3), or a form that may contain one.
    Password,
    /// A query of the account's archive.
    Archive,
    /// A registration, which Pushward answers.
    Push(Result<Request, RequestError>),
}

impl ClientRequest {
    /// Reads an iq of the client; `None` if it does not concern Pushward.
    pub(in crate::session) fn read(iq: &Element, identity: &Identity, settings: &PushSettings) -> Option<Self> {
        // Most iqs are ruled out without parsing.
        if ![ns::PUSH, ns::DISCO_INFO, ns::MAM_ANY, ns::REGISTER, ns::BIND].iter().any(|ns| iq.mentions(ns)) {
            return None;
        }
        let node = iq.node();
        let account = node.attr("to").is_none_or(|to| identity.is_account(&to));
        let host = node.attr("to").is_some_and(|to| identity.is_host(&to));
        let child = node.children().next().filter(|_| account || host)?;
        match (node.attr("type").as_deref()?, child.name(), child.ns()) {
            ("get", "query", ns::DISCO_INFO) if account && child.attr("node").is_none() => Some(Self::Features),
            ("set", "bind", ns::BIND) => Some(Self::Bind),
            ("set", "query", ns::REGISTER) if child.child("remove", ns::REGISTER).is_some() => Some(Self::Removal),
            ("set", "query", ns::REGISTER)
                if child.child("password", ns::REGISTER).is_some() || child.child("x", ns::DATA).is_some() =>
            {
                Some(Self::Password)
            }
            ("set", "query", mam) if account && mam.starts_with(ns::MAM_ANY) => Some(Self::Archive),
            ("set", ..) => Request::parse(&child, identity.jid(), settings).map(Self::Push),
            _ => None,
        }
    }
}

//! The server's own answers to iq requests, on behalf of its domain and of its accounts.

use bytes::Bytes;

pub(super) use crate::xml::answer as reply;
use crate::xml::{Node, ns};

/// The entity on whose behalf the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Responder {
    /// The domain.
    Domain,
    /// The requester's own account.
    Account,
}

/// Answers a request (RFC 6120 §8.2.3). `roster`: the requester's contacts, as bare JIDs.
pub(super) fn answer(request: &Node<'_>, responder: Responder, roster: &[String]) -> Bytes {
    let child = request.children().next();
    let asked = child.as_ref().map(|child| (child.name(), child.ns()));
    match (request.attr("type").as_deref(), asked) {
        (Some("get"), Some(("query", ns::DISCO_INFO))) => info(request, responder),
        (Some("get"), Some(("query", ns::DISCO_ITEMS))) => {
            let mut xml = reply(request, "result");
            xml.start("query").attr("xmlns", ns::DISCO_ITEMS);
            xml.finish()
        }
        (Some("get"), Some(("query", ns::ROSTER))) => contacts(request, roster),
        (Some("get"), Some(("ping", ns::PING))) | (Some("set"), Some(("session", ns::SESSION))) => result(request),
        _ => error(request, "cancel", "service-unavailable"),
    }
}

fn info(request: &Node<'_>, responder: Responder) -> Bytes {
    let (category, kind) = match responder {
        Responder::Domain => ("server", "im"),
        Responder::Account => ("account", "registered"),
    };
    let mut xml = reply(request, "result");
    xml.start("query").attr("xmlns", ns::DISCO_INFO);
    xml.start("identity").attr("category", category).attr("type", kind).end();
    for feature in [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING] {
        xml.start("feature").attr("var", feature).end();
    }
    xml.finish()
}

fn contacts(request: &Node<'_>, roster: &[String]) -> Bytes {
    let mut xml = reply(request, "result");
    xml.start("query").attr("xmlns", ns::ROSTER);
    for contact in roster {
        xml.start("item").attr("jid", contact).attr("subscription", "both").end();
    }
    xml.finish()
}

/// Returns the result of a bind (RFC 6120 §7.6.1).
pub(super) fn bound(request: &Node<'_>, jid: &str) -> Bytes {
    let mut xml = reply(request, "result");
    xml.start("bind").attr("xmlns", ns::BIND).start("jid").text(jid);
    xml.finish()
}

/// Returns an empty result.
pub(super) fn result(request: &Node<'_>) -> Bytes {
    reply(request, "result").finish()
}

/// Returns a stanza error (RFC 6120 §8.3) for any stanza.
pub(super) fn error(request: &Node<'_>, kind: &str, condition: &str) -> Bytes {
    let mut xml = reply(request, "error");
    xml.start("error").attr("type", kind).start(condition).attr("xmlns", ns::STANZA_ERRORS);
    xml.finish()
}

//! The requests that complete a bind: a session where the server wants one (RFC 3921 §3), message carbons, and the metadata of the
//! archive (XEP-0386 §3).

use bytes::Bytes;

use crate::jid::FullJid;
use crate::session::Settings;
use crate::session::fronting::FrontedParts;
use crate::session::ids::RequestIds;
use crate::session::negotiate::inline::BindRequests;
use crate::session::negotiate::legs::Legs;
use crate::session::rewrite::fronted;
use crate::session::sender::is_server;
use crate::xml::{Element, Kind, Node, XmlWriter, ns};

/// Requests of Pushward's own, and what the server has answered.
#[derive(Debug)]
pub(super) struct Extras {
    ids: RequestIds,
    session: ExtraRequest,
    carbons: ExtraRequest,
    metadata: ExtraRequest,
}

#[derive(Debug)]
enum ExtraRequest {
    /// It was not sent.
    NotSent,
    /// The answer to this iq id is awaited.
    Sent(String),
    /// The server has refused it.
    Refused,
    /// The server has done it. Contains XML for `<bound/>`, if there is some.
    Done(Option<Bytes>),
}

impl ExtraRequest {
    fn is_sent(&self) -> bool {
        matches!(self, Self::Sent(_))
    }

    fn has_id(&self, id: &str) -> bool {
        matches!(self, Self::Sent(own) if own == id)
    }
}

impl Extras {
    /// Sends the requests that the server has not refused to other clients.
    pub(super) fn ask(
        requests: &BindRequests,
        needs_session: bool,
        parts: Option<FrontedParts>,
        legs: &mut Legs,
    ) -> Self {
        let ids = RequestIds::new(legs.random());
        let ask = |kind: &str, name: &str, namespace: &str, legs: &mut Legs| {
            let id = ids.next(legs.random());
            let mut xml = XmlWriter::new();
            xml.start("iq").attr("type", kind).attr("id", &id).start(name).attr("xmlns", namespace);
            legs.write_server(xml.finish());
            ExtraRequest::Sent(id)
        };
        let session = if needs_session { ask("set", "session", ns::SESSION, legs) } else { ExtraRequest::NotSent };
        let carbons = requests.carbons && parts.is_none_or(|parts| parts.carbons);
        let carbons = if carbons { ask("set", "enable", ns::CARBONS, legs) } else { ExtraRequest::NotSent };
        let metadata = parts.is_none_or(|parts| parts.metadata);
        let metadata = if metadata { ask("get", "metadata", ns::MAM, legs) } else { ExtraRequest::NotSent };
        Self { ids, session, carbons, metadata }
    }

    /// Returns whether no answer is awaited.
    pub(super) fn are_done(&self) -> bool {
        ![&self.session, &self.carbons, &self.metadata].into_iter().any(ExtraRequest::is_sent)
    }

    /// Returns whether the server has enabled message carbons.
    pub(super) fn has_carbons(&self) -> bool {
        matches!(self.carbons, ExtraRequest::Done(_))
    }

    /// The metadata of the archive, as XML.
    pub(super) fn metadata(&self) -> Option<&[u8]> {
        match &self.metadata {
            ExtraRequest::Done(metadata) => metadata.as_deref(),
            ExtraRequest::NotSent | ExtraRequest::Sent(_) | ExtraRequest::Refused => None,
        }
    }

    /// The ids of the requests, if some are not answered.
    pub(super) fn unanswered(&self) -> Option<RequestIds> {
        (!self.are_done()).then(|| self.ids.clone())
    }

    /// Takes an element of the server; returns whether it answers a request.
    pub(super) fn on_answer(&mut self, element: &Element, jid: &FullJid, host: &str, settings: &Settings) -> bool {
        let node = element.node();
        let id = node.attr("id").unwrap_or_default();
        let kind = node.attr("type");
        let is_answer = matches!(kind.as_deref(), Some("result" | "error"));
        if element.kind() != Kind::Iq || !is_answer || !is_server(node.attr("from").as_deref(), jid) {
            return false;
        }
        let is_result = kind.as_deref() == Some("result");
        if self.session.has_id(&id) {
            self.session = if is_result { ExtraRequest::Done(None) } else { ExtraRequest::Refused };
        } else if self.carbons.has_id(&id) {
            self.carbons = if is_result { ExtraRequest::Done(None) } else { ExtraRequest::Refused };
            if is_refused(&node) {
                settings.fronting.on_carbons_refused(host);
            }
        } else if self.metadata.has_id(&id) {
            self.metadata =
                if is_result { ExtraRequest::Done(fronted::metadata(&node)) } else { ExtraRequest::Refused };
            if is_refused(&node) {
                settings.fronting.on_metadata_refused(host);
            }
        } else {
            return false;
        }
        true
    }
}

/// Returns whether a server does not support a request at all.
fn is_refused(answer: &Node<'_>) -> bool {
    let error = answer.children().find(|child| child.name() == "error");
    let conditions = ["service-unavailable", "feature-not-implemented", "not-allowed", "bad-request", "forbidden"];
    error.is_some_and(|error| error.children().any(|condition| conditions.contains(&condition.name())))
}

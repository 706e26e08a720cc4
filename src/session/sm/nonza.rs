//! The nonzas of stream management (XEP-0198 §3 to §5), each written and read in one place.

use std::time::Duration;

use bytes::Bytes;

use super::Handled;
use crate::session::{RandomSource, SmId, SmIdSource};
use crate::xml::{Node, StanzaCondition, XmlWriter, ns};

/// Returns the `<r/>` that requests an acknowledgement (XEP-0198 §4).
pub fn request() -> Bytes {
    nonza("r").finish()
}

/// Returns an `<a/>` (XEP-0198 §4).
pub fn ack(h: Handled) -> Bytes {
    let mut xml = nonza("a");
    xml.attr("h", &h.get().to_string());
    xml.finish()
}

/// Returns an `<enable/>` without resumption (XEP-0198 §3).
pub fn enable() -> Bytes {
    nonza("enable").finish()
}

/// Returns an `<enable/>` that asks for resumption (XEP-0198 §5).
pub fn enable_resumption() -> Bytes {
    let mut xml = nonza("enable");
    xml.attr("resume", "true");
    xml.finish()
}

/// Returns a `<resume/>` (XEP-0198 §5).
pub fn resume(previd: &str, h: Handled) -> Bytes {
    let mut xml = nonza("resume");
    xml.attr("h", &h.get().to_string()).attr("previd", previd);
    xml.finish()
}

/// Returns a `<resumed/>` (XEP-0198 §5).
pub fn resumed(previd: &SmId, h: Handled) -> Bytes {
    let mut xml = nonza("resumed");
    xml.attr("h", &h.get().to_string()).attr("previd", previd.as_str());
    xml.finish()
}

/// Returns a `<failed/>` (XEP-0198 §3, §5), with the count of a session that has ended in order if there was one.
pub fn failed(condition: StanzaCondition, h: Option<Handled>) -> Bytes {
    let mut xml = nonza("failed");
    if let Some(h) = h {
        xml.attr("h", &h.get().to_string());
    }
    xml.start(condition.name()).attr("xmlns", ns::STANZA_ERRORS);
    xml.finish()
}

fn nonza(name: &str) -> XmlWriter {
    let mut xml = XmlWriter::new();
    xml.start(name).attr("xmlns", ns::SM);
    xml
}

/// The parameters of a client's `<enable/>` (XEP-0198 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enable {
    resume: bool,
    max: Option<u64>,
}

impl Enable {
    /// Reads an `<enable/>`.
    pub fn read(node: &Node<'_>) -> Self {
        Self { resume: allows_resumption(node), max: node.attr("max").and_then(|max| max.parse().ok()) }
    }

    /// Returns the granted stream management: with a resumption id only if the client requested one.
    pub fn grant(self, ids: &SmIdSource, random: RandomSource) -> Enabled {
        let id = self.resume.then(|| ids.create(random()));
        Enabled { id, asked_max: self.max.filter(|_| self.resume) }
    }
}

/// Returns whether an `<enable/>` requests resumption, or an `<enabled/>` grants it.
pub fn allows_resumption(node: &Node<'_>) -> bool {
    matches!(node.attr("resume").as_deref(), Some("true" | "1"))
}

/// Enabled stream management. XEP-0198 §4: both counters are zero from `<enabled/>` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enabled {
    /// The resumption id.
    pub id: Option<SmId>,
    /// `max` as the client requested it (XEP-0198 §5), in seconds.
    pub asked_max: Option<u64>,
}

impl Enabled {
    /// Returns the `<enabled/>` (XEP-0198 §3). `hold` is the longest time for which a session is held.
    pub fn nonza(&self, hold: Duration) -> Bytes {
        let mut xml = nonza("enabled");
        if let Some(id) = &self.id {
            // Not "1", because some clients know only "true".
            xml.attr("id", id.as_str()).attr("resume", "true").attr("max", &hold.as_secs().to_string());
        }
        xml.finish()
    }
}

/// A `<resume/>` (XEP-0198 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The id of the session.
    pub previd: SmId,
    /// The number of stanzas of that session that the client has handled.
    pub h: Handled,
}

impl Resume {
    /// Reads a `<resume/>`; `None` if an attribute is missing or malformed.
    pub fn read(node: &Node<'_>) -> Option<Self> {
        let h = node.attr("h").and_then(|h| Handled::parse(&h))?;
        Some(Self { previd: SmId::new(node.attr("previd")?), h })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    #[test]
    fn each_nonza_is_written_as_the_xep_has_it() {
        let (id, h) = (SmId::new("a'b"), Handled::new(7));
        let enabled = |id| Enabled { id, asked_max: Some(5) }.nonza(Duration::from_secs(60));
        for (nonza, expect) in [
            (request(), "<r xmlns='urn:xmpp:sm:3'/>"),
            (ack(h), "<a xmlns='urn:xmpp:sm:3' h='7'/>"),
            (enable(), "<enable xmlns='urn:xmpp:sm:3'/>"),
            (enable_resumption(), "<enable xmlns='urn:xmpp:sm:3' resume='true'/>"),
            (enabled(None), "<enabled xmlns='urn:xmpp:sm:3'/>"),
            (enabled(Some(id.clone())), "<enabled xmlns='urn:xmpp:sm:3' id='a&apos;b' resume='true' max='60'/>"),
            (resume("a'b", h), "<resume xmlns='urn:xmpp:sm:3' h='7' previd='a&apos;b'/>"),
            (resumed(&id, h), "<resumed xmlns='urn:xmpp:sm:3' h='7' previd='a&apos;b'/>"),
            (
                failed(StanzaCondition::ItemNotFound, Some(h)),
                "<failed xmlns='urn:xmpp:sm:3' h='7'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
            ),
        ] {
            assert_eq!(std::str::from_utf8(&nonza).unwrap(), expect);
        }
    }

    #[test]
    fn a_resume_needs_both_attributes() {
        let read = |attributes: &str| Resume::read(&element(&format!("<resume{attributes}/>")).node());
        assert_eq!(read(" previd='x' h='3'"), Some(Resume { previd: SmId::new("x"), h: Handled::new(3) }));
        assert_eq!([read(" previd='x'"), read(" h='3'"), read(" previd='x' h='-3'")], [None, None, None]);
    }
}

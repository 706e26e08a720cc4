//! The way from a fresh connection to a server stream that stanzas may be written to (RFC 6120, XEP-0178, XEP-0288), sans-IO.
//!
//! ```text
//!  header → features ─┬─ <starttls/> → <proceed/> → TLS ─┐
//!                     └────────── over TLS ──────────────┴→ header → features → <bidi/> <auth EXTERNAL/> → <success/>
//!                                                             → header → features → ready
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use crate::jid::Jid;
use crate::xml::{Element, Frame, Node, XmlWriter, excerpt, ns};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: more is to come.
    Wait,
    /// Write these bytes.
    Write(Bytes),
    /// Establish TLS, then write what [`Handshake::secured`] says.
    Secure,
    /// Write these bytes; a stream header comes next.
    Restart(Bytes),
    /// Stanzas may be written. Whether the peer may write some, too.
    Ready {
        /// XEP-0288 was agreed on.
        bidi: bool,
    },
}

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("the peer offers no TLS")]
    NoTls,
    #[error("the peer's stream is not of version 1.0")]
    OldVersion,
    #[error("the peer says it is {0}")]
    Impostor(String),
    #[error("the peer ended the stream: {0}")]
    StreamError(String),
    #[error("the peer closed the stream")]
    Closed,
    #[error("unexpected {0}")]
    Unexpected(String),
    /// EXTERNAL is offered to those whose certificate is good (XEP-0178 §3).
    #[error("the peer does not offer EXTERNAL: it does not accept the host's certificate")]
    NoExternal,
    #[error("the peer refuses EXTERNAL: {0}")]
    Refused(String),
}

impl Failure {
    /// Whether the peer does not take our certificate.
    pub(super) fn is_about_certificate(&self) -> bool {
        match self {
            Self::NoExternal | Self::Refused(_) => true,
            Self::StreamError(condition) => condition == "not-authorized",
            Self::NoTls | Self::OldVersion | Self::Impostor(_) | Self::Closed | Self::Unexpected(_) => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Clear,
    AskedTls,
    Secure,
    Authenticating { bidi: bool },
    Authenticated { bidi: bool },
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Handshake {
    us: String,
    peer: String,
    wants_bidi: bool,
    offers_bidi: bool,
    state: State,
}

impl Handshake {
    /// A stream from one domain to another, in the clear at first.
    pub(super) fn new(us: &str, peer: &str, wants_bidi: bool) -> Self {
        Self { us: us.to_owned(), peer: peer.to_owned(), wants_bidi, offers_bidi: false, state: State::Clear }
    }

    /// What is to be written first on a connection in the clear.
    pub(super) fn open(&self) -> Bytes {
        let mut xml = XmlWriter::new();
        xml.start("stream:stream").attr("xmlns", ns::SERVER).attr("xmlns:stream", ns::STREAMS);
        xml.attr("from", &self.us).attr("to", &self.peer).attr("version", "1.0").attr("xml:lang", "en");
        let mut bytes = BytesMut::from(&b"<?xml version='1.0'?>"[..]);
        bytes.extend_from_slice(&xml.open());
        bytes.freeze()
    }

    /// TLS is up, and the peer's certificate is its own: what is to be written first.
    pub(super) fn secured(&mut self) -> Bytes {
        self.state = State::Secure;
        self.open()
    }

    /// Whether the peer offers to send on the stream, too (XEP-0288).
    pub(super) fn offers_bidi(&self) -> bool {
        self.offers_bidi
    }

    /// Takes the next frame of the peer.
    pub(super) fn handle(&mut self, frame: &Frame) -> Result<Step, Failure> {
        match frame {
            Frame::Whitespace | Frame::Skipped(_) => Ok(Step::Wait),
            Frame::Close => Err(Failure::Closed),
            Frame::Open(header) => {
                let from = header.from().map(Jid::new);
                if let Some(from) = from.filter(|from| from.as_str() != self.peer) {
                    return Err(Failure::Impostor(excerpt(from.as_str())));
                }
                if header.version() == Some("1.0") { Ok(Step::Wait) } else { Err(Failure::OldVersion) }
            }
            Frame::Element(element) => self.element(element),
        }
    }

    fn element(&mut self, element: &Element) -> Result<Step, Failure> {
        let node = element.node();
        match (node.ns(), node.name(), self.state) {
            (ns::STREAMS, "error", _) => Err(Failure::StreamError(condition(&node, ns::STREAM_ERRORS))),
            (ns::STREAMS, "features", State::Clear) => {
                node.child("starttls", ns::TLS).ok_or(Failure::NoTls)?;
                self.state = State::AskedTls;
                Ok(Step::Write(empty("starttls", ns::TLS)))
            }
            (ns::TLS, "proceed", State::AskedTls) => Ok(Step::Secure),
            (ns::TLS, "failure", State::AskedTls) => Err(Failure::NoTls),
            (ns::STREAMS, "features", State::Secure) => self.authenticate(&node),
            (ns::SASL, "success", State::Authenticating { bidi }) => {
                self.state = State::Authenticated { bidi };
                Ok(Step::Restart(self.open()))
            }
            (ns::SASL, "failure", State::Authenticating { .. }) => Err(Failure::Refused(condition(&node, ns::SASL))),
            (ns::STREAMS, "features", State::Authenticated { bidi }) => Ok(Step::Ready { bidi }),
            (_, name, _) => Err(Failure::Unexpected(excerpt(name))),
        }
    }

    fn authenticate(&mut self, features: &Node<'_>) -> Result<Step, Failure> {
        let mechanisms = features.child("mechanisms", ns::SASL);
        let external =
            |mechanism: Node<'_>| mechanism.is("mechanism", ns::SASL) && mechanism.text().trim() == "EXTERNAL";
        if !mechanisms.is_some_and(|mechanisms| mechanisms.children().any(external)) {
            return Err(Failure::NoExternal);
        }
        self.offers_bidi = features.child("bidi", ns::BIDI_FEATURE).is_some();
        let bidi = self.wants_bidi && self.offers_bidi;
        let mut xml = XmlWriter::new();
        if bidi {
            // XEP-0288 §2.1: before authentication, and not answered.
            xml.start("bidi").attr("xmlns", ns::BIDI).end();
        }
        xml.start("auth").attr("xmlns", ns::SASL).attr("mechanism", "EXTERNAL").text(&STANDARD.encode(&self.us));
        self.state = State::Authenticating { bidi };
        Ok(Step::Write(xml.finish()))
    }
}

/// The first child in a namespace that holds conditions.
fn condition(node: &Node<'_>, ns: &str) -> String {
    let found = node.children().find(|child| child.ns() == ns && child.name() != "text");
    excerpt(found.map_or("undefined-condition", |child| child.name()))
}

fn empty(name: &str, ns: &str) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start(name).attr("xmlns", ns);
    xml.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{FrameLimits, Framer};

    const HEADER: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' id='1' \
                          from='Push.example' to='example.org' version='1.0'>";
    const EXTERNAL: &str =
        "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>";
    const BIDI: &str = "<bidi xmlns='urn:xmpp:features:bidi'/>";

    struct Rig {
        handshake: Handshake,
        framer: Framer,
    }

    impl Rig {
        fn new(wants_bidi: bool) -> Self {
            let limits = FrameLimits::new(1 << 16, 16);
            let handshake = Handshake::new("example.org", "push.example", wants_bidi);
            Self { handshake, framer: Framer::with_default_namespace(limits, ns::SERVER) }
        }

        /// A stream over TLS.
        fn secure(wants_bidi: bool) -> Self {
            let mut rig = Self::new(wants_bidi);
            rig.handshake.secured();
            assert_eq!(rig.peer(HEADER), Ok(Step::Wait));
            rig
        }

        /// The peer says something: what comes of its last frame.
        fn peer(&mut self, xml: &str) -> Result<Step, Failure> {
            self.framer.buffer().extend_from_slice(xml.as_bytes());
            let mut last = Ok(Step::Wait);
            while let Some(frame) = self.framer.next_frame().unwrap() {
                last = self.handshake.handle(&frame);
            }
            last
        }

        fn restart(&mut self) {
            self.framer.restart();
            assert_eq!(self.peer(HEADER), Ok(Step::Wait));
        }
    }

    fn features(inner: &str) -> String {
        format!("<stream:features>{inner}</stream:features>")
    }

    fn written(step: Result<Step, Failure>) -> String {
        match step {
            Ok(Step::Write(bytes) | Step::Restart(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_whole_way_with_answers_on_the_same_stream() {
        let mut rig = Rig::new(true);
        let open = String::from_utf8_lossy(&rig.handshake.open()).into_owned();
        assert!(
            open.contains("xmlns='jabber:server'") && open.contains("from='example.org' to='push.example'"),
            "{open}"
        );
        rig.peer(HEADER).unwrap();
        let starttls = written(rig.peer(&features("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")));
        assert_eq!(starttls, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        assert_eq!(rig.peer("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), Ok(Step::Secure));
        assert_eq!(rig.handshake.secured(), open);
        rig.restart();
        assert_eq!(
            written(rig.peer(&features(&format!("{EXTERNAL}{BIDI}")))),
            "<bidi xmlns='urn:xmpp:bidi'/>\
             <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>ZXhhbXBsZS5vcmc=</auth>"
        );
        assert_eq!(written(rig.peer("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")), open);
        rig.restart();
        assert_eq!(rig.peer(&features("")), Ok(Step::Ready { bidi: true }));
    }

    #[test]
    fn bidi_is_agreed_on_only_where_both_want_it() {
        for (wants, offered, agreed) in [
            (true, BIDI, true),
            (true, "", false),
            (false, BIDI, false),
            (true, "<bidi xmlns='urn:xmpp:bidi'/>", false),
        ] {
            let mut rig = Rig::secure(wants);
            let auth = written(rig.peer(&features(&format!("{offered}{EXTERNAL}"))));
            assert_eq!(auth.contains("<bidi"), agreed, "{auth}");
            rig.peer("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").unwrap();
            rig.restart();
            assert_eq!(rig.peer(&features("")), Ok(Step::Ready { bidi: agreed }));
        }
    }

    #[test]
    fn a_peer_that_does_not_take_the_certificate_is_told_apart() {
        let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
        let dialback = "<dialback xmlns='urn:xmpp:features:dialback'/>";
        let failure = Rig::secure(true).peer(&features(dialback)).unwrap_err();
        assert_eq!((failure.is_about_certificate(), failure), (true, Failure::NoExternal));
        let mut rig = Rig::secure(true);
        rig.peer(&features(EXTERNAL)).unwrap();
        let refusal = format!("<failure xmlns='{sasl}'><text>no</text><not-authorized/></failure>");
        let failure = rig.peer(&refusal).unwrap_err();
        assert_eq!((failure.is_about_certificate(), failure), (true, Failure::Refused("not-authorized".to_owned())));
        let error = |condition: &str| {
            let error = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>");
            Rig::secure(true).peer(&format!("<stream:error>{error}</stream:error>")).unwrap_err()
        };
        assert!(error("not-authorized").is_about_certificate());
        assert!(!error("host-unknown").is_about_certificate());
    }

    #[test]
    fn nothing_but_tls_is_done_in_the_clear() {
        let mut rig = Rig::new(true);
        rig.peer(HEADER).unwrap();
        assert_eq!(rig.peer(&features(EXTERNAL)), Err(Failure::NoTls));
        let mut rig = Rig::new(true);
        rig.peer(HEADER).unwrap();
        rig.peer(&features("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")).unwrap();
        let failure = rig.peer("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").unwrap_err();
        assert_eq!(failure, Failure::Unexpected("success".to_owned()));
    }

    #[test]
    fn another_domain_and_another_version_are_refused() {
        let header = |from: &str, to: &str| Rig::new(true).peer(&HEADER.replace(from, to));
        assert_eq!(header("Push.example", "evil.example"), Err(Failure::Impostor("evil.example".to_owned())));
        assert_eq!(header("version='1.0'", ""), Err(Failure::OldVersion));
        assert_eq!(header("from='Push.example'", ""), Ok(Step::Wait));
        let mut rig = Rig::secure(true);
        assert_eq!(rig.peer("</stream:stream>"), Err(Failure::Closed));
    }
}

//! [`ServerHandshake`]: the steps from a new connection to a server stream that is ready for stanzas (RFC 6120, XEP-0178,
//! XEP-0288), sans-IO.
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
use crate::publish::answers::AnswerPolicy;
use crate::xml::{Element, Frame, Node, XmlWriter, excerpt, ns};

/// The next step of the handshake.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HandshakeStep {
    /// Wait for the next frame.
    Wait,
    /// Write these bytes.
    Write(Bytes),
    /// Establish TLS, then write the bytes that [`ServerHandshake::secured`] returns.
    Secure,
    /// Write these bytes. A stream header comes next.
    Restart(Bytes),
    /// The stream is ready for stanzas.
    Ready {
        /// `OnStream` if XEP-0288 was negotiated.
        answers: AnswerPolicy,
    },
}

/// The reason why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::publish) enum HandshakeError {
    #[error("the peer offers no TLS")]
    NoTls,
    #[error("the peer's stream does not have version 1.0")]
    OldVersion,
    #[error("the peer identifies itself as {0}")]
    Impostor(String),
    #[error("the peer ended the stream: {0}")]
    StreamError(String),
    #[error("the peer closed the stream")]
    Closed,
    #[error("unexpected {0}")]
    Unexpected(String),
    /// EXTERNAL is only offered to peers with a valid certificate (XEP-0178 §3).
    #[error("the peer does not offer EXTERNAL: it does not accept the host's certificate")]
    NoExternal,
    #[error("the peer refuses EXTERNAL: {0}")]
    Refused(String),
}

impl HandshakeError {
    /// Returns whether the peer does not accept our certificate.
    pub(super) fn is_about_certificate(&self) -> bool {
        match self {
            Self::NoExternal | Self::Refused(_) => true,
            Self::StreamError(condition) => condition == "not-authorized",
            Self::NoTls | Self::OldVersion | Self::Impostor(_) | Self::Closed | Self::Unexpected(_) => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandshakePhase {
    Clear,
    AskedTls,
    Secure,
    Authenticating { answers: AnswerPolicy },
    Authenticated { answers: AnswerPolicy },
}

/// One handshake attempt.
#[derive(Debug)]
pub(super) struct ServerHandshake {
    us: String,
    peer: String,
    wanted: AnswerPolicy,
    offers_bidi: bool,
    phase: HandshakePhase,
}

impl ServerHandshake {
    /// Creates the handshake of a stream from one domain to another, which starts without TLS. `wanted`: the requested path
    /// of the answers.
    pub(super) fn new(us: &str, peer: &str, wanted: AnswerPolicy) -> Self {
        Self { us: us.to_owned(), peer: peer.to_owned(), wanted, offers_bidi: false, phase: HandshakePhase::Clear }
    }

    /// Returns the first bytes on a connection without TLS.
    pub(super) fn open(&self) -> Bytes {
        let mut xml = XmlWriter::new();
        xml.start("stream:stream").attr("xmlns", ns::SERVER).attr("xmlns:stream", ns::STREAMS);
        xml.attr("from", &self.us).attr("to", &self.peer).attr("version", "1.0").attr("xml:lang", "en");
        let mut bytes = BytesMut::from(&b"<?xml version='1.0'?>"[..]);
        bytes.extend_from_slice(&xml.open());
        bytes.freeze()
    }

    /// Records that TLS is up and the peer's certificate is valid. Returns the first bytes to write.
    pub(super) fn secured(&mut self) -> Bytes {
        self.phase = HandshakePhase::Secure;
        self.open()
    }

    /// Returns whether the peer offers to send on the stream, too (XEP-0288).
    pub(super) fn offers_bidi(&self) -> bool {
        self.offers_bidi
    }

    /// Handles the next frame of the peer.
    pub(super) fn handle(&mut self, frame: &Frame) -> Result<HandshakeStep, HandshakeError> {
        match frame {
            Frame::Whitespace | Frame::Skipped(_) => Ok(HandshakeStep::Wait),
            Frame::Close => Err(HandshakeError::Closed),
            Frame::Open(header) => {
                let from = header.from().map(Jid::new);
                if let Some(from) = from.filter(|from| from.as_str() != self.peer) {
                    return Err(HandshakeError::Impostor(excerpt(from.as_str())));
                }
                if header.version() == Some("1.0") { Ok(HandshakeStep::Wait) } else { Err(HandshakeError::OldVersion) }
            }
            Frame::Element(element) => self.element(element),
        }
    }

    fn element(&mut self, element: &Element) -> Result<HandshakeStep, HandshakeError> {
        let node = element.node();
        match (node.ns(), node.name(), self.phase) {
            (ns::STREAMS, "error", _) => Err(HandshakeError::StreamError(condition(&node, ns::STREAM_ERRORS))),
            (ns::STREAMS, "features", HandshakePhase::Clear) => {
                node.child("starttls", ns::TLS).ok_or(HandshakeError::NoTls)?;
                self.phase = HandshakePhase::AskedTls;
                Ok(HandshakeStep::Write(empty("starttls", ns::TLS)))
            }
            (ns::TLS, "proceed", HandshakePhase::AskedTls) => Ok(HandshakeStep::Secure),
            (ns::TLS, "failure", HandshakePhase::AskedTls) => Err(HandshakeError::NoTls),
            (ns::STREAMS, "features", HandshakePhase::Secure) => self.authenticate(&node),
            (ns::SASL, "success", HandshakePhase::Authenticating { answers }) => {
                self.phase = HandshakePhase::Authenticated { answers };
                Ok(HandshakeStep::Restart(self.open()))
            }
            (ns::SASL, "failure", HandshakePhase::Authenticating { .. }) => {
                Err(HandshakeError::Refused(condition(&node, ns::SASL)))
            }
            (ns::STREAMS, "features", HandshakePhase::Authenticated { answers }) => {
                Ok(HandshakeStep::Ready { answers })
            }
            (_, name, _) => Err(HandshakeError::Unexpected(excerpt(name))),
        }
    }

    fn authenticate(&mut self, features: &Node<'_>) -> Result<HandshakeStep, HandshakeError> {
        let mechanisms = features.child("mechanisms", ns::SASL);
        let external =
            |mechanism: Node<'_>| mechanism.is("mechanism", ns::SASL) && mechanism.text().trim() == "EXTERNAL";
        if !mechanisms.is_some_and(|mechanisms| mechanisms.children().any(external)) {
            return Err(HandshakeError::NoExternal);
        }
        self.offers_bidi = features.child("bidi", ns::BIDI_FEATURE).is_some();
        let answers = if self.offers_bidi { self.wanted } else { AnswerPolicy::ToServer };
        let mut xml = XmlWriter::new();
        if answers == AnswerPolicy::OnStream {
            // XEP-0288 §2.1: sent before authentication, and not answered.
            xml.start("bidi").attr("xmlns", ns::BIDI).end();
        }
        xml.start("auth").attr("xmlns", ns::SASL).attr("mechanism", "EXTERNAL").text(&STANDARD.encode(&self.us));
        self.phase = HandshakePhase::Authenticating { answers };
        Ok(HandshakeStep::Write(xml.finish()))
    }
}

/// Returns the name of the first child in a namespace of error conditions.
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
    use crate::publish::answers::AnswerPolicy::{OnStream, ToServer};
    use crate::xml::{FrameLimits, Framer};

    const HEADER: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' id='1' \
                          from='Push.example' to='example.org' version='1.0'>";
    const EXTERNAL: &str =
        "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>";
    const BIDI: &str = "<bidi xmlns='urn:xmpp:features:bidi'/>";

    struct Rig {
        handshake: ServerHandshake,
        framer: Framer,
    }

    impl Rig {
        fn new(wanted: AnswerPolicy) -> Self {
            let limits = FrameLimits::new(1 << 16, 16);
            let handshake = ServerHandshake::new("example.org", "push.example", wanted);
            Self { handshake, framer: Framer::with_default_namespace(limits, ns::SERVER) }
        }

        /// Creates a stream over TLS.
        fn secure(wanted: AnswerPolicy) -> Self {
            let mut rig = Self::new(wanted);
            rig.handshake.secured();
            assert_eq!(rig.peer(HEADER), Ok(HandshakeStep::Wait));
            rig
        }

        /// Passes XML of the peer to the handshake. Returns the result of the last frame.
        fn peer(&mut self, xml: &str) -> Result<HandshakeStep, HandshakeError> {
            self.framer.buffer().extend_from_slice(xml.as_bytes());
            let mut last = Ok(HandshakeStep::Wait);
            while let Some(frame) = self.framer.next_frame().unwrap() {
                last = self.handshake.handle(&frame);
            }
            last
        }

        fn restart(&mut self) {
            self.framer.restart();
            assert_eq!(self.peer(HEADER), Ok(HandshakeStep::Wait));
        }
    }

    fn features(inner: &str) -> String {
        format!("<stream:features>{inner}</stream:features>")
    }

    fn written(step: Result<HandshakeStep, HandshakeError>) -> String {
        match step {
            Ok(HandshakeStep::Write(bytes) | HandshakeStep::Restart(bytes)) => {
                String::from_utf8_lossy(&bytes).into_owned()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_handshake_completes_with_answers_on_the_same_stream() {
        let mut rig = Rig::new(OnStream);
        let open = String::from_utf8_lossy(&rig.handshake.open()).into_owned();
        assert!(
            open.contains("xmlns='jabber:server'") && open.contains("from='example.org' to='push.example'"),
            "{open}"
        );
        rig.peer(HEADER).unwrap();
        let starttls = written(rig.peer(&features("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")));
        assert_eq!(starttls, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        assert_eq!(rig.peer("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), Ok(HandshakeStep::Secure));
        assert_eq!(rig.handshake.secured(), open);
        rig.restart();
        assert_eq!(
            written(rig.peer(&features(&format!("{EXTERNAL}{BIDI}")))),
            "<bidi xmlns='urn:xmpp:bidi'/>\
             <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>ZXhhbXBsZS5vcmc=</auth>"
        );
        assert_eq!(written(rig.peer("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")), open);
        rig.restart();
        assert_eq!(rig.peer(&features("")), Ok(HandshakeStep::Ready { answers: OnStream }));
    }

    #[test]
    fn bidi_is_agreed_on_only_where_both_want_it() {
        for (wanted, offered, agreed) in [
            (OnStream, BIDI, OnStream),
            (OnStream, "", ToServer),
            (ToServer, BIDI, ToServer),
            (OnStream, "<bidi xmlns='urn:xmpp:bidi'/>", ToServer),
        ] {
            let mut rig = Rig::secure(wanted);
            let auth = written(rig.peer(&features(&format!("{offered}{EXTERNAL}"))));
            assert_eq!(auth.contains("<bidi"), agreed == OnStream, "{auth}");
            rig.peer("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").unwrap();
            rig.restart();
            assert_eq!(rig.peer(&features("")), Ok(HandshakeStep::Ready { answers: agreed }));
        }
    }

    #[test]
    fn a_peer_that_refuses_the_certificate_has_its_own_error() {
        let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
        let dialback = "<dialback xmlns='urn:xmpp:features:dialback'/>";
        let failure = Rig::secure(OnStream).peer(&features(dialback)).unwrap_err();
        assert_eq!((failure.is_about_certificate(), failure), (true, HandshakeError::NoExternal));
        let mut rig = Rig::secure(OnStream);
        rig.peer(&features(EXTERNAL)).unwrap();
        let refusal = format!("<failure xmlns='{sasl}'><text>no</text><not-authorized/></failure>");
        let failure = rig.peer(&refusal).unwrap_err();
        assert_eq!(
            (failure.is_about_certificate(), failure),
            (true, HandshakeError::Refused("not-authorized".to_owned()))
        );
        let error = |condition: &str| {
            let error = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>");
            Rig::secure(OnStream).peer(&format!("<stream:error>{error}</stream:error>")).unwrap_err()
        };
        assert!(error("not-authorized").is_about_certificate());
        assert!(!error("host-unknown").is_about_certificate());
    }

    #[test]
    fn only_starttls_is_accepted_before_tls() {
        let mut rig = Rig::new(OnStream);
        rig.peer(HEADER).unwrap();
        assert_eq!(rig.peer(&features(EXTERNAL)), Err(HandshakeError::NoTls));
        let mut rig = Rig::new(OnStream);
        rig.peer(HEADER).unwrap();
        rig.peer(&features("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")).unwrap();
        let failure = rig.peer("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").unwrap_err();
        assert_eq!(failure, HandshakeError::Unexpected("success".to_owned()));
    }

    #[test]
    fn another_domain_and_another_version_are_refused() {
        let header = |from: &str, to: &str| Rig::new(OnStream).peer(&HEADER.replace(from, to));
        assert_eq!(header("Push.example", "evil.example"), Err(HandshakeError::Impostor("evil.example".to_owned())));
        assert_eq!(header("version='1.0'", ""), Err(HandshakeError::OldVersion));
        assert_eq!(header("from='Push.example'", ""), Ok(HandshakeStep::Wait));
        let mut rig = Rig::secure(OnStream);
        assert_eq!(rig.peer("</stream:stream>"), Err(HandshakeError::Closed));
    }
}

//! The clear-text stream to a server that uses STARTTLS (RFC 6120 §5.4). Pushward is its client.
//!
//! The stream carries no user data, and everything that came in the clear is discarded once TLS is established.

use bytes::Bytes;

use crate::xml::{Element, Frame, XmlWriter, excerpt, ns};

/// The action after a frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum UpgradeStep {
    /// Continue reading.
    Wait,
    /// Write this and continue reading.
    Send(Bytes),
    /// Discard all other bytes received in the clear (RFC 6120 §5.4.3.3), and negotiate TLS.
    Proceed,
}

/// The reason why TLS cannot be negotiated on this stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefusal {
    /// The server's features are without STARTTLS.
    #[error("it does not offer STARTTLS")]
    NotOffered,
    /// The server answered `<failure/>`: usually it has no certificate for the domain.
    #[error("it offers STARTTLS and then refuses it")]
    Failed,
    /// The server closed the stream, with this condition if it gave one (RFC 6120 §4.9.3).
    #[error("it refused the stream: {0}")]
    Stream(String),
    /// The server sent something that is unexpected here.
    #[error("it did not answer as a server for client connections does")]
    Protocol,
}

impl UpgradeRefusal {
    /// The remedy, for the operator.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotOffered => {
                "enable TLS on this port of the server (Prosody: a certificate, and tls in modules_enabled; ejabberd: \
                    starttls: true and certfiles), or set upstream_tls = \"off\" over loopback, or \"direct\" for a \
                    port that starts with TLS"
            }
            Self::Failed => "give the server a certificate for the domain; see its log for what is missing",
            Self::Stream(condition) if condition == "host-unknown" => {
                "configure the domain on the server, or name another server"
            }
            Self::Stream(_) | Self::Protocol => "name the server's port for client connections with STARTTLS",
        }
    }
}

#[derive(Debug)]
enum UpgradeState {
    Header,
    Features,
    Proceed,
}

/// The clear-text stream of one connection.
#[derive(Debug)]
pub struct Upgrade {
    state: UpgradeState,
}

impl Upgrade {
    /// Creates a stream to this domain. Returns its header as well, which has no `from`: without TLS, the user must not be
    /// revealed (RFC 6120 §4.7.1).
    pub fn new(domain: &str) -> (Self, Bytes) {
        let domain = quick_xml::escape::escape(domain);
        let (client, streams) = (ns::CLIENT, ns::STREAMS);
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='{client}' xmlns:stream='{streams}' to='{domain}' version='1.0'>"
        );
        (Self { state: UpgradeState::Header }, header.into())
    }

    /// Takes the server's next frame.
    ///
    /// # Errors
    /// [`UpgradeRefusal`] if the connection cannot be used any more.
    pub fn handle(&mut self, frame: &Frame) -> Result<UpgradeStep, UpgradeRefusal> {
        match (frame, &self.state) {
            (Frame::Whitespace | Frame::Skipped(_), _) => Ok(UpgradeStep::Wait),
            (Frame::Open(_), UpgradeState::Header) => {
                self.state = UpgradeState::Features;
                Ok(UpgradeStep::Wait)
            }
            (Frame::Element(element), _) if element.is("error", ns::STREAMS) => Err(stream_error(element)),
            (Frame::Element(element), UpgradeState::Features) if element.is("features", ns::STREAMS) => {
                self.features(element)
            }
            (Frame::Element(element), UpgradeState::Proceed) if element.is("proceed", ns::TLS) => {
                Ok(UpgradeStep::Proceed)
            }
            (Frame::Element(element), UpgradeState::Proceed) if element.is("failure", ns::TLS) => {
                Err(UpgradeRefusal::Failed)
            }
            (Frame::Close, _) => Err(UpgradeRefusal::Stream("the server closed it without a reason".to_owned())),
            (Frame::Open(_) | Frame::Element(_), _) => Err(UpgradeRefusal::Protocol),
        }
    }

    fn features(&mut self, features: &Element) -> Result<UpgradeStep, UpgradeRefusal> {
        if features.node().child("starttls", ns::TLS).is_none() {
            return Err(UpgradeRefusal::NotOffered);
        }
        self.state = UpgradeState::Proceed;
        let mut xml = XmlWriter::new();
        xml.start("starttls").attr("xmlns", ns::TLS);
        Ok(UpgradeStep::Send(xml.finish()))
    }
}

fn stream_error(error: &Element) -> UpgradeRefusal {
    UpgradeRefusal::Stream(stream_error_condition(error))
}

/// The condition of a `<stream:error/>`.
pub fn stream_error_condition(error: &Element) -> String {
    let node = error.node();
    let condition = node.children().find(|child| child.ns() == ns::STREAM_ERRORS && child.name() != "text");
    excerpt(condition.map_or("undefined-condition", |condition| condition.name()))
}

/// Returns whether features require TLS.
pub fn requires_tls(features: &Element) -> bool {
    features.node().child("starttls", ns::TLS).is_some_and(|starttls| starttls.child("required", ns::TLS).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::{element, header};

    const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

    fn frame(xml: &str) -> Frame {
        Frame::Element(element(xml))
    }

    /// The outcome of a stream on which the server says this after its header.
    fn check(elements: &[&str], expect: Result<UpgradeStep, UpgradeRefusal>) {
        let (mut upgrade, _) = Upgrade::new("example.org");
        let mut outcome = upgrade.handle(&Frame::Open(header()));
        assert_eq!(outcome, Ok(UpgradeStep::Wait));
        for xml in elements {
            assert!(outcome.is_ok(), "{xml} comes too late");
            outcome = upgrade.handle(&frame(xml));
        }
        assert_eq!(outcome, expect, "{elements:?}");
    }

    fn features(inner: &str) -> String {
        format!("<stream:features>{inner}</stream:features>")
    }

    #[test]
    fn the_stream_names_the_domain_and_no_user() {
        let (_, opening) = Upgrade::new("a'b.example");
        let header = crate::xml::Header::parse(opening).unwrap();
        assert_eq!((header.to(), header.from(), header.version()), (Some("a'b.example"), None, Some("1.0")));
    }

    #[test]
    fn tls_starts_once_the_server_says_proceed() {
        let offer = features(STARTTLS);
        check(&[&offer], Ok(UpgradeStep::Send(STARTTLS.into())));
        check(&[&offer, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"], Ok(UpgradeStep::Proceed));
        check(&[&offer, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"], Err(UpgradeRefusal::Failed));
    }

    #[test]
    fn a_server_without_starttls_is_named_with_what_to_change() {
        check(&["<stream:features/>"], Err(UpgradeRefusal::NotOffered));
        check(&[&features("<starttls xmlns='urn:x'/>")], Err(UpgradeRefusal::NotOffered));
        assert!(UpgradeRefusal::NotOffered.remedy().contains("upstream_tls = \"off\""));
    }

    #[test]
    fn whatever_comes_out_of_turn_ends_the_attempt() {
        let proceed = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
        check(&[proceed], Err(UpgradeRefusal::Protocol));
        let offer = features(STARTTLS);
        check(&[&offer, &offer], Err(UpgradeRefusal::Protocol));
        check(&[&offer, "<proceed xmlns='urn:x'/>"], Err(UpgradeRefusal::Protocol));
        check(&[&offer, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"], Err(UpgradeRefusal::Protocol));
        let (mut upgrade, _) = Upgrade::new("example.org");
        assert_eq!(upgrade.handle(&frame(&offer)), Err(UpgradeRefusal::Protocol));
        assert!(matches!(upgrade.handle(&Frame::Close), Err(UpgradeRefusal::Stream(_))));
    }

    #[test]
    fn a_stream_error_is_named_by_its_condition() {
        let error = "<stream:error><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>no</text>\
            <host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
        check(&[error], Err(UpgradeRefusal::Stream("host-unknown".to_owned())));
    }

    #[test]
    fn only_a_starttls_that_is_required_requires_tls() {
        let required = STARTTLS.replace("/>", "><required/></starttls>");
        assert!(requires_tls(&element(&features(&required))));
        assert!(!requires_tls(&element(&features(STARTTLS))));
        assert!(!requires_tls(&element("<stream:features/>")));
    }
}

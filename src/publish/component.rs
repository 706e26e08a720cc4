//! The `component` transport: Pushward connects to the server as a component (XEP-0114), with one stream for each host that
//! has one.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answers::AnswerPolicy;
use super::error::{ComponentError, NoPermit, StreamConnectError};
use super::namespace;
use super::peer::{PeerLink, PublishStream, Reaction, StreamPeer, next_frame};
use crate::config::{Component, ComponentSender, Config};
use crate::jid::{BareJid, Jid};
use crate::net::conn::Conn;
use crate::net::lookup::look_up;
use crate::xml::{Element, Frame, FrameLimits, XmlWriter, excerpt, is_request, ns};

/// Returns whether the component of a host may publish to a push service. Users choose push JIDs, so nothing is sent in the
/// name of a server to its own users.
pub(super) fn is_fit(config: &Config, host: &str, service: &Jid) -> bool {
    let is_own = |domain: &str| config.hosts.iter().any(|host| host.domain == domain);
    let own_user = service.node().is_some() && is_own(service.domain());
    !own_user && config.hosts.iter().any(|own| own.domain == host && own.component.is_some())
}

/// The server's component port, for one host.
pub(super) struct ComponentPort {
    config: Arc<Config>,
    host: String,
    component: Component,
}

impl ComponentPort {
    pub(super) fn new(config: Arc<Config>, host: String, component: Component) -> Self {
        Self { config, host, component }
    }

    async fn connect(&self) -> Result<Conn<PublishStream>, ComponentError> {
        let address = &self.component.address;
        let failed =
            |error: std::io::Error| ComponentError::Connect { address: address.clone(), cause: error.to_string() };
        let found = look_up(address).await.map_err(ComponentError::Name)?;
        let tcp = TcpStream::connect(found.as_slice()).await.map_err(failed)?;
        crate::net::tune(&tcp, self.config.stream_management.write_timeout).map_err(failed)?;
        // Other entities can also send stanzas to the component. An invalid one must not end the stream.
        let limits = FrameLimits::server(self.config.limits.stanzas.client);
        let mut conn = Conn::in_namespace(Box::new(tcp) as PublishStream, limits, ns::COMPONENT_ACCEPT);
        conn.framer().skip_unfit(None);
        Ok(conn)
    }

    /// Performs the handshake (XEP-0114 §3).
    async fn handshake(&self, conn: &mut Conn<PublishStream>) -> Result<(), ComponentError> {
        conn.write(&header(&self.component.domain));
        loop {
            match next_frame(conn).await.map_err(|error| ComponentError::Io(error.to_string()))? {
                Frame::Open(header) => {
                    let id = header.id().ok_or(ComponentError::NoId)?;
                    conn.write(&proof(id, self.component.secret.expose()));
                }
                Frame::Element(element) if element.is("handshake", ns::COMPONENT_ACCEPT) => return Ok(()),
                Frame::Element(element) => {
                    let node = element.node();
                    let condition = excerpt(node.children().next().map_or("nothing", |child| child.name()));
                    return Err(ComponentError::Refused { domain: self.component.domain.clone(), condition });
                }
                Frame::Whitespace | Frame::Skipped(_) => {}
                Frame::Close => return Err(ComponentError::Closed),
            }
        }
    }

    async fn dial_patiently(&self) -> Result<PeerLink, ComponentError> {
        let mut conn = self.connect().await?;
        self.handshake(&mut conn).await?;
        let (from, answers) = match self.component.from {
            ComponentSender::Component => (self.component.domain.clone(), AnswerPolicy::OnStream),
            ComponentSender::Host => (self.host.clone(), AnswerPolicy::ToServer),
        };
        Ok(PeerLink { conn, from, answers, idle: None })
    }
}

impl StreamPeer for ComponentPort {
    type Permit = ();

    fn admit(&self, _account: Option<&BareJid>) -> Result<(), NoPermit> {
        Ok(())
    }

    async fn dial(&self) -> Result<PeerLink, StreamConnectError> {
        let within: Duration = self.config.limits.timeouts.connect;
        let silent = || ComponentError::Silent { address: self.component.address.clone(), within };
        let dialled = timeout(within, self.dial_patiently()).await;
        Ok(dialled.unwrap_or_else(|_| Err(silent()))?)
    }

    fn on_stanza(&self, stanza: Element, _answers: AnswerPolicy) -> Reaction {
        let node = stanza.node();
        if is_request(&node) { Reaction::Reply(namespace::unavailable(&node)) } else { Reaction::Nothing }
    }

    fn on_other(&self, _before: u32) -> Reaction {
        Reaction::Nothing
    }

    // The server may send any stanza to its component.
    fn on_misuse(&self) {}

    fn count_refused(&self) {}

    fn count_dropped(&self) {}

    fn count_late(&self, _stanzas: u64) {}

    fn retire(&self) -> bool {
        false
    }

    fn is_eager(&self) -> bool {
        true
    }
}

fn header(domain: &str) -> bytes::Bytes {
    let mut xml = XmlWriter::new();
    xml.start("stream:stream").attr("xmlns", ns::COMPONENT_ACCEPT).attr("xmlns:stream", ns::STREAMS).attr("to", domain);
    xml.open()
}

/// Returns the handshake element: the hash of the stream id and the secret (XEP-0114 §3).
fn proof(id: &str, secret: &str) -> bytes::Bytes {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{id}{secret}").as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut xml = XmlWriter::new();
    xml.start("handshake").text(&hex);
    xml.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_the_one_of_the_specification() {
        // `echo -n 3BF96D32secret | sha1sum`
        assert_eq!(proof("3BF96D32", "secret"), "<handshake>b09ea9b3b7f586be8a08d0a3dd7466f110aeb136</handshake>");
        assert_eq!(
            header("a'b"),
            "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='a&apos;b'>"
        );
    }
}

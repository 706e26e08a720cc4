//! The `component` transport: as a component of the server (XEP-0114), one stream for each host that has one.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::namespace;
use super::stream::{self, Heard, Link, Peer, Stream};
use crate::config::{Component, Config, Speaker};
use crate::jid::{BareJid, Jid};
use crate::net::conn::Conn;
use crate::xml::{Element, Frame, FrameLimits, XmlWriter, excerpt, is_request, ns};

/// Whether a push service may be told by the component of a host. Users choose push JIDs: nothing is sent in the name of a
/// server to its own users.
pub(super) fn is_fit(config: &Config, host: &str, service: &Jid) -> bool {
    let is_own = |domain: &str| config.hosts.iter().any(|host| host.domain == domain);
    let own_user = service.node().is_some() && is_own(service.domain());
    !own_user && config.hosts.iter().any(|own| own.domain == host && own.component.is_some())
}

/// The server's component port, seen from one host.
pub(super) struct Server {
    config: Arc<Config>,
    host: String,
    component: Component,
}

impl Server {
    pub(super) fn new(config: Arc<Config>, host: String, component: Component) -> Self {
        Self { config, host, component }
    }

    async fn connect(&self) -> Result<Conn<Stream>, String> {
        let address = &self.component.address;
        let tcp = TcpStream::connect((address.host.as_str(), address.port));
        let tcp = tcp.await.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        let tuned = crate::net::tune(&tcp, self.config.stream_management.write_timeout);
        tuned.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        // What others send to the component goes by here, too: none of it costs the stream.
        let limits = FrameLimits::server(self.config.limits.stanza);
        let mut conn = Conn::in_namespace(Box::new(tcp) as Stream, limits, ns::COMPONENT_ACCEPT);
        conn.framer().skip_unfit(None);
        Ok(conn)
    }

    /// XEP-0114 §3.
    async fn handshake(&self, conn: &mut Conn<Stream>) -> Result<(), String> {
        conn.write(&header(&self.component.domain));
        loop {
            match stream::frame(conn).await.map_err(|error| error.to_string())? {
                Frame::Open(header) => {
                    let id = header.id().ok_or("the server's stream has no id")?;
                    conn.write(&proof(id, self.component.secret.expose()));
                }
                Frame::Element(element) if element.is("handshake", ns::COMPONENT_ACCEPT) => return Ok(()),
                Frame::Element(element) => {
                    let node = element.node();
                    let condition = excerpt(node.children().next().map_or("nothing", |child| child.name()));
                    let remedy = "compare [host.component] with the server's configuration";
                    return Err(format!(
                        "the server refuses the component {}: {condition}; {remedy}",
                        self.component.domain
                    ));
                }
                Frame::Whitespace | Frame::Skipped(_) => {}
                Frame::Close => return Err("the server closed the component's stream".to_owned()),
            }
        }
    }

    async fn dial_patiently(&self) -> Result<Link, String> {
        let mut conn = self.connect().await?;
        self.handshake(&mut conn).await?;
        let (from, answers) = match self.component.from {
            Speaker::Component => (self.component.domain.clone(), true),
            Speaker::Host => (self.host.clone(), false),
        };
        Ok(Link { conn, from, answers, idle: None })
    }
}

impl Peer for Server {
    type Place = ();

    fn admit(&self, _account: Option<&BareJid>) -> Result<(), String> {
        Ok(())
    }

    async fn dial(&self) -> Result<Link, String> {
        let patience: Duration = self.config.limits.connect_timeout;
        let dialled = timeout(patience, self.dial_patiently()).await;
        dialled.unwrap_or_else(|_| Err(format!("no answer from {} within {patience:?}", self.component.address)))
    }

    fn heard(&self, stanza: Element, _answers: bool) -> Heard {
        let node = stanza.node();
        if is_request(&node) { Heard::Reply(namespace::unavailable(&node)) } else { Heard::Nothing }
    }

    fn heard_other(&self, _before: u32) -> Heard {
        Heard::Nothing
    }

    // The server may send to its component what it likes.
    fn misused(&self) {}

    fn refused(&self) {}

    fn dropped(&self) {}

    fn late(&self, _stanzas: u64) {}

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

/// The stream's id and the secret, as XEP-0114 §3 mixes them.
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

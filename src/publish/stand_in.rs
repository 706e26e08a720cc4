//! A server with a component port, for tests.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::peer::next_frame;
use crate::net::conn::Conn;
use crate::xml::{Frame, FrameLimits, STREAM_CLOSE, ns};

/// The conduct of a component port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// It serves components.
    Serves,
    /// It does not answer the handshake.
    Silent,
    /// It does not answer the footer of a component.
    StaysOpen,
}

/// A component port that a test controls.
pub(crate) struct ComponentServer {
    pub(crate) address: SocketAddr,
    received: mpsc::UnboundedReceiver<ReceivedPublish>,
}

/// A publish that the port has received.
#[derive(Debug)]
pub(crate) struct ReceivedPublish {
    id: String,
    service: String,
    component: String,
    replies: mpsc::UnboundedSender<String>,
}

impl ReceivedPublish {
    /// Answers that the push service has accepted it.
    pub(crate) fn accept(&self) {
        self.reply("result", "");
    }

    /// Answers with a stanza error.
    pub(crate) fn refuse(&self, condition: &str) {
        self.reply(
            "error",
            &format!("<error type='auth'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"),
        );
    }

    fn reply(&self, kind: &str, inside: &str) {
        let Self { id, service, component, replies } = self;
        replies.send(format!("<iq type='{kind}' id='{id}' from='{service}' to='{component}'>{inside}</iq>")).unwrap();
    }
}

impl ComponentServer {
    /// Listens on a free port.
    pub(crate) async fn start(conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(tcp, conduct, sender.clone()));
            }
        });
        Self { address, received }
    }

    /// Waits for the next publish.
    pub(crate) async fn next(&mut self) -> ReceivedPublish {
        timeout(Duration::from_secs(10), self.received.recv()).await.unwrap().unwrap()
    }

    /// Returns whether no publish waits for [`ComponentServer::next`].
    pub(crate) fn is_quiet(&self) -> bool {
        self.received.is_empty()
    }
}

/// Serves one connection.
async fn serve(tcp: TcpStream, conduct: Conduct, publishes: mpsc::UnboundedSender<ReceivedPublish>) {
    let (replies, mut to_send) = mpsc::unbounded_channel();
    let mut conn = Conn::in_namespace(tcp, FrameLimits::server(1 << 16), ns::COMPONENT_ACCEPT);
    loop {
        let frame = select! {
            frame = next_frame(&mut conn) => frame,
            reply = to_send.recv() => {
                conn.write(String::as_bytes(&reply.unwrap()));
                continue;
            }
        };
        match frame {
            Ok(Frame::Open(_)) if conduct != Conduct::Silent => conn.write(
                b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1'>",
            ),
            Ok(Frame::Element(element)) if element.is("handshake", ns::COMPONENT_ACCEPT) => {
                conn.write(b"<handshake/>");
            }
            Ok(Frame::Element(element)) => {
                let node = element.node();
                let attr = |name: &str| node.attr(name).unwrap().into_owned();
                let (id, service, component) = (attr("id"), attr("to"), attr("from"));
                // The test may have ended.
                drop(publishes.send(ReceivedPublish { id, service, component, replies: replies.clone() }));
            }
            Ok(Frame::Close) if conduct == Conduct::StaysOpen => {}
            Ok(Frame::Close) | Err(_) => {
                conn.write(STREAM_CLOSE);
                return conn.finish(Duration::from_secs(1)).await;
            }
            Ok(Frame::Open(_) | Frame::Whitespace | Frame::Skipped(_)) => {}
        }
    }
}

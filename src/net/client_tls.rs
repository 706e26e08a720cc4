//! [`ClientTls`], the encrypted connection of a client: over TLS that ends here, or passed on by the node at which it ends.

use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite};

use super::passed_client::PassedClient;
use super::proxy_protocol::Tls;
use super::tls_stream::TlsStream;
use super::wire::Wire;
use crate::secret::Secret;

/// The encrypted connection of a client.
#[derive(Debug)]
pub struct ClientTls<S> {
    tls: TlsStream<S>,
    /// The properties of the client's own TLS, if that ends at another node.
    passed: Option<Box<PassedTls>>,
}

/// The TLS of a client that ends at another node.
#[derive(Debug)]
struct PassedTls {
    tls: Option<Tls>,
    channel: Option<Secret<[u8; 32]>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientTls<S> {
    /// Takes the TLS connection of a client.
    pub fn new(tls: TlsStream<S>) -> Self {
        Self { tls, passed: None }
    }

    /// Takes the TLS connection of a node that has passed this client on.
    pub fn passed(tls: TlsStream<S>, client: PassedClient) -> Self {
        let PassedClient { proxied, channel } = client;
        Self { tls, passed: Some(Box::new(PassedTls { tls: proxied.tls, channel })) }
    }

    /// Returns whether another node has passed the client on.
    pub fn is_passed(&self) -> bool {
        self.passed.is_some()
    }

    /// Returns the parameters of the client's own TLS.
    pub fn tls(&self) -> Option<Tls> {
        match &self.passed {
            Some(passed) => passed.tls,
            None => Tls::of(self.tls.state()),
        }
    }

    /// Returns the version of the client's own TLS.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.tls().and_then(|tls| tls.protocol_version())
    }

    /// Returns the channel binding `tls-exporter` of the client's own TLS (RFC 9266), see [`TlsStream::channel_binding`]. That of
    /// the TLS between two nodes is never the client's.
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        match &self.passed {
            Some(passed) => passed.channel.as_ref().map(|channel| *channel.expose()),
            None => self.tls.channel_binding(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for ClientTls<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.tls.poll_receive(cx, into)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, from: &mut BytesMut) -> Poll<io::Result<()>> {
        self.tls.poll_send(cx, from)
    }

    fn unsent(&self) -> usize {
        self.tls.unsent()
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.poll_close(cx)
    }
}

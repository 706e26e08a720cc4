//! The handshake of a client connection: STARTTLS or direct TLS. [`secure`] turns an accepted socket into a client over TLS.

use std::sync::Arc;

use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::timeout_at;

use super::background::CLOSE_TIMEOUT;
use super::client::Client;
use super::client_address::KnownClient;
use super::shared::Relay;
use super::snapshot::{Authentication, Snapshot};
use crate::clock::Instant;
use crate::config::ListenTls;
use crate::limits::{Eviction, Limit, Stage};
use crate::metrics::HandshakeOutcome;
use crate::net::client_tls::ClientTls;
use crate::net::conn::{Conn, ConnEvent, Io};
use crate::net::tls_stream::TlsStream;
use crate::session::starttls::{StartTls, StartTlsStep};
use crate::xml::{self, FrameError};

/// The reason why TLS was not established.
#[derive(Debug, Error)]
enum TlsFailure {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the client disconnected before TLS")]
    Left,
    #[error("the client sent an invalid request for TLS")]
    Refused,
    #[error("invalid XML stream: {0}")]
    Frame(#[from] FrameError),
}

/// A client over TLS.
pub(super) struct Secured {
    pub(super) client: Box<Client>,
    /// Completes when the connection has to make room for another one.
    pub(super) eviction: Eviction,
    /// The number of elements that the client sent before TLS.
    pub(super) elements: u32,
}

/// Establishes TLS before the deadline, or logs the failure.
///
/// Also returns `None` if the connection has to make room for another one. Nothing that the client has sent so far needs an
/// answer.
pub(super) async fn secure(
    relay: &Relay,
    snapshot: &Snapshot,
    known: KnownClient,
    tls: ListenTls,
    deadline: Instant,
) -> Option<Secured> {
    let KnownClient { tcp, mut permit, mut eviction, .. } = known;
    let attempt = async {
        crate::net::tune(&tcp, snapshot.config.stream_management.write_timeout)?;
        match tls {
            ListenTls::Direct => accept(tcp, snapshot.certificates.direct_config(), snapshot).await,
            ListenTls::Starttls => {
                let (tcp, host) = Box::pin(starttls(relay, snapshot, tcp)).await?;
                accept(tcp, snapshot.certificates.starttls_config(Some(&host)), snapshot).await
            }
        }
    };
    let began = Instant::now();
    let attempt = timeout_at(deadline.into(), attempt);
    let attempt = select! {
        done = attempt => done,
        () = eviction.evicted() => return None,
    };
    let (client, outcome) = match attempt {
        Ok(Ok(client)) => {
            permit.reaches(Stage::Secured);
            // The element is `<starttls/>`: any other would have been refused.
            let elements = u32::from(tls == ListenTls::Starttls);
            let client = Box::new(client.with_permit(permit));
            (Some(Secured { client, eviction, elements }), HandshakeOutcome::Established)
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            (None, HandshakeOutcome::Failed)
        }
        Err(_) => {
            match permit.address() {
                Some(address) => relay.guards().watch().reached(Limit::HandshakeTimeout, address),
                None => relay.guards().watch().reached(Limit::HandshakeTimeout, "a proxy's"),
            }
            (None, HandshakeOutcome::Timeout)
        }
    };
    relay.metrics().handshake(outcome, began.elapsed());
    client
}

async fn accept(tcp: TcpStream, config: Arc<ServerConfig>, snapshot: &Snapshot) -> Result<Client, TlsFailure> {
    // No TLS state is allocated for a client that has sent nothing.
    tcp.readable().await?;
    let tls = Box::pin(TlsStream::accept(tcp, config)).await?;
    tracing::debug!(version = ?tls.state().protocol_version(), "TLS established");
    Ok(Conn::new(ClientTls::new(tls), snapshot.limits(Authentication::Pending)))
}

async fn starttls(relay: &Relay, snapshot: &Snapshot, tcp: TcpStream) -> Result<(TcpStream, String), TlsFailure> {
    let mut conn = Conn::new(tcp, snapshot.limits(Authentication::Pending));
    let mut stream = StartTls::new(Arc::clone(&snapshot.domains), rand::random);
    loop {
        while let Some(frame) = next_frame(relay, &mut conn).await? {
            relay.reports().on_client_frame(&frame, &snapshot.domains);
            match stream.handle(&frame) {
                StartTlsStep::Wait => {}
                StartTlsStep::Reply(bytes) => conn.reply(&bytes),
                StartTlsStep::Proceed { reply, host } => {
                    conn.reply(&reply);
                    conn.flush().await?;
                    return Ok((conn.into_inner(), host));
                }
                StartTlsStep::Refuse(bytes) => {
                    conn.reply(&bytes);
                    conn.finish(CLOSE_TIMEOUT).await;
                    return Err(TlsFailure::Refused);
                }
            }
        }
        if conn.event(Io::read_if(!conn.replies_full())).await? == ConnEvent::Closed {
            return Err(TlsFailure::Left);
        }
    }
}

/// Returns the next frame. Sends a stream error to the client if the bytes are not valid.
async fn next_frame(relay: &Relay, conn: &mut Conn<TcpStream>) -> Result<Option<xml::Frame>, TlsFailure> {
    match conn.next_frame() {
        Ok(frame) => Ok(frame),
        Err(error) => {
            conn.reply(&xml::stream_header("", "", None));
            conn.reply(&error.stream_error());
            relay.overload().on_frame_error(&error, Authentication::Pending);
            // If the peer is gone, the stream error cannot be delivered.
            drop(tokio::time::timeout(CLOSE_TIMEOUT, conn.flush()).await);
            Err(error.into())
        }
    }
}

//! From an accepted socket to a client over TLS.

use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::timeout_at;

use super::client_address::Arrival;
use super::snapshot::Snapshot;
use super::{Client, FAREWELL, Relay};
use crate::config::ListenTls;
use crate::limits::{Eviction, Limit, Stage};
use crate::metrics::Handshake;
use crate::net::conn::{Conn, ConnEvent, Io};
use crate::net::tls_stream::TlsStream;
use crate::session::starttls::{StartTls, StartTlsStep};
use crate::xml::{self, FrameError};

/// Why there is no TLS.
#[derive(Debug, Error)]
enum Failure {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the client left before TLS")]
    Left,
    #[error("the client did not ask for TLS in a valid way and was told so")]
    Refused,
    #[error("not an XML stream: {0}")]
    Frame(#[from] FrameError),
}

/// A client over TLS.
pub(super) struct Secured {
    pub(super) client: Box<Client>,
    /// Says when it has to make room for another one.
    pub(super) eviction: Eviction,
    /// How many elements it has sent before, in the clear.
    pub(super) elements: u32,
}

/// Establishes TLS before the deadline, and says in the log why not.
///
/// `None` too if the connection has to make room for another one: it has said nothing that wants an answer.
pub(super) async fn secure(
    relay: &Relay,
    snapshot: &Snapshot,
    arrival: Arrival,
    tls: ListenTls,
    deadline: Instant,
) -> Option<Secured> {
    let Arrival { tcp, mut permit, mut eviction, .. } = arrival;
    let attempt = async {
        crate::net::tune(&tcp, snapshot.config.stream_management.write_timeout)?;
        match tls {
            ListenTls::Direct => accept(snapshot, tcp, None, true).await,
            ListenTls::Starttls => {
                let (tcp, host) = Box::pin(starttls(relay, snapshot, tcp)).await?;
                accept(snapshot, tcp, Some(&host), false).await
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
            // `<starttls/>`: anything else would have been refused.
            let elements = u32::from(tls == ListenTls::Starttls);
            let client = Box::new(client.with_permit(permit));
            (Some(Secured { client, eviction, elements }), Handshake::Established)
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "no TLS");
            (None, Handshake::Failed)
        }
        Err(_) => {
            match permit.address() {
                Some(address) => relay.guards.watch().reached(Limit::HandshakeTimeout, address),
                None => relay.guards.watch().reached(Limit::HandshakeTimeout, "a proxy's"),
            }
            (None, Handshake::Timeout)
        }
    };
    relay.metrics.handshake(outcome, began.elapsed());
    client
}

async fn accept(snapshot: &Snapshot, tcp: TcpStream, host: Option<&str>, direct: bool) -> Result<Client, Failure> {
    // Who says nothing has no state of TLS, nor room for it.
    tcp.readable().await?;
    let config = snapshot.certificates.server_config(host, direct);
    let tls = Box::pin(TlsStream::accept(tcp, config)).await?;
    tracing::debug!(version = ?tls.state().protocol_version(), "TLS is up");
    Ok(Conn::new(tls, snapshot.limits(false)))
}

async fn starttls(relay: &Relay, snapshot: &Snapshot, tcp: TcpStream) -> Result<(TcpStream, String), Failure> {
    let mut conn = Conn::new(tcp, snapshot.limits(false));
    let mut stream = StartTls::new(Arc::clone(&snapshot.domains), rand::random);
    loop {
        while let Some(frame) = next_frame(relay, &mut conn).await? {
            match stream.handle(&frame) {
                StartTlsStep::Wait => {}
                StartTlsStep::Reply(bytes) => conn.reply(&bytes),
                StartTlsStep::Proceed { reply: bytes, host } => {
                    conn.reply(&bytes);
                    conn.flush().await?;
                    return Ok((conn.into_inner(), host));
                }
                StartTlsStep::Refuse(bytes) => {
                    conn.reply(&bytes);
                    conn.finish(FAREWELL).await;
                    return Err(Failure::Refused);
                }
            }
        }
        if conn.event(Io::read_if(!conn.owes_too_much())).await? == ConnEvent::Closed {
            return Err(Failure::Left);
        }
    }
}

/// The next frame; the client hears of bytes that are none.
async fn next_frame(relay: &Relay, conn: &mut Conn<TcpStream>) -> Result<Option<xml::Frame>, Failure> {
    match conn.next_frame() {
        Ok(frame) => Ok(frame),
        Err(error) => {
            conn.reply(&xml::stream_header("", "", None));
            conn.reply(&error.stream_error());
            relay.too_much(&error, false);
            // Nothing more can be done for a peer that is gone already.
            drop(tokio::time::timeout(FAREWELL, conn.flush()).await);
            Err(error.into())
        }
    }
}

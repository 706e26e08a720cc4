//! From an accepted socket to a client over TLS.

use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Client, FAREWELL, Relay};
use crate::config::ListenTls;
use crate::metrics::Handshake;
use crate::net::conn::{Conn, ConnEvent};
use crate::session::starttls::{StartTls, Step};
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

/// Establishes TLS within `handshake_timeout`, and says in the log why not.
pub(super) async fn secure(relay: &Relay, tcp: TcpStream, tls: ListenTls) -> Option<Client> {
    let attempt = async {
        crate::net::tune(&tcp, relay.config.stream_management.write_timeout)?;
        match tls {
            ListenTls::Direct => accept(relay, tcp, None, true).await,
            ListenTls::Starttls => {
                let (tcp, host) = starttls(relay, tcp).await?;
                accept(relay, tcp, Some(&host), false).await
            }
        }
    };
    let began = Instant::now();
    let (client, outcome) = match timeout(relay.config.limits.handshake_timeout, attempt).await {
        Ok(Ok(client)) => (Some(client), Handshake::Established),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no TLS");
            (None, Handshake::Failed)
        }
        Err(_) => {
            tracing::debug!("no TLS within handshake_timeout");
            (None, Handshake::Timeout)
        }
    };
    relay.metrics.handshake(outcome, began.elapsed());
    client
}

async fn accept(relay: &Relay, tcp: TcpStream, host: Option<&str>, direct: bool) -> Result<Client, Failure> {
    let config = relay.certificates.server_config(host, direct);
    let tls = TlsAcceptor::from(config).accept(tcp).await?;
    tracing::debug!(version = ?tls.get_ref().1.protocol_version(), "TLS is up");
    Ok(Conn::new(tls, relay.limits(false)))
}

async fn starttls(relay: &Relay, tcp: TcpStream) -> Result<(TcpStream, String), Failure> {
    let mut conn = Conn::new(tcp, relay.limits(false));
    let mut stream = StartTls::new(Arc::clone(&relay.domains), rand::random);
    loop {
        while let Some(frame) = next_frame(&mut conn).await? {
            match stream.handle(&frame) {
                Step::Wait => {}
                Step::Reply(bytes) => conn.write(&bytes),
                Step::Proceed(bytes, host) => {
                    conn.write(&bytes);
                    conn.flush().await?;
                    return Ok((conn.into_inner(), host));
                }
                Step::Refuse(bytes) => {
                    conn.write(&bytes);
                    conn.finish(FAREWELL).await;
                    return Err(Failure::Refused);
                }
            }
        }
        if conn.event(true).await? == ConnEvent::Closed {
            return Err(Failure::Left);
        }
    }
}

/// The next frame; the client hears of bytes that are none.
async fn next_frame(conn: &mut Conn<TcpStream>) -> Result<Option<xml::Frame>, Failure> {
    match conn.next_frame() {
        Ok(frame) => Ok(frame),
        Err(error) => {
            conn.write(&xml::stream_header("", "", None));
            conn.write(&xml::stream_error(error.condition(), None, None));
            // Nothing more can be done for a peer that is gone already.
            drop(tokio::time::timeout(FAREWELL, conn.flush()).await);
            Err(error.into())
        }
    }
}

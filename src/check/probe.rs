//! Asks a server for its stream features, as a client would see them on this connection.

use std::io;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Host;

/// Bytes; no server sends more before authentication.
const MOST: usize = 64 << 10;

const PLAIN_LEG: &str = "let the server accept log-ins without TLS on loopback. Prosody: c2s_require_encryption = false \
    and allow_unencrypted_plain_auth = true. ejabberd: a listener of ejabberd_c2s on ip: \"127.0.0.1\" with \
    starttls: false and allow_unencrypted_sasl2: true";

/// What a server offers before authentication.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// SASL mechanisms, of RFC 6120 and XEP-0388, each once. Never empty.
    pub(super) mechanisms: Vec<String>,
}

/// Why clients could not log in through this connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("cannot be connected to: {0}")]
    Unreachable(io::Error),
    #[error("no stream features within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    #[error("the connection ended before any stream features: {0}")]
    Ended(io::Error),
    #[error("refused the stream: {0}")]
    Refused(String),
    #[error("sent {MOST} bytes without any stream features")]
    Babble,
    #[error("requires TLS, which this connection does not have")]
    TlsRequired,
    #[error("offers no log-in on this connection")]
    NoMechanisms,
}

impl ProbeError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "start the server, or name the address of its port for client connections",
            Self::Refused(condition) if condition == "host-unknown" => {
                "let the server serve the domain, or name another server"
            }
            Self::TlsRequired | Self::NoMechanisms => PLAIN_LEG,
            Self::Silent(_) | Self::Ended(_) | Self::Refused(_) | Self::Babble => {
                "name the server's port for client connections that do not start with TLS"
            }
        }
    }
}

/// Connects, opens a stream and reads the features, all within `limit`.
pub(super) async fn probe(host: &Host, limit: Duration) -> Result<Offer, ProbeError> {
    let connected = timeout(limit, TcpStream::connect((host.upstream.host.as_str(), host.upstream.port))).await;
    let stream = match connected {
        Ok(stream) => stream.map_err(ProbeError::Unreachable)?,
        Err(_) => return Err(ProbeError::Unreachable(io::ErrorKind::TimedOut.into())),
    };
    match timeout(limit, features(stream, &host.domain)).await {
        Ok(features) => judge(&features?),
        Err(_) => Err(ProbeError::Silent(limit)),
    }
}

/// All that the server sends up to the end of its features, or of its stream error.
async fn features(mut stream: TcpStream, domain: &str) -> Result<Vec<u8>, ProbeError> {
    let header = format!(
        "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>",
        quick_xml::escape::escape(domain)
    );
    stream.write_all(header.as_bytes()).await.map_err(ProbeError::Ended)?;
    let mut received = Vec::with_capacity(4096);
    while received.len() < MOST {
        if stream.read_buf(&mut received).await.map_err(ProbeError::Ended)? == 0 {
            return Err(ProbeError::Ended(io::ErrorKind::UnexpectedEof.into()));
        }
        let ends: [&[u8]; 3] = [b"</stream:features>", b"<stream:features/>", b"</stream:error>"];
        if ends.iter().any(|end| memmem::find(&received, end).is_some()) {
            // The stream is closed for politeness; the answer is complete without it.
            drop(stream.write_all(b"</stream:stream>").await);
            return Ok(received);
        }
    }
    Err(ProbeError::Babble)
}

fn judge(received: &[u8]) -> Result<Offer, ProbeError> {
    let text = String::from_utf8_lossy(received);
    if let Some((_, error)) = text.split_once("<stream:error") {
        let condition = error.split_once('<').map_or("", |(_, rest)| rest);
        let name = condition.split([' ', '/', '>']).next().unwrap_or_default();
        return Err(ProbeError::Refused(name.to_owned()));
    }
    let starttls = text.split_once("<starttls").and_then(|(_, rest)| rest.split_once("</starttls>"));
    if starttls.is_some_and(|(inside, _)| inside.contains("<required")) {
        return Err(ProbeError::TlsRequired);
    }
    let mut mechanisms: Vec<String> = Vec::new();
    for start in text.split("<mechanism").skip(1) {
        // `<mechanisms` begins so, too.
        let Some((_, rest)) = start.split_once('>').filter(|_| !start.starts_with('s')) else {
            continue;
        };
        let name = rest.split('<').next().unwrap_or_default().trim();
        if !name.is_empty() && !mechanisms.iter().any(|known| known == name) {
            mechanisms.push(name.to_owned());
        }
    }
    if mechanisms.is_empty() { Err(ProbeError::NoMechanisms) } else { Ok(Offer { mechanisms }) }
}

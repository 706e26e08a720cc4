//! The way to the XMPP server.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::conn::Conn;
use crate::config::Upstream;
use crate::xml::FrameLimits;

/// A framed connection to the server.
pub type UpstreamConn = Conn<TcpStream>;

/// The server cannot be reached.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No answer in `connect_timeout`.
    #[error("no answer from {upstream} within {patience:?}")]
    Timeout {
        /// The server.
        upstream: Upstream,
        /// `[limits] connect_timeout`.
        patience: Duration,
    },
    /// The connection was refused, or the name is not known.
    #[error("cannot connect to {upstream}: {source}")]
    Io {
        /// The server.
        upstream: Upstream,
        /// What the system says.
        source: io::Error,
    },
}

/// Connects to the server, resolving its name anew.
///
/// # Errors
/// [`ConnectError`] when there is no connection within `patience`.
pub async fn connect(
    upstream: &Upstream,
    patience: Duration,
    write_timeout: Duration,
    limits: FrameLimits,
) -> Result<UpstreamConn, ConnectError> {
    let fail = |source| ConnectError::Io { upstream: upstream.clone(), source };
    let attempt = TcpStream::connect((upstream.host.as_str(), upstream.port));
    let tcp = match timeout(patience, attempt).await {
        Ok(connected) => connected.map_err(fail)?,
        Err(_) => {
            return Err(ConnectError::Timeout { upstream: upstream.clone(), patience });
        }
    };
    super::tune(&tcp, write_timeout).map_err(fail)?;
    Ok(Conn::new(tcp, limits))
}

//! Requests between nodes: one line with a [`NodeRequest`], then the lines of the answer. Lines are JSON ([`crate::net::lines`]).

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::directory::NodeAddress;
use super::hop::{self, HopError};
use super::node_tls::{NodePurpose, NodeTls};
use crate::jid::BareJid;
use crate::net::lines;
use crate::push::affiliation::Affiliation;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;

/// The time in which the other node has to accept the connection and take the request.
const ASKED: Duration = Duration::from_secs(2);

/// A request to another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRequest {
    /// A request of an operator, for that node alone. The answer is the one on the operator's socket.
    Operator(serde_json::Value),
    /// A push service has announced the affiliation of an account that the node owns. The answer is a [`NodeReply`].
    Affiliation {
        /// The account.
        account: BareJid,
        /// The announcement of the push service.
        affiliation: Affiliation,
    },
    /// Publish over the component that the node holds. The answer is a [`NodeReply`].
    Publish {
        /// The account.
        account: BareJid,
        /// The notification.
        publish: Box<Publish>,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeReply {
    /// True if the account has the registration.
    Known(bool),
    /// The publish was sent, with this outcome.
    Published(Outcome),
    /// The request was not carried out. Contains the reason.
    Failed(String),
}

/// Another node has not answered.
#[derive(Debug, thiserror::Error)]
pub enum NodeRequestError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] HopError),
    /// The connection broke, or the answer cannot be read.
    #[error("the answer is incomplete: {0}")]
    Broken(#[from] io::Error),
    /// The node has not taken the request in time.
    #[error("it has not taken the request within {}", humantime::format_duration(ASKED))]
    NotTaken,
    /// The node has not answered in time.
    #[error("no answer within {}", humantime::format_duration(*.within))]
    Late {
        /// The time that it had.
        within: Duration,
    },
    /// The node refuses.
    #[error("{0}")]
    Refused(String),
}

/// An answer that is read line by line.
pub type NodeAnswer = BufReader<TlsStream<TcpStream>>;

/// Connects to another node and ends the connection, to see whether both trust each other.
///
/// # Errors
/// [`NodeRequestError`]
pub async fn probe(tls: &NodeTls, node: &NodeAddress) -> Result<(), NodeRequestError> {
    let connect = async {
        let mut stream = hop::dial(tls, node, NodePurpose::Request, ASKED).await?;
        stream.shutdown().await?;
        Ok(())
    };
    timeout(ASKED, connect).await.unwrap_or(Err(NodeRequestError::NotTaken))
}

/// Sends a request to another node.
///
/// # Errors
/// [`NodeRequestError`]
pub async fn send(
    tls: &NodeTls,
    node: &NodeAddress,
    request: &NodeRequest,
    write_timeout: Duration,
) -> Result<NodeAnswer, NodeRequestError> {
    let asked = async {
        let mut stream = hop::dial(tls, node, NodePurpose::Request, write_timeout).await?;
        stream.write_all(&lines::line(request)?).await?;
        stream.flush().await?;
        Ok(BufReader::new(stream))
    };
    timeout(ASKED, asked).await.unwrap_or(Err(NodeRequestError::NotTaken))
}

/// Sends a request and reads its one answer.
///
/// # Errors
/// [`NodeRequestError`]
pub async fn ask(
    tls: &NodeTls,
    node: &NodeAddress,
    request: &NodeRequest,
    within: Duration,
) -> Result<NodeReply, NodeRequestError> {
    let mut answer = send(tls, node, request, within).await?;
    match timeout(within, lines::read(&mut answer)).await {
        Ok(Ok(Some(NodeReply::Failed(reason)))) => Err(NodeRequestError::Refused(reason)),
        Ok(Ok(Some(reply))) => Ok(reply),
        Ok(Ok(None)) => Err(NodeRequestError::Broken(io::ErrorKind::UnexpectedEof.into())),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(NodeRequestError::Late { within }),
    }
}

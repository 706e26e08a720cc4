//! Requests to other nodes, and the places of those from other nodes ([`NodeRequests`]).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::snapshot::Current;
use crate::cluster::directory::{Directory, LocateError, NodeAddress, Ownership};
use crate::cluster::request::{self, NodeAnswer, NodeReply, NodeRequest, NodeRequestError};
use crate::jid::BareJid;
use crate::net::tls_stream::TlsStream;
use crate::net::wire_io::WireIo;
use crate::push::affiliation::Affiliation;
use crate::session::negotiate::LoginName;
use crate::sync::lock;

/// The time that a node has to answer a request.
const ANSWER: Duration = Duration::from_secs(10);
/// The limit for concurrent requests of other nodes.
const REQUESTS: usize = 64;

/// A request of an operator that came through another node, and its connection.
#[derive(Debug)]
pub struct OperatorRequest {
    /// The request, in JSON.
    pub request: serde_json::Value,
    /// The connection for the answer.
    pub stream: BufReader<WireIo<TlsStream<TcpStream>>>,
}

/// The requests to and from other nodes.
pub struct NodeRequests {
    current: Arc<Current>,
    directory: Directory,
    places: Semaphore,
    /// The receiver of operators' requests, once there is one.
    operator: Mutex<Option<mpsc::Sender<OperatorRequest>>>,
}

impl NodeRequests {
    pub(super) fn new(current: Arc<Current>, directory: Directory) -> Self {
        Self { current, directory, places: Semaphore::new(REQUESTS), operator: Mutex::default() }
    }

    /// Returns the directory of the cluster.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Passes operators' requests from other nodes to this receiver from now on. If it has no room, they are refused.
    pub fn on_operator(&self, receiver: mpsc::Sender<OperatorRequest>) {
        *lock(&self.operator) = Some(receiver);
    }

    /// Takes a place for a request of another node, if there is one.
    pub(super) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// Returns the receiver of operators' requests.
    pub(super) fn operator(&self) -> Option<mpsc::Sender<OperatorRequest>> {
        lock(&self.operator).clone()
    }

    /// Returns the other node that owns an account, if any.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn owner(&self, account: &BareJid) -> Result<Option<NodeAddress>, LocateError> {
        Ok(match self.directory.locate(&LoginName::Account(account.clone())).await? {
            Ownership::Node(node) => Some(*node),
            Ownership::Here | Ownership::Free => None,
        })
    }

    /// Sends an operator's request to another node. The answer is the one on the operator's socket there.
    ///
    /// # Errors
    /// [`NodeRequestError`]
    pub async fn send_operator(
        &self,
        node: &NodeAddress,
        request: serde_json::Value,
    ) -> Result<NodeAnswer, NodeRequestError> {
        let snapshot = self.current.load_full();
        let Some(tls) = &snapshot.node_tls else { return Err(NodeRequestError::Refused("no [cluster]".to_owned())) };
        let write_timeout = snapshot.config.stream_management.write_timeout;
        request::send(tls, node, &NodeRequest::Operator(request), write_timeout).await
    }

    /// Passes an affiliation on to the owner of its account. Returns whether the account has the registration.
    ///
    /// # Errors
    /// [`NodeRequestError`]
    pub(super) async fn send_affiliation(
        &self,
        node: &NodeAddress,
        account: &BareJid,
        affiliation: &Affiliation,
    ) -> Result<bool, NodeRequestError> {
        let snapshot = self.current.load_full();
        let Some(tls) = &snapshot.node_tls else { return Err(NodeRequestError::Refused("no [cluster]".to_owned())) };
        let (account, affiliation) = (account.clone(), affiliation.clone());
        match request::ask(tls, node, &NodeRequest::Affiliation { account, affiliation }, ANSWER).await? {
            NodeReply::Known(known) => Ok(known),
            NodeReply::Published(_) => Err(NodeRequestError::Refused("wrong answer".to_owned())),
            NodeReply::Failed(reason) => Err(NodeRequestError::Refused(reason)),
        }
    }
}

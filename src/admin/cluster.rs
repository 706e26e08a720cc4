//! Requests of operators that concern other nodes of the cluster ([`ClusterHandlers`]).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::answers::{AnswerWriter, Refusal};
use super::handlers::{Handlers, NO_CLUSTER};
use super::protocol::{self, AdminAnswer, AdminRequest, UnreachedNode};
use crate::cluster::directory::NodeAddress;
use crate::relay::Relay;
use crate::relay::node_requests::NodeRequests;
use crate::store::AccountScope;

/// The time that another node has for one line, in addition to the time that a push service may take.
const LINE: Duration = Duration::from_secs(20);

/// Carries out requests on this node and on others.
pub(super) struct ClusterHandlers {
    relay: Arc<Relay>,
    own: Arc<Handlers>,
}

impl ClusterHandlers {
    pub(super) fn new(relay: Arc<Relay>, own: Arc<Handlers>) -> Self {
        Self { relay, own }
    }

    /// Writes all lines of an answer except the last. The returned result becomes the last line.
    ///
    /// # Errors
    /// Returns an error if the operator has disconnected or does not read.
    pub(super) async fn answer(
        &self,
        request: AdminRequest,
        answers: &mut AnswerWriter,
    ) -> io::Result<Result<(), Refusal>> {
        let Some(nodes) = self.relay.node_requests() else {
            let request = if let AdminRequest::OnAllNodes { request } = request { *request } else { request };
            return self.own.answer(request, AccountScope::All, answers).await;
        };
        let owner = match request.account() {
            Some(account) => match nodes.owner(account).await {
                Ok(owner) => owner,
                Err(error) => return Ok(Err(error.to_string())),
            },
            None => None,
        };
        if let Some(owner) = owner {
            self.forward(nodes, &owner, &request, answers).await
        } else if let AdminRequest::OnNode { node, request } = request {
            self.on_node(nodes, node, *request, answers).await
        } else if let AdminRequest::OnAllNodes { request } = request {
            self.on_all(nodes, *request, answers).await
        } else {
            self.own.answer(request, AccountScope::All, answers).await
        }
    }

    /// Answers a request that came through another node.
    ///
    /// # Errors
    /// As [`ClusterHandlers::answer`].
    pub(super) async fn answer_node(
        &self,
        request: AdminRequest,
        answers: &mut AnswerWriter,
    ) -> io::Result<Result<(), Refusal>> {
        match request {
            AdminRequest::Reload
            | AdminRequest::Stop
            | AdminRequest::Upgrade
            | AdminRequest::Nodes
            | AdminRequest::OnNode { .. }
            | AdminRequest::OnAllNodes { .. } => Ok(Err("not allowed from another node".to_owned())),
            request @ (AdminRequest::Status
            | AdminRequest::Sessions
            | AdminRequest::PushList { .. }
            | AdminRequest::PushPing { .. }
            | AdminRequest::PushRemove { .. }
            | AdminRequest::Release { .. }
            | AdminRequest::Forget { .. }
            | AdminRequest::DrainNode) => self.own.answer(request, AccountScope::Own, answers).await,
        }
    }

    fn number(&self) -> Option<u8> {
        self.relay.current().config.cluster.as_ref().map(|cluster| cluster.node.get())
    }

    async fn on_node(
        &self,
        nodes: &NodeRequests,
        node: u8,
        request: AdminRequest,
        answers: &mut AnswerWriter,
    ) -> io::Result<Result<(), Refusal>> {
        if self.number() == Some(node) {
            return self.own.answer(request, AccountScope::Own, answers).await;
        }
        match nodes.directory().living().await {
            Ok(living) => match living.iter().find(|other| other.node.get() == node) {
                Some(other) => self.forward(nodes, other, &request, answers).await,
                None => Ok(Err(format!("node {node} is not running; `pushward node list` lists the nodes"))),
            },
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Asks all nodes that live. The answer of each is labelled with its number.
    async fn on_all(
        &self,
        nodes: &NodeRequests,
        request: AdminRequest,
        answers: &mut AnswerWriter,
    ) -> io::Result<Result<(), Refusal>> {
        let Some(own) = self.number() else { return Ok(Err(NO_CLUSTER.to_owned())) };
        answers.label(Some(own));
        if let Err(unreached) = self.own.answer(request.clone(), AccountScope::OwnAndFree, answers).await? {
            answers.label(None);
            answers.send(&AdminAnswer::Unreached(UnreachedNode { cluster_node: own, unreached })).await?;
        }
        answers.label(None);
        let living = match nodes.directory().living().await {
            Ok(living) => living,
            Err(error) => return Ok(Err(format!("the other nodes are not known: {error}"))),
        };
        for other in living {
            let number = other.node.get();
            answers.label(Some(number));
            let forwarded = self.forward(nodes, &other, &request, answers).await?;
            answers.label(None);
            if let Err(unreached) = forwarded {
                answers.send(&AdminAnswer::Unreached(UnreachedNode { cluster_node: number, unreached })).await?;
            }
        }
        Ok(Ok(()))
    }

    /// Sends a request to another node, and its answer to the operator.
    async fn forward(
        &self,
        nodes: &NodeRequests,
        node: &NodeAddress,
        request: &AdminRequest,
        answers: &mut AnswerWriter,
    ) -> io::Result<Result<(), Refusal>> {
        let mut answer = match nodes.send_operator(node, serde_json::to_value(request)?).await {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let patience = LINE + self.relay.current().config.push.publish_timeout;
        loop {
            match timeout(patience, protocol::read::<AdminAnswer>(&mut answer)).await {
                Ok(Ok(Some(AdminAnswer::End))) => return Ok(Ok(())),
                Ok(Ok(Some(AdminAnswer::Failed { reason }))) => return Ok(Err(reason)),
                Ok(Ok(Some(line))) => answers.send(&line).await?,
                Ok(Ok(None)) => return Ok(Err("it ended before its answer was complete".to_owned())),
                Ok(Err(error)) => return Ok(Err(error.to_string())),
                Err(_) => return Ok(Err("it did not answer in time".to_owned())),
            }
        }
    }
}

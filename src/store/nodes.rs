//! The nodes that share a database, and the owners of accounts.

use std::sync::Arc;

use super::NodeCalls;
use super::error::StoreError;
use super::op::{Effect, Op};
use super::ownership::AccountOwnership;
use super::query::{Query, QueryAnswer};
use super::tasks::{Task, TaskKind, TaskWait, Ticket};
use super::values::{LoginKey, NodeRecord, Slot};
use crate::clock::UnixSecs;
use crate::jid::BareJid;

impl NodeCalls<'_> {
    /// Returns the node that owns the account of a name, if any: the account that logged in with this name last, else
    /// `account`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::NoAnswer`].
    pub async fn owner(
        self,
        name: Option<LoginKey>,
        account: Option<BareJid>,
    ) -> Result<Option<NodeRecord>, StoreError> {
        let QueryAnswer::Nodes(nodes) = self.0.read(Query::Owner { name, account }).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok(nodes.into_iter().next().map(|(node, _)| node))
    }

    /// Returns all nodes that were ever there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::NoAnswer`].
    pub async fn all(self) -> Result<Vec<NodeRecord>, StoreError> {
        Ok(self.read(false).await?.into_iter().map(|(node, _)| node).collect())
    }

    /// Returns all nodes that were ever there, each with the number of accounts that it owns.
    ///
    /// # Errors
    /// As [`NodeCalls::all`].
    pub async fn counted(self) -> Result<Vec<(NodeRecord, u64)>, StoreError> {
        self.read(true).await
    }

    async fn read(self, counted: bool) -> Result<Vec<(NodeRecord, u64)>, StoreError> {
        let QueryAnswer::Nodes(nodes) = self.0.read(Query::Nodes { counted }).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok(nodes)
    }

    /// Changes what other nodes know about this one: the SHA-256 of its certificate, and whether it takes no more clients.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::NoAnswer`], [`StoreError::Unavailable`].
    pub async fn describe(self, certificate: Option<Vec<u8>>, is_draining: Option<bool>) -> Result<(), StoreError> {
        self.0.write(Op::DescribeNode { certificate, is_draining }).await.map(drop)
    }

    /// Makes this node the holder of a component, unless another living node is. Returns the holder.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::NoAnswer`], [`StoreError::Unavailable`].
    pub async fn hold_component(self, jid: &str) -> Result<Option<NodeRecord>, StoreError> {
        if let Some(holder) = self.component_holder(jid).await? {
            return Ok(Some(holder));
        }
        self.0.write(Op::HoldComponent { jid: jid.to_owned() }).await?;
        self.component_holder(jid).await
    }

    async fn component_holder(self, jid: &str) -> Result<Option<NodeRecord>, StoreError> {
        let query = Query::ComponentHolder { jid: jid.to_owned() };
        let QueryAnswer::Nodes(nodes) = self.0.read(query).await? else { return Err(StoreError::WrongAnswer) };
        Ok(nodes.into_iter().next().map(|(node, _)| node))
    }

    /// Notes in the background that an account, which this node owns, logs in with this name, so that other nodes find the
    /// owner.
    pub fn note_login_name(self, account: &BareJid, name: LoginKey) {
        if self.0.shared.owners.is_some() {
            let (ticket, _) = Ticket::without_end();
            let kind = TaskKind::Write(Op::SaveLoginName { account: account.clone(), name });
            let awaited = TaskWait::Sometime;
            let task = Task { kind, weight: 0, awaited, ticket, behalf: None, change: None, is_second_try: false };
            // Without it, a node may learn of the owner only when it claims the account.
            drop(self.0.send(task));
        }
    }

    /// Frees the accounts of dead nodes, closes their sessions and saves wakes for their devices. Returns those devices.
    ///
    /// # Errors
    /// As [`Store::recover`](super::Store::recover).
    pub async fn free_dead(self, now: UnixSecs) -> Result<Vec<Slot>, StoreError> {
        let recover = |revision| Op::Recover { now, revision, kept: Arc::default(), after: None, found: Vec::new() };
        let Effect::Recovered(slots) = self.0.write_many(recover).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok(slots)
    }

    /// Makes this node the owner of the account of a device that is to be woken. `None` if another node owns it, or has woken
    /// the device meanwhile.
    ///
    /// # Errors
    /// As [`Store::claim`](super::Store::claim), except for [`StoreError::Elsewhere`].
    pub async fn claim_wake(self, slot: &Slot) -> Result<Option<AccountOwnership>, StoreError> {
        let ownership = match self.0.claim(&slot.account).await {
            Err(StoreError::Elsewhere { .. }) => return Ok(None),
            claimed => claimed?,
        };
        if self.0.shared.owners.is_none() {
            return Ok(Some(ownership));
        }
        let QueryAnswer::Wakes(noted) = self.0.read(Query::Wake { slot: slot.clone() }).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok((!noted.is_empty()).then_some(ownership))
    }
}

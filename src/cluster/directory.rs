//! [`Directory`]: which node owns an account, and which certificates the nodes of the cluster have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use thiserror::Error;

use super::fingerprint::Fingerprint;
use crate::jid::BareJid;
use crate::node_id::NodeId;
use crate::session::SmId;
use crate::session::negotiate::{LocateRequest, LoginName};
use crate::sync::lock;

/// Another node, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// Its number.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: u32,
    /// The address of its listener for other nodes: a host name or an IP address, and a port.
    pub address: String,
    /// The certificate that it shows there.
    pub certificate: Fingerprint,
}

/// The place of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This node owns it.
    Here,
    /// No living node owns it, or the name is not known.
    Free,
    /// Another living node owns it.
    Node(Box<NodeAddress>),
}

/// The directory cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LocateError {
    /// The database has not answered, or has refused the question. Contains the reason.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
}

/// The directory of the cluster. Clones share it.
///
/// It is a table in memory until the database keeps it: without entries, this node serves all accounts and trusts no certificate.
#[derive(Clone, Debug, Default)]
pub struct Directory(Arc<Mutex<DirectoryTable>>);

#[derive(Debug, Default)]
struct DirectoryTable {
    /// The other nodes.
    nodes: Vec<NodeAddress>,
    /// The accounts that other nodes own.
    owners: HashMap<BareJid, NodeId>,
    /// The answer of the directory instead, in tests.
    #[cfg(test)]
    fault: Option<DirectoryFault>,
}

impl Directory {
    /// Returns the place of the account that logs in with this name.
    ///
    /// # Errors
    /// [`LocateError`].
    pub async fn locate(&self, who: &LoginName) -> Result<Ownership, LocateError> {
        #[cfg(test)]
        self.fail().await?;
        let table = lock(&self.0);
        let owner = who.account().and_then(|account| table.owners.get(&account).copied());
        let node = owner.and_then(|owner| table.nodes.iter().find(|node| node.node == owner));
        Ok(node.map_or(Ownership::Free, |node| Ownership::Node(Box::new(node.clone()))))
    }

    /// Returns the other node whose current epoch a resumption id names, if that node lives.
    ///
    /// # Errors
    /// [`LocateError`].
    pub async fn node_of(&self, id: &SmId) -> Result<Option<NodeAddress>, LocateError> {
        #[cfg(test)]
        self.fail().await?;
        let Some(origin) = id.origin() else { return Ok(None) };
        let is_origin = |node: &&NodeAddress| node.node == origin.node() && origin.may_be_of(node.epoch);
        Ok(lock(&self.0).nodes.iter().find(is_origin).cloned())
    }

    /// Returns whether a node of the cluster has this certificate.
    ///
    /// # Errors
    /// [`LocateError`].
    pub async fn knows_certificate(&self, certificate: &Fingerprint) -> Result<bool, LocateError> {
        #[cfg(test)]
        self.fail().await?;
        Ok(lock(&self.0).nodes.iter().any(|node| node.certificate == *certificate))
    }

    /// Returns the other node to which a client's stream has to be passed on, if any.
    ///
    /// The owner of the account counts first: a session that the client wants to resume may be gone, and its node must not take
    /// an account that another one owns. The node of that session is only used while the account has no owner, which is so for a
    /// name that is not known yet.
    ///
    /// # Errors
    /// [`LocateError`].
    pub async fn other_node(&self, request: &LocateRequest) -> Result<Option<NodeAddress>, LocateError> {
        if let Some(login) = &request.login {
            match self.locate(login).await? {
                Ownership::Here => return Ok(None),
                Ownership::Node(node) => return Ok(Some(*node)),
                Ownership::Free => {}
            }
        }
        match &request.previd {
            Some(previd) => self.node_of(previd).await,
            None => Ok(None),
        }
    }
}

/// A fault of the directory, in tests.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryFault {
    /// It refuses questions.
    Refuses,
    /// It never answers.
    Silent,
}

#[cfg(test)]
impl Directory {
    /// Creates the directory of a node that knows these others.
    pub(crate) fn of(nodes: impl IntoIterator<Item = NodeAddress>) -> Self {
        let directory = Self::default();
        lock(&directory.0).nodes.extend(nodes);
        directory
    }

    /// Notes that another node owns an account.
    pub(crate) fn set_owner(&self, account: &str, node: NodeId) {
        lock(&self.0).owners.insert(BareJid::new(account).unwrap(), node);
    }

    /// Replaces the other nodes.
    pub(crate) fn set_nodes(&self, nodes: impl IntoIterator<Item = NodeAddress>) {
        lock(&self.0).nodes = nodes.into_iter().collect();
    }

    pub(crate) fn set_fault(&self, fault: DirectoryFault) {
        lock(&self.0).fault = Some(fault);
    }

    async fn fail(&self) -> Result<(), LocateError> {
        let fault = lock(&self.0).fault;
        match fault {
            None => Ok(()),
            Some(DirectoryFault::Refuses) => Err(LocateError::Unavailable("refused".to_owned())),
            Some(DirectoryFault::Silent) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;

    fn node(number: u8, epoch: u32) -> NodeAddress {
        let node = NodeId::new(NonZeroU8::new(number).unwrap());
        NodeAddress { node, epoch, address: "127.0.0.1:1".into(), certificate: Fingerprint::new([number; 32]) }
    }

    fn request(authcid: Option<&str>, previd: Option<&str>) -> LocateRequest {
        let login = authcid.map(|authcid| LoginName::Authcid { host: "x.org".into(), authcid: authcid.into() });
        LocateRequest { login, previd: previd.map(SmId::new) }
    }

    async fn found(directory: &Directory, authcid: Option<&str>, previd: Option<&str>) -> Option<u8> {
        directory.other_node(&request(authcid, previd)).await.unwrap().map(|node| node.node.get())
    }

    #[tokio::test]
    async fn the_owner_counts_before_the_node_of_a_session() {
        let directory = Directory::of([node(2, 1), node(3, 0x1_0005)]);
        directory.set_owner("juliet@x.org", node(2, 1).node);
        let rest = "0".repeat(32);
        let (of_third, of_old_third, of_unknown) =
            (format!("030005{rest}"), format!("030004{rest}"), format!("040001{rest}"));
        assert_eq!(found(&directory, Some("juliet"), None).await, Some(2));
        assert_eq!(found(&directory, Some("juliet@x.org"), Some(&of_third)).await, Some(2));
        assert_eq!(found(&directory, Some("alias"), Some(&of_third)).await, Some(3));
        assert_eq!(found(&directory, None, Some(&of_third)).await, Some(3));
        for gone in [&of_old_third, &of_unknown, &rest, "abc"] {
            assert_eq!(found(&directory, Some("romeo"), Some(gone)).await, None, "{gone}");
        }
        assert!(directory.knows_certificate(&Fingerprint::new([3; 32])).await.unwrap());
        assert!(!directory.knows_certificate(&Fingerprint::new([4; 32])).await.unwrap());
    }

    #[tokio::test]
    async fn without_other_nodes_every_account_is_free() {
        let directory = Directory::default();
        assert_eq!(found(&directory, Some("juliet"), None).await, None);
        assert!(!directory.knows_certificate(&Fingerprint::new([0; 32])).await.unwrap());
        directory.set_fault(DirectoryFault::Refuses);
        assert!(directory.other_node(&request(Some("juliet"), None)).await.is_err());
    }
}

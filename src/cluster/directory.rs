//! [`Directory`]: which node owns an account, and which certificates the nodes of the cluster have.

#[cfg(test)]
use std::collections::HashMap;
use std::num::NonZeroU8;
#[cfg(test)]
use std::sync::{Arc, Mutex, MutexGuard};

use thiserror::Error;

use super::fingerprint::Fingerprint;
#[cfg(test)]
use crate::jid::BareJid;
use crate::node_id::NodeId;
use crate::session::SmId;
use crate::session::negotiate::{LocateRequest, LoginName};
use crate::store::{LoginKey, NodeRecord, Store, StoreError};
#[cfg(test)]
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

/// The directory of the cluster: the database. Clones share it.
#[derive(Clone, Debug)]
pub struct Directory(DirectorySource);

#[derive(Clone, Debug)]
enum DirectorySource {
    /// The database that the nodes share, and this node.
    Store(Store, NodeId),
    /// A table in memory.
    #[cfg(test)]
    Table(Arc<Mutex<DirectoryTable>>),
}

impl From<StoreError> for LocateError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl NodeAddress {
    /// Reads the entry of a node. `None` for one without a cluster.
    pub fn of(record: NodeRecord) -> Option<Self> {
        let NodeRecord { id, epoch, address, certificate, .. } = record;
        Some(Self {
            node: NodeId::new(NonZeroU8::new(id)?),
            epoch: epoch_of(epoch),
            address,
            certificate: Fingerprint::new(certificate.try_into().ok()?),
        })
    }
}

/// Returns an epoch as resumption ids name it.
pub fn epoch_of(epoch: i64) -> u32 {
    // Ids compare the lower bits.
    (epoch & i64::from(u32::MAX)).try_into().unwrap_or_default()
}

impl Directory {
    /// Creates the directory of a node: the database that it shares with the others.
    pub fn new(store: Store, node: NodeId) -> Self {
        Self(DirectorySource::Store(store, node))
    }

    /// Returns the place of the account that logs in with this name.
    ///
    /// # Errors
    /// [`LocateError`].
    pub async fn locate(&self, who: &LoginName) -> Result<Ownership, LocateError> {
        match &self.0 {
            DirectorySource::Store(store, own) => {
                let name = match who {
                    LoginName::Authcid { host, authcid } => {
                        Some(LoginKey { host: host.clone(), authcid: authcid.clone() })
                    }
                    LoginName::Account(_) => None,
                };
                Ok(match store.cluster().owner(name, who.account()).await? {
                    Some(owner) if owner.id == own.get() => Ownership::Here,
                    Some(owner) => match NodeAddress::of(owner) {
                        Some(owner) => Ownership::Node(Box::new(owner)),
                        None => return Err(LocateError::Unavailable("the owner's entry is incomplete".to_owned())),
                    },
                    None => Ownership::Free,
                })
            }
            #[cfg(test)]
            DirectorySource::Table(table) => {
                DirectoryTable::fail(table).await?;
                let table = lock(table);
                let owner = who.account().and_then(|account| table.owners.get(&account).copied());
                let node = owner.and_then(|owner| table.nodes.iter().find(|node| node.node == owner));
                Ok(node.map_or(Ownership::Free, |node| Ownership::Node(Box::new(node.clone()))))
            }
        }
    }

    /// Returns the other nodes whose leases hold.
    ///
    /// # Errors
    /// [`LocateError`].
    pub async fn living(&self) -> Result<Vec<NodeAddress>, LocateError> {
        match &self.0 {
            DirectorySource::Store(store, own) => {
                let nodes = store.cluster().all().await?.into_iter();
                Ok(nodes.filter(|node| node.is_alive && node.id != own.get()).filter_map(NodeAddress::of).collect())
            }
            #[cfg(test)]
            DirectorySource::Table(_) => self.others().await,
        }
    }

    /// Returns the other nodes.
    async fn others(&self) -> Result<Vec<NodeAddress>, LocateError> {
        match &self.0 {
            DirectorySource::Store(store, own) => {
                let nodes = store.cluster().all().await?.into_iter().filter(|node| node.id != own.get());
                Ok(nodes.filter_map(NodeAddress::of).collect())
            }
            #[cfg(test)]
            DirectorySource::Table(table) => {
                DirectoryTable::fail(table).await?;
                Ok(lock(table).nodes.clone())
            }
        }
    }

    /// Returns the other node whose current epoch a resumption id names, if that node lives.
    ///
    /// # Errors
    /// [`LocateError`].
    pub async fn node_of(&self, id: &SmId) -> Result<Option<NodeAddress>, LocateError> {
        let Some(origin) = id.origin() else { return Ok(None) };
        let is_origin = |node: &NodeAddress| node.node == origin.node() && origin.may_be_of(node.epoch);
        Ok(self.others().await?.into_iter().find(is_origin))
    }

    /// Returns whether a node of the cluster has this certificate.
    ///
    /// # Errors
    /// [`LocateError`].
    pub async fn knows_certificate(&self, certificate: &Fingerprint) -> Result<bool, LocateError> {
        Ok(self.others().await?.iter().any(|node| node.certificate == *certificate))
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

/// A directory in memory, in tests.
#[cfg(test)]
#[derive(Debug, Default)]
struct DirectoryTable {
    /// The other nodes.
    nodes: Vec<NodeAddress>,
    /// The accounts that other nodes own.
    owners: HashMap<BareJid, NodeId>,
    /// The answer of the directory instead.
    fault: Option<DirectoryFault>,
}

#[cfg(test)]
impl Directory {
    /// Creates the directory of a node that knows these others.
    pub(crate) fn of(nodes: impl IntoIterator<Item = NodeAddress>) -> Self {
        let table = DirectoryTable { nodes: nodes.into_iter().collect(), ..DirectoryTable::default() };
        Self(DirectorySource::Table(Arc::new(Mutex::new(table))))
    }

    fn table(&self) -> MutexGuard<'_, DirectoryTable> {
        match &self.0 {
            DirectorySource::Table(table) => lock(table),
            DirectorySource::Store(..) => panic!("the directory is a database"),
        }
    }

    /// Notes that another node owns an account.
    pub(crate) fn set_owner(&self, account: &str, node: NodeId) {
        self.table().owners.insert(BareJid::new(account).unwrap(), node);
    }

    /// Replaces the other nodes.
    pub(crate) fn set_nodes(&self, nodes: impl IntoIterator<Item = NodeAddress>) {
        self.table().nodes = nodes.into_iter().collect();
    }

    pub(crate) fn set_fault(&self, fault: DirectoryFault) {
        self.table().fault = Some(fault);
    }
}

#[cfg(test)]
impl DirectoryTable {
    async fn fail(table: &Mutex<Self>) -> Result<(), LocateError> {
        let fault = lock(table).fault;
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
        let directory = Directory::of([]);
        assert_eq!(found(&directory, Some("juliet"), None).await, None);
        assert!(!directory.knows_certificate(&Fingerprint::new([0; 32])).await.unwrap());
        directory.set_fault(DirectoryFault::Refuses);
        assert!(directory.other_node(&request(Some("juliet"), None)).await.is_err());
    }
}

//! The components of a cluster ([`ComponentHolders`]): a server accepts one stream for a component, so one node holds it, and the
//! others pass their publishes on to that one.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use super::error::UnsentReason;
use super::selection::Attempt;
use crate::jid::BareJid;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::sync::lock;

/// The result of a publish that was passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassedPublish {
    /// The holder has sent it.
    Sent(Outcome),
    /// It was not sent. Contains the reason.
    NotSent(String),
}

/// A publish that is on its way to the holder.
pub type PassingOn<'a> = Pin<Box<dyn Future<Output = PassedPublish> + Send + 'a>>;

/// The way to the nodes that hold components.
pub trait HolderNodes: Send + Sync {
    /// Passes a publish on to the node that holds the component of the account's host.
    fn pass_on<'a>(&'a self, account: &'a BareJid, publish: &'a Publish) -> PassingOn<'a>;
}

/// The components that this process holds. Without a cluster, these are all.
#[derive(Default)]
pub(super) struct ComponentHolders(Mutex<HolderState>);

#[derive(Default)]
struct HolderState {
    /// The hosts whose components this node holds; `None` without a cluster.
    held: Option<HashSet<String>>,
    nodes: Option<Arc<dyn HolderNodes>>,
}

impl ComponentHolders {
    /// Creates the state of a node of a cluster, which holds nothing yet.
    pub(super) fn of_node() -> Self {
        Self(Mutex::new(HolderState { held: Some(HashSet::new()), nodes: None }))
    }

    pub(super) fn set_nodes(&self, nodes: Arc<dyn HolderNodes>) {
        lock(&self.0).nodes = Some(nodes);
    }

    /// Notes which components this node holds. Returns whether that is new.
    pub(super) fn set_held(&self, hosts: HashSet<String>) -> bool {
        let mut state = lock(&self.0);
        let is_new = state.held.as_ref() != Some(&hosts);
        state.held = Some(hosts);
        is_new
    }

    /// Returns whether this process holds the component of a host.
    pub(super) fn is_held(&self, host: &str) -> bool {
        lock(&self.0).held.as_ref().is_none_or(|held| held.contains(host))
    }

    /// Passes a publish on to the node that holds the component of the account's host.
    pub(super) async fn pass_on(&self, account: &BareJid, publish: &Publish) -> Attempt {
        let nodes = lock(&self.0).nodes.clone();
        let Some(nodes) = nodes else { return Attempt::Skipped(UnsentReason::NoComponent) };
        match nodes.pass_on(account, publish).await {
            PassedPublish::Sent(outcome) => Attempt::Done(outcome),
            PassedPublish::NotSent(reason) => Attempt::Skipped(UnsentReason::Holder(reason)),
        }
    }
}

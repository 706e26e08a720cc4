//! The components of a node of a cluster ([`Components`]): this node holds them, or passes publishes on to the node that does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::select;
use tokio::time::sleep;

use super::publishing::Publishing;
use super::shared::Relay;
use super::snapshot::Current;
use crate::clock::Instant;
use crate::cluster::directory::NodeAddress;
use crate::cluster::request::{self, NodeReply, NodeRequest, NodeRequestError};
use crate::jid::BareJid;
use crate::publish::{HolderNodes, PassedPublish, PassingOn};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::store::StoreError;
use crate::sync::lock;

/// The interval between two looks at the holders.
const LOOK: Duration = Duration::from_secs(5);
/// The time that the holder has beyond `publish_timeout`.
const GRACE: Duration = Duration::from_secs(5);

/// The nodes that hold the components of hosts, as they were last seen.
pub(super) struct Components {
    current: Arc<Current>,
    holders: Mutex<HashMap<String, NodeAddress>>,
}

impl Components {
    pub(super) fn new(current: Arc<Current>) -> Self {
        Self { current, holders: Mutex::default() }
    }

    async fn send(&self, account: &BareJid, publish: &Publish) -> PassedPublish {
        let Some(holder) = lock(&self.holders).get(account.domain()).cloned() else {
            return PassedPublish::NotSent("it is not known".to_owned());
        };
        let snapshot = self.current.load_full();
        let Some(tls) = &snapshot.node_tls else { return PassedPublish::NotSent("no [cluster]".to_owned()) };
        let request = NodeRequest::Publish { account: account.clone(), publish: Box::new(publish.clone()) };
        let within = snapshot.config.push.publish_timeout + GRACE;
        match request::ask(tls, &holder, &request, within).await {
            Ok(NodeReply::Published(outcome)) => PassedPublish::Sent(outcome),
            Ok(NodeReply::Known(_) | NodeReply::Failed(_)) => PassedPublish::NotSent("wrong answer".to_owned()),
            Err(error @ (NodeRequestError::Connect(_) | NodeRequestError::Refused(_) | NodeRequestError::NotTaken)) => {
                PassedPublish::NotSent(error.to_string())
            }
            // It has the request, and may have sent the publish.
            Err(NodeRequestError::Broken(_) | NodeRequestError::Late { .. }) => PassedPublish::Sent(Outcome::Unknown),
        }
    }
}

impl HolderNodes for Components {
    fn pass_on<'a>(&'a self, account: &'a BareJid, publish: &'a Publish) -> PassingOn<'a> {
        Box::pin(self.send(account, publish))
    }
}

/// Publishes over a component that this node holds, for another node.
pub(super) async fn publish(publishing: &Publishing, account: &BareJid, publish: Publish) -> NodeReply {
    let Some(permit) = publishing.permit() else {
        return NodeReply::Failed("its publishing is interrupted".to_owned());
    };
    match publishing.publish_passed(&permit, account, publish).await {
        PassedPublish::Sent(outcome) => NodeReply::Published(outcome),
        PassedPublish::NotSent(reason) => NodeReply::Failed(reason),
    }
}

/// Holds the components that no other living node holds, until it is dropped. Does nothing without a cluster.
pub(super) async fn keep(relay: &Relay) {
    let (Some(lease), Some(_)) = (relay.store().lease(), relay.directory()) else { return };
    let components = Arc::new(Components::new(relay.shared_current()));
    relay.publishing().pass_on_to(Arc::clone(&components) as _);
    let mut deaths = lease.deaths();
    let mut before = HashSet::new();
    loop {
        // Without a lease, another node may hold them.
        let found = if lease.is_valid(Instant::now()) { look(relay, &components).await } else { Ok(HashSet::new()) };
        match found {
            Ok(held) => {
                for host in held.difference(&before) {
                    tracing::info!(host, "this node holds the component");
                }
                for host in before.difference(&held) {
                    tracing::info!(host, "this node does not hold the component any more");
                }
                relay.publishing().hold(held.clone());
                before = held;
            }
            Err(error) => tracing::debug!(%error, "holders of components not known"),
        }
        select! {
            changed = deaths.changed() => if changed.is_err() { return },
            () = sleep(LOOK) => {}
        }
    }
}

/// Takes what is free. Returns the hosts whose components this node holds.
async fn look(relay: &Relay, components: &Components) -> Result<HashSet<String>, StoreError> {
    let config = Arc::clone(&relay.current().config);
    let Some(own) = config.cluster.as_ref().map(|cluster| cluster.node.get()) else { return Ok(HashSet::new()) };
    let (mut held, mut others) = (HashSet::new(), HashMap::new());
    for host in &config.hosts {
        let Some(component) = &host.component else { continue };
        match relay.store().cluster().hold_component(&component.domain).await? {
            Some(holder) if holder.id == own => {
                held.insert(host.domain.clone());
            }
            Some(holder) => others.extend(NodeAddress::of(holder).map(|node| (host.domain.clone(), node))),
            None => {}
        }
    }
    *lock(&components.holders) = others;
    Ok(held)
}

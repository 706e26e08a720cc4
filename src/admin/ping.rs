//! Sends test notifications on the operator's command, to show whether a push service can be reached.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::protocol::{Ping, PingOutcome, shortened};
use crate::clock::Instant;
use crate::jid::BareJid;
use crate::push::notification::{Publish, Summary};
use crate::push::registration::Registration;
use crate::relay::Relay;

/// Publishes to registrations of an account, all at the same time. Returns the outcome of each.
pub(super) async fn ping(relay: &Arc<Relay>, account: &BareJid, registrations: Vec<Registration>) -> Vec<Ping> {
    let pings = registrations.into_iter().map(|r| one(Arc::clone(relay), account.clone(), r));
    let mut pings: JoinSet<Ping> = pings.collect();
    let mut answers = Vec::new();
    while let Some(answer) = pings.join_next().await {
        answers.extend(answer);
    }
    answers.sort_by(|a, b| (a.service.as_str(), &a.node).cmp(&(b.service.as_str(), &b.node)));
    answers
}

async fn one(relay: Arc<Relay>, account: BareJid, registration: Registration) -> Ping {
    let started = Instant::now();
    let summary = Summary::wake(&relay.current().config.push.settings);
    let published = relay.publish(&account, Publish::new(&registration, summary, rand::random())).await;
    let (outcome, condition) = PingOutcome::of(published.outcome);
    Ping {
        service: registration.target.service,
        node: registration.target.node.as_deref().map(shortened),
        transport: published.transport.map(|transport| transport.name().to_owned()),
        outcome,
        condition,
        millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

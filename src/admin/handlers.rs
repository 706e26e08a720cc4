//! [`Handlers`]: carries out the commands of the operator, with data from the relay and the store.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::answers::{AnswerWriter, Refusal};
use super::entries::{registration_entry, session_entry};
use super::numbers::DaemonNumbers;
use super::ping::ping;
use super::protocol::{
    AdminAnswer, AdminRequest, Forgotten, ListedNode, NodeDraining, NodeState, Released, Reloaded, Removed,
    SessionState, Stopping, Upgrading,
};
use super::selection::{Selection, select};
use super::store_queries::{StoreQueries, Unanswered};
use crate::clock::Instant;
use crate::daemon::{Controls, ReloadReport};
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId};
use crate::push::guard::Guard;
use crate::relay::Relay;
use crate::store::{AccountScope, NodeRecord, Slot, StoreError};

/// The number of accounts that are read from disk at once.
const PAGE: usize = 256;
/// The time that a command waits for the database, each time.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of commands that the database works on at the same time.
const COMMANDS: usize = 16;
/// The answer to a request about other nodes where there are none.
pub(super) const NO_CLUSTER: &str = "the daemon is no node of a cluster: there is no [cluster] in its configuration";
/// The answer to an upgrade that is requested during another one.
const BUSY: &str = "another upgrade is in progress; `pushward status` shows its result";

/// The handlers of the operator's commands.
pub(super) struct Handlers {
    relay: Arc<Relay>,
    controls: Controls,
    numbers: Arc<DaemonNumbers>,
    queries: StoreQueries,
    /// Held while an upgrade is requested.
    upgrading: Mutex<()>,
}

impl Handlers {
    pub(super) fn new(relay: Arc<Relay>, controls: Controls, numbers: Arc<DaemonNumbers>) -> Self {
        Self { relay, controls, numbers, queries: StoreQueries::new(COMMANDS, PATIENCE), upgrading: Mutex::default() }
    }

    /// Writes all lines of an answer of this node except the last. The returned result becomes the last line. `listed`: the
    /// accounts of which registrations are listed.
    ///
    /// # Errors
    /// Returns an error if the operator has disconnected or does not read.
    pub(super) async fn answer(
        &self,
        request: AdminRequest,
        listed: AccountScope,
        answers: &mut AnswerWriter,
    ) -> io::Result<Result<(), Refusal>> {
        let one = match request {
            AdminRequest::Sessions => return self.sessions(answers).await,
            AdminRequest::PushList { account: Some(account) } => return self.list(&account, answers).await,
            AdminRequest::PushList { account: None } => return self.list_all(listed, answers).await,
            AdminRequest::Nodes => return self.nodes(answers).await,
            AdminRequest::OnNode { .. } | AdminRequest::OnAllNodes { .. } => Err(NO_CLUSTER.to_owned()),
            AdminRequest::DrainNode => self.drain_node().await.map(AdminAnswer::NodeDraining),
            AdminRequest::PushPing { account, service, node } => {
                return self.ping(&account, &Selection { service, node }, answers).await;
            }
            AdminRequest::Status => self.numbers.status().await.map(AdminAnswer::Status).map_err(refusal),
            AdminRequest::PushRemove { account, service, node } => {
                let selection = Selection { service: Some(service), node };
                self.remove(&account, &selection).await.map(AdminAnswer::Removed)
            }
            AdminRequest::Reload => Ok(AdminAnswer::Reloaded(self.reload().await)),
            AdminRequest::Stop => self.stop().await.map(AdminAnswer::Stopping),
            AdminRequest::Upgrade => self.upgrade().await.map(AdminAnswer::Upgrading),
            AdminRequest::Release { account } => self.release(&account).await.map(AdminAnswer::Released),
            AdminRequest::Forget { account } => self.forget(account).await.map(AdminAnswer::Forgotten),
        };
        match one {
            Ok(answer) => answers.send(&answer).await.map(Ok),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    async fn nodes(&self, answers: &mut AnswerWriter) -> io::Result<Result<(), Refusal>> {
        if self.relay.node_requests().is_none() {
            return Ok(Err(NO_CLUSTER.to_owned()));
        }
        let store = self.relay.store().clone();
        let nodes = match self.ask(async move { store.cluster().counted().await }).await {
            Ok(nodes) => nodes,
            Err(error) => return Ok(Err(refusal(error))),
        };
        for (NodeRecord { id, address, is_alive, is_draining, .. }, accounts) in nodes {
            let state = match (is_alive, is_draining) {
                (true, false) => NodeState::Up,
                (true, true) => NodeState::Draining,
                (false, _) => NodeState::Dead,
            };
            answers.send(&AdminAnswer::Node(ListedNode { node: id, address, state, accounts })).await?;
        }
        Ok(Ok(()))
    }

    async fn drain_node(&self) -> Result<NodeDraining, Refusal> {
        let Some(cluster) = self.relay.current().config.cluster.clone() else { return Err(NO_CLUSTER.to_owned()) };
        let sessions = self.controls.node.drain().await?;
        Ok(NodeDraining { draining: cluster.node.get(), sessions })
    }

    async fn reload(&self) -> Reloaded {
        match self.controls.reloader.reload().await {
            ReloadReport::Done(notes) => Reloaded { done: true, notes, problems: Vec::new() },
            ReloadReport::Refused(problems) => Reloaded { done: false, notes: Vec::new(), problems },
        }
    }

    async fn stop(&self) -> Result<Stopping, Refusal> {
        self.controls.process.stop().await.map(|()| Stopping { stopping: true })
    }

    async fn upgrade(&self) -> Result<Upgrading, Refusal> {
        let Ok(_upgrading) = self.upgrading.try_lock() else { return Err(BUSY.to_owned()) };
        // Before the request: the handover that follows begins later.
        let began = Instant::now();
        let from = env!("CARGO_PKG_VERSION").to_owned();
        self.controls.process.upgrade().await.map(|()| Upgrading { from, began })
    }

    async fn sessions(&self, answers: &mut AnswerWriter) -> io::Result<Result<(), Refusal>> {
        let store = self.relay.store().clone();
        let backlogs = match self.ask(async move { store.backlogs().await }).await {
            Ok(backlogs) => backlogs,
            Err(error) => return Ok(Err(refusal(error))),
        };
        let mut sessions = self.relay.registry().all();
        sessions.sort_by(|a, b| (a.account(), a.resource()).cmp(&(b.account(), b.resource())));
        for handle in sessions {
            let slot = Slot { account: handle.account().clone(), device: handle.device() };
            let backlog = backlogs.get(&slot).copied().unwrap_or_default();
            answers.send(&AdminAnswer::Session(session_entry(&handle, backlog))).await?;
        }
        Ok(Ok(()))
    }

    async fn list(&self, account: &BareJid, answers: &mut AnswerWriter) -> io::Result<Result<(), Refusal>> {
        match self.account(account).await {
            Ok(state) => self.send_registrations(account, &state, answers).await.map(Ok),
            Err(error) => Ok(Err(refusal(error))),
        }
    }

    async fn list_all(&self, listed: AccountScope, answers: &mut AnswerWriter) -> io::Result<Result<(), Refusal>> {
        let mut after = None;
        loop {
            let store = self.relay.store().clone();
            let page = match self.ask(async move { store.accounts_of(listed, after, PAGE).await }).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(refusal(error))),
            };
            for (account, state) in &page.accounts {
                self.send_registrations(account, state, answers).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(Ok(()));
            }
        }
    }

    async fn send_registrations(
        &self,
        account: &BareJid,
        state: &Account,
        answers: &mut AnswerWriter,
    ) -> io::Result<()> {
        for r in &state.registrations {
            let service_status = self.relay.service_status(account, &r.target);
            let registration = registration_entry(account, state, r, self.state(account, r.device), service_status);
            answers.send(&AdminAnswer::Registration(registration)).await?;
        }
        Ok(())
    }

    /// Returns the best state among the sessions of a device.
    fn state(&self, account: &BareJid, device: DeviceId) -> SessionState {
        let sessions = self.relay.registry().sessions(account);
        let own = sessions.iter().filter(|handle| handle.device() == device);
        own.map(|handle| SessionState::from(handle.reach())).max().unwrap_or(SessionState::None)
    }

    async fn ping(
        &self,
        account: &BareJid,
        selection: &Selection,
        answers: &mut AnswerWriter,
    ) -> io::Result<Result<(), Refusal>> {
        let state = match self.account(account).await {
            Ok(state) => state,
            Err(error) => return Ok(Err(refusal(error))),
        };
        let registrations = match select(&state, selection) {
            Ok(registrations) => registrations.into_iter().cloned().collect(),
            Err(refusal) => return Ok(Err(refusal)),
        };
        for answer in ping(&self.relay, account, registrations).await {
            answers.send(&AdminAnswer::Ping(answer)).await?;
        }
        Ok(Ok(()))
    }

    async fn remove(&self, account: &BareJid, selection: &Selection) -> Result<Removed, Refusal> {
        let state = self.account(account).await.map_err(refusal)?;
        let selected = select(&state, selection)?;
        let registrations = selected.len();
        let Some(first) = selected.first() else { return Ok(Removed { registrations }) };
        // If the registrations were selected by node, all have the same node.
        let node = first.target.node.clone().filter(|_| selection.node.is_some());
        let service = first.target.service.clone();
        let change = Change::Disable { service: service.clone(), node };
        let (relay, of) = (Arc::clone(&self.relay), account.clone());
        let changed = self.ask(async move { relay.change_account(&of, change).await }).await;
        changed.map_err(follows)?;
        tracing::info!(%account, %service, registrations, "registrations removed by the operator");
        Ok(Removed { registrations })
    }

    /// Releases the stanzas that are set aside for an account's devices, so that they are delivered again.
    async fn release(&self, account: &BareJid) -> Result<Released, Refusal> {
        let state = self.account(account).await.map_err(refusal)?;
        let stanzas = state.devices.iter().filter_map(|device| state.guard(device.id)).map(Guard::count).sum();
        if stanzas == 0 {
            return Err(self.nothing_set_aside(account, &state));
        }
        let (relay, of) = (Arc::clone(&self.relay), account.clone());
        let changed = self.ask(async move { relay.change_account(&of, Change::Released).await }).await;
        changed.map_err(follows)?;
        tracing::info!(%account, stanzas, "stanzas released by the operator");
        Ok(Released { stanzas })
    }

    /// Returns the reason why there is nothing to release for an account.
    fn nothing_set_aside(&self, account: &BareJid, state: &Account) -> Refusal {
        let domain = account.domain();
        if !state.devices.is_empty() {
            format!("nothing is set aside for {account}")
        } else if self.relay.current().config.hosts.iter().any(|host| host.domain == domain) {
            format!("nothing is known about {account}")
        } else {
            format!("no [[host]] has the domain {domain}")
        }
    }

    /// Deletes all data of an account. Held sessions end first. Sessions with a connected client continue, and the data that
    /// they need is stored again.
    async fn forget(&self, account: BareJid) -> Result<Forgotten, Refusal> {
        let relay = Arc::clone(&self.relay);
        self.ask(forget(relay, account)).await.map_err(follows)
    }

    async fn ask<T: Send + 'static>(
        &self,
        query: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let answer = self.queries.ask(query).await;
        self.numbers.count_late(answer)
    }

    async fn account(&self, account: &BareJid) -> Result<Account, Unanswered> {
        let (store, account) = (self.relay.store().clone(), account.clone());
        self.ask(async move { store.account(&account).await }).await
    }
}

async fn forget(relay: Arc<Relay>, account: BareJid) -> Result<Forgotten, StoreError> {
    let held = relay.end_held(&account).await;
    // A record that cannot be read is deleted, too.
    let state = relay.store().account(&account).await.unwrap_or_default();
    relay.revoke_tokens(&account);
    relay.store().change(&account, Change::Removed).await?;
    tracing::info!(%account, "account forgotten by the operator");
    let live = relay.remember_live(&account, &state).await?;
    let (devices, registrations) = (state.devices.len(), state.registrations.len());
    Ok(Forgotten { account, devices, registrations, held, live })
}

fn refusal(error: Unanswered) -> Refusal {
    error.to_string()
}

/// Returns the reason why a change was not made, or not yet.
fn follows(error: Unanswered) -> Refusal {
    match error {
        Unanswered::Late => format!("{error}; the change may still be made once the database answers"),
        Unanswered::Failed(_) => error.to_string(),
    }
}

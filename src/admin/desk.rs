//! Answers what the operator asks, from what the relay knows.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::history::{History, Sample};
use super::overview::{About, Overview};
use super::ping::ping;
use super::protocol::{
    Answer, Forgotten, LastPublish, LastVerdict, PassedOver, PingOutcome, Registration, Released, Reloaded, Removed,
    Request, Session, State, Status, printable, shortened,
};
use super::questions::{Latest, Questions, Unanswered};
use super::servers::Servers;
use super::socket::Answers;
use crate::config::Transport;
use crate::daemon::{Outcome, Reloader};
use crate::jid::{BareJid, Jid};
use crate::metrics::{Disk, Measured, Tally, Wait};
use crate::publish::Standing;
use crate::push::account::{Account, Change, DeviceId};
use crate::push::guard::Guard;
use crate::push::registration;
use crate::registry::Published;
use crate::relay::Handle;
use crate::relay::Relay;
use crate::store::{Backlog, Measures, Slot, StoreError};
use crate::sync::lock;

/// Accounts that are read from the disk at once.
const PAGE: usize = 256;
/// How long numbers of the database and its health are waited for.
const GLANCE: Duration = Duration::from_secs(1);
/// How long a command waits for the database each time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Commands that the database works on at once.
const COMMANDS: usize = 16;

/// Why something was not done, for people.
type Refusal = String;

/// Where the operator is answered.
pub(super) struct Desk {
    relay: Arc<Relay>,
    reloader: Reloader,
    started: Instant,
    history: Mutex<History>,
    servers: Servers,
    disk: Latest<Disk>,
    health: Latest<()>,
    questions: Questions,
    /// Whether the database is late with its numbers, as was logged.
    late: AtomicBool,
}

impl Desk {
    pub(super) fn new(relay: Arc<Relay>, reloader: Reloader) -> Self {
        Self {
            relay,
            reloader,
            started: Instant::now(),
            history: Mutex::default(),
            servers: Servers::default(),
            disk: Latest::new(GLANCE),
            health: Latest::new(GLANCE),
            questions: Questions::new(COMMANDS, PATIENCE),
            late: AtomicBool::new(false),
        }
    }

    /// Whether the daemon ends.
    pub(super) fn is_draining(&self) -> bool {
        self.relay.is_draining()
    }

    /// Names, beside addresses, by which the page may be asked for.
    pub(super) fn names(&self) -> Vec<String> {
        self.relay.current().config.admin.hosts.clone()
    }

    /// Why clients should not be sent here, for people; nothing, if they may.
    pub(super) async fn unready(&self) -> Option<&'static str> {
        if self.is_draining() {
            return Some("draining");
        }
        let store = self.relay.store().clone();
        let health = self.health.ask(async move { store.health().await }).await;
        match self.counted(health) {
            Ok(()) => {}
            Err(error @ Unanswered::Late) => {
                tracing::debug!(%error, "not ready");
                return Some("the database does not answer");
            }
            Err(error @ Unanswered::Failed(_)) => {
                tracing::warn!(%error, "not ready: the store fails");
                return Some("the store fails");
            }
        }
        (!self.servers.any_reachable(&self.relay).await).then_some("no server can be reached")
    }

    /// The metrics of the moment.
    ///
    /// # Errors
    /// Never in practice: a string takes all that is written to it.
    pub(super) async fn metrics(&self) -> Result<String, std::fmt::Error> {
        self.relay.metrics().text(&self.measured().await)
    }

    /// The page's numbers of the moment, and of the last hour.
    pub(super) async fn overview(&self) -> Overview {
        let (measured, metrics) = (self.measured().await, self.relay.metrics());
        let about = About {
            version: env!("CARGO_PKG_VERSION"),
            now: unix(),
            uptime: self.started.elapsed().as_secs(),
            draining: self.is_draining(),
            connections: self.connections(measured.total()),
        };
        Overview::new(about, &measured, metrics.counted(), &self.history())
    }

    /// Looks at the database once, so that there are numbers to show if it does not answer later.
    pub(super) async fn look(&self) {
        // What went wrong was logged.
        drop(self.disk().await);
    }

    /// Adds the numbers of the moment to those of the last hour.
    pub(super) async fn remember(&self) {
        let measured = self.measured().await;
        let connections = self.connections(measured.total());
        let sample = Sample::new(unix(), connections, &measured, &self.relay.metrics().counted());
        self.history().push(sample);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // Numbers are numbers, also where another thread has panicked.
        lock(&self.history)
    }

    fn connections(&self, total: Tally) -> usize {
        self.relay.metrics().connections(total.live + total.suspect)
    }

    async fn measured(&self) -> Measured {
        let mut sessions = self.relay.registry().tally();
        for host in &self.relay.current().config.hosts {
            sessions.entry(host.domain.clone()).or_default();
        }
        Measured { sessions, disk: self.disk().await.ok() }
    }

    /// What is on disk, or was when the database last answered.
    async fn disk(&self) -> Result<Disk, Unanswered> {
        let (store, state) = (self.relay.store().clone(), self.relay.current().config.state.clone());
        let measure = async move {
            let Measures { accounts, wakes, stanzas, bytes, file } = store.measures(&state).await?;
            Ok(Disk { accounts, spooled: stanzas, spool_bytes: bytes, store_bytes: file, wakes_waiting: wakes })
        };
        let answer = self.disk.ask(measure).await;
        let answer = self.counted(answer);
        let late = matches!(answer, Err(Unanswered::Late));
        if late && !self.late.swap(true, Ordering::Relaxed) {
            tracing::error!(within = ?GLANCE, "the database does not answer: its last numbers are shown until it does");
        }
        match answer {
            Err(Unanswered::Late) => self.disk.last().ok_or(Unanswered::Late),
            Err(error) => {
                tracing::error!(%error, "the store cannot be measured");
                Err(error)
            }
            Ok(disk) => {
                if self.late.swap(false, Ordering::Relaxed) {
                    tracing::info!("the database answers again");
                }
                Ok(disk)
            }
        }
    }

    /// Writes all lines of an answer but the last, which says how this ends.
    ///
    /// # Errors
    /// Who asked has gone, or does not read.
    pub(super) async fn answer(&self, request: Request, answers: &mut Answers) -> io::Result<Result<(), Refusal>> {
        let one = match request {
            Request::Sessions => return self.sessions(answers).await,
            Request::PushList { account: Some(account) } => return self.list(&account, answers).await,
            Request::PushList { account: None } => return self.list_all(answers).await,
            Request::PushPing { account, service, node } => {
                let node = node.as_ref().map(|node| node.expose().as_str());
                return self.ping(&account, (service.as_ref(), node), answers).await;
            }
            Request::Status => self.status().await.map(Answer::Status),
            Request::PushRemove { account, service, node } => {
                let node = node.as_ref().map(|node| node.expose().as_str());
                self.remove(&account, &service, node).await.map(Answer::Removed)
            }
            Request::Reload => Ok(Answer::Reloaded(self.reload().await)),
            Request::Release { account } => self.release(&account).await.map(Answer::Released),
            Request::Forget { account } => self.forget(account).await.map(Answer::Forgotten),
        };
        match one {
            Ok(answer) => answers.send(&answer).await.map(Ok),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    async fn reload(&self) -> Reloaded {
        match self.reloader.reload().await {
            Outcome::Done(notes) => Reloaded { done: true, notes, problems: Vec::new() },
            Outcome::Refused(problems) => Reloaded { done: false, notes: Vec::new(), problems },
        }
    }

    async fn status(&self) -> Result<Status, Refusal> {
        let total = self.relay.registry().tally().into_values().fold(Tally::default(), Tally::and);
        let disk = self.disk().await.map_err(refusal)?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.started.elapsed().as_secs(),
            draining: self.is_draining(),
            connections: self.connections(total),
            live: total.live,
            suspect: total.suspect,
            dark: total.dark,
            queued: total.queued,
            queue_bytes: total.queue_bytes,
            accounts: disk.accounts,
            spooled: disk.spooled,
            spool_bytes: disk.spool_bytes,
            wakes_waiting: disk.wakes_waiting,
        })
    }

    async fn sessions(&self, answers: &mut Answers) -> io::Result<Result<(), Refusal>> {
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
            answers.send(&Answer::Session(session(&handle, backlog))).await?;
        }
        Ok(Ok(()))
    }

    async fn list(&self, account: &BareJid, answers: &mut Answers) -> io::Result<Result<(), Refusal>> {
        match self.account(account).await {
            Ok(state) => self.tell_registrations(account, &state, answers).await.map(Ok),
            Err(error) => Ok(Err(refusal(error))),
        }
    }

    async fn list_all(&self, answers: &mut Answers) -> io::Result<Result<(), Refusal>> {
        let mut after = None;
        loop {
            let store = self.relay.store().clone();
            let page = match self.ask(async move { store.accounts(after, PAGE).await }).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(refusal(error))),
            };
            for (account, state) in &page.accounts {
                self.tell_registrations(account, state, answers).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(Ok(()));
            }
        }
    }

    async fn tell_registrations(&self, account: &BareJid, state: &Account, answers: &mut Answers) -> io::Result<()> {
        for r in &state.registrations {
            let Standing { next, last, passed_over, one_way_until } = self.relay.standing(account, &r.target);
            let registration = Registration {
                account: account.clone(),
                resource: state.device(r.device).map(|device| device.resource.clone()),
                service: r.target.service.clone(),
                node: r.target.node.as_deref().map(shortened),
                state: self.state(account, r.device),
                errors: r.errors,
                last_success: r.last_success,
                undelivered_since: r.undelivered_since,
                last_seen: r.last_seen,
                transport: next.map(|transport| transport.name().to_owned()),
                last: last.map(last_publish),
                passed_over: passed_over.into_iter().map(passed).collect(),
                bidi_off_until: one_way_until.map(unix_of),
            };
            answers.send(&Answer::Registration(registration)).await?;
        }
        Ok(())
    }

    /// Whether a device is there, in any of its sessions.
    fn state(&self, account: &BareJid, device: DeviceId) -> State {
        let sessions = self.relay.registry().sessions(account);
        let own = sessions.iter().filter(|handle| handle.device() == device);
        own.map(|handle| State::from(handle.reach())).max().unwrap_or(State::None)
    }

    async fn ping(
        &self,
        account: &BareJid,
        filter: (Option<&Jid>, Option<&str>),
        answers: &mut Answers,
    ) -> io::Result<Result<(), Refusal>> {
        let state = match self.account(account).await {
            Ok(state) => state,
            Err(error) => return Ok(Err(refusal(error))),
        };
        let registrations = match select(&state, filter) {
            Ok(registrations) => registrations.into_iter().cloned().collect(),
            Err(refusal) => return Ok(Err(refusal)),
        };
        for answer in ping(&self.relay, account, registrations).await {
            answers.send(&Answer::Ping(answer)).await?;
        }
        Ok(Ok(()))
    }

    async fn remove(&self, account: &BareJid, service: &Jid, node: Option<&str>) -> Result<Removed, Refusal> {
        let state = self.account(account).await.map_err(refusal)?;
        let selected = select(&state, (Some(service), node))?;
        let registrations = selected.len();
        // Selected by one node, all have that one.
        let node = node.and(selected.first()).and_then(|r| r.target.node.clone());
        let change = Change::Disable { service: service.clone(), node };
        let (relay, of) = (Arc::clone(&self.relay), account.clone());
        let changed = self.ask(async move { relay.change_account(&of, change).await }).await;
        changed.map_err(follows)?;
        tracing::info!(%account, %service, registrations, "registrations removed by the operator");
        Ok(Removed { registrations })
    }

    /// Puts the stanzas back in their places that are set aside for an account's devices.
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

    /// The reason why there is nothing to release for an account.
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

    /// Deletes all that is kept about an account. Held sessions end before; those with their client go on, and what they
    /// need for that is written anew.
    async fn forget(&self, account: BareJid) -> Result<Forgotten, Refusal> {
        let relay = Arc::clone(&self.relay);
        self.ask(forget(relay, account)).await.map_err(follows)
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let answer = self.questions.ask(question).await;
        self.counted(answer)
    }

    fn counted<T>(&self, answer: Result<T, Unanswered>) -> Result<T, Unanswered> {
        answer.inspect_err(|error| match error {
            Unanswered::Late => self.relay.metrics().deadline_passed(Wait::Admin),
            Unanswered::Failed(_) => {}
        })
    }

    async fn account(&self, account: &BareJid) -> Result<Account, Unanswered> {
        let (store, account) = (self.relay.store().clone(), account.clone());
        self.ask(async move { store.account(&account).await }).await
    }
}

async fn forget(relay: Arc<Relay>, account: BareJid) -> Result<Forgotten, StoreError> {
    let held = relay.end_held(&account).await;
    // A record that cannot be read is deleted all the same.
    let state = relay.store().account(&account).await.unwrap_or_default();
    relay.store().change(&account, Change::Removed).await?;
    tracing::info!(%account, "account forgotten by the operator");
    let live = relay.remember_live(&account, &state).await?;
    let (devices, registrations) = (state.devices.len(), state.registrations.len());
    Ok(Forgotten { account, devices, registrations, held, live })
}

fn session(handle: &Handle, backlog: Backlog) -> Session {
    let (notes, (queued, queue_bytes)) = (handle.notes(), handle.queued());
    Session {
        jid: Jid::new(&format!("{}/{}", handle.account().as_str(), handle.resource())).to_string(),
        state: handle.reach().into(),
        since: handle.since().get(),
        client: notes.peer,
        queued,
        queue_bytes,
        spooled: backlog.count,
        spool_bytes: backlog.bytes,
        set_aside: handle.set_aside(),
        services: notes.services,
        push: notes.push.map(last_publish),
        verdict: notes.verdict.map(|(verdict, at)| LastVerdict { verdict: verdict.to_owned(), at: at.get() }),
    }
}

fn unix() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Unix seconds of a time of day.
fn unix_of(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn last_publish((published, at): (Published, SystemTime)) -> LastPublish {
    let (outcome, condition) = PingOutcome::of(published.outcome);
    let transport = published.transport.map(|transport| transport.name().to_owned());
    LastPublish { transport, outcome, condition, at: unix_of(at) }
}

fn passed((transport, reason): (Transport, String)) -> PassedOver {
    PassedOver { transport: transport.name().to_owned(), reason: printable(&reason) }
}

fn refusal(error: Unanswered) -> Refusal {
    error.to_string()
}

/// Why a change was not made, or not yet.
fn follows(error: Unanswered) -> Refusal {
    match error {
        Unanswered::Late => format!("{error}; it may be done once the database answers"),
        Unanswered::Failed(_) => error.to_string(),
    }
}

/// The registrations that an operator means; a node is named in full, or as it is listed if that names one only.
fn select<'a>(
    account: &'a Account,
    (service, node): (Option<&Jid>, Option<&str>),
) -> Result<Vec<&'a registration::Registration>, Refusal> {
    let at = account.registrations.iter().filter(|r| service.is_none_or(|service| r.target.service == *service));
    let at: Vec<_> = at.collect();
    let Some(node) = node else { return some(at) };
    let exactly: Vec<_> = at.iter().copied().filter(|r| r.target.node.as_deref() == Some(node)).collect();
    if !exactly.is_empty() {
        return Ok(exactly);
    }
    let listed = |r: &&registration::Registration| r.target.node.as_deref().is_some_and(|is| shortened(is) == node);
    let like: Vec<_> = at.into_iter().filter(listed).collect();
    if like.len() > 1 {
        return Err("more than one node is listed like that; write it in full".to_owned());
    }
    some(like)
}

fn some(found: Vec<&registration::Registration>) -> Result<Vec<&registration::Registration>, Refusal> {
    if found.is_empty() { Err("there is no such registration".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::registration::Target;

    fn account(registrations: &[(&str, Option<&str>)]) -> Account {
        let registration = |(service, node): &(&str, Option<&str>)| registration::Registration {
            target: Target { service: service.parse().unwrap(), node: node.map(str::to_owned) },
            options: None,
            device: DeviceId(1),
            last_seen: 0,
            errors: 0,
            last_success: None,
            undelivered_since: None,
            extensions: Default::default(),
        };
        let registrations = registrations.iter().map(registration).collect();
        Account { registrations, ..Account::default() }
    }

    fn check(filter: (Option<&str>, Option<&str>), expect: Result<&[&str], &str>) {
        let nodes = ["secret-one", "secret-two", "other-node-here", "…(3)"];
        let mut registrations: Vec<_> = nodes.iter().map(|node| ("push.example.net", Some(*node))).collect();
        registrations.push(("push.example.com", None));
        let account = account(&registrations);
        let service = filter.0.map(|service| service.parse().unwrap());
        let found = select(&account, (service.as_ref(), filter.1));
        let found: Result<Vec<_>, _> =
            found.map(|all| all.iter().map(|r| r.target.node.as_deref().unwrap_or("-")).collect());
        assert_eq!(found.as_deref().map_err(String::as_str), expect, "{filter:?}");
    }

    #[test]
    fn registrations_are_named_by_service_and_node_or_by_what_is_listed() {
        let net = Some("push.example.net");
        check((None, None), Ok(&["secret-one", "secret-two", "other-node-here", "…(3)", "-"]));
        check((Some("push.example.com"), None), Ok(&["-"]));
        check((Some("push.example.org"), None), Err("there is no such registration"));
        check((net, Some("secret-two")), Ok(&["secret-two"]));
        check((net, Some("oth…(15)")), Ok(&["other-node-here"]));
        check((net, Some("…(3)")), Ok(&["…(3)"]));
        check((net, Some("oth")), Err("there is no such registration"));
        check((net, Some("se…(10)")), Err("more than one node is listed like that; write it in full"));
    }
}

//! Performs publishes: the choice of transport, and the transports.
//!
//! | file | holds |
//! |---|---|
//! | `selection.rs` | [`Choice`], [`selection::Trial`]: what is tried, and in which order |
//! | `stream.rs`, `exchange.rs`, `pending.rs` | a stream of our own: when it is up, what passes, which publishes are not answered yet |
//! | `component.rs` | `component`: as a component of the server (XEP-0114) |
//! | `s2s/` | `s2s`: as the domain itself, over a stream of its own to the push service |
//! | `session.rs` | `session`: through the user's own upstream stream, where the server stamps the full JID |
//! | `probe.rs` | how far each of them comes, without notifying anybody |
//! | `namespace.rs` | stanzas from one content namespace to another |

mod component;
mod exchange;
mod namespace;
mod pending;
pub mod probe;
mod s2s;
pub mod selection;
pub mod session;
mod stream;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use dashmap::DashMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::config::Transport;
use crate::jid::BareJid;
use crate::metrics::Fates;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::registry::Registry;
use crate::relay::snapshot::{Current, Snapshot};
pub(crate) use s2s::dial::Dialer;

pub(crate) use s2s::Revocation;
use s2s::{Around, Pool};
use selection::{Attempt, Choice, Published, Standing};
use stream::{Job, Line, Patience};

/// How long a transport may take to be ready for a publish.
const READY: Duration = Duration::from_secs(5);
/// Affiliations that may wait; more are dropped and counted.
const REVOCATIONS: usize = 256;

/// The ways of one publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The operator does not want this push service: `services`.
    NotAllowed,
    /// The user's own session alone.
    Session,
    /// Some of several.
    Choice,
}

/// Publishes by whatever transport is fit.
pub struct Publisher {
    current: Arc<Current>,
    registry: Arc<Registry>,
    choice: Mutex<Choice>,
    /// The queue of each host's component.
    components: DashMap<String, mpsc::Sender<Job>>,
    pool: Pool,
    /// The affiliations that push services send, until they are taken.
    revocations: Mutex<Option<mpsc::Receiver<Revocation>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Publisher {
    /// A publisher that ends its streams when `shutdown` is cancelled. Inside a runtime.
    pub fn new(current: Arc<Current>, registry: Arc<Registry>, (fates, shutdown): (Fates, &CancellationToken)) -> Self {
        let tasks = TaskTracker::new();
        let (sender, receiver) = mpsc::channel(REVOCATIONS);
        let around = Around { registry: &registry, revocations: sender, fates, shutdown, tasks: &tasks };
        let pool = Pool::new(Arc::clone(&current), around);
        let (choice, components, shutdown) = (Mutex::default(), DashMap::new(), shutdown.clone());
        let revocations = Mutex::new(Some(receiver));
        let publisher = Self { current, registry, choice, components, pool, revocations, tasks, shutdown };
        publisher.connect_components();
        publisher
    }

    /// Another configuration is current. Streams under the one `before` finish what they have; new ones go by this.
    pub fn reloaded(&self, before: &Snapshot) {
        let now = self.current.load_full();
        self.with_choice(|choice| *choice = Choice::default());
        self.pool.renew();
        self.components.retain(|domain, _| now.component(domain) == before.component(domain));
        self.connect_components();
    }

    /// The affiliations that push services send, for the task that checks and stores them. `None` if they were taken before.
    pub(crate) fn revocations(&self) -> Option<mpsc::Receiver<Revocation>> {
        self.revocations.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Connects those that are not yet.
    fn connect_components(&self) {
        let snapshot = self.current.load_full();
        let config = &snapshot.config;
        for domain in config.hosts.iter().map(|host| &host.domain) {
            let Some(component) = snapshot.component(domain).filter(|_| !self.components.contains_key(domain)) else {
                continue;
            };
            let (sender, jobs) = mpsc::channel(stream::QUEUE);
            let span = tracing::info_span!("component", domain = %component.domain);
            let peer = component::Server::new(Arc::clone(config), domain.clone(), component.clone());
            let patience =
                Patience { answer: config.push.publish_timeout, write: config.stream_management.write_timeout };
            let line = Line { peer: Arc::new(peer), jobs, patience, shutdown: self.shutdown.clone() };
            self.tasks.spawn(line.run().instrument(span));
            self.components.insert(domain.clone(), sender);
        }
    }

    /// Waits until all streams are closed.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Which ways there are for a publish of an account, now.
    pub fn way(&self, account: &BareJid, target: &Target) -> Way {
        let snapshot = self.current.load();
        if !snapshot.config.push.allows(&target.service) {
            return Way::NotAllowed;
        }
        if snapshot.config.push.transports == [Transport::Session] {
            return Way::Session;
        }
        match self.fit(account, target).as_slice() {
            [Transport::Session] => Way::Session,
            _ => Way::Choice,
        }
    }

    /// Whether some transport may publish for an account that has no session.
    pub fn needs_no_session(&self, account: &BareJid, target: &Target) -> bool {
        self.current.load().config.push.allows(&target.service)
            && self.fit(account, target).iter().any(|transport| *transport != Transport::Session)
    }

    /// Publishes for an account: what was written is not written again, unless it was refused because of whom it was from.
    pub async fn publish(&self, account: &BareJid, publish: Publish) -> Published {
        if !self.current.load().config.push.allows(&publish.target.service) {
            return Published { transport: None, outcome: Outcome::Refused("not-allowed".to_owned()) };
        }
        let target = publish.target.clone();
        let published = self.try_all(account, publish).await;
        self.ended(&target, published.clone());
        published
    }

    /// A publish has come to its end, by the user's own session or in any other way.
    pub fn ended(&self, target: &Target, published: Published) {
        let end = (published, SystemTime::now());
        self.with_choice(|choice| choice.ended(Instant::now(), target.service.domain(), end));
    }

    /// How things are with the push service of a registration, as far as this process has seen.
    pub fn standing(&self, account: &BareJid, target: &Target) -> Standing {
        let allowed = self.current.load().config.push.allows(&target.service);
        let fit = if allowed { self.fit(account, target) } else { Vec::new() };
        let domain = target.service.domain();
        let now = (Instant::now(), SystemTime::now());
        let one_way = self.pool.one_way_until(domain).filter(|_| fit.contains(&Transport::S2s));
        let one_way_until = one_way.map(|until| now.1 + until.saturating_duration_since(now.0));
        let standing = self.with_choice(|choice| choice.standing(now.0, domain, &fit));
        Standing { one_way_until, ..standing }
    }

    async fn try_all(&self, account: &BareJid, publish: Publish) -> Published {
        let service = publish.target.service.domain().to_owned();
        let fit = self.fit(account, &publish.target);
        let mut trial = self.with_choice(|choice| choice.trial(Instant::now(), &service, fit));
        while let Some(transport) = trial.next_transport() {
            let attempt = self.attempt(transport, account, publish.clone()).await;
            let reason = match &attempt {
                Attempt::Skipped(reason) => reason.clone(),
                Attempt::Done(outcome) => format!("{outcome:?}"),
            };
            match trial.tried(transport, attempt) {
                Some(published) => {
                    let worked = (transport, &trial);
                    self.with_choice(|choice| choice.worked(Instant::now(), &service, worked));
                    return published;
                }
                None => self.tell(&service, transport, &reason),
            }
        }
        trial.end()
    }

    /// Why a transport was passed over, once.
    fn tell(&self, service: &str, transport: Transport, reason: &str) {
        let transport_name = transport.name();
        if self.with_choice(|choice| choice.is_news(Instant::now(), service, (transport, reason))) {
            tracing::warn!(%service, transport = transport_name, %reason, "transport passed over");
        } else {
            tracing::debug!(%service, transport = transport_name, %reason, "transport passed over");
        }
    }

    async fn attempt(&self, transport: Transport, account: &BareJid, publish: Publish) -> Attempt {
        match transport {
            Transport::S2s => stream::submit((account, publish), READY, |job| self.pool.enqueue(job)).await,
            Transport::Component => match self.components.get(account.domain()).map(|queue| queue.clone()) {
                Some(queue) => stream::submit((account, publish), READY, |job| enqueue(&queue, job)).await,
                None => Attempt::Skipped("no [host.component]".to_owned()),
            },
            Transport::Session => {
                let patience = self.current.load().config.push.publish_timeout + session::GRACE;
                session::carry(&self.registry, account, (publish, patience)).await
            }
        }
    }

    /// The transports that may be tried, in the configured order.
    fn fit(&self, account: &BareJid, target: &Target) -> Vec<Transport> {
        let host = account.domain();
        let config = &self.current.load().config;
        let is_fit = |transport: &Transport| match transport {
            Transport::S2s => s2s::is_fit(config, &target.service),
            Transport::Component => component::is_fit(config, host, &target.service),
            Transport::Session => true,
        };
        config.push.transports.iter().copied().filter(is_fit).collect()
    }

    fn with_choice<T>(&self, ask: impl FnOnce(&mut Choice) -> T) -> T {
        // What is remembered is still good where another thread has panicked.
        ask(&mut self.choice.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn enqueue(queue: &mpsc::Sender<Job>, job: Job) -> Result<(), String> {
    queue.try_send(job).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => "publish_queue_full".to_owned(),
        mpsc::error::TrySendError::Closed(_) => "its stream is over".to_owned(),
    })
}

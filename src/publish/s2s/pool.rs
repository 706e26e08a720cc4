//! [`Pool`]: the streams to push services, and the rules for the stanzas that the services may send on them.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::inbound::{self, InboundVerdict};
use super::new_services::NewServices;
use super::one_way::OneWay;
use super::permits::{StreamPermit, StreamPermits};
use crate::clock::Instant;
use crate::config::Config;
use crate::jid::{BareJid, Jid};
use crate::limits::RateLimitedLog;
use crate::metrics::{Fate, Fates};
use crate::publish::answers::AnswerPolicy;
use crate::publish::error::{NoPermit, StreamConnectError, UnsentReason};
use crate::publish::interruption::UnderWay;
use crate::publish::namespace;
use crate::publish::peer::{PeerLink, PublishJob, Reaction, StreamPeer, StreamTimeouts};
use crate::publish::settings::CurrentSettings;
use crate::publish::stream::{self, PublishQueue, StreamTask};
use crate::push::affiliation::Affiliation;
use crate::registry::{NotTaken, Sessions};
use crate::sync::lock;
use crate::xml::{Element, StreamCondition};

/// Our host and the push service's domain.
type Ends = (String, String);

/// The streams to push services: one for each host and push service, as long as publishes need it.
pub(in crate::publish) struct Pool {
    shared: Arc<PoolState>,
    under_way: Arc<UnderWay>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

struct PoolState {
    current: Arc<CurrentSettings>,
    sessions: Arc<dyn Sessions>,
    streams: DashMap<Ends, PublishQueue>,
    new_services: Mutex<NewServices>,
    one_way: Mutex<OneWay>,
    permits: Arc<StreamPermits>,
    revocations: mpsc::Sender<Revocation>,
    fates: Fates,
    drops: RateLimitedLog,
}

/// The knowledge about push services, for another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::publish) struct PoolRecord {
    new_services: NewServices,
    one_way: OneWay,
}

/// The limit for entries (streams that are up, connecting, in backoff or unused), per stream that may be up.
const STREAMS: usize = 16;

/// The number of elements that a push service may send on one stream although they are not stanzas. Servers exchange such
/// elements with each other.
const OTHERS: u32 = 16;

/// An affiliation that a push service sent.
#[derive(Debug)]
pub struct Revocation {
    /// The account that the affiliation is for.
    pub account: BareJid,
    /// The registration and the affiliation.
    pub affiliation: Affiliation,
    /// The channel for the reply: whether the account has the registration.
    pub reply: oneshot::Sender<bool>,
}

/// The parts of the process that the streams use.
pub(in crate::publish) struct PoolEnvironment<'a> {
    pub(in crate::publish) sessions: Arc<dyn Sessions>,
    pub(in crate::publish) revocations: mpsc::Sender<Revocation>,
    pub(in crate::publish) fates: Fates,
    pub(in crate::publish) under_way: Arc<UnderWay>,
    pub(in crate::publish) shutdown: &'a CancellationToken,
    pub(in crate::publish) tasks: &'a TaskTracker,
}

/// Returns whether a push service may be connected from one of our hosts at all. Our own hosts are
/// excluded, and so is this machine unless there is a route.
pub(in crate::publish) fn is_fit(config: &Config, service: &Jid) -> bool {
    let domain = service.domain();
    let routed = config.push.routes.iter().any(|route| route.domain == domain);
    let own = config.hosts.iter().any(|host| host.domain == domain);
    // RFC 6761 §6.3: such names mean this machine. A name without letters is an address.
    let local = domain == "localhost" || domain.ends_with(".localhost") || !domain.contains(char::is_alphabetic);
    !own && (routed || !local && !domain.starts_with('['))
}

impl Pool {
    /// Creates an empty pool.
    pub(in crate::publish) fn new(current: Arc<CurrentSettings>, environment: PoolEnvironment<'_>) -> Self {
        let PoolEnvironment { sessions, revocations, fates, under_way, shutdown, tasks } = environment;
        let shared = PoolState {
            current,
            sessions,
            streams: DashMap::new(),
            new_services: Mutex::default(),
            one_way: Mutex::default(),
            permits: Arc::default(),
            revocations,
            fates,
            drops: RateLimitedLog::default(),
        };
        Self { shared: Arc::new(shared), under_way, shutdown: shutdown.clone(), tasks: tasks.clone() }
    }

    /// Removes all streams from the pool. They finish their pending publishes. New publishes use new streams.
    pub(in crate::publish) fn replace_streams(&self) {
        self.shared.streams.clear();
    }

    /// Returns the time until which no answers are requested on the stream of a push service, because it has sent more than
    /// answers.
    pub(in crate::publish) fn one_way_until(&self, domain: &str) -> Option<Instant> {
        self.shared.one_way().until(Instant::now(), domain)
    }

    /// Returns what is known about push services, for another process.
    pub(in crate::publish) fn freeze(&self) -> PoolRecord {
        PoolRecord { new_services: self.shared.new_services().clone(), one_way: self.shared.one_way().clone() }
    }

    /// Continues with the knowledge of another process.
    pub(in crate::publish) fn thaw(&self, record: PoolRecord) {
        *self.shared.new_services() = record.new_services;
        *self.shared.one_way() = record.one_way;
    }

    /// Adds a publish to the queue of its stream.
    pub(in crate::publish) fn enqueue(&self, job: PublishJob) -> Result<(), UnsentReason> {
        let account = &job.account;
        let domain = job.publish.target.service.domain().to_owned();
        if !self.shared.new_services().may_connect(Instant::now(), account, &domain) {
            return Err(UnsentReason::TooManyNewServices);
        }
        let ends = (account.domain().to_owned(), domain);
        let most = self.shared.current.load().config.push.s2s_connections.saturating_mul(STREAMS);
        let full = self.shared.streams.len() >= most;
        match self.shared.streams.entry(ends.clone()) {
            Entry::Vacant(_) if full => Err(UnsentReason::TooManyOutOfReach),
            Entry::Vacant(vacant) => stream::enqueue(&vacant.insert(self.start(ends)), job),
            Entry::Occupied(occupied) => stream::enqueue(occupied.get(), job),
        }
    }

    fn start(&self, ends: Ends) -> PublishQueue {
        let (queue, jobs) = stream::queue();
        let config = &self.shared.current.load().config;
        let timeouts =
            StreamTimeouts { answer: config.push.publish_timeout, write: config.stream_management.write_timeout };
        let span = tracing::info_span!("s2s", from = %ends.0, to = %ends.1);
        let peer = Service { shared: Arc::clone(&self.shared), ends };
        let interruption = self.under_way.interruption();
        let task = StreamTask { peer: Arc::new(peer), jobs, timeouts, interruption, shutdown: self.shutdown.clone() };
        self.tasks.spawn(task.run().instrument(span));
        queue
    }
}

impl PoolState {
    fn new_services(&self) -> MutexGuard<'_, NewServices> {
        lock(&self.new_services)
    }

    fn one_way(&self) -> MutexGuard<'_, OneWay> {
        lock(&self.one_way)
    }
}

/// A push service, for one of our hosts.
struct Service {
    shared: Arc<PoolState>,
    ends: Ends,
}

impl StreamPeer for Service {
    type Permit = StreamPermit;

    fn admit(&self, account: Option<&BareJid>) -> Result<StreamPermit, NoPermit> {
        let account = account.ok_or(NoPermit::Unwanted)?;
        let most = self.shared.current.load().config.push.s2s_connections;
        self.shared.permits.take(account, most)
    }

    async fn dial(&self) -> Result<PeerLink, StreamConnectError> {
        let (us, peer) = &self.ends;
        let dialer = Arc::clone(&self.shared.current.load().dialer);
        let one_way = self.shared.one_way().until(Instant::now(), peer);
        let wanted = one_way.map_or(AnswerPolicy::OnStream, |_| AnswerPolicy::ToServer);
        let link = dialer.dial(us, peer, wanted).await?;
        self.shared.new_services().on_connected(peer);
        Ok(link)
    }

    fn on_stanza(&self, stanza: Element, answers: AnswerPolicy) -> Reaction {
        if answers == AnswerPolicy::ToServer {
            // The stream is one-way (RFC 6120 §10.1), so the peer does not route stanzas to us over it.
            return self.done(Fate::Ignored);
        }
        let (us, peer) = &self.ends;
        match inbound::judge(&stanza.node(), us, peer) {
            InboundVerdict::Foreign => Reaction::Close(StreamCondition::InvalidFrom),
            InboundVerdict::Misdirected => Reaction::Close(StreamCondition::HostUnknown),
            InboundVerdict::Stray => self.done(Fate::Ignored),
            InboundVerdict::Answer(to) => self.done(self.deliver(&to, stanza)),
            InboundVerdict::Affiliation(account, affiliation) => self.ask(account, affiliation, &stanza),
            InboundVerdict::Refused => Reaction::Refuse(refusal(&stanza)),
        }
    }

    fn on_other(&self, before: u32) -> Reaction {
        if before < OTHERS {
            return self.done(Fate::Ignored);
        }
        Reaction::Close(StreamCondition::UnsupportedStanzaType)
    }

    fn on_misuse(&self) {
        let (_, peer) = &self.ends;
        self.shared.one_way().note(Instant::now(), peer);
        tracing::warn!("push service sent more than answers: closing stream, bidi off for one day");
    }

    fn count_refused(&self) {
        self.shared.fates.count(Fate::Refused);
    }

    fn count_dropped(&self) {
        self.shared.fates.count(Fate::Dropped);
        if let Some(suppressed) = self.shared.drops.next() {
            tracing::warn!(suppressed, "push service messages about registrations dropped: too many at once");
        }
    }

    fn count_late(&self, stanzas: u64) {
        if stanzas > 0 {
            self.shared.fates.count_many(Fate::Late, stanzas);
            tracing::info!(stanzas, "stanzas after end of stream ignored");
        }
    }

    fn retire(&self) -> bool {
        // Under the map's lock: a publish that is not in the queue now will go into the queue of a new stream.
        self.shared.streams.remove_if(&self.ends, |_, queue| queue.capacity() == queue.max_capacity()).is_some()
    }

    fn is_eager(&self) -> bool {
        false
    }
}

/// Returns the error for the sender of a refused stanza, if the sender gets one.
fn refusal(stanza: &Element) -> Option<Bytes> {
    let node = stanza.node();
    inbound::is_returned(&node).then(|| namespace::busy(&node))
}

impl Service {
    fn done(&self, fate: Fate) -> Reaction {
        self.shared.fates.count(fate);
        Reaction::Nothing
    }

    /// Passes an answer to the session that has exactly this full JID. Does not wait.
    fn deliver(&self, to: &Jid, stanza: Element) -> Fate {
        match self.shared.sessions.route(to, stanza) {
            Ok(()) => Fate::Delivered,
            Err(NotTaken::Full(())) => Fate::Dropped,
            Err(NotTaken::Gone(())) => Fate::Ignored,
        }
    }

    /// Asks another task whether the push service may revoke a registration.
    fn ask(&self, account: BareJid, affiliation: Affiliation, stanza: &Element) -> Reaction {
        let (reply, replied) = oneshot::channel();
        match self.shared.revocations.try_send(Revocation { account, affiliation, reply }) {
            Ok(()) => Reaction::Ask(replied, refusal(stanza)),
            Err(_) => {
                self.count_dropped();
                Reaction::Nothing
            }
        }
    }
}

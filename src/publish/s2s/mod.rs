//! The `s2s` transport: as one of our hosts, over a stream of its own to the push service, proven by the host's certificate.
//!
//! | file | holds |
//! |---|---|
//! | `handshake.rs` | from a connection to a stream (RFC 6120, XEP-0178, XEP-0288) |
//! | `endpoints.rs`, `dns.rs` | where the push service is, and what is tried first |
//! | `dial.rs` | connects |
//! | `inbound.rs` | what the push service may send on such a stream |
//! | `one_way.rs` | push services that have sent more than that |
//! | `new_services.rs`, `permits.rs` | how many push services an account may bring, and how many streams it may cause |

pub(super) mod dial;
mod dns;
pub(super) mod endpoints;
mod handshake;
mod inbound;
mod new_services;
mod one_way;
pub(crate) mod permits;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::namespace;
use super::stream::{self, Heard, Job, Line, Link, Patience, Peer};
use crate::config::Config;
use crate::jid::{BareJid, Jid};
use crate::limits::Seldom;
use crate::metrics::{Fate, Fates};
use crate::push::affiliation::Affiliation;
use crate::registry::{NotTaken, Registry};
use crate::relay::snapshot::Current;
use crate::xml::Element;
use inbound::Verdict;
pub(super) use inbound::is_returned;
use new_services::Newcomers;
use one_way::OneWay;
use permits::{Place, Places};

/// Our host and the push service's domain.
type Ends = (String, String);

/// The streams to push services: one for each host and push service, as long as somebody wants it.
pub(super) struct Pool {
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

struct Shared {
    current: Arc<Current>,
    registry: Arc<Registry>,
    lines: DashMap<Ends, mpsc::Sender<Job>>,
    newcomers: Mutex<Newcomers>,
    one_way: Mutex<OneWay>,
    places: Arc<Places>,
    revocations: mpsc::Sender<Revocation>,
    fates: Fates,
    drops: Seldom,
}

/// Streams that are up, being connected, in backoff or remembered, for each that may be up.
const LINES: usize = 16;

/// Elements that are no stanzas, as servers exchange them among each other, which a push service may send on one stream.
const OTHERS: u32 = 16;

/// An affiliation that a push service sent. The reply is whether the account has the registration.
#[derive(Debug)]
pub(crate) struct Revocation {
    pub(crate) account: BareJid,
    pub(crate) told: Affiliation,
    pub(crate) reply: oneshot::Sender<bool>,
}

/// Where the pool hangs.
pub(super) struct Around<'a> {
    pub(super) registry: &'a Arc<Registry>,
    pub(super) revocations: mpsc::Sender<Revocation>,
    pub(super) fates: Fates,
    pub(super) shutdown: &'a CancellationToken,
    pub(super) tasks: &'a TaskTracker,
}

/// Whether a push service may be connected at all from one of our hosts: not where we or our neighbours live, unless there is
/// a route.
pub(super) fn is_fit(config: &Config, service: &Jid) -> bool {
    let domain = service.domain();
    let routed = config.push.routes.iter().any(|route| route.domain == domain);
    let own = config.hosts.iter().any(|host| host.domain == domain);
    // RFC 6761 §6.3: such names are this machine's; and what has no letters is an address.
    let local = domain == "localhost" || domain.ends_with(".localhost") || !domain.contains(char::is_alphabetic);
    !own && (routed || !local && !domain.starts_with('['))
}

impl Pool {
    /// No stream yet.
    pub(super) fn new(current: Arc<Current>, around: Around<'_>) -> Self {
        let Around { registry, revocations, fates, shutdown, tasks } = around;
        let shared = Shared {
            current,
            registry: Arc::clone(registry),
            lines: DashMap::new(),
            newcomers: Mutex::default(),
            one_way: Mutex::default(),
            places: Arc::default(),
            revocations,
            fates,
            drops: Seldom::default(),
        };
        Self { shared: Arc::new(shared), shutdown: shutdown.clone(), tasks: tasks.clone() }
    }

    /// All streams finish what they have; what comes goes by new ones.
    pub(super) fn renew(&self) {
        self.shared.lines.clear();
    }

    /// Until when a push service is not asked for answers on the stream, because it has sent more than that.
    pub(super) fn one_way_until(&self, domain: &str) -> Option<Instant> {
        self.shared.one_way().until(Instant::now(), domain)
    }

    /// Puts a publish into the queue of its stream; the error says why there is none.
    pub(super) fn enqueue(&self, job: Job) -> Result<(), String> {
        let account = &job.account;
        let domain = job.publish.target.service.domain().to_owned();
        if !self.shared.newcomers().may_bring(Instant::now(), account, &domain) {
            return Err("the account has brought too many new push services".to_owned());
        }
        let ends = (account.domain().to_owned(), domain);
        let most = self.shared.current.load().config.push.s2s_connections.saturating_mul(LINES);
        let full = self.shared.lines.len() >= most;
        match self.shared.lines.entry(ends.clone()) {
            Entry::Vacant(_) if full => Err("too many push services are out of reach".to_owned()),
            Entry::Vacant(vacant) => super::enqueue(&vacant.insert(self.start(ends)), job),
            Entry::Occupied(occupied) => super::enqueue(occupied.get(), job),
        }
    }

    fn start(&self, ends: Ends) -> mpsc::Sender<Job> {
        let (sender, jobs) = mpsc::channel(stream::QUEUE);
        let settings = &self.shared.current.load().config;
        let patience =
            Patience { answer: settings.push.publish_timeout, write: settings.stream_management.write_timeout };
        let span = tracing::info_span!("s2s", from = %ends.0, to = %ends.1);
        let peer = Service { shared: Arc::clone(&self.shared), ends };
        let line = Line { peer: Arc::new(peer), jobs, patience, shutdown: self.shutdown.clone() };
        self.tasks.spawn(line.run().instrument(span));
        sender
    }
}

impl Shared {
    fn newcomers(&self) -> std::sync::MutexGuard<'_, Newcomers> {
        // What is remembered is still good where another thread has panicked.
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one_way(&self) -> std::sync::MutexGuard<'_, OneWay> {
        self.one_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A push service, seen from one of our hosts.
struct Service {
    shared: Arc<Shared>,
    ends: Ends,
}

impl Peer for Service {
    type Place = Place;

    fn admit(&self, account: Option<&BareJid>) -> Result<Place, String> {
        let account = account.ok_or("nobody wants the stream")?;
        let most = self.shared.current.load().config.push.s2s_connections;
        Ok(self.shared.places.take(account, most)?)
    }

    async fn dial(&self) -> Result<Link, String> {
        let (us, peer) = &self.ends;
        let dialer = Arc::clone(&self.shared.current.load().dialer);
        let two_way = self.shared.one_way().until(Instant::now(), peer).is_none();
        let link = dialer.dial(us, peer, two_way).await.map_err(|fault| fault.to_string())?;
        self.shared.newcomers().is_there(peer);
        Ok(link)
    }

    fn heard(&self, stanza: Element, answers: bool) -> Heard {
        if !answers {
            // The stream goes one way (RFC 6120 §10.1), so the peer's words are not on its route to us.
            return self.done(Fate::Ignored);
        }
        let (us, peer) = &self.ends;
        match inbound::judge(&stanza.node(), us, peer) {
            Verdict::Foreign => Heard::Close("invalid-from"),
            Verdict::Misdirected => Heard::Close("host-unknown"),
            Verdict::Stray => self.done(Fate::Ignored),
            Verdict::Answer(to) => self.done(self.deliver(&to, stanza)),
            Verdict::Affiliation(account, told) => self.ask(account, told, &stanza),
            Verdict::Refused => Heard::Refuse(refusal(&stanza)),
        }
    }

    fn heard_other(&self, before: u32) -> Heard {
        if before < OTHERS {
            return self.done(Fate::Ignored);
        }
        Heard::Close("unsupported-stanza-type")
    }

    fn misused(&self) {
        let (_, peer) = &self.ends;
        self.shared.one_way().note(Instant::now(), peer);
        tracing::warn!(
            "the push service sent more than answers: the stream ends, and for a day its answers are not asked for"
        );
    }

    fn refused(&self) {
        self.shared.fates.count(Fate::Refused);
    }

    fn dropped(&self) {
        self.shared.fates.count(Fate::Dropped);
        if let Some(suppressed) = self.shared.drops.next() {
            tracing::warn!(suppressed, "too much is said of registrations at once: dropped");
        }
    }

    fn late(&self, stanzas: u64) {
        if stanzas > 0 {
            self.shared.fates.count_many(Fate::Late, stanzas);
            tracing::info!(stanzas, "stanzas behind the footer were not taken");
        }
    }

    fn retire(&self) -> bool {
        // Under the map's lock: what is not in the queue now will be in that of a new line.
        self.shared.lines.remove_if(&self.ends, |_, queue| queue.capacity() == queue.max_capacity()).is_some()
    }

    fn is_eager(&self) -> bool {
        false
    }
}

/// What the sender of a refused stanza gets.
fn refusal(stanza: &Element) -> Option<Bytes> {
    let node = stanza.node();
    inbound::is_returned(&node).then(|| namespace::busy(&node))
}

impl Service {
    fn done(&self, fate: Fate) -> Heard {
        self.shared.fates.count(fate);
        Heard::Nothing
    }

    /// Hands an answer to the session that has exactly this full JID. It waits for nobody.
    fn deliver(&self, to: &Jid, stanza: Element) -> Fate {
        let sessions = self.shared.registry.sessions(&to.to_bare());
        let session = to.resource().and_then(|to| sessions.iter().find(|session| session.resource() == to));
        let Some(session) = session else { return Fate::Ignored };
        match session.route(stanza) {
            Ok(()) => Fate::Delivered,
            Err(NotTaken::Full(_)) => Fate::Dropped,
            Err(NotTaken::Gone(_)) => Fate::Ignored,
        }
    }

    /// Asks whether a registration is this push service's to take back.
    fn ask(&self, account: BareJid, told: Affiliation, stanza: &Element) -> Heard {
        let (reply, replied) = oneshot::channel();
        match self.shared.revocations.try_send(Revocation { account, told, reply }) {
            Ok(()) => Heard::Ask(replied, refusal(stanza)),
            Err(_) => {
                self.dropped();
                Heard::Nothing
            }
        }
    }
}

//! The `s2s` transport: as one of our hosts, over a stream of its own to the push service, proven by the host's certificate.
//!
//! | file | holds |
//! |---|---|
//! | `handshake.rs` | from a connection to a stream (RFC 6120, XEP-0178, XEP-0288) |
//! | `order.rs`, `dns.rs` | where the push service is, and what is tried first |
//! | `dial.rs` | connects |
//! | `inbound.rs` | what the push service may send on such a stream |
//! | `newcomers.rs` | how many push services an account may bring |

pub(super) mod dial;
mod dns;
mod handshake;
mod inbound;
mod newcomers;
pub(super) mod order;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::carry;
use super::line::{self, Heard, Job, Line, Link, Patience, Peer};
use crate::config::Config;
use crate::jid::{BareJid, Jid};
use crate::relay::registry::{Command, Handle, Registry};
use crate::relay::snapshot::Current;
use crate::xml::Element;
use inbound::Verdict;
use newcomers::Newcomers;

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
}

/// Where the pool hangs.
pub(super) struct Around<'a> {
    pub(super) registry: &'a Arc<Registry>,
    pub(super) shutdown: &'a CancellationToken,
    pub(super) tasks: &'a TaskTracker,
}

/// Whether a push service may be connected at all from one of our hosts: not where we or our neighbours live, unless there is
/// a route.
pub(super) fn is_fit(config: &Config, service: &Jid) -> bool {
    let domain = service.domain().as_str();
    let routed = config.push.routes.iter().any(|route| route.domain == domain);
    let own = config.hosts.iter().any(|host| host.domain == domain);
    // RFC 6761 §6.3: such names are this machine's; and what has no letters is an address.
    let local = domain == "localhost" || domain.ends_with(".localhost") || !domain.contains(char::is_alphabetic);
    !own && (routed || !local && !domain.starts_with('['))
}

impl Pool {
    /// No stream yet.
    pub(super) fn new(current: Arc<Current>, around: Around<'_>) -> Self {
        let registry = Arc::clone(around.registry);
        let shared = Shared { current, registry, lines: DashMap::new(), newcomers: Mutex::default() };
        Self { shared: Arc::new(shared), shutdown: around.shutdown.clone(), tasks: around.tasks.clone() }
    }

    /// All streams finish what they have; what comes goes by new ones.
    pub(super) fn renew(&self) {
        self.shared.lines.clear();
    }

    /// Puts a publish into the queue of its stream; the error says why there is none.
    pub(super) fn enqueue(&self, account: &BareJid, job: Job) -> Result<(), String> {
        let domain = job.publish.target.service.domain().as_str().to_owned();
        if !self.shared.newcomers().may_bring(Instant::now(), account, &domain) {
            return Err("the account has brought too many new push services".to_owned());
        }
        let ends = (account.domain().as_str().to_owned(), domain);
        let full = self.shared.lines.len() >= self.shared.current.load().config.push.s2s_connections;
        match self.shared.lines.entry(ends.clone()) {
            Entry::Vacant(_) if full => Err("s2s_connections is reached".to_owned()),
            Entry::Vacant(vacant) => super::enqueue(&vacant.insert(self.start(ends)), job),
            Entry::Occupied(occupied) => super::enqueue(occupied.get(), job),
        }
    }

    fn start(&self, ends: Ends) -> mpsc::Sender<Job> {
        let (sender, jobs) = mpsc::channel(line::QUEUE);
        let settings = &self.shared.current.load().config;
        let patience =
            Patience { answer: settings.push.publish_timeout, write: settings.stream_management.write_timeout };
        let span = tracing::info_span!("s2s", from = %ends.0, to = %ends.1);
        let peer = Service { shared: Arc::clone(&self.shared), ends };
        let line = Line { peer, jobs, patience, shutdown: self.shutdown.clone() };
        self.tasks.spawn(line.run().instrument(span));
        sender
    }
}

impl Shared {
    fn newcomers(&self) -> std::sync::MutexGuard<'_, Newcomers> {
        // What is remembered is still good where another thread has panicked.
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A push service, seen from one of our hosts.
struct Service {
    shared: Arc<Shared>,
    ends: Ends,
}

impl Peer for Service {
    async fn dial(&self) -> Result<Link, String> {
        let (us, peer) = &self.ends;
        let dialer = Arc::clone(&self.shared.current.load().dialer);
        let link = dialer.dial(us, peer).await.map_err(|fault| fault.to_string())?;
        self.shared.newcomers().is_there(peer);
        Ok(link)
    }

    async fn heard(&self, stanza: Element, answers: bool) -> Heard {
        if !answers {
            // The stream goes one way (RFC 6120 §10.1), so the peer's words are not on its route to us.
            return Heard::Nothing;
        }
        let (us, peer) = &self.ends;
        let verdict = inbound::judge(&stanza.node(), us, peer);
        let taken = match &verdict {
            Verdict::Foreign => return Heard::Close("invalid-from"),
            Verdict::Misdirected => return Heard::Close("host-unknown"),
            Verdict::Host => false,
            Verdict::User(to) => self.deliver(to, &stanza),
        };
        let node = stanza.node();
        let returned = match verdict {
            Verdict::Host => carry::is_request(&node),
            Verdict::User(_) | Verdict::Foreign | Verdict::Misdirected => inbound::is_returned(&node),
        };
        if !taken && returned { Heard::Reply(carry::unavailable(&node)) } else { Heard::Nothing }
    }

    fn retire(&self) -> bool {
        // Under the map's lock: what is not in the queue now will be in that of a new line.
        self.shared.lines.remove_if(&self.ends, |_, queue| queue.capacity() == queue.max_capacity()).is_some()
    }

    fn is_eager(&self) -> bool {
        false
    }
}

impl Service {
    /// Hands a stanza to the sessions that it is for (RFC 6121 §8.5), and says whether there is any.
    fn deliver(&self, to: &Jid, stanza: &Element) -> bool {
        let sessions = self.shared.registry.sessions(&to.to_bare());
        let exact = to.resource().and_then(|to| sessions.iter().find(|session| session.resource() == to.as_str()));
        let node = stanza.node();
        let recipients: Vec<&Arc<Handle>> = match exact {
            Some(session) => vec![session],
            // The server answers for the account, and it is not here (RFC 6121 §8.5.2.1.3).
            None if node.name() == "iq" => Vec::new(),
            None if to.resource().is_some() && node.name() == "presence" => Vec::new(),
            None => sessions.iter().collect(),
        };
        for session in &recipients {
            // One that has ended meanwhile has no client to miss it.
            drop(session.offer(Command::Routed(Box::new(stanza.clone()))));
        }
        !recipients.is_empty()
    }
}

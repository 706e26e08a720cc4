//! Requests whose answers concern Pushward: the client's about the account, and its own.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answered::Answered;
use crate::hash::keyed;
use crate::jid::Jid;
use crate::push::outcome::Outcome;
use crate::session::identity::Identity;
use crate::xml::Node;

/// Open queries of the account's features: a client asks a few at a time.
const QUERIES: usize = 32;
/// Publishes whose answers are awaited or, once late, still to be swallowed.
const PUBLISHES: usize = 64;

/// A publish that left through this stream.
#[derive(Clone, Debug)]
pub(super) struct OpenPublish {
    pub(super) id: String,
    /// What the relay knows it by.
    pub(super) number: u64,
    pub(super) service: Jid,
    /// `None` once the outcome was declared unknown: a late answer is still ours.
    pub(super) deadline: Option<Instant>,
}

/// The client's request to remove its account (XEP-0077 §3.2).
#[derive(Clone, Copy, Debug)]
struct AccountRemovalRequest {
    /// A hash of its id; `None` if it has none, so that no answer can confirm it.
    id: Option<u64>,
    since: Instant,
}

/// How long after a request without an id the end of the stream is what became of it.
const REMOVAL: Duration = Duration::from_secs(60);

/// What is remembered about requests until their answers come. Both lists are bounded: the oldest go first.
pub(super) struct Pending {
    identity: Arc<Identity>,
    /// There was a request of Pushward on this stream.
    has_asked: bool,
    /// Hashes of ids: the client chooses how long those are.
    queries: VecDeque<u64>,
    /// The client's request to remove its account.
    removal: Option<Box<AccountRemovalRequest>>,
    publishes: VecDeque<OpenPublish>,
}

impl Pending {
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        Self { identity, has_asked: false, queries: VecDeque::new(), removal: None, publishes: VecDeque::new() }
    }

    /// A new iq id of ours.
    pub(super) fn id(&mut self) -> String {
        self.has_asked = true;
        self.identity.new_request_id()
    }

    /// Whether an answer with this id belongs to a request of ours.
    pub(super) fn is_ours(&self, id: &str) -> bool {
        self.identity.request_ids().is_ours(id)
    }

    /// Whether no answer can concern us: then none need be parsed.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_asked && self.queries.is_empty() && self.removal.is_none()
    }

    /// The client asked for the account's features. A request without an id has no answer that is known as its own.
    pub(super) fn query(&mut self, id: &str) {
        if id.is_empty() {
            return;
        }
        if self.queries.len() == QUERIES {
            self.queries.pop_front();
        }
        let id = self.hash(id);
        self.queries.push_back(id);
    }

    /// Whether this is the answer to the client's query of the account's features.
    fn take_query(&mut self, id: &str) -> bool {
        let id = self.hash(id);
        let found = self.queries.iter().position(|q| *q == id);
        found.is_some_and(|at| self.queries.remove(at).is_some())
    }

    /// The client asks the server to remove its account.
    pub(super) fn removal(&mut self, now: Instant, id: &str) {
        let id = (!id.is_empty()).then(|| self.hash(id));
        self.removal = Some(Box::new(AccountRemovalRequest { id, since: now }));
    }

    /// Nobody who does not know the key can choose ids that collide.
    fn hash(&self, id: &str) -> u64 {
        let mut hasher = keyed(self.identity.request_ids().key());
        id.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether this answer of the server confirms that the account is removed. A refusal is remembered; without an id, it is
    /// the only answer that counts.
    fn take_removal(&mut self, id: &str, kind: &str) -> bool {
        let id = (!id.is_empty()).then(|| self.hash(id));
        let is_answer =
            |removal: &mut Box<AccountRemovalRequest>| removal.id == id && (id.is_some() || kind == "error");
        self.removal.take_if(is_answer).is_some() && kind == "result"
    }

    /// Whether the end of the stream confirms that the account is removed: the request had no id, and was not refused.
    pub(super) fn take_unnamed_removal(&mut self, now: Instant) -> bool {
        self.removal.take_if(|removal| removal.id.is_none()).is_some_and(|removal| now <= removal.since + REMOVAL)
    }

    /// A publish was sent.
    pub(super) fn publish(&mut self, publish: OpenPublish) {
        if self.publishes.len() == PUBLISHES {
            self.publishes.pop_front();
        }
        self.publishes.push_back(publish);
    }

    /// The publish that this answer belongs to: the random id and the right `from`, both. `of_server`: the server says that it
    /// did not arrive, which it may say in its own name.
    fn take_publish(&mut self, id: &str, from: Option<&str>, of_server: bool) -> Option<OpenPublish> {
        let ours = |p: &OpenPublish| {
            let is_service = |from: &str| from == p.service.as_str() || Jid::new(from) == p.service;
            p.id == id && (of_server || from.is_some_and(is_service))
        };
        let at = self.publishes.iter().position(ours)?;
        let publish = self.publishes.remove(at);
        if self.publishes.is_empty() {
            self.publishes = VecDeque::new();
        }
        publish
    }

    /// The next publish whose time is over; its late answer will still be swallowed.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<u64> {
        let late = self.publishes.iter_mut().find(|p| p.deadline.is_some_and(|at| at <= now))?;
        late.deadline = None;
        Some(late.number)
    }

    /// When the next publish is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.publishes.iter().filter_map(|p| p.deadline).min()
    }

    /// Takes an iq: what it answers. `is_server`: it comes from the server itself.
    pub(super) fn on_answer(&mut self, node: &Node<'_>, is_server: bool) -> Answered {
        let (id, Some(kind)) = (node.attr("id").unwrap_or_default(), node.attr("type")) else {
            return Answered::Client;
        };
        if kind != "result" && kind != "error" {
            return Answered::Client;
        }
        if self.is_ours(&id) {
            let of_server = is_server && matches!(Outcome::of(node), Outcome::Wait(_));
            let open = self.take_publish(&id, node.attr("from").as_deref(), of_server);
            let Some(OpenPublish { number, deadline: Some(_), .. }) = open else { return Answered::Late };
            return Answered::Publish { number, outcome: Outcome::of(node) };
        }
        // The ids are the client's, and others may know them.
        if is_server && self.take_removal(&id, &kind) {
            return Answered::Removal;
        }
        if is_server && self.take_query(&id) { Answered::Features } else { Answered::Client }
    }
}

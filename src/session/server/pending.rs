//! Requests whose answers concern Pushward: the client's requests about its account, and Pushward's own requests.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::answered::AnsweredRequest;
use crate::clock::Instant;
use crate::hash::keyed;
use crate::jid::Jid;
use crate::push::outcome::Outcome;
use crate::session::identity::Identity;
use crate::xml::Node;

/// The number of open requests for the account's features. A client sends a few at a time.
const QUERIES: usize = 32;
/// The number of open requests for another password.
const PASSWORDS: usize = 8;
/// The number of publishes whose answers are awaited or, once late, still to be consumed.
const PUBLISHES: usize = 64;

/// A publish that was sent on this stream.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct OpenPublish {
    pub(super) id: String,
    /// The relay's number of the publish.
    pub(super) number: u64,
    pub(super) service: Jid,
    /// `None` once the outcome was declared unknown: a late answer is still ours.
    pub(super) deadline: Option<Instant>,
}

/// The client's request to remove its account (XEP-0077 §3.2).
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct AccountRemovalRequest {
    /// A hash of its id; `None` if it has none, so that no answer can confirm it.
    id: Option<u64>,
    since: Instant,
}

/// The client's open requests that concern the registration of its account (XEP-0077).
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct RegistrationRequests {
    removal: Option<AccountRemovalRequest>,
    /// Hashes of the ids of requests after whose success the passwords of clients are to be proven again.
    passwords: VecDeque<u64>,
}

/// The time after a removal request without an id within which the end of the stream confirms it.
const REMOVAL: Duration = Duration::from_secs(60);

/// Requests that await their answers. The lists are bounded: the oldest entries go first.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Pending {
    #[serde(skip)]
    identity: Arc<Identity>,
    /// True if Pushward has sent a request on this stream.
    has_asked: bool,
    /// Hashes of ids, because the client chooses the length of the ids.
    queries: VecDeque<u64>,
    /// The client's requests about its account's registration. Few clients have any.
    registration: Option<Box<RegistrationRequests>>,
    publishes: VecDeque<OpenPublish>,
}

impl Pending {
    pub(super) fn new(identity: Arc<Identity>, has_asked: bool) -> Self {
        Self { identity, has_asked, queries: VecDeque::new(), registration: None, publishes: VecDeque::new() }
    }

    /// Completes the requests that were read from a record.
    pub(super) fn restore(&mut self, identity: &Arc<Identity>) {
        self.identity = Arc::clone(identity);
    }

    /// Creates an iq id for a request of ours.
    pub(super) fn id(&mut self) -> String {
        self.has_asked = true;
        self.identity.new_request_id()
    }

    /// Returns whether an answer with this id belongs to a request of ours.
    pub(super) fn is_ours(&self, id: &str) -> bool {
        self.identity.request_ids().is_ours(id)
    }

    /// Returns whether no answer can concern us, so that none needs to be parsed.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_asked && self.queries.is_empty() && self.registration.is_none()
    }

    /// Notes a request of the client for the account's features. The answer to a request without an id cannot be
    /// recognized.
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

    /// Returns whether this answers the client's request for the account's features.
    fn take_query(&mut self, id: &str) -> bool {
        let id = self.hash(id);
        let found = self.queries.iter().position(|q| *q == id);
        found.is_some_and(|at| self.queries.remove(at).is_some())
    }

    /// Notes a request of the client to remove its account.
    pub(super) fn removal(&mut self, now: Instant, id: &str) {
        let id = (!id.is_empty()).then(|| self.hash(id));
        self.registration.get_or_insert_default().removal = Some(AccountRemovalRequest { id, since: now });
    }

    /// Notes a request of the client for another password.
    pub(super) fn password(&mut self, id: &str) {
        let id = self.hash(id);
        let passwords = &mut self.registration.get_or_insert_default().passwords;
        if passwords.len() == PASSWORDS {
            passwords.pop_front();
        }
        passwords.push_back(id);
    }

    /// Returns whether this answer of the server confirms another password. A refusal ends the request.
    fn take_password(&mut self, id: &str, kind: &str) -> bool {
        let id = self.hash(id);
        let Some(registration) = &mut self.registration else { return false };
        let found = registration.passwords.iter().position(|known| *known == id);
        let taken = found.and_then(|at| registration.passwords.remove(at));
        self.forget_registration();
        taken.is_some() && kind == "result"
    }

    /// Takes the removal request if it matches.
    fn take_removal_if(
        &mut self,
        matches: impl FnOnce(&AccountRemovalRequest) -> bool,
    ) -> Option<AccountRemovalRequest> {
        let taken = self.registration.as_mut()?.removal.take_if(|removal| matches(removal));
        self.forget_registration();
        taken
    }

    fn forget_registration(&mut self) {
        self.registration.take_if(|open| open.removal.is_none() && open.passwords.is_empty());
    }

    /// Hashes an id with a secret key, so that no one can choose ids that collide.
    fn hash(&self, id: &str) -> u64 {
        let mut hasher = keyed(self.identity.request_ids().key());
        id.hash(&mut hasher);
        hasher.finish()
    }

    /// Returns whether this answer of the server confirms that the account is removed. A refusal ends the request; for a
    /// request without an id, only a refusal counts.
    fn take_removal(&mut self, id: &str, kind: &str) -> bool {
        let id = (!id.is_empty()).then(|| self.hash(id));
        let is_answer = |removal: &AccountRemovalRequest| removal.id == id && (id.is_some() || kind == "error");
        self.take_removal_if(is_answer).is_some() && kind == "result"
    }

    /// Returns whether the end of the stream confirms that the account is removed: the request had no id and was not
    /// refused.
    pub(super) fn take_unnamed_removal(&mut self, now: Instant) -> bool {
        self.take_removal_if(|removal| removal.id.is_none()).is_some_and(|removal| now <= removal.since + REMOVAL)
    }

    /// Notes a publish that was sent.
    pub(super) fn publish(&mut self, publish: OpenPublish) {
        if self.publishes.len() == PUBLISHES {
            self.publishes.pop_front();
        }
        self.publishes.push_back(publish);
    }

    /// Takes the publish that this answer belongs to. Both the random id and `from` must match. `of_server` means that the
    /// server reports that the publish did not arrive; it may do so in its own name.
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

    /// Takes the next publish that is late. Its answer is still not passed to the client.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<u64> {
        let late = self.publishes.iter_mut().find(|p| p.deadline.is_some_and(|at| at <= now))?;
        late.deadline = None;
        Some(late.number)
    }

    /// The time at which the next publish is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.publishes.iter().filter_map(|p| p.deadline).min()
    }

    /// Returns the request that an iq answers. `is_server`: the iq comes from the server itself.
    pub(super) fn on_answer(&mut self, node: &Node<'_>, is_server: bool) -> AnsweredRequest {
        let (id, Some(kind)) = (node.attr("id").unwrap_or_default(), node.attr("type")) else {
            return AnsweredRequest::Client;
        };
        if kind != "result" && kind != "error" {
            return AnsweredRequest::Client;
        }
        if self.is_ours(&id) {
            let of_server = is_server && matches!(Outcome::of(node), Outcome::Wait(_));
            let open = self.take_publish(&id, node.attr("from").as_deref(), of_server);
            let Some(OpenPublish { number, deadline: Some(_), .. }) = open else { return AnsweredRequest::Late };
            return AnsweredRequest::Publish { number, outcome: Outcome::of(node) };
        }
        // The client chose these ids, and others may know them.
        if is_server && self.take_removal(&id, &kind) {
            return AnsweredRequest::Removal;
        }
        if is_server && self.take_password(&id, &kind) {
            return AnsweredRequest::Password;
        }
        if is_server && self.take_query(&id) { AnsweredRequest::Features } else { AnsweredRequest::Client }
    }
}

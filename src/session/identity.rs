//! The data with which a session begins, and its identity.

use std::sync::Arc;

use super::ids::RequestIds;
use super::names::{RandomSource, SmId};
use super::rewrite::fronted;
use super::rewrite::offers::ServerFeatures;
use super::sasl::SaslIdentity;
use super::sender::is_server;
use super::sm;
use crate::clock::{Instant, UnixMillis};
use crate::jid::{BareJid, FullJid, Jid};
use crate::push::account::{Account, DeviceId, DeviceRecognition};
use crate::push::fast::{IssuedToken, TokenMechanism, TokenProof};
use crate::xml::{Element, Frame, Header, HeaderPool, Node};

/// The result of a login, with which a [`Session`](super::Session) begins.
#[derive(Debug)]
pub struct Bound {
    /// The full JID of the server's bind result. It is the session's identity.
    pub jid: FullJid,
    /// The identity that the server accepted, if the SASL mechanism sends it in the clear.
    pub identity: Option<SaslIdentity>,
    /// The header that opened the upstream stream: the client's header of its last restart.
    pub client_header: Arc<Header>,
    /// The header that the server answered with, which the client has received.
    pub server_header: Arc<Header>,
    /// The resumption id that the client presented before without success.
    pub presented: Option<SmId>,
    /// The id of the client's user agent (XEP-0388 §2.3).
    pub agent: Option<String>,
    /// The stream management that the client was given with its bind (XEP-0386 §3).
    pub enabled: Option<sm::nonza::Enabled>,
    /// True if the client indicated with its bind that it is inactive (XEP-0352).
    pub inactive: bool,
    /// The features of the server that Pushward itself uses.
    pub server: ServerFeatures,
    /// Frames that the server sent during the login, after the bind. They come before all others.
    pub early: Vec<Frame>,
    /// The ids of requests that were sent during the login and are not answered. Their answers are not for the client.
    pub asked: Option<RequestIds>,
}

impl Bound {
    /// Creates the result of a login that was bound and asked for nothing else.
    pub fn new(jid: FullJid, client_header: Arc<Header>, server_header: Arc<Header>) -> Self {
        Self {
            jid,
            identity: None,
            client_header,
            server_header,
            presented: None,
            agent: None,
            enabled: None,
            inactive: false,
            server: ServerFeatures::default(),
            early: Vec::new(),
            asked: None,
        }
    }
}

/// The constant data of a session. Its components share it.
pub(super) struct Identity {
    record: IdentityRecord,
    account: BareJid,
    /// A header without declarations: stanzas in the spool depend on no stream.
    bare_header: Arc<Header>,
    random: RandomSource,
}

/// The part of an identity that another process needs to continue the session.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct IdentityRecord {
    jid: FullJid,
    /// The header that opened the stream to the server.
    client_header: Arc<Header>,
    server: ServerFeatures,
    clock: Clock,
    request_ids: RequestIds,
}

impl IdentityRecord {
    /// Shares the header with other headers of the record.
    pub(super) fn share_header(&mut self, headers: &mut HeaderPool<'_>) {
        headers.share(&mut self.client_header);
    }
}

impl Identity {
    pub(super) fn new(
        jid: FullJid,
        client_header: Arc<Header>,
        server: ServerFeatures,
        clock: Clock,
        random: RandomSource,
        request_ids: RequestIds,
    ) -> Self {
        Self::of(IdentityRecord { jid, client_header, server, clock, request_ids }, random)
    }

    /// Continues the identity of a record.
    pub(super) fn of(record: IdentityRecord, random: RandomSource) -> Self {
        Self { account: record.jid.to_bare(), bare_header: Header::bare(), record, random }
    }

    pub(super) fn record(&self) -> &IdentityRecord {
        &self.record
    }

    pub(super) fn jid(&self) -> &FullJid {
        &self.record.jid
    }

    pub(super) fn account(&self) -> &BareJid {
        &self.account
    }

    pub(super) fn domain(&self) -> &str {
        self.record.jid.domain()
    }

    pub(super) fn client_header(&self) -> &Arc<Header> {
        &self.record.client_header
    }

    pub(super) fn bare_header(&self) -> &Arc<Header> {
        &self.bare_header
    }

    pub(super) fn server_has_csi(&self) -> bool {
        self.record.server.csi
    }

    pub(super) fn server_has_sm(&self) -> bool {
        self.record.server.sm
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.record.clock
    }

    pub(super) fn calendar(&self, now: Instant) -> UnixMillis {
        self.record.clock.calendar(now)
    }

    /// Milliseconds on the session's own clock, which wraps after 49 days. Only differences are meaningful.
    pub(super) fn elapsed_ms(&self, now: Instant) -> u32 {
        let passed = now.duration_since(self.record.clock.now).as_millis();
        u32::try_from(passed & u128::from(u32::MAX)).unwrap_or_default()
    }

    /// An unguessable random number.
    pub(super) fn random(&self) -> u128 {
        (self.random)()
    }

    /// Creates an id for an iq request of Pushward itself.
    pub(super) fn new_request_id(&self) -> String {
        self.record.request_ids.next(self.random())
    }

    /// The ids of Pushward's own requests.
    pub(super) fn request_ids(&self) -> &RequestIds {
        &self.record.request_ids
    }

    pub(super) fn random_source(&self) -> RandomSource {
        self.random
    }

    /// Returns whether an answer with this sender comes from the server.
    pub(super) fn is_server(&self, from: Option<&str>) -> bool {
        is_server(from, &self.record.jid)
    }

    pub(super) fn is_account(&self, to: &str) -> bool {
        Jid::new(to) == self.account
    }

    pub(super) fn is_host(&self, to: &str) -> bool {
        Jid::new(to).as_str() == self.domain()
    }

    /// Returns whether a message from another account is addressed to the full JID of this client.
    pub(super) fn is_addressed_from_elsewhere(&self, message: &Node<'_>) -> bool {
        let address = |name: &str| message.attr(name).map(|jid| Jid::new(&jid));
        let (from, to) = (address("from"), address("to"));
        to.is_some_and(|to| to == self.record.jid) && from.is_some_and(|from| from.to_bare() != self.account)
    }
}

/// A placeholder, for components that are read from a record. The session replaces it.
impl Default for Identity {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "a constant")]
        let jid = FullJid::new("account@domain/resource").expect("a full JID");
        let clock = Clock { now: Instant::default(), wall: UnixMillis::default() };
        Self::new(jid, Header::bare(), ServerFeatures::default(), clock, || 0, RequestIds::new(0))
    }
}

/// The device that logged in, and the record of its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The device.
    pub device: DeviceId,
    /// The way in which it was recognized.
    pub recognition: DeviceRecognition,
    /// Its account, as the store has it.
    pub account: Account,
    /// True if spools of the device's earlier sessions have stanzas.
    pub waits: bool,
    /// True if older sessions of the device have not ended or answered yet.
    pub older: bool,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Clock {
    /// The monotonic clock.
    pub now: Instant,
    /// The calendar.
    pub wall: UnixMillis,
}

impl Clock {
    /// Returns the calendar time of a moment after the clocks were read.
    pub fn calendar(&self, at: Instant) -> UnixMillis {
        self.wall.plus(at.duration_since(self.now))
    }
}

/// A connection that has proved its right to resume a session.
#[derive(Clone, Debug)]
pub struct Resumption {
    /// The count of stanzas that the client has handled (XEP-0198 §5).
    pub h: sm::Handled,
    /// The header with which the client's new stream was answered.
    pub server_header: Arc<Header>,
    /// The server's `<success/>` (XEP-0388 §2.6) into which `<resumed/>` goes. `None` if it was passed on before.
    pub success: Option<Element>,
    /// The tokens of the login.
    pub tokens: ResumptionTokens,
}

/// The part that tokens have in a resumption (XEP-0484).
#[derive(Clone, Debug, Default)]
pub struct ResumptionTokens {
    /// The token that proves the account. It must be redeemed before the session takes the connection.
    pub proof: Option<Box<TokenProof>>,
    /// The request for a token.
    pub wish: Option<TokenWish>,
}

/// A client's request for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWish {
    /// The id of its user agent.
    pub agent: String,
    /// The mechanism that the token is for.
    pub mechanism: TokenMechanism,
}

impl Resumption {
    /// Adds the data of the token's mechanism and a new token to the `<success/>`.
    pub fn complete(&mut self, responder: Option<&[u8]>, issued: Option<&IssuedToken>) {
        if let Some(success) = &self.success
            && (responder.is_some() || issued.is_some())
        {
            self.success = Element::parse(fronted::completed(success, responder, issued), success.header()).ok();
        }
    }
}

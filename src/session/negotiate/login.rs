//! The identity of an accepted login, as far as it is known before the bind.

use std::sync::Arc;

use bytes::Bytes;

use super::contract::{Ended, LoginOutput};
use super::legs::Legs;
use super::proof::{HeldSession, Proof};
use super::streams::Streams;
use crate::jid::{BareJid, FullJid};
use crate::session::sasl::SaslIdentity;
use crate::session::sm::nonza;
use crate::session::{Bound, SmId};
use crate::xml::StanzaCondition;

/// A login that the server accepted.
#[derive(Debug, Default)]
pub(super) struct AcceptedLogin {
    /// The name in the SASL exchange, if it was in the clear.
    identity: Option<SaslIdentity>,
    /// The account that the server named (XEP-0388 §2.6.1).
    account: Option<BareJid>,
    /// The account that Pushward names to the client. It proves nothing.
    announced: Option<BareJid>,
    agent: Option<String>,
    presented: Option<SmId>,
}

impl AcceptedLogin {
    /// Creates a login from the SASL exchange. `presented` and `agent` are the resumption id and the user agent that came
    /// with it.
    pub(super) fn new(identity: Option<SaslIdentity>, presented: Option<SmId>, agent: Option<String>) -> Self {
        Self { identity, account: None, announced: None, agent, presented }
    }

    /// The same login with the account that the server named, if it named one.
    pub(super) fn of_account(self, account: Option<BareJid>) -> Self {
        Self { account, ..self }
    }

    /// The same login, for which Pushward names this account to the client.
    pub(super) fn announcing(self, account: BareJid) -> Self {
        Self { announced: Some(account), ..self }
    }

    /// The account that Pushward names to the client.
    pub(super) fn announced(&self) -> Option<&BareJid> {
        self.announced.as_ref()
    }

    /// The account, as far as it is known. This proves nothing.
    pub(super) fn likely_account(&self) -> Option<BareJid> {
        let guess = || self.identity.as_ref().and_then(|id| BareJid::of_user(&id.authcid, &id.host));
        self.account.clone().or_else(|| self.announced.clone()).or_else(guess)
    }

    /// The name in the SASL exchange, if it was in the clear.
    pub(super) fn authcid(&self) -> Option<String> {
        self.identity.as_ref().map(|identity| identity.authcid.clone())
    }

    /// The id of the user agent.
    pub(super) fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// The account that the server named.
    pub(super) fn account(&self) -> Option<&BareJid> {
        self.account.as_ref()
    }

    /// Notes the resumption id that the client presented.
    pub(super) fn on_presented(&mut self, id: &SmId) {
        self.presented = Some(id.clone());
    }

    /// The proof to other sessions that this login is of their account.
    pub(super) fn proof(&self) -> Option<Proof> {
        let login = || self.identity.clone().map(Proof::Login);
        self.account.clone().map(Proof::Account).or_else(login)
    }

    /// Returns whether the session is known to be of this login's account. Invariant 4: the server has proven it, for the
    /// same exchange that it answered with `<success/>`.
    pub(super) fn is_proven(&self, held: &HeldSession) -> bool {
        self.proof().is_some_and(|proof| proof.proves(held))
    }

    /// Makes this node the owner of the account, as far as it is known. The bind tells if it is another one.
    pub(super) fn claim(&self, legs: &mut Legs) {
        if let Some(account) = self.likely_account() {
            legs.out(LoginOutput::Claim(account));
        }
    }

    /// Returns the `<failed/>` for a session that does not exist. XEP-0198 §5: only the session's own account gets its `h`.
    pub(super) fn not_found(&self, ended: Option<Ended>) -> Bytes {
        let own = ended.filter(|ended| self.is_account(&ended.account));
        nonza::failed(StanzaCondition::ItemNotFound, own.map(|ended| ended.h))
    }

    fn is_account(&self, account: &BareJid) -> bool {
        if let Some(own) = &self.account {
            return own == account;
        }
        let guess = self.identity.as_ref().and_then(|id| BareJid::of_user(&id.authcid, &id.host));
        guess.is_some_and(|guess| guess == *account)
    }

    /// Returns the data of a new session with this JID.
    pub(super) fn bound(self, jid: FullJid, streams: &Streams) -> Box<Bound> {
        let (client_header, server_header) = (Arc::clone(streams.client_header()), Arc::clone(streams.server_header()));
        let (identity, presented, agent) = (self.identity, self.presented, self.agent);
        Box::new(Bound { identity, presented, agent, ..Bound::new(jid, client_header, server_header) })
    }
}

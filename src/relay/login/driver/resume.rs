//! Resumption during a login: finds the session and passes the connection to it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::LoginDriver;
use crate::clock::{self, Instant};
use crate::jid::BareJid;
use crate::metrics::{FastOutcome, LoginOutcome, ResumeOutcome, Wait};
use crate::push::fast::{TokenProof, TokenRequest, TokenVerdict};
use crate::registry::AttachRefusal;
use crate::relay::client::{Attach, Command, Refused};
use crate::relay::login::patience::OperationDeadline;
use crate::relay::shared::Relay;
use crate::session::negotiate::{Ended, LoginInput, TokenRefusal};
use crate::session::sasl::LoginMethod;
use crate::session::{Resumption, SmId, TokenWish, sm};
use crate::store::StoreError;

/// The time that a session has to accept or refuse a connection.
const HAND_OVER: Duration = Duration::from_secs(10);

impl LoginDriver<'_> {
    /// Looks up a session that can be resumed, or the tombstone of one that has ended in order.
    pub(super) async fn find(&mut self, id: &SmId) -> Option<LoginInput> {
        let found = match self.relay.registry().find(id) {
            Some(handle) if !handle.is_ending() => Ok(handle.held().clone()),
            Some(_) | None => Err(self.ended(id).await?),
        };
        self.progress.resumption = Some(match &found {
            Ok(_) => ResumeOutcome::NotProven,
            Err(ended) => no_session(ended),
        });
        Some(LoginInput::Found(found))
    }

    /// Returns the tombstone of a session that has ended in order. For a session that is ending, waits until its count is
    /// final. `None` if the login has ended.
    async fn ended(&mut self, id: &SmId) -> Option<Option<Ended>> {
        let relay = self.relay;
        match self.wait_for(tombstone(relay, id), OperationDeadline::Store).await? {
            Ok(ended) => Some(ended),
            Err(error) => {
                tracing::error!(%error, "cannot read tombstones");
                Some(None)
            }
        }
    }

    /// Handles a session that has ended since it was found.
    async fn gone(&mut self, id: &SmId) -> Option<LoginInput> {
        let ended = self.ended(id).await?;
        self.progress.resumption = Some(no_session(&ended));
        Some(LoginInput::Gone(ended))
    }

    /// Passes the connection to the session. Returns `None` once the session has it, or the login has ended.
    pub(super) async fn hand_over(&mut self, id: &SmId, resumption: Resumption) -> Option<LoginInput> {
        let Some(handle) = self.relay.registry().find(id) else {
            return self.gone(id).await;
        };
        let client = self.client.take()?;
        let (reply, replied) = oneshot::channel();
        let is_by_token = resumption.tokens.proof.is_some();
        let login = if is_by_token { Some(LoginMethod::FrontedToken) } else { self.progress.method };
        let (peer, began) = (self.addresses.client, self.progress.began);
        let command = Command::Attach(Box::new(Attach { client, peer, login, began, resumption, reply }));
        if let Err(Command::Attach(attach)) = handle.deliver(command) {
            self.client = Some(attach.client);
            return self.gone(id).await;
        }
        match timeout(HAND_OVER, replied).await {
            Ok(Ok(Err(Refused { client, reason }))) => {
                self.client = Some(client);
                return match reason {
                    AttachRefusal::TooHigh(too_high) => {
                        self.progress.resumption = Some(ResumeOutcome::TooHigh);
                        Some(LoginInput::TooHigh(too_high))
                    }
                    AttachRefusal::Token(verdict) => Some(self.refuse_token(&verdict)),
                    AttachRefusal::Ended => self.gone(id).await,
                };
            }
            Ok(Ok(Ok(()))) => self.count_saved(login),
            // The session ended while it held the connection.
            Ok(Err(_)) => {}
            Err(_) => {
                self.relay.metrics().deadline_passed(Wait::HandOver);
                tracing::error!(within = ?HAND_OVER, "session did not accept the resuming connection in time");
            }
        }
        if let Some(upstream) = &mut self.upstream {
            upstream.write(crate::xml::STREAM_CLOSE);
        }
        (self.progress.resumption, self.progress.outcome) = (Some(ResumeOutcome::Resumed), LoginOutcome::Resumed);
        self.progress.method = login;
        self.done = true;
        None
    }
}

impl LoginDriver<'_> {
    /// Counts the round trips that a fronted resumption saved: the restart of the stream and the request; by token also one of the
    /// two of SCRAM.
    fn count_saved(&self, login: Option<LoginMethod>) {
        let metrics = self.relay.metrics();
        match login {
            Some(LoginMethod::FrontedSasl2) => metrics.round_trips_saved(2),
            Some(LoginMethod::FrontedToken) => {
                metrics.round_trips_saved(3);
                metrics.fast_login(FastOutcome::Accepted);
            }
            Some(LoginMethod::Sasl1 | LoginMethod::Sasl2) | None => {}
        }
    }

    /// Checks a token for which there is no session.
    pub(super) async fn check_token(&mut self, account: &BareJid, proof: &TokenProof) -> Option<LoginInput> {
        let tokens = self.relay.accounts().tokens();
        let verdict = self.wait_for(tokens.check(account, proof), OperationDeadline::Store).await?;
        Some(self.refuse_token(&verdict))
    }

    /// Refuses a token. Only a wrong one counts as a failed login: after a restart, many clients of one address may have valid
    /// ones for sessions that are gone.
    fn refuse_token(&self, verdict: &TokenVerdict) -> LoginInput {
        self.relay.metrics().fast_login(match verdict {
            TokenVerdict::Accepted(_) => FastOutcome::NoSession,
            TokenVerdict::Expired | TokenVerdict::Replayed | TokenVerdict::WrongHash | TokenVerdict::Unknown => {
                verdict.into()
            }
        });
        if *verdict == TokenVerdict::WrongHash {
            self.relay.guards().logins().failed(Instant::now(), self.addresses.client.ip());
        }
        LoginInput::TokenRefused(match verdict {
            TokenVerdict::Expired => TokenRefusal::Expired,
            TokenVerdict::Accepted(_) | TokenVerdict::Replayed | TokenVerdict::WrongHash | TokenVerdict::Unknown => {
                TokenRefusal::NotAuthorized
            }
        })
    }

    /// Issues a token to a client that logs in by its password.
    pub(super) fn issue_token(&self, account: &BareJid, wish: TokenWish, authcid: Option<String>) -> LoginInput {
        let TokenWish { agent, mechanism } = wish;
        let request = TokenRequest { agent, mechanism, root: clock::unix_secs() };
        LoginInput::TokenIssued(self.relay.accounts().tokens().issue(account, request, authcid, self.progress.began))
    }
}

/// Returns the tombstone of a session. If the session is ending, waits until its count is final.
async fn tombstone(relay: &Relay, id: &SmId) -> Result<Option<Ended>, StoreError> {
    if let Some(handle) = relay.registry().find(id)
        && !handle.ended().await
    {
        relay.metrics().deadline_passed(Wait::Tombstone);
        return Ok(None);
    }
    let tombstone = relay.store().tombstone(id.as_str()).await?;
    Ok(tombstone.map(|tombstone| Ended { account: tombstone.account, h: sm::Handled::new(tombstone.h) }))
}

fn no_session(ended: &Option<Ended>) -> ResumeOutcome {
    if ended.is_some() { ResumeOutcome::Ended } else { ResumeOutcome::Unknown }
}

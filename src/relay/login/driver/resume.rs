//! Resumption during a login: finds the session and passes the connection to it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::LoginDriver;
use crate::metrics::{LoginOutcome, ResumeOutcome, Wait};
use crate::relay::client::{Attach, Command, Refused};
use crate::relay::login::patience::OperationDeadline;
use crate::relay::shared::Relay;
use crate::session::negotiate::{Ended, LoginInput};
use crate::session::{Resumption, SmId, sm};
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
        self.resumption = Some(match &found {
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
        self.resumption = Some(no_session(&ended));
        Some(LoginInput::Gone(ended))
    }

    /// Passes the connection to the session. Returns `None` once the session has it, or the login has ended.
    pub(super) async fn hand_over(&mut self, id: &SmId, resumption: Resumption) -> Option<LoginInput> {
        let Some(handle) = self.relay.registry().find(id) else {
            return self.gone(id).await;
        };
        let client = self.client.take()?;
        let (reply, replied) = oneshot::channel();
        let command = Command::Attach(Box::new(Attach {
            client,
            peer: self.addresses.client,
            login: self.method,
            resumption,
            reply,
        }));
        if let Err(Command::Attach(attach)) = handle.deliver(command) {
            self.client = Some(attach.client);
            return self.gone(id).await;
        }
        match timeout(HAND_OVER, replied).await {
            Ok(Ok(Err(Refused { client, too_high }))) => {
                self.client = Some(client);
                return match too_high {
                    Some(too_high) => {
                        self.resumption = Some(ResumeOutcome::TooHigh);
                        Some(LoginInput::TooHigh(too_high))
                    }
                    None => self.gone(id).await,
                };
            }
            // The session accepted the connection, or ended while it held it.
            Ok(Ok(Ok(())) | Err(_)) => {}
            Err(_) => {
                self.relay.metrics().deadline_passed(Wait::HandOver);
                tracing::error!(within = ?HAND_OVER, "session did not accept the resuming connection in time");
            }
        }
        if let Some(upstream) = &mut self.upstream {
            upstream.write(crate::xml::STREAM_CLOSE);
        }
        (self.resumption, self.outcome) = (Some(ResumeOutcome::Resumed), LoginOutcome::Resumed);
        self.done = true;
        None
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

//! A login that resumes a session: the session is looked for, and then takes the connection.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::LoginDriver;
use crate::metrics::{LoginOutcome, ResumeOutcome, Wait};
use crate::relay::client::{Attach, Command, Refused};
use crate::relay::login::patience::Patience;
use crate::relay::shared::Relay;
use crate::session::negotiate::{Ended, LoginInput};
use crate::session::{Resumption, SmId, sm};
use crate::store::StoreError;

/// How long a session may take to take a connection, or to refuse it.
const HAND_OVER: Duration = Duration::from_secs(10);

impl LoginDriver<'_> {
    /// A session that can be resumed, or what is remembered of one that has ended in order.
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

    /// Returns what is remembered of a session that has ended in order; of one that is ending, once its count is final. `None` if the
    /// login is over.
    async fn ended(&mut self, id: &SmId) -> Option<Option<Ended>> {
        let relay = self.relay;
        match self.wait_for(tombstone(relay, id), Patience::Store).await? {
            Ok(ended) => Some(ended),
            Err(error) => {
                tracing::error!(%error, "cannot read tombstones");
                Some(None)
            }
        }
    }

    /// The session was there a moment ago.
    async fn gone(&mut self, id: &SmId) -> Option<LoginInput> {
        let ended = self.ended(id).await?;
        self.resumption = Some(no_session(&ended));
        Some(LoginInput::Gone(ended))
    }

    /// `None` once the session has the connection, or the login is over.
    pub(super) async fn hand_over(&mut self, id: &SmId, resumption: Resumption) -> Option<LoginInput> {
        let Some(handle) = self.relay.registry().find(id) else {
            return self.gone(id).await;
        };
        let client = self.client.take()?;
        let (reply, replied) = oneshot::channel();
        let command = Command::Attach(Box::new(Attach { client, peer: self.addresses.client, resumption, reply }));
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
            // Taken; or the session ended with the connection in its hands.
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

/// The tombstone of a session; if it is ending, once its count is final.
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

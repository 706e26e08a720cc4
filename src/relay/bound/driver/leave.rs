//! The end of a session's task.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::sleep_until;

use super::SessionDriver;
use crate::clock::Instant;
use crate::metrics::Wait;
use crate::push::account::Change;
use crate::registry::{AttachRefusal, Mail};
use crate::relay::client::{Command, Handle, Refused};
use crate::relay::jobs::Jobs;
use crate::relay::shared::Relay;
use crate::session::PublishResult;

/// The time that the store has for the session's last requests. After it, the session leaves without waiting.
const STORE: Duration = Duration::from_secs(5);

impl SessionDriver {
    /// Finishes the store requests, then leaves the registry. Meanwhile the mailbox is served.
    pub(in crate::relay::bound) async fn leave(mut self: Box<Self>) {
        if let Some(reason) = self.ended {
            tracing::info!(reason = reason.name(), "session ended");
        }
        if let Some(client) = self.legs.detach() {
            self.relay.background().close_gracefully(*client);
        }
        self.finish_jobs().await;
        for publish in self.publishes.take_unpublished() {
            self.relay.absent().on_unpublished(self.handle.account(), Box::new(publish));
        }
        let Self { relay, handle, mut membership, jobs, mut commands, legs, .. } = *self;
        if jobs.are_done() {
            // The change is queued before any later login. It need not be on disk for that.
            let ended = relay.store().submit_change(handle.account(), Change::Ended { login: handle.login() });
            membership.leave();
            let (by, left) = (Arc::clone(&relay), Arc::clone(&handle));
            let publish = async move {
                let ended = match ended {
                    Ok(ended) => ended.await,
                    Err(error) => Err(error),
                };
                match ended {
                    Ok((account, _)) => by.registry().publish(left.account(), &account, Some(&left)),
                    Err(error) => tracing::error!(%error, "cannot store end of session"),
                }
            };
            relay.background().spawn_in_span(publish);
        } else {
            relay.metrics().deadline_passed(Wait::Store);
            tracing::warn!(within = ?STORE, jobs = jobs.len(), "database late: session ended, its last changes are \
                still pending");
            membership.leave();
            relay.background().spawn_in_span(follow(Arc::clone(&relay), Arc::clone(&handle), jobs));
        }
        commands.close();
        while let Some(mail) = commands.try_recv() {
            if let Mail::Message(command) = mail {
                decline(&relay, &handle, command);
            }
        }
        relay.background().close_gracefully(legs.into_upstream());
    }

    /// Waits until all store requests are complete, or until the deadline.
    async fn finish_jobs(&mut self) {
        let deadline = Instant::now() + STORE;
        while !self.jobs.are_done() {
            select! {
                done = self.jobs.done() => done.report(&self.relay),
                mail = self.commands.recv() => match mail {
                    Some(Mail::Message(command)) => decline(&self.relay, &self.handle, command),
                    Some(Mail::Changed) | None => {}
                },
                () = sleep_until(deadline.into()) => return,
            }
        }
    }
}

/// Stores the last changes of a session, then lets the device's newest session take over its spool.
async fn follow(relay: Arc<Relay>, handle: Arc<Handle>, jobs: Jobs) {
    jobs.finish().await;
    relay.accounts().store_end(&handle).await;
    if let Some(newer) = relay.registry().newer(&handle) {
        newer.inherit();
    }
}

/// Answers a command that the session does not accept any more.
fn decline(relay: &Arc<Relay>, handle: &Arc<Handle>, command: Command) {
    match command {
        Command::Attach(attach) => {
            // The login may have ended, too.
            drop(attach.reply.send(Err(Refused { client: attach.client, reason: AttachRefusal::Ended })));
        }
        Command::Published(published) => {
            let (by, handle) = (Arc::clone(relay.publishing()), Arc::clone(handle));
            let note = async move {
                let PublishResult { target, outcome, .. } = *published;
                by.note_outcome(handle.account(), &target, &outcome).await;
            };
            relay.background().spawn_in_span(note);
        }
        Command::Unpublished(publish) => relay.absent().on_unpublished(handle.account(), publish),
        Command::PublishOnStream(_) | Command::Routed(_) => {}
    }
}

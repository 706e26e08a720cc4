//! The end of a session's task, which leaves, or passes its session to another process.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::sleep_until;

use super::{SessionDriver, TaskEnd};
use crate::clock::Instant;
use crate::metrics::Wait;
use crate::net::frozen::ConnRecord;
use crate::push::account::Change;
use crate::registry::{AttachRefusal, Mail};
use crate::relay::bound::record::SessionRecord;
use crate::relay::client::{Command, Handle, Refused};
use crate::relay::frozen::{FrozenSession, NotHandedOver};
use crate::relay::jobs::Jobs;
use crate::relay::shared::Relay;
use crate::session::{Input, PublishResult};

/// The time that the store has for the session's last requests. After it, the session leaves without waiting.
const STORE: Duration = Duration::from_secs(5);
/// The time that the store has for the requests of a session that is handed over. A stalled disk delays the handover, and ends
/// sessions only if it is stalled for longer.
const HANDOVER_STORE: Duration = Duration::from_secs(10);

impl SessionDriver {
    /// Finishes the store requests, then leaves the registry. Meanwhile the mailbox is served.
    pub(in crate::relay::bound) async fn leave(mut self: Box<Self>) {
        if let Some(TaskEnd::Ended(reason)) = self.ended {
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
                    Err(error) => by.accounts().log_end_not_stored(&error),
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

    // Handover to another process

    /// Begins the handover of the session, if there is one. A session that cannot be handed over ends as at a stop.
    pub(super) fn check_handover(&mut self) {
        if !self.relay.handover().has_begun() || !self.watched.take_handover() || self.session.is_ending() {
            return;
        }
        let is_held = self.session.is_to_be_held() || self.session.is_dark();
        let reason = match (is_held, self.legs.can_be_handed_over()) {
            (true, true) => {
                self.ended.get_or_insert(TaskEnd::HandedOver);
                return;
            }
            (_, false) => NotHandedOver::Tls,
            (false, true) => NotHandedOver::NotHeld,
        };
        self.relay.handover().count_ended(reason);
        tracing::info!(reason = reason.name(), remedy = reason.remedy(), "session cannot be handed over");
        self.take(Input::Drain);
    }

    /// Stops the session and passes it to the next process. Its client is disconnected without a footer, so that it can
    /// resume at once.
    pub(in crate::relay::bound) async fn hand_over(mut self: Box<Self>) {
        self.ended = None;
        let has_client = self.legs.detach().is_some();
        self.now = Instant::now();
        self.take(Input::HandOver);
        let is_stored = self.finish_before_handover().await;
        self.commands.close();
        while let Some(mail) = self.commands.try_recv() {
            self.take_last(mail);
        }
        if self.ended.is_some() {
            return Box::pin(self.leave()).await;
        }
        let relay = Arc::clone(&self.relay);
        if !is_stored {
            // The next start finds its login open and closes it, as after a crash.
            tracing::error!(within = ?HANDOVER_STORE, jobs = self.jobs.len(), "database late: session cannot be handed over");
            relay.handover().count_ended(NotHandedOver::DatabaseLate);
            return self.membership.hand_over();
        }
        match self.freeze(has_client) {
            Ok(frozen) => relay.handover().add(frozen),
            // The next start finds its login open and closes it.
            Err(error) => {
                relay.handover().count_ended(NotHandedOver::Failed);
                tracing::error!(%error, "cannot hand over session");
            }
        }
    }

    /// Waits for the requests to the store, and takes what other tasks have sent.
    /// Returns whether the store has answered all requests.
    async fn finish_before_handover(&mut self) -> bool {
        let deadline = Instant::now() + HANDOVER_STORE;
        loop {
            self.take(Input::Quiet);
            if self.jobs.are_done() || self.ended.is_some() {
                return true;
            }
            select! {
                done = self.jobs.done() => self.on_job_done(done),
                mail = self.commands.recv() => match mail {
                    Some(mail) => self.take_last(mail),
                    None => return false,
                },
                () = sleep_until(deadline.into()) => break,
            }
        }
        self.relay.metrics().deadline_passed(Wait::Store);
        false
    }

    fn take_last(&mut self, mail: Mail<Command>) {
        match mail {
            Mail::Message(Command::Published(published)) => self.take(Input::Published(published)),
            Mail::Message(Command::Unpublished(publish)) => self.publishes.on_unpublished(*publish),
            Mail::Message(Command::Routed(routed)) => self.take(Input::Routed(routed.stanza.clone())),
            Mail::Message(command @ (Command::Attach(_) | Command::PublishOnStream(_))) => {
                decline(&self.relay, &self.handle, command);
            }
            Mail::Changed => {}
        }
    }

    fn freeze(self: Box<Self>, has_client: bool) -> io::Result<FrozenSession> {
        let Self { session, handle, mut membership, watched, siblings, legs, jobs, publishes, .. } = *self;
        let (upstream, socket) = ConnRecord::freeze(legs.into_upstream())?;
        let record = SessionRecord {
            handle: handle.freeze(),
            siblings: siblings.freeze(),
            watched: watched.freeze(),
            has_client,
            session: session.freeze().into(),
            upstream,
            publishes: publishes.freeze(),
            renumbering: jobs.renumbering().clone(),
        };
        let record = rmp_serde::to_vec_named(&record).map_err(io::Error::other)?;
        membership.hand_over();
        Ok(FrozenSession { record, socket })
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
pub(super) fn decline(relay: &Arc<Relay>, handle: &Arc<Handle>, command: Command) {
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

//! Performs the outputs of the session, and passes the results of its store requests and published values to it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{SessionDriver, TaskEnd};
use crate::clock::Instant;
use crate::publish::session::Requester;
use crate::publish::{Eligible, Interrupted};
use crate::push::notification::Publish;
use crate::registry::StreamPublish;
use crate::relay::jobs::{Done, Spooling, StoreRequest};
use crate::seq::Seq;
use crate::session::{Closing, EndReason, Input, OtherSession, Output, PublishResult, Stored};
use crate::store::StoreError;

impl SessionDriver {
    pub(super) fn take(&mut self, input: Input) {
        self.session.handle(self.now, input);
        self.perform();
        self.session.charge_store(self.jobs.bytes_at_work());
    }

    /// Performs the session's outputs. Immediate results become the next inputs.
    pub(super) fn perform(&mut self) {
        let mut answers = VecDeque::new();
        loop {
            while let Some(output) = self.session.poll() {
                answers.extend(self.perform_one(output));
            }
            let Some(answer) = answers.pop_front() else { return self.note_ending() };
            self.session.handle(self.now, answer);
        }
    }

    fn perform_one(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::ToClient(bytes) => self.legs.write_client(&bytes),
            Output::ReplyToClient(bytes) => self.legs.reply_to_client(&bytes),
            Output::ToUpstream(bytes) => self.legs.write_upstream(&bytes),
            Output::ReplyToUpstream(bytes) => self.legs.reply_to_upstream(&bytes),
            Output::Watch(peer) => self.legs.watch(peer),
            Output::Resumable(id) => self.relay.registry().resumable(id, &self.handle),
            Output::Store { token, change } => self.jobs.ask(StoreRequest::Change(token, *change)),
            Output::Spool(items) => {
                let last = items.last().map_or(Seq::ZERO, |item| item.seq);
                self.jobs.ask(StoreRequest::Spool(items, last));
            }
            Output::Unspool { spool, places } => self.jobs.ask(StoreRequest::Unspool(spool, vec![places])),
            Output::Load(load) => self.jobs.ask(StoreRequest::Load(load)),
            Output::TakeOver => self.jobs.ask(StoreRequest::TakeOver),
            Output::Adopt { orphans, places } => self.jobs.ask(StoreRequest::Adopt(orphans, places)),
            Output::Wake(reason) => self.jobs.ask(StoreRequest::Wake(reason)),
            Output::SaveTombstone { id, h } => {
                if !self.session.is_ending() && !self.watched.is_handed_over() {
                    self.relay.registry().not_resumable(&self.handle);
                }
                self.jobs.ask(StoreRequest::Tombstone(id, h));
            }
            Output::Publish(publish) => return self.publish(publish),
            Output::PublishedOnStream { number, outcome } => match self.publishes.done(number)? {
                Requester::Session(id, target, since) => {
                    self.relay.publishing().on_published_by_session(&self.handle, &target, since, &outcome);
                    return Some(Input::Published(Box::new(PublishResult { id, target, outcome: *outcome })));
                }
                // The requester may have stopped waiting.
                Requester::Other(reply) => drop(reply.send(*outcome)),
            },
            Output::NotifyAbsent(notice) => self.relay.absent().on_notice(self.handle.account(), *notice),
            Output::BothStay => {
                if let Some(newer) = self.relay.registry().newer(&self.handle) {
                    self.handle.note_both_stay(newer.login());
                }
            }
            Output::CloseClient(closing) => self.close_client(closing),
            Output::Event(event) => {
                self.status.on_event(&self.handle, &event);
                self.relay.reports().on_event(&event, self.status.volume(self.now, &event));
            }
            Output::End(reason) => self.ended = Some(TaskEnd::Ended(reason)),
        }
        None
    }

    /// Publishes. If the user's own stream is the only transport, and this session owns it, the session writes the publish
    /// itself. While publishing is interrupted, the publish is kept.
    fn publish(&mut self, publish: Box<Publish>) -> Option<Input> {
        let Some(permit) = self.relay.publishing().permit() else {
            self.publishes.on_unpublished(*publish);
            return None;
        };
        if let Some(took) = self.status.on_publish() {
            self.relay.metrics().notified(took);
        }
        let publishing = self.relay.publishing();
        match publishing.eligible(self.handle.account(), &publish.target) {
            Eligible::OwnSession => {
                let requester = Requester::Session(publish.id, publish.target.clone(), Instant::now());
                let number = self.publishes.begin(requester);
                return Some(Input::PublishOnStream { number, publish });
            }
            Eligible::Nothing | Eligible::Several => {
                let (relay, handle) = (Arc::clone(&self.relay), Arc::clone(&self.handle));
                self.relay.background().spawn_in_span(async move {
                    let published = relay.publishing().publish_for_session(permit, &handle, *publish).await;
                    if let Err(Interrupted(publish)) = published {
                        relay.absent().on_unpublished(handle.account(), publish);
                    }
                });
            }
        }
        None
    }

    /// Publishes what was kept while publishing was interrupted.
    pub(super) fn publish_kept(&mut self) {
        if self.relay.publishing().is_interrupted() {
            return;
        }
        for publish in self.publishes.take_unpublished() {
            if let Some(input) = self.publish(Box::new(publish)) {
                self.take(input);
            }
        }
    }

    /// Publishes for another device of the account through the session's stream.
    pub(super) fn publish_on_stream(&mut self, publish: StreamPublish) {
        let StreamPublish { publish, claim, reply } = publish;
        if !self.relay.publishing().is_interrupted() && claim.take() {
            let number = self.publishes.begin(Requester::Other(reply));
            self.take(Input::PublishOnStream { number, publish });
        }
    }

    fn close_client(&mut self, closing: Closing) {
        let Some(client) = self.legs.detach() else { return };
        match closing {
            Closing::Orderly => self.relay.background().close_gracefully(*client),
            Closing::Abrupt => drop(client),
        }
    }

    // Store results

    pub(super) fn on_job_done(&mut self, done: Done) {
        match done {
            Done::Changed(token, Ok((account, device))) => {
                if device.is_some_and(|device| device != self.session.device()) {
                    self.on_device_changed();
                }
                self.watched.on_revision(account.revision);
                self.take(Input::Changed(Some(Box::new(account))));
                self.note_services();
                if let Some(token) = token {
                    self.take(Input::Stored { token, stored: Stored::Durable(device) });
                }
            }
            Done::Changed(token, Err(error)) => {
                self.relay.accounts().log_not_stored(&error);
                self.take(Input::Changed(None));
                if let Some(token) = token {
                    self.take(Input::Stored { token, stored: Stored::Failed });
                }
            }
            Done::Spooled(Spooling { last, result, .. }) => self.on_spooled(last, result),
            Done::Loaded(Ok(items)) => self.take(Input::Loaded(items)),
            Done::Loaded(Err(error)) => {
                tracing::error!(%error, "cannot read waiting stanzas: retrying in 5 s");
                self.take(Input::LoadFailed);
            }
            Done::TookOver(Ok(spools)) => self.take(Input::TookOver(spools)),
            Done::TookOver(Err(StoreError::AccountRemoved { .. })) => {
                self.take(Input::AccountRemoved);
                self.take(Input::TookOver(Vec::new()));
            }
            Done::TookOver(Err(error)) => {
                tracing::error!(%error, "cannot take over stanzas of earlier sessions: retrying in 5 s");
                self.take(Input::TakeOverFailed);
            }
            Done::Quiet(Ok(()) | Err(StoreError::AccountRemoved { .. })) => {}
            Done::Quiet(Err(error)) => tracing::error!(%error, "database failed"),
        }
    }

    /// Handles the news that the session belongs to a known device.
    fn on_device_changed(&mut self) {
        self.siblings.on_device_changed();
        if !self.siblings.are_settled() {
            self.session.expect_older();
        }
        self.session.share_device_memory(self.siblings.memory());
        self.check_siblings();
    }

    fn on_spooled(&mut self, last: Seq, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.take(Input::Spooled { up_to: last }),
            // Nothing of the account is kept, which is not a failure.
            Err(StoreError::AccountRemoved { .. }) => {
                self.take(Input::AccountRemoved);
                self.take(Input::Spooled { up_to: last });
            }
            Err(error) => {
                self.relay.overload().on_spool_error(&error);
                if self.session.spool_accepts() {
                    tracing::error!(%error, "spool failed: stanzas stay in memory, retrying every 5 s");
                }
                self.take(Input::SpoolRefused);
            }
        }
    }

    // Published values

    /// Takes the values that were published since the last call.
    pub(super) fn take_published(&mut self) {
        if let Some(settings) = self.watched.take_settings(self.relay.settings()) {
            self.take(Input::Settings(settings));
        }
        self.take_published_account();
        self.check_siblings();
        self.publish_kept();
        let requests = self.handle.requests();
        if requests.inherit {
            self.take(Input::Inherit);
        }
        if let Some(reason) = requests.end {
            self.take(if reason == EndReason::Drained { Input::Drain } else { Input::EndIfHeld(reason) });
        }
        self.note_ending();
        self.handle.on_requests_handled(requests);
        self.check_handover();
        if self.relay.is_draining() && self.watched.take_drain() {
            self.take(if self.relay.node_end().is_fenced() { Input::Fence } else { Input::Drain });
        }
    }

    fn take_published_account(&mut self) {
        let published = self.relay.registry().published_account(self.handle.account());
        let changes = self.watched.take_account(self.handle.login(), published);
        if changes.is_removed {
            self.take(Input::AccountRemoved);
        }
        if let Some(account) = changes.newer {
            self.take(Input::Account(Box::new((*account).clone())));
            self.note_services();
        }
    }

    fn check_siblings(&mut self) {
        if let Some(successor) = self.siblings.take_successor() {
            self.take(Input::Successor(successor));
        }
        if let Some(live) = self.siblings.take_live_elsewhere() {
            self.take(Input::OtherSession(if live { OtherSession::Live } else { OtherSession::Away }));
        }
    }

    fn note_services(&self) {
        self.handle.note(|notes| notes.services = self.session.services());
    }

    fn note_ending(&self) {
        if self.session.is_ending() {
            self.handle.set_ending();
        }
    }
}

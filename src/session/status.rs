//! Questions that the relay and operators ask a [`Session`], and what it is told at its beginning.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::event::EndReason;
use super::identity::Attachment;
use super::liveness::Reach;
use super::queue::{Aside, Budget, Unsaved};
use super::remembered::DeviceMemory;
use super::settings::Settings;
use super::sm::{Handled, TooHigh};
use crate::jid::Jid;
use crate::push::account::DeviceId;
use crate::push::guard::Guard;
use crate::xml::FrameError;

impl Session {
    /// Lets what waits for the client share memory with what waits for others. Call it before the first input.
    pub fn share_memory(&mut self, budget: Arc<Budget>) {
        self.aside = Aside::of(Arc::clone(&budget));
        self.delivery.share_memory(budget);
    }

    /// Makes the session use `memory`, which the device's sessions share. Call it before the first input, and again if the
    /// session turns out to belong to a device that was known before. What the session remembered so far moves into `memory`.
    pub fn share_device_memory(&mut self, memory: Arc<DeviceMemory>) {
        self.delivery.share_device_memory(memory);
    }

    /// Other clients of the account are there, or not: they have what comes to the account.
    pub fn note_company(&mut self, has_company: bool) {
        self.delivery.note_company(has_company);
    }

    /// The store has so many bytes of the session in its hands; they count for the memory that all sessions share.
    pub fn charge_store(&mut self, bytes: usize) {
        self.delivery.charge_store(bytes);
    }

    /// Older sessions turned out to be of the same device: what they have is waited for.
    pub fn expect_older(&mut self) {
        self.backlog.expect_older();
    }

    /// The stream error for bytes of the client that are no XML stream (RFC 6120 §4.9.3); the session ends.
    pub fn refuse_bytes(&mut self, now: Instant, error: &FrameError) {
        self.effects.reply_to_client(error.stream_error());
        self.begin_end(now, EndReason::ClientError);
    }

    /// Whether a connection may resume with this `h`; asked before the old attachment is given up.
    ///
    /// # Errors
    /// The client claims stanzas that were never sent.
    pub fn check_resume(&self, h: Handled) -> Result<(), TooHigh> {
        self.client.check_resume(h)
    }

    /// The configuration that the session follows.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The device whose session it is.
    pub fn device(&self) -> DeviceId {
        self.account.device()
    }

    /// The current attachment.
    pub fn attachment(&self) -> Attachment {
        self.client.attachment()
    }

    /// Whether the client's next frame can be taken now.
    pub fn wants_client(&self) -> bool {
        !self.client.is_resuming() && self.server.has_room() && !self.delivery.owes_too_much()
    }

    /// Whether the server's next frame can be taken now: else the disk is too slow for what comes, or refuses it.
    pub fn wants_upstream(&self) -> bool {
        let sheds = !self.delivery.spool_accepts() && self.client.is_dark() && !self.is_ending();
        sheds || self.delivery.has_room() && !self.is_paused()
    }

    /// Whether the server is not read: the spool refuses, and memory has as much as it may of what the client has not got.
    pub(super) fn is_paused(&self) -> bool {
        self.client.is_open() && self.delivery.is_over_bounds(&self.server)
    }

    /// Whether the end has begun: the session cannot be resumed any more.
    pub fn is_ending(&self) -> bool {
        self.lifecycle.is_ending()
    }

    /// Whether the client can be reached.
    pub fn reach(&self) -> Reach {
        self.client.reach()
    }

    /// Whether the session is held without a usable client connection.
    pub fn is_dark(&self) -> bool {
        self.client.is_dark()
    }

    /// How many stanzas wait in memory for the client's acknowledgement, and what they count for in bytes.
    pub fn queued(&self) -> (usize, usize) {
        (self.delivery.queue().len(), self.delivery.queue().bytes())
    }

    /// Bytes of the client that wait to be relayed to the server behind a presence.
    pub fn held_bytes(&self) -> usize {
        self.backlog.bytes_behind()
    }

    /// The number of stanzas that are set aside for the device.
    pub fn set_aside(&self) -> usize {
        self.account.guard().map_or(0, Guard::count)
    }

    /// What is neither the client's nor on disk while the spool refuses: a crash loses it, unless the server has it too.
    pub fn unsaved(&self) -> Unsaved {
        self.delivery.unsaved()
    }

    /// Whether the spool takes what it is handed.
    pub fn spool_accepts(&self) -> bool {
        self.delivery.spool_accepts()
    }

    /// The push services that notify the device.
    pub fn services(&self) -> Vec<Jid> {
        let mut services: Vec<_> =
            self.account.owned().map(|registration| registration.target.service.clone()).collect();
        services.shrink_to_fit();
        services
    }

    /// Bytes of memory that the session has beside its queue. Each part is bounded.
    pub(super) fn memory_aside(&self) -> usize {
        let stanzas = self.delivery.memory() + self.presence.memory();
        stanzas + self.notifier.memory() + self.account.promised() + self.server.memory()
    }
}

//! The operator's settings for notifications.

use std::time::Duration;

use crate::jid::Jid;

/// The content and the times of notifications, and the requests that clients may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSettings {
    /// The `last-message-body` of a notification about something important if `with_body` is off. If it is empty, the
    /// field is omitted.
    pub important_body: String,
    /// True if notifications contain the message's own body.
    pub with_body: bool,
    /// True if notifications contain the sender's JID.
    pub with_sender: bool,
    /// The number of publish errors in a row that end a registration.
    pub max_errors: u32,
    /// The maximum number of registrations of an account.
    pub max_devices: usize,
    /// The time for which a device must have been dark before its first notification.
    pub batch_delay: Duration,
    /// The least time between two notifications to one device.
    pub min_interval: Duration,
    /// True if unimportant stanzas are notified too, without a text, as mod_cloud_notify does.
    pub unimportant: bool,
    /// The time without activity of other clients of the account for which notifications wait. Calls do not wait.
    pub grace: Duration,
    /// The times after a notification at which a device that does not connect is notified again. May be empty.
    pub repush: Vec<Duration>,
    /// True if clients may ask for filters, priority and encrypted notifications (`tigase:push`).
    pub extensions: bool,
    /// True if clients may ask that calls ring by notification alone (`tigase:push:jingle:0`). Requires
    /// [`PushSettings::extensions`].
    pub jingle: bool,
    /// The domains of the push services that may be used. If empty, all may be used.
    pub services: Vec<String>,
}

impl Default for PushSettings {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self {
            important_body: "New Message!".to_owned(),
            with_body: false,
            with_sender: false,
            max_errors: 16,
            max_devices: 5,
            batch_delay: Duration::from_secs(1),
            min_interval: Duration::from_secs(20),
            unimportant: false,
            grace: Duration::ZERO,
            repush: vec![minutes(1), minutes(5), minutes(30)],
            extensions: true,
            jingle: false,
            services: Vec::new(),
        }
    }
}

impl PushSettings {
    /// Returns whether users may be notified through this push service.
    pub fn allows(&self, service: &Jid) -> bool {
        self.services.is_empty() || self.services.iter().any(|domain| domain == service.domain())
    }
}

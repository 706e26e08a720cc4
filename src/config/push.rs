//! `[push]`: notifications.

use std::path::Path;
use std::time::Duration;

use super::section::Section;
use super::stream_management::StreamManagement;
use super::transport::{self, Route, Transport};
use super::units::{DAY, HOUR, MINUTE, MOMENT, SECOND};
use super::value::Wrong;
use crate::jid::Jid;

/// `[push]`: what a notification says and when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// `last-message-body` of a notification of something important, when `with_body` is off: `New Message!`. May be
    /// empty: no such field then.
    pub important_body: String,
    /// Whether notifications carry the message's own body: no.
    pub with_body: bool,
    /// Whether notifications carry the sender's JID: no.
    pub with_sender: bool,
    /// How many publish errors in a row end a registration: 16.
    pub max_errors: u32,
    /// How many registrations an account may have: 5.
    pub max_devices: usize,
    /// How long a session with a registration is held for its client, from the last contact: 72 h.
    pub max_hibernation_timeout: Duration,
    /// How long a device must have been dark before its first notification: 1 s.
    pub batch_delay: Duration,
    /// The least time between two notifications to one device: 20 s.
    pub min_interval: Duration,
    /// How long a push service may take to answer: 60 s.
    pub publish_timeout: Duration,
    /// Whether the session of a client with a registration goes on when it closes its stream: yes.
    pub linger: bool,
    /// How long a dark session is held at most once an important push went out; by default as long as before.
    pub hibernation_after_push: Option<Duration>,
    /// Whether stanzas that nobody waits for are notified too, without a text, as mod_cloud_notify does: no.
    pub unimportant: bool,
    /// Notifications wait until no other client of the account was active for this long; calls do not: 0 s.
    pub grace: Duration,
    /// How long after a notification, that nothing new follows, a device that does not come is notified again: 60 s, 5 min,
    /// 30 min. May be empty.
    pub repush: Vec<Duration>,
    /// How long a registration is kept whose device is not seen, or whose push service is out of reach: 90 d.
    pub registration_ttl: Duration,
    /// Whether clients may ask for filters, priority and encrypted notifications (`tigase:push`): yes.
    pub extensions: bool,
    /// Whether clients may ask that calls ring by notification alone (`tigase:push:jingle:0`): no. Never without
    /// [`Push::extensions`].
    pub jingle: bool,
    /// How notifications travel, in the order in which it is tried: `s2s`, `component`, `session`. Never empty.
    pub transports: Vec<Transport>,
    /// The domains of the push services that may be used; any, if there are none.
    pub services: Vec<String>,
    /// Whether push services may answer over the stream on which they were asked (XEP-0288): yes.
    pub s2s_bidi: bool,
    /// How many streams to push services there may be at once: 200.
    pub s2s_connections: usize,
    /// Where push services are that are not to be looked up.
    pub routes: Vec<Route>,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            important_body: "New Message!".to_owned(),
            with_body: false,
            with_sender: false,
            max_errors: 16,
            max_devices: 5,
            max_hibernation_timeout: 72 * HOUR,
            batch_delay: SECOND,
            min_interval: 20 * SECOND,
            publish_timeout: MINUTE,
            linger: true,
            hibernation_after_push: None,
            unimportant: false,
            grace: Duration::ZERO,
            repush: vec![MINUTE, 5 * MINUTE, 30 * MINUTE],
            registration_ttl: 90 * 24 * HOUR,
            extensions: true,
            jingle: false,
            transports: vec![Transport::S2s, Transport::Component, Transport::Session],
            services: Vec::new(),
            s2s_bidi: true,
            s2s_connections: 200,
            routes: Vec::new(),
        }
    }
}

impl Push {
    /// Whether the operator lets users be notified through this push service.
    pub fn allows(&self, service: &Jid) -> bool {
        self.services.is_empty() || self.services.iter().any(|domain| domain == service.domain())
    }
}

pub(super) fn read(mut s: Section<'_>, stream_management: &StreamManagement, directory: &Path) -> Push {
    let d = Push::default();
    let [hold_line, jingle_line] = ["max_hibernation_timeout", "jingle"].map(|key| s.line_of(key));
    let read = Push {
        important_body: s.parsed("important_body", body).map_or(d.important_body, |at| at.value),
        with_body: s.boolean("with_body", d.with_body),
        with_sender: s.boolean("with_sender", d.with_sender),
        max_errors: s.number("max_errors", d.max_errors, 1..=1_000),
        max_devices: s.number("max_devices", d.max_devices, 1..=100),
        max_hibernation_timeout: s.duration("max_hibernation_timeout", d.max_hibernation_timeout, MOMENT..=30 * DAY),
        batch_delay: s.duration("batch_delay", d.batch_delay, Duration::ZERO..=10 * MINUTE),
        min_interval: s.duration("min_interval", d.min_interval, Duration::ZERO..=DAY),
        publish_timeout: s.duration("publish_timeout", d.publish_timeout, MOMENT..=HOUR),
        linger: s.boolean("linger", d.linger),
        hibernation_after_push: hibernation_after_push(&mut s),
        unimportant: s.boolean("unimportant", d.unimportant),
        grace: s.duration("grace", d.grace, Duration::ZERO..=DAY),
        repush: s.durations("repush", d.repush, MOMENT..=DAY),
        registration_ttl: s.duration("registration_ttl", d.registration_ttl, MOMENT..=3660 * DAY),
        extensions: s.boolean("extensions", d.extensions),
        jingle: s.boolean("jingle", d.jingle),
        transports: transport::order(&mut s, d.transports),
        services: transport::services(&mut s),
        s2s_bidi: s.boolean("s2s_bidi", d.s2s_bidi),
        s2s_connections: s.number("s2s_connections", d.s2s_connections, 1..=100_000),
        routes: transport::routes(&mut s, directory),
    };
    if read.jingle && !read.extensions {
        s.problem(jingle_line, "jingle", "it is one of the extensions, which are off", "set extensions = true as well");
    }
    if read.max_hibernation_timeout < stream_management.resume_timeout {
        let what = "shorter than resume_timeout of [stream_management]: a registration would shorten the hold";
        s.problem(hold_line, "max_hibernation_timeout", what, "make it as long as resume_timeout, or longer");
    }
    s.finish();
    read
}

/// There is no default: without the key the hold does not change.
fn hibernation_after_push(s: &mut Section<'_>) -> Option<Duration> {
    let given = s.has("hibernation_after_push");
    let read = s.duration("hibernation_after_push", 10 * MINUTE, MOMENT..=30 * DAY);
    given.then_some(read)
}

fn body(text: &str) -> Result<String, Wrong> {
    if text.len() > 1_000 {
        return Err(Wrong::new("longer than 1,000 bytes", "shorten it: it is sent with every notification"));
    }
    // XML 1.0 §2.2: these cannot be written in a stanza.
    if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n')) {
        return Err(Wrong::new("contains a control character", "write text only"));
    }
    Ok(text.to_owned())
}

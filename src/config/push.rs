//! `[push]`: push notifications.

use std::path::Path;
use std::time::Duration;

use super::section::Section;
use super::stream_management::StreamManagement;
use super::transport::{self, Route, Transport};
use super::units::{DAY, HOUR, MINUTE, MOMENT};
use super::value::Wrong;
use crate::jid::Jid;
use crate::push::settings::PushSettings;
use crate::session::settings::Hibernation;

/// `[push]`: content and times of notifications, and their transports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// The content and times of notifications.
    pub settings: PushSettings,
    /// The settings for sessions that are held because their device has a registration.
    pub hibernation: Hibernation,
    /// `publish_timeout`: the longest time that an app server may take to answer. Default: 60 s.
    pub publish_timeout: Duration,
    /// `registration_ttl`: the lifetime of a registration whose device is not seen or whose app server is unreachable.
    /// Default: 90 d.
    pub registration_ttl: Duration,
    /// `transports`: the transports of notifications, in the order in which they are tried. Never empty. Default: `s2s`,
    /// `component`, `session`.
    pub transports: Vec<Transport>,
    /// `s2s_bidi`: true if app servers may answer over the stream on which they received the request (XEP-0288). Default:
    /// true.
    pub s2s_bidi: bool,
    /// `s2s_connections`: the most streams to app servers at once. Default: 200.
    pub s2s_connections: usize,
    /// `[[push.route]]`: addresses of app servers that are not looked up in the DNS.
    pub routes: Vec<Route>,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            settings: PushSettings::default(),
            hibernation: Hibernation::default(),
            publish_timeout: MINUTE,
            registration_ttl: 90 * 24 * HOUR,
            transports: vec![Transport::S2s, Transport::Component, Transport::Session],
            s2s_bidi: true,
            s2s_connections: 200,
            routes: Vec::new(),
        }
    }
}

impl PushConfig {
    /// Returns whether users may be notified through this app server.
    pub fn allows(&self, service: &Jid) -> bool {
        self.settings.allows(service)
    }
}

pub(super) fn read(mut s: Section<'_>, stream_management: &StreamManagement, directory: &Path) -> PushConfig {
    let d = PushConfig::default();
    let [hold_line, jingle_line] = ["max_hibernation_timeout", "jingle"].map(|key| s.line_of(key));
    let read = PushConfig {
        settings: settings(&mut s, d.settings),
        hibernation: hibernation(&mut s, &d.hibernation),
        publish_timeout: s.duration("publish_timeout", d.publish_timeout, MOMENT..=HOUR),
        registration_ttl: s.duration("registration_ttl", d.registration_ttl, MOMENT..=3660 * DAY),
        transports: transport::order(&mut s, d.transports),
        s2s_bidi: s.boolean("s2s_bidi", d.s2s_bidi),
        s2s_connections: s.number("s2s_connections", d.s2s_connections, 1..=100_000),
        routes: transport::routes(&mut s, directory),
    };
    if read.settings.jingle && !read.settings.extensions {
        s.problem(jingle_line, "jingle", "requires extensions = true", "set extensions = true, or remove the key");
    }
    if read.hibernation.max_timeout < stream_management.resume_timeout {
        let what = "shorter than [stream_management] resume_timeout: a session with a registration would be held for \
            less time";
        s.problem(hold_line, "max_hibernation_timeout", what, "set it to the value of resume_timeout or more");
    }
    s.finish();
    read
}

fn settings(s: &mut Section<'_>, d: PushSettings) -> PushSettings {
    PushSettings {
        important_body: s.parsed("important_body", body).map_or(d.important_body, |at| at.value),
        with_body: s.boolean("with_body", d.with_body),
        with_sender: s.boolean("with_sender", d.with_sender),
        max_errors: s.number("max_errors", d.max_errors, 1..=1_000),
        max_devices: s.number("max_devices", d.max_devices, 1..=100),
        batch_delay: s.duration("batch_delay", d.batch_delay, Duration::ZERO..=10 * MINUTE),
        min_interval: s.duration("min_interval", d.min_interval, Duration::ZERO..=DAY),
        unimportant: s.boolean("unimportant", d.unimportant),
        grace: s.duration("grace", d.grace, Duration::ZERO..=DAY),
        repush: s.durations("repush", d.repush, MOMENT..=DAY),
        extensions: s.boolean("extensions", d.extensions),
        jingle: s.boolean("jingle", d.jingle),
        services: transport::services(s),
    }
}

fn hibernation(s: &mut Section<'_>, d: &Hibernation) -> Hibernation {
    Hibernation {
        max_timeout: s.duration("max_hibernation_timeout", d.max_timeout, MOMENT..=30 * DAY),
        after_push: hibernation_after_push(s),
        linger: s.boolean("linger", d.linger),
    }
}

/// Reads `hibernation_after_push`. There is no default: without the key the hold does not change.
fn hibernation_after_push(s: &mut Section<'_>) -> Option<Duration> {
    let given = s.has("hibernation_after_push");
    let read = s.duration("hibernation_after_push", 10 * MINUTE, MOMENT..=30 * DAY);
    given.then_some(read)
}

fn body(text: &str) -> Result<String, Wrong> {
    if text.len() > 1_000 {
        return Err(Wrong::new("longer than 1,000 bytes", "shorten the text: it is sent with every notification"));
    }
    // XML 1.0 §2.2: these characters are not allowed in a stanza.
    if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n')) {
        return Err(Wrong::new("contains a control character", "remove the control character"));
    }
    Ok(text.to_owned())
}

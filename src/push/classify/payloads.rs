//! The payloads of a message: its children, read in one pass.

use std::borrow::Cow;

use super::call::{CallSignal, CallStep};
use super::noise_reason::Noise;
use crate::jid::Jid;
use crate::push::encryption::Encryption;
use crate::xml::{Node, ns};

/// The payloads of a message.
#[derive(Default)]
pub(super) struct Payloads<'a> {
    /// True if there is a body that is not blank.
    text: bool,
    /// True if the body is a fallback for something that does not notify.
    stands_in: bool,
    encryption: Option<Encryption>,
    /// The change of an earlier message, if it is one.
    edit: Option<Noise>,
    /// The kind of a message without a text, by the first child that shows it.
    silent: Option<Noise>,
    /// True if there is a chat state that only a person at the client causes.
    attentive: bool,
    /// True if there is a `displayed` marker.
    pub(super) displayed: bool,
    /// True if it is an invitation to a room.
    pub(super) invitation: bool,
    /// The call signalling, if any.
    pub(super) signal: Option<CallSignal<'a>>,
    /// The publish-subscribe event, if any.
    pub(super) event: Option<Node<'a>>,
    /// True if it was delayed, by any party.
    pub(super) delayed: bool,
    pub(super) occupant_id: Option<Cow<'a, str>>,
    pub(super) origin_id: Option<Cow<'a, str>>,
    /// The id in the archive of the account, or of the room.
    pub(super) stanza_id: Option<Cow<'a, str>>,
}

impl<'a> Payloads<'a> {
    /// Reads a message. `archive` is the address whose stanza-id (XEP-0359) is trusted.
    pub(super) fn read(message: &Node<'a>, archive: &str) -> Self {
        let mut payloads = Self::default();
        for child in message.children() {
            payloads.take(child, archive);
        }
        payloads
    }

    /// Returns `Ok` if a person would read the message when another account sent it, else the reason why not.
    pub(super) fn words(&self) -> Result<(), Noise> {
        match (self.edit, self.encryption) {
            (Some(edit), _) => Err(edit),
            (None, Some(Encryption::Keys)) => Err(Noise::KeyTransport),
            (None, Some(Encryption::Announced | Encryption::Text)) => Ok(()),
            (None, None) if self.text && self.stands_in => Err(Noise::Fallback),
            (None, None) if self.text => Ok(()),
            (None, None) => Err(self.silent.unwrap_or(Noise::NoText)),
        }
    }

    /// Returns whether a person caused it. Clients send receipts, keys and `ringing` by themselves, also while the user
    /// is away.
    pub(super) fn by_a_person(&self) -> bool {
        let signal = self.signal.as_ref().is_some_and(|signal| signal.step != CallStep::Ringing);
        signal
            || self.displayed
            || self.attentive
            || self.invitation
            || self.edit.is_some()
            || self.encryption.map_or(self.text, |encryption| encryption != Encryption::Keys)
    }

    fn take(&mut self, child: Node<'a>, archive: &str) {
        match (child.ns(), child.name()) {
            (ns::CLIENT, "body") => self.text |= !child.text().trim().is_empty(),
            (ns::CLIENT, "subject") => self.silent(Noise::Subject),
            (ns::STANZA_ID, "stanza-id")
                if child.attr("by").is_some_and(|by| by == archive || Jid::new(&by).as_str() == archive) =>
            {
                self.stanza_id = child.attr("id")
            }
            (ns::STANZA_ID, "origin-id") => self.origin_id = child.attr("id"),
            (ns::OCCUPANT_ID, "occupant-id") => self.occupant_id = child.attr("id"),
            (ns::DELAY, "delay") => self.delayed = true,
            (ns::CHAT_STATES, state) => {
                self.attentive |= matches!(state, "active" | "composing" | "paused");
                self.silent(Noise::ChatState);
            }
            (ns::RECEIPTS, "received") => self.silent(Noise::Receipt),
            (ns::CHAT_MARKERS, marker @ ("received" | "displayed" | "acknowledged")) => {
                self.displayed |= marker == "displayed";
                self.silent(Noise::Marker);
            }
            (ns::CORRECT | ns::REACTIONS | ns::RETRACT0 | ns::RETRACT1 | ns::MODERATE0 | ns::FASTEN, _) => {
                self.edit(&child)
            }
            (ns::FALLBACK, "fallback") => self.stands_in |= stands_in(&child),
            (ns::JINGLE_MESSAGE0 | ns::JINGLE_MESSAGE1 | ns::CALL_INVITES, _) => {
                self.signal = self.signal.take().or_else(|| CallSignal::read(&child));
            }
            (ns::CONFERENCE, "x") => self.invitation = true,
            (ns::MUC_USER, "x") => child.children().for_each(|inner| self.room_says(&inner)),
            (ns::PUBSUB_EVENT, "event") => {
                self.event = Some(child);
                self.silent(Noise::PubsubEvent);
            }
            (ns::FORWARD, "forwarded") | (ns::CARBONS, "sent" | "received") => self.silent(Noise::Forward),
            (uri, _) if uri.starts_with(ns::MAM_ANY) => self.silent(Noise::Archive),
            _ => self.encryption = self.encryption.max(Encryption::of(&child)),
        }
    }

    fn silent(&mut self, noise: Noise) {
        self.silent.get_or_insert(noise);
    }

    fn edit(&mut self, child: &Node<'_>) {
        // Until version 0.4 of XEP-0424 and 0.3 of XEP-0425, both were wrapped in XEP-0422.
        let edit = match child.is("apply-to", ns::FASTEN) {
            true => child.children().find_map(|inner| edit(&inner)),
            false => edit(child),
        };
        self.edit = self.edit.or(edit);
    }

    fn room_says(&mut self, inner: &Node<'_>) {
        match (inner.ns(), inner.name()) {
            (ns::MUC_USER, "invite") => self.invitation = true,
            (ns::MUC_USER, "decline") => self.silent(Noise::Decline),
            (ns::MUC_USER, "status") => self.silent(Noise::RoomNotice),
            _ => {}
        }
    }
}

fn edit(child: &Node<'_>) -> Option<Noise> {
    match (child.ns(), child.name()) {
        (ns::CORRECT, "replace") => Some(Noise::Correction),
        (ns::REACTIONS, "reactions") => Some(Noise::Reaction),
        (ns::RETRACT0 | ns::RETRACT1, "retract") | (ns::MODERATE0, "moderated") => Some(Noise::Retraction),
        _ => None,
    }
}

/// Returns whether the whole body is a fallback for something that does not notify. XEP-0428 §2.2: only a client that
/// understands the replaced feature may disregard the fallback. So a fallback for a file, for encryption or for
/// something unknown is a text.
fn stands_in(fallback: &Node<'_>) -> bool {
    let noise = matches!(
        fallback.attr("for").as_deref(),
        Some(
            ns::CORRECT
                | ns::REACTIONS
                | ns::RETRACT0
                | ns::RETRACT1
                | ns::MODERATE0
                | ns::MODERATE1
                | ns::FASTEN
                | ns::RECEIPTS
                | ns::CHAT_MARKERS
                | ns::CHAT_STATES
        )
    );
    let mut regions = fallback.children().peekable();
    let everything = regions.peek().is_none();
    noise && (everything || regions.any(|r| r.name() == "body" && r.attr("start").is_none() && r.attr("end").is_none()))
}

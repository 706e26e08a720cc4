//! Notifications that only the device can read: `tigase:push:encrypt:0`.
//!
//! Siskin's decoder requires `unread` and `sender`. A `type` other than the three here ends its notification extension.

use std::borrow::Cow;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::registration::Encrypt;

/// An initialisation vector of AES-GCM. It is random and never used twice: two notifications with the same vector would
/// reveal both.
pub(super) type Iv = [u8; 12];

/// Returns a fresh initialisation vector.
pub(super) fn iv(random: u128) -> Iv {
    let [_, _, _, _, iv @ ..] = random.to_be_bytes();
    iv
}

/// The content of a notification, before encryption.
#[derive(Serialize)]
pub(super) struct EncryptedSummary<'a> {
    /// The number of stanzas that wait.
    pub(super) unread: usize,
    /// The bare JID of the chat, or the full JID of a caller.
    pub(super) sender: Cow<'a, str>,
    /// The topic.
    #[serde(rename = "type")]
    pub(super) topic: Topic,
    /// The nickname of the sender in a room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nickname: Option<&'a str>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'a str>,
    /// The session of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sid: Option<&'a str>,
    /// `audio`, `video`: the media of a call that rings. Empty if the call is over.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) media: &'a [Cow<'static, str>],
}

/// The topic of a notification.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Topic {
    /// One person.
    Chat,
    /// A room.
    Groupchat,
    /// A call.
    Call,
}

impl EncryptedSummary<'_> {
    /// Returns the text of `<encrypted/>`: base64 of the ciphertext and its tag. Cuts the message to the size that the
    /// client accepts.
    pub(super) fn seal(mut self, asked: &Encrypt, iv: &Iv) -> String {
        self.fit(room(asked.max_size));
        // No step fails on so few bytes. If one did, nothing would be sent rather than plain text.
        let mut json = serde_json::to_vec(&self).unwrap_or_default();
        let sealed = UnboundKey::new(&AES_128_GCM, asked.key.expose()).and_then(|key| {
            let nonce = Nonce::assume_unique_for_key(*iv);
            LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::empty(), &mut json)
        });
        STANDARD.encode(if sealed.is_ok() { json } else { Vec::new() })
    }

    /// Cuts the message so that the JSON has at most `room` bytes, if cutting the message is enough.
    fn fit(&mut self, room: usize) {
        let Some(message) = self.message else { return };
        self.message = Some("");
        let empty = serde_json::to_vec(&self).map_or(room, |json| json.len());
        let left = room.saturating_sub(empty);
        let ends = message.chars().scan((0, 0), |(end, written), c| {
            *end += c.len_utf8();
            *written += written_len(c);
            Some((*end, *written))
        });
        let end = ends.take_while(|(_, written)| *written <= left).last().map_or(0, |(end, _)| end);
        self.message = message.get(..end).filter(|cut| !cut.is_empty());
    }
}

/// Returns the bytes of JSON that become `max_size` bytes in base64, with 64 reserved for the surrounding XML.
fn room(max_size: usize) -> usize {
    max_size.saturating_sub(64) * 6 / 8
}

/// Returns the bytes that a character takes in a string of serde_json.
fn written_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{C}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

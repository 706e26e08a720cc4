//! The details of one stanza that a notification may show.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::jid::{BareJid, Jid};
use crate::push::classify::{Class, Classified};
use crate::push::encrypted_summary::{EncryptedSummary, Topic};
use crate::push::message_text::MessageText;
use crate::secret::Secret;
use crate::xml::{Node, XmlWriter, ns};

/// The details of the newest stanza that notifies. They remain after the stanza has gone to disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    pub(super) important: bool,
    pub(super) newest: Option<NewestDetails>,
}

/// The details that a person may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NewestDetails {
    pub(super) from: Jid,
    chat: BareJid,
    about: About,
    /// The text of the message.
    pub(super) text: Option<Secret<String>>,
    /// The text to show if the message has none, or none that can be read.
    note: Cow<'static, str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum About {
    Person,
    Room { nickname: Option<Secret<String>> },
    Call(Call),
}

/// A call that rings, or a call that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Call {
    sid: String,
    /// The name of the element of XEP-0353.
    action: Cow<'static, str>,
    /// The media of a call that rings; never empty in that case. Empty for a call that is over.
    media: Vec<Cow<'static, str>>,
}

/// The maximum bytes of a text in a notification.
const MAX_TEXT: usize = 4 * 1024;
/// The maximum bytes of a session id. Clients do not create longer ones.
const MAX_SID: usize = 256;

impl Detail {
    /// Returns the details of a stanza. There are none if it does not notify, or if its sender is not known.
    pub fn of(reading: &Classified<'_>) -> Self {
        Self { important: reading.class.is_important(), newest: NewestDetails::of(reading) }
    }

    /// Returns the details for registrations that show neither sender nor text: see [`Extensions::shows_details`].
    ///
    /// [`Extensions::shows_details`]: crate::push::registration::Extensions::shows_details
    pub fn brief(reading: &Classified<'_>) -> Self {
        Self { important: reading.class.is_important(), newest: None }
    }
}

/// The form in which an encrypted summary shows a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallForm {
    /// As a call, for a device that asked for `jingle`.
    Call,
    /// As a message.
    Message,
}

impl NewestDetails {
    fn of(reading: &Classified<'_>) -> Option<Self> {
        let stanza = &reading.stanza;
        let message_text = match reading.class {
            Class::Message | Class::Invite => MessageText::of(stanza),
            Class::Call | Class::CallEnd | Class::Subscribe | Class::ReadSync | Class::Noise(_) => MessageText::Absent,
        };
        let note = note(reading.class, &message_text)?;
        // RFC 6120 §8.1.2.1: a stanza without `from` comes from the account itself.
        let from = stanza.attr("from").or_else(|| stanza.attr("to"))?;
        let from = Jid::new(&from);
        let chat = reading.chat.clone().unwrap_or_else(|| from.to_bare());
        let text = text(message_text);
        let about = if let Some(call) = call(reading) {
            About::Call(call)
        } else if stanza.attr("type").as_deref() == Some("groupchat") {
            About::Room { nickname: from.resource().map(|nick| Secret::new(nick.to_owned())) }
        } else {
            About::Person
        };
        Some(Self { from, chat, about, text, note: note.into() })
    }

    /// Returns whether it is about a call for which a client with `<jingle/>` rings, or stops ringing.
    pub(super) fn is_call(&self) -> bool {
        matches!(self.about, About::Call(_))
    }

    /// Returns the summary that is encrypted for a device.
    pub(super) fn encrypted_summary(&self, unread: usize, call_form: CallForm) -> EncryptedSummary<'_> {
        let message = self.text.as_ref().map_or(&*self.note, |text| text.expose());
        let summary = EncryptedSummary {
            unread,
            sender: self.chat.as_str().into(),
            topic: Topic::Chat,
            nickname: None,
            message: Some(message),
            sid: None,
            media: &[],
        };
        match &self.about {
            About::Room { nickname } => {
                let nickname = nickname.as_ref().map(|nick| nick.expose().as_str());
                EncryptedSummary { topic: Topic::Groupchat, nickname, ..summary }
            }
            About::Call(call) if call_form == CallForm::Call => {
                let sender = self.from.as_str().into();
                EncryptedSummary {
                    topic: Topic::Call,
                    sender,
                    message: None,
                    sid: Some(&call.sid),
                    media: &call.media,
                    ..summary
                }
            }
            About::Person | About::Call(_) => summary,
        }
    }

    /// Writes the call element for a device with `<jingle/>` but without `<encrypt/>`.
    pub(super) fn write_call(&self, xml: &mut XmlWriter) {
        let About::Call(call) = &self.about else { return };
        xml.start("jingle").attr("xmlns", ns::TIGASE_JINGLE).attr("action", &call.action).attr("sid", &call.sid);
        for media in &call.media {
            xml.start("media").text(media).end();
        }
        xml.end();
    }
}

fn note(class: Class, message_text: &MessageText) -> Option<&'static str> {
    Some(match class {
        Class::Message if matches!(message_text, MessageText::Encrypted) => "New encrypted message",
        Class::Message => "New message",
        Class::Invite => "Invitation to a group chat",
        Class::Subscribe => "Contact request",
        Class::Call => "Incoming call",
        Class::CallEnd => "The call is over",
        Class::ReadSync | Class::Noise(_) => return None,
    })
}

fn text(message_text: MessageText) -> Option<Secret<String>> {
    let MessageText::Readable(mut text) = message_text else { return None };
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    text.truncate(ends.take_while(|end| *end <= MAX_TEXT).last().unwrap_or_default());
    Some(Secret::new(text))
}

/// Returns the call, in a form that Siskin supports: XEP-0353, or a direct Jingle session. Not an invitation of
/// XEP-0482.
fn call(reading: &Classified<'_>) -> Option<Call> {
    if !matches!(reading.class, Class::Call | Class::CallEnd) {
        return None;
    }
    let initiation = |c: &Node<'_>| matches!(c.ns(), ns::JINGLE_MESSAGE0 | ns::JINGLE_MESSAGE1);
    let (element, sid) = match reading.stanza.children().find(initiation) {
        Some(element) => (element, element.attr("id")),
        None => {
            let jingle = reading.stanza.child("jingle", ns::JINGLE)?;
            (jingle, jingle.attr("sid"))
        }
    };
    let sid = reading.call.clone().or_else(|| sid.map(|sid| sid.into_owned()));
    let sid = sid.filter(|sid| !sid.is_empty() && sid.len() <= MAX_SID)?;
    if reading.class == Class::Call {
        return Some(Call { sid, action: "propose".into(), media: media(&element) });
    }
    let action = match element.name() {
        "proceed" => "proceed",
        "accept" => "accept",
        "reject" => "reject",
        "finish" => "finish",
        _ => "retract",
    };
    Some(Call { sid, action: action.into(), media: Vec::new() })
}

/// Returns the offered media (XEP-0167), as far as Siskin knows them.
fn media(offer: &Node<'_>) -> Vec<Cow<'static, str>> {
    let contents = offer.children().filter(|c| c.is("content", ns::JINGLE)).flat_map(|content| content.children());
    let descriptions: Vec<_> =
        offer.children().chain(contents).filter(|d| d.is("description", ns::JINGLE_RTP)).collect();
    let offers = |media: &str| descriptions.iter().any(|d| d.attr("media").as_deref() == Some(media));
    let video = offers("video").then_some("video");
    let audio = (offers("audio") || video.is_none()).then_some("audio");
    audio.into_iter().chain(video).map(Cow::Borrowed).collect()
}

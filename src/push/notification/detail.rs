//! What there is to tell about one stanza.

use crate::jid::{BareJid, Jid};
use crate::push::classify::{Class, Reading};
use crate::push::encrypt::{Kind, Letter};
use crate::push::message_text::Wording;
use crate::push::registration::Secret;
use crate::xml::{Node, XmlWriter, ns};

/// What there is to tell about the newest stanza that notifies. It outlives the stanza, which may wait on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    pub(super) important: bool,
    pub(super) told: Option<Told>,
}

/// What a person is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) from: Jid,
    chat: BareJid,
    about: About,
    /// What was written.
    pub(super) text: Option<Secret<String>>,
    /// What to say where nothing was, or nothing that can be read.
    note: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    Person,
    Room { nickname: Option<Secret<String>> },
    Call(Call),
}

/// A call that rings, or one that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    sid: String,
    /// What happened: the name of the element of XEP-0353.
    action: &'static str,
    /// What a call that rings carries. Never empty then.
    media: Vec<&'static str>,
}

/// More of a text goes into no notification, bytes.
const MAX_TEXT: usize = 4 * 1024;
/// A longer session id is not one that a client made, bytes.
const MAX_SID: usize = 256;

impl Detail {
    /// What there is to tell about a stanza: nothing if nobody waits for it, or it is not known by whom it is.
    pub fn of(reading: &Reading<'_>) -> Self {
        Self { important: reading.class.is_important(), told: Told::of(reading) }
    }

    /// The same for those that are not told who wrote, or what: see [`Extensions::says_more`].
    ///
    /// [`Extensions::says_more`]: crate::push::registration::Extensions::says_more
    pub fn brief(reading: &Reading<'_>) -> Self {
        Self { important: reading.class.is_important(), told: None }
    }
}

impl Told {
    fn of(reading: &Reading<'_>) -> Option<Self> {
        let stanza = &reading.stanza;
        let wording = match reading.class {
            Class::Message | Class::Invite => Wording::of(stanza),
            Class::Call | Class::CallEnd | Class::Subscribe | Class::ReadSync | Class::Noise(_) => Wording::Silence,
        };
        let note = note(reading.class, &wording)?;
        // RFC 6120 §8.1.2.1: without `from` it is the account itself.
        let from = stanza.attr("from").or_else(|| stanza.attr("to"))?;
        let from = Jid::new(&from);
        let chat = reading.chat.clone().unwrap_or_else(|| from.to_bare());
        let text = text(wording);
        let about = if let Some(call) = call(reading) {
            About::Call(call)
        } else if stanza.attr("type").as_deref() == Some("groupchat") {
            About::Room { nickname: from.resource().map(|nick| Secret::new(nick.to_owned())) }
        } else {
            About::Person
        };
        Some(Self { from, chat, about, text, note })
    }

    /// Whether it is about a call that a client with `<jingle/>` rings for, or stops to.
    pub(super) fn is_call(&self) -> bool {
        matches!(self.about, About::Call(_))
    }

    /// The letter to a device; calls are such only for those that ask for them.
    pub(super) fn letter(&self, unread: usize, jingle: bool) -> Letter<'_> {
        let message = self.text.as_ref().map_or(self.note, |text| text.expose());
        let letter = Letter {
            unread,
            sender: self.chat.as_str().into(),
            kind: Kind::Chat,
            nickname: None,
            message: Some(message),
            sid: None,
            media: &[],
        };
        match &self.about {
            About::Room { nickname } => {
                let nickname = nickname.as_ref().map(|nick| nick.expose().as_str());
                Letter { kind: Kind::Groupchat, nickname, ..letter }
            }
            About::Call(call) if jingle => {
                let sender = self.from.as_str().into();
                Letter { kind: Kind::Call, sender, message: None, sid: Some(&call.sid), media: &call.media, ..letter }
            }
            About::Person | About::Call(_) => letter,
        }
    }

    /// What a device with `<jingle/>` but without `<encrypt/>` is told about a call.
    pub(super) fn write_call(&self, xml: &mut XmlWriter) {
        let About::Call(call) = &self.about else { return };
        xml.start("jingle").attr("xmlns", ns::TIGASE_JINGLE).attr("action", call.action).attr("sid", &call.sid);
        for media in &call.media {
            xml.start("media").text(media).end();
        }
        xml.end();
    }
}

fn note(class: Class, wording: &Wording) -> Option<&'static str> {
    Some(match class {
        Class::Message if matches!(wording, Wording::Encrypted) => "New encrypted message",
        Class::Message => "New message",
        Class::Invite => "Invitation to a group chat",
        Class::Subscribe => "Contact request",
        Class::Call => "Incoming call",
        Class::CallEnd => "The call is over",
        Class::ReadSync | Class::Noise(_) => return None,
    })
}

fn text(wording: Wording) -> Option<Secret<String>> {
    let Wording::Text(mut text) = wording else { return None };
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    text.truncate(ends.take_while(|end| *end <= MAX_TEXT).last().unwrap_or_default());
    Some(Secret::new(text))
}

/// A call that Siskin knows how to take: XEP-0353, or a Jingle session at once. Not an invitation of XEP-0482.
fn call(reading: &Reading<'_>) -> Option<Call> {
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
        return Some(Call { sid, action: "propose", media: media(&element) });
    }
    let action = match element.name() {
        "proceed" => "proceed",
        "accept" => "accept",
        "reject" => "reject",
        "finish" => "finish",
        _ => "retract",
    };
    Some(Call { sid, action, media: Vec::new() })
}

/// XEP-0167: what is offered, as far as Siskin knows the word.
fn media(offer: &Node<'_>) -> Vec<&'static str> {
    let contents = offer.children().filter(|c| c.is("content", ns::JINGLE)).flat_map(|content| content.children());
    let descriptions: Vec<_> =
        offer.children().chain(contents).filter(|d| d.is("description", ns::JINGLE_RTP)).collect();
    let offers = |media: &str| descriptions.iter().any(|d| d.attr("media").as_deref() == Some(media));
    let video = offers("video").then_some("video");
    let audio = (offers("audio") || video.is_none()).then_some("audio");
    audio.into_iter().chain(video).collect()
}

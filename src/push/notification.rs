//! The content of a notification: the publish of XEP-0357 §7. [`Publish`] is a notification for one registration, and
//! [`Summary`] the part that is the same for all devices.

mod detail;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::encrypted_summary::{Iv, iv};
use super::registration::{Extensions, Field, Registration, Target};
use super::settings::PushSettings;
use super::waiting::WaitingCounts;
use crate::secret::Secret;
use crate::xml::{XmlWriter, ns};
pub use detail::Detail;
use detail::{CallForm, NewestDetails};

/// The bytes of a usual publish iq without the content of its `<notification/>`.
const IQ: usize = 512;
/// The bytes of a usual summary.
const FORM: usize = 512;

/// The number of a publish in the log. It ties the line about the attempt to the line about its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishId(u32);

impl fmt::Display for PublishId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A notification on its way to one push service.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Publish {
    /// Its number in the log.
    pub id: PublishId,
    /// The registration's target.
    pub target: Target,
    /// The publish-options that the client asked for.
    pub options: Option<Vec<Field>>,
    /// The content for a device without extensions.
    pub summary: Summary,
    /// The children of `<notification/>`.
    content: Secret<Bytes>,
}

/// The content that is the same for all devices. Its form is `urn:xmpp:push:summary`, unless the device asks for
/// encryption.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// `message-count`: the number of important stanzas that the device has not acknowledged.
    pub count: usize,
    /// `pending-subscription-count`, omitted if it is 0.
    pub subscriptions: usize,
    /// True if it is about something important. App servers detect this by the text.
    pub important: bool,
    /// `last-message-sender`, with `with_sender`.
    pub sender: Option<String>,
    /// `last-message-body`: the text if `with_body` is set, else `important_body`.
    pub body: Option<Secret<String>>,
    /// True if the operator allows calls to ring by notification. A device may have asked for it when the operator
    /// still did.
    calls: bool,
    /// The details for a device that asks for them. They are not part of a publish.
    #[serde(skip)]
    newest: Option<Box<NewestDetails>>,
}

impl Summary {
    /// Shows as much of the newest stanza as the operator allows. `newest` is `None` if the stanza is not available.
    pub fn new(settings: &PushSettings, counts: WaitingCounts, newest: Option<Detail>) -> Self {
        let important = newest.as_ref().map_or(counts.important > 0, |newest| newest.important);
        let newest = newest.and_then(|newest| newest.newest);
        let sender = newest.as_ref().filter(|_| settings.with_sender).map(|newest| newest.from.to_string());
        let text = newest.as_ref().filter(|_| settings.with_body).and_then(|newest| newest.text.clone());
        Self {
            count: counts.important,
            subscriptions: counts.subscriptions,
            important,
            sender,
            body: if important { text.or_else(|| important_body(settings)) } else { None },
            calls: settings.jingle,
            newest: newest.map(Box::new),
        }
    }

    /// Asks the device to connect again, without a text.
    pub fn wake(settings: &PushSettings) -> Self {
        Self::new(settings, WaitingCounts::default(), None)
    }

    /// Asks the device to connect again, because something important waits.
    pub fn wake_for_important(settings: &PushSettings) -> Self {
        Self::new(settings, WaitingCounts { important: 1, subscriptions: 0 }, None)
    }

    fn write(&self, xml: &mut XmlWriter) {
        xml.start("x").attr("xmlns", ns::DATA).attr("type", "submit");
        // XEP-0068: strict app servers recognize FORM_TYPE only if it is hidden.
        xml.start("field").attr("var", "FORM_TYPE").attr("type", "hidden").start("value").text(ns::PUSH_SUMMARY);
        xml.end().end();
        let mut field = |var: &str, value: &str| {
            xml.start("field").attr("var", var).start("value").text(value).end().end();
        };
        field("message-count", &self.count.to_string());
        if self.subscriptions > 0 {
            field("pending-subscription-count", &self.subscriptions.to_string());
        }
        if let Some(sender) = &self.sender {
            field("last-message-sender", sender);
        }
        if let Some(body) = &self.body {
            field("last-message-body", body.expose());
        }
        xml.end();
    }
}

fn important_body(settings: &PushSettings) -> Option<Secret<String>> {
    Some(&settings.important_body).filter(|body| !body.is_empty()).map(|body| Secret::new(body.clone()))
}

impl Publish {
    /// Builds a notification for a registration. `random` is fresh and unguessable; no other publish has it.
    pub fn new(registration: &Registration, mut summary: Summary, random: u128) -> Self {
        let content = Secret::new(content(&registration.extensions, &summary, &iv(random)));
        summary.newest = None;
        let (target, options) = (registration.target.clone(), registration.options.clone());
        Self { id: publish_id(random), target, options, summary, content }
    }

    /// Returns the publish iq in the form that every known app server accepts.
    pub fn iq(&self, id: &str, from: Option<&str>) -> Bytes {
        let mut xml = XmlWriter::with_capacity(IQ + self.content.expose().len());
        xml.start("iq").attr("type", "set").attr("id", id).attr("to", self.target.service.as_str());
        if let Some(from) = from {
            xml.attr("from", from);
        }
        xml.start("pubsub").attr("xmlns", ns::PUBSUB);
        xml.start("publish");
        if let Some(node) = &self.target.node {
            xml.attr("node", node);
        }
        xml.start("item").start("notification").attr("xmlns", ns::PUSH).raw(self.content.expose());
        xml.end().end().end();
        if let Some(options) = &self.options {
            xml.start("publish-options").start("x").attr("xmlns", ns::DATA).attr("type", "submit");
            for field in options {
                write_field(&mut xml, field);
            }
        }
        xml.finish()
    }
}

/// Returns the number of a publish: the part of its random number of which the initialization vector has nothing.
fn publish_id(random: u128) -> PublishId {
    let [a, b, c, d, ..] = random.to_be_bytes();
    PublishId(u32::from_be_bytes([a, b, c, d]))
}

/// Returns the children of `<notification/>`.
fn content(extensions: &Extensions, summary: &Summary, iv: &Iv) -> Bytes {
    let mut xml = XmlWriter::with_capacity(FORM);
    let call = summary.newest.as_ref().filter(|newest| extensions.jingle && summary.calls && newest.is_call());
    match sealed(extensions, summary, iv) {
        Some(sealed) => {
            xml.start("encrypted").attr("xmlns", ns::TIGASE_ENCRYPT).attr("iv", &STANDARD.encode(iv));
            if call.is_some() {
                xml.attr("type", "voip");
            }
            xml.text(&sealed).end();
        }
        None => {
            summary.write(&mut xml);
            if let Some(call) = call {
                call.write_call(&mut xml);
            }
        }
    }
    if extensions.priority {
        // The end of a call stops a ringing phone, so it is urgent too.
        let priority = if summary.important || call.is_some() { "high" } else { "low" };
        xml.start("priority").attr("xmlns", ns::TIGASE_PRIORITY).text(priority);
    }
    xml.finish()
}

/// Returns the content encrypted under the device's key. Returns `None` if only numbers are known, since it needs a
/// sender.
fn sealed(extensions: &Extensions, summary: &Summary, iv: &Iv) -> Option<String> {
    let (asked, newest) = (extensions.encrypt.as_ref()?, summary.newest.as_ref()?);
    let call_form = if extensions.jingle && summary.calls { CallForm::Call } else { CallForm::Message };
    Some(newest.encrypted_summary(summary.count, call_form).seal(asked, iv))
}

fn write_field(xml: &mut XmlWriter, field: &Field) {
    xml.start("field").attr("var", &field.var);
    if let Some(kind) = &field.kind {
        xml.attr("type", kind);
    }
    for value in &field.values {
        xml.start("value").text(value.expose()).end();
    }
    xml.end();
}

#[cfg(test)]
mod tests;

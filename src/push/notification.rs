//! What is said: the publish of XEP-0357 §7.

use bytes::Bytes;

use super::registration::{Field, Registration, Secret, Target};
use crate::config;
use crate::xml::{Node, XmlWriter, ns};

/// A notification on its way to one push service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub target: Target,
    /// The publish-options that the client asked for.
    pub options: Option<Vec<Field>>,
    /// What is said.
    pub summary: Summary,
}

/// The form `urn:xmpp:push:summary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// `message-count`: important stanzas that the device has not acknowledged.
    pub count: usize,
    /// `last-message-sender`, with `with_sender`.
    pub sender: Option<String>,
    /// `last-message-body`: the text with `with_body`, else `important_body`.
    pub body: Option<Secret<String>>,
}

/// x
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    sender: Option<String>,
    text: Option<Secret<String>>,
}
impl Detail {
    /// x
    pub fn of(reading: &super::classify::Reading<'_>) -> Self {
        let newest = reading.stanza;
        Self {
            sender: newest.attr("from").map(|from| from.into_owned()),
            text: newest.child("body", ns::CLIENT).map(|b| Secret::new(b.text().into_owned())),
        }
    }
}

impl Summary {
    /// Says as much of the newest important message as the operator allows.
    pub fn new(settings: &config::Push, counts: super::waiting::Counts, newest: Option<Detail>) -> Self {
        let sender = newest.as_ref().filter(|_| settings.with_sender).and_then(|d| d.sender.clone());
        let text = newest.filter(|_| settings.with_body).and_then(|d| d.text).map(|t| t.expose().clone());
        let body = text.filter(|text| !text.is_empty()).unwrap_or_else(|| settings.important_body.clone());
        Self { count: counts.important, sender, body: (!body.is_empty()).then(|| Secret::new(body)) }
    }

    /// Says that the device should come back: with a text only if something important waits.
    pub fn wake(settings: &config::Push, waits: bool) -> Self {
        let body = (waits && !settings.important_body.is_empty()).then(|| Secret::new(settings.important_body.clone()));
        Self { count: usize::from(waits), sender: None, body }
    }
}

impl Publish {
    /// A notification for a registration.
    pub fn new(registration: &Registration, summary: Summary, _iv: u128) -> Self {
        Self { target: registration.target.clone(), options: registration.options.clone(), summary }
    }

    /// The publish iq in the form that every known app server takes.
    pub fn iq(&self, id: &str, from: Option<&str>) -> Bytes {
        let mut xml = XmlWriter::new();
        xml.start("iq").attr("type", "set").attr("id", id).attr("to", self.target.service.as_str());
        if let Some(from) = from {
            xml.attr("from", from);
        }
        xml.start("pubsub").attr("xmlns", ns::PUBSUB);
        xml.start("publish");
        if let Some(node) = &self.target.node {
            xml.attr("node", node);
        }
        xml.start("item").start("notification").attr("xmlns", ns::PUSH);
        self.write_summary(&mut xml);
        xml.end().end().end();
        if let Some(options) = &self.options {
            xml.start("publish-options").start("x").attr("xmlns", ns::DATA).attr("type", "submit");
            for field in options {
                write_field(&mut xml, field);
            }
        }
        xml.finish()
    }

    fn write_summary(&self, xml: &mut XmlWriter) {
        xml.start("x").attr("xmlns", ns::DATA).attr("type", "submit");
        // XEP-0068: strict app servers know FORM_TYPE only when it is hidden.
        xml.start("field").attr("var", "FORM_TYPE").attr("type", "hidden").start("value").text(ns::PUSH_SUMMARY);
        xml.end().end();
        let mut field = |var: &str, value: &str| {
            xml.start("field").attr("var", var).start("value").text(value).end().end();
        };
        field("message-count", &self.summary.count.to_string());
        if let Some(sender) = &self.summary.sender {
            field("last-message-sender", sender);
        }
        if let Some(body) = &self.summary.body {
            field("last-message-body", body.expose());
        }
        xml.end();
    }
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

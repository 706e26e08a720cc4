//! The push service: a component of the server that accepts publishes (XEP-0357 §7) and reports them to its receivers.

use std::time::Instant;

use bytes::Bytes;

use super::answer::{error, reply, result};
use crate::xml::{Node, ns};

/// A publish, as an app server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The time of arrival.
    pub at: Instant,
    /// The sender.
    pub from: String,
    /// The node with which the device was registered.
    pub node: Option<String>,
    /// The fields of the summary form: variable and value.
    pub fields: Vec<(String, String)>,
}

impl Notification {
    /// Returns the value of a field of the summary, such as `message-count`.
    pub fn field(&self, var: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == var).map(|(_, value)| value.as_str())
    }
}

/// Answers an iq request to the push service. `from`: the requester.
pub(super) fn answer(request: &Node<'_>, from: &str) -> (Bytes, Option<Notification>) {
    if request.attr("type").as_deref() == Some("set") {
        if let Some(publish) = request.child("pubsub", ns::PUBSUB).and_then(|p| p.child("publish", ns::PUBSUB)) {
            return match notification(&publish, from) {
                Some(notification) => (result(request), Some(notification)),
                None => (error(request, "modify", "bad-request"), None),
            };
        }
    } else if request.child("query", ns::DISCO_INFO).is_some() {
        let mut xml = reply(request, "result");
        xml.start("query").attr("xmlns", ns::DISCO_INFO);
        xml.start("identity").attr("category", "pubsub").attr("type", "push").end();
        xml.start("feature").attr("var", ns::PUSH);
        return (xml.finish(), None);
    }
    (error(request, "cancel", "service-unavailable"), None)
}

fn notification(publish: &Node<'_>, from: &str) -> Option<Notification> {
    let item = publish.child("item", ns::PUBSUB)?;
    let form = item.child("notification", ns::PUSH)?.child("x", ns::DATA)?;
    let fields = form.children().filter(|field| field.is("field", ns::DATA)).filter_map(|field| {
        let value = field.child("value", ns::DATA).map(|value| value.text().into_owned());
        Some((field.attr("var")?.into_owned(), value.unwrap_or_default()))
    });
    Some(Notification {
        at: Instant::now(),
        from: from.to_owned(),
        node: publish.attr("node").map(|node| node.into_owned()),
        fields: fields.collect(),
    })
}

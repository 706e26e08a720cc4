//! Registrations: a client's request with `<enable/>` (XEP-0357 §5). [`Request`] is the parsed request,
//! [`Registration`] the stored record.

mod error;
mod extensions;

use std::fmt;
use std::time::Duration;

use super::device::DeviceId;
use super::settings::PushSettings;
use crate::clock::UnixSecs;
use crate::jid::{FullJid, Jid};
use crate::secret::Secret;
use crate::xml::{Node, ns};
pub use error::RequestError;
pub use extensions::{Allow, Encrypt, Extensions, features};

/// The target of a registration's notifications: `jid` and `node` of XEP-0357 §5.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// The push service.
    pub service: Jid,
    /// The node at the service. Some services need none.
    pub node: Option<String>,
}

impl Target {
    /// Returns whether a `from` address is this push service.
    pub fn is_from(&self, from: &str) -> bool {
        Jid::new(from) == self.service
    }
}

impl fmt::Display for Target {
    // The node may be a device token, so logs show only the service.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service.fmt(f)
    }
}

/// A request of a client: `<enable/>` or `<disable/>` (XEP-0357 §5, §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Enables notifications to this target.
    Enable {
        /// The target.
        target: Target,
        /// The publish-options form; `None` if there is none.
        options: Option<Vec<Field>>,
        /// The extensions that the client asks for.
        extensions: Box<Extensions>,
    },
    /// Disables notifications to this node, or to all nodes of the service if there is no node.
    Disable(Jid, Option<String>),
}

/// The maximum bytes of node and publish-options in a registration.
const MAX_OPTIONS: usize = 8 * 1024;

impl Request {
    /// Reads the child of an iq, if it is `<enable/>` or `<disable/>` of `urn:xmpp:push:0`.
    ///
    /// # Errors
    /// [`RequestError`] with the reason.
    pub fn parse(child: &Node<'_>, own: &FullJid, settings: &PushSettings) -> Option<Result<Self, RequestError>> {
        if child.ns() != ns::PUSH {
            return None;
        }
        match child.name() {
            "enable" => Some(enable_request(child, own, settings)),
            "disable" => {
                let node = child.attr("node").map(|node| node.into_owned());
                Some(service(child).map(|service| Self::Disable(service, node)))
            }
            _ => None,
        }
    }
}

fn service(child: &Node<'_>) -> Result<Jid, RequestError> {
    let jid = child.attr("jid").ok_or(RequestError::Jid)?;
    Some(Jid::new(&jid)).filter(Jid::is_routable).ok_or(RequestError::Jid)
}

fn enable_request(child: &Node<'_>, own: &FullJid, settings: &PushSettings) -> Result<Request, RequestError> {
    let service = service(child)?;
    if service.to_bare() == own.to_bare() {
        return Err(RequestError::OwnJid);
    }
    if !settings.allows(&service) {
        return Err(RequestError::NotAllowed);
    }
    let form = child.child("x", ns::DATA);
    if child.start_tag().len() + form.map_or(0, |form| form.raw().len()) > MAX_OPTIONS {
        return Err(RequestError::TooLarge);
    }
    let node = child.attr("node").map(|node| node.into_owned());
    let options = form.map(|form| form.children().filter_map(|f| field(&f)).collect());
    let extensions = Box::new(Extensions::parse(child, settings)?);
    Ok(Request::Enable { target: Target { service, node }, options, extensions })
}

fn field(field: &Node<'_>) -> Option<Field> {
    if !field.is("field", ns::DATA) {
        return None;
    }
    let values = field.children().filter(|v| v.is("value", ns::DATA));
    Some(Field {
        var: field.attr("var")?.into_owned(),
        kind: field.attr("type").map(|kind| kind.into_owned()),
        values: values.map(|v| Secret::new(v.text().into_owned())).collect(),
    })
}

/// One field of the publish-options form, as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Field {
    /// XEP-0004 `var`.
    pub var: String,
    /// XEP-0004 `type`, if the client sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The values. They may be credentials.
    pub values: Vec<Secret<String>>,
}

/// A device's request to be notified, as stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Registration {
    /// The target.
    pub target: Target,
    /// The publish-options form; `None` if the client gave none.
    #[serde(default)]
    pub options: Option<Vec<Field>>,
    /// The extensions that the client asked for.
    #[serde(default, skip_serializing_if = "Extensions::is_default")]
    pub extensions: Box<Extensions>,
    /// The device that owns it.
    pub device: DeviceId,
    /// The time of the device's last contact.
    pub last_seen: UnixSecs,
    /// The number of publish errors in a row, without `wait` errors.
    #[serde(default)]
    pub errors: u32,
    /// The time of the last accepted publish, to the minute; `None` if none was accepted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<UnixSecs>,
    /// The time of the first undelivered publish since the service last answered; `None` if all were delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered_since: Option<UnixSecs>,
}

/// The precision of the time of the last success. It is coarse because each change of an account is a disk write.
const SUCCESS_PRECISION: Duration = Duration::from_secs(60);

impl Registration {
    /// Records that a publish was accepted at this time.
    pub(super) fn succeeded(&mut self, at: UnixSecs) {
        (self.errors, self.undelivered_since) = (0, None);
        if !self.is_recent(at) {
            self.last_success = Some(at);
        }
    }

    /// Returns whether a success at this time makes no difference.
    pub(super) fn knows_success(&self, at: UnixSecs) -> bool {
        self.errors == 0 && self.undelivered_since.is_none() && self.is_recent(at)
    }

    fn is_recent(&self, at: UnixSecs) -> bool {
        self.last_success.is_some_and(|last| at < last.plus(SUCCESS_PRECISION))
    }
}

#[cfg(test)]
mod tests;

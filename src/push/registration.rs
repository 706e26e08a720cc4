//! Registrations: what a client asks for with `<enable/>` (XEP-0357 §5).

mod extensions;

use std::fmt;

use super::account::DeviceId;
use crate::config;
use crate::jid::{FullJid, Jid};
use crate::xml::{ErrorType, Node, StanzaCondition, ns};
pub use extensions::{Allow, Encrypt, Extensions, features};

/// Text that must never reach a log: prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value that is not to be printed.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the wire and the disk only.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where notifications of one registration go: XEP-0357 §5's `jid` and `node`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// The push service.
    pub service: Jid,
    /// The node at the service; some services need none.
    pub node: Option<String>,
}

impl Target {
    /// Whether an address in a `from` is this push service.
    pub fn is_from(&self, from: &str) -> bool {
        Jid::new(from) == self.service
    }
}

impl fmt::Display for Target {
    // The node may be a device token, so logs show the service alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service.fmt(f)
    }
}

/// What a client asks with `<enable/>` or `<disable/>` (XEP-0357 §5, §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Notify this target.
    Enable {
        /// Where to publish.
        target: Target,
        /// The publish-options form; `None` if there is none.
        options: Option<Vec<Field>>,
        /// What else the client asks for.
        extensions: Box<Extensions>,
    },
    /// Notify this node no more, or none of the service's.
    Disable(Jid, Option<String>),
}

/// The client's fault: why a request cannot be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no `jid`, or it is not one.
    #[error("the push service's jid is missing or malformed")]
    Jid,
    /// The client names itself as the push service.
    #[error("the push service is the client itself")]
    OwnJid,
    /// The operator does not want this push service: `services`.
    #[error("the push service is not among those that may be used")]
    NotAllowed,
    /// More than is reasonable to keep.
    #[error("the request is too large to keep")]
    TooLarge,
    /// It asks for a way of encryption that is not known.
    #[error("the algorithm is unknown")]
    Algorithm,
    /// The key is not base64 or not of the right length.
    #[error("the key is malformed")]
    Key,
}

impl RequestError {
    /// The type of the stanza error (RFC 6120 §8.3.2).
    pub fn kind(self) -> ErrorType {
        if self == Self::NotAllowed { ErrorType::Cancel } else { ErrorType::Modify }
    }

    /// The condition of the stanza error (RFC 6120 §8.3.3).
    pub fn condition(self) -> StanzaCondition {
        match self {
            Self::Algorithm => StanzaCondition::FeatureNotImplemented,
            Self::NotAllowed => StanzaCondition::NotAllowed,
            Self::Jid | Self::OwnJid | Self::TooLarge | Self::Key => StanzaCondition::BadRequest,
        }
    }
}

/// How many bytes of node and publish-options a registration may have.
const MAX_OPTIONS: usize = 8 * 1024;

impl Request {
    /// Reads the child of an iq, if it is `<enable/>` or `<disable/>` of `urn:xmpp:push:0`.
    ///
    /// # Errors
    /// [`RequestError`] with the reason.
    pub fn parse(child: &Node<'_>, own: &FullJid, settings: &config::Push) -> Option<Result<Self, RequestError>> {
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

fn enable_request(child: &Node<'_>, own: &FullJid, settings: &config::Push) -> Result<Request, RequestError> {
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
    /// XEP-0004 `type`, where the client wrote one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The values, which may be credentials.
    pub values: Vec<Secret<String>>,
}

/// A device's wish to be notified.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Registration {
    /// Where to publish.
    pub target: Target,
    /// The publish-options form; `None` if the client gave none.
    #[serde(default)]
    pub options: Option<Vec<Field>>,
    /// What else the client asked for.
    #[serde(default, skip_serializing_if = "Extensions::is_default")]
    pub extensions: Box<Extensions>,
    /// The device that owns it.
    pub device: DeviceId,
    /// Unix seconds of the device's last contact.
    pub last_seen: u64,
    /// Publish errors in a row, `wait` errors not counted.
    #[serde(default)]
    pub errors: u32,
    /// Unix seconds of the last publish that was accepted, to the minute; `None` if none was yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<u64>,
    /// Unix seconds of the first publish that was not delivered since the service last answered; `None` if none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered_since: Option<u64>,
}

/// How exactly the last success is known, in seconds: a change of an account is a write to the disk.
const SUCCESS_PRECISION: u64 = 60;

impl Registration {
    /// A publish was accepted, at these unix seconds.
    pub(super) fn succeeded(&mut self, at: u64) {
        (self.errors, self.undelivered_since) = (0, None);
        if !self.is_recent(at) {
            self.last_success = Some(at);
        }
    }

    /// Whether a success at these unix seconds makes no difference.
    pub(super) fn knows_success(&self, at: u64) -> bool {
        self.errors == 0 && self.undelivered_since.is_none() && self.is_recent(at)
    }

    fn is_recent(&self, at: u64) -> bool {
        self.last_success.is_some_and(|last| at < last.saturating_add(SUCCESS_PRECISION))
    }
}

#[cfg(test)]
mod tests;

//! Addresses (RFC 7622), as they are compared.
//!
//! Each part is parsed by itself. A part that the `jid` crate can parse is compared in its normal form, any other byte for byte:
//! servers let users have names that stringprep refuses, such as most emoji. So every text is an address, and no address is
//! only where there is no text.

#[cfg(test)]
pub(crate) mod addresses;
mod part;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::part::{ascii, domain, resource};

/// An address, as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Jid(String);

/// An address without a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct BareJid(Jid);

/// An address with a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct FullJid(Jid);

/// The reason why a text is not the kind of address that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    /// The domain is missing, or a part that its separator announces.
    #[error("a part of the address is empty")]
    Empty,
    /// A bare JID is needed.
    #[error("the address has a resource")]
    Resource,
    /// A full JID is needed.
    #[error("the address has no resource")]
    NoResource,
}

impl Jid {
    /// Normalises an address: each part that can be parsed.
    pub fn new(text: &str) -> Self {
        let (bare, resource) = split_resource(text);
        let (node, domain) = split_node(bare);
        let mut normal = String::with_capacity(text.len());
        if let Some(node) = node {
            normal.push_str(&part::node(node));
            normal.push('@');
        }
        normal.push_str(&part::domain_or_text(domain));
        if let Some(resource) = resource {
            normal.push('/');
            normal.push_str(&part::resource(resource));
        }
        Self(normal)
    }

    /// The whole address, in its normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address without its resource.
    pub fn bare(&self) -> &str {
        split_resource(&self.0).0
    }

    /// The part before the `@`.
    pub fn node(&self) -> Option<&str> {
        split_node(self.bare()).0
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        split_node(self.bare()).1
    }

    /// The part behind the first `/`.
    pub fn resource(&self) -> Option<&str> {
        split_resource(&self.0).1
    }

    /// A copy without the resource.
    pub fn to_bare(&self) -> BareJid {
        BareJid(Self(self.bare().to_owned()))
    }

    /// The address without its resource.
    pub fn into_bare(mut self) -> BareJid {
        self.0.truncate(self.bare().len());
        BareJid(self)
    }

    /// Returns whether a server could deliver to the address: no part is empty or longer than a part may be, and the domain is a
    /// name or an IP literal.
    pub fn is_routable(&self) -> bool {
        let parts = [self.node(), self.resource(), Some(self.domain())];
        self.is_complete()
            && parts.iter().flatten().all(|part| part.len() <= part::LONGEST)
            && domain(self.domain()).is_some()
    }

    /// Returns whether no part is empty.
    pub fn is_complete(&self) -> bool {
        !self.domain().is_empty() && self.node() != Some("") && self.resource() != Some("")
    }
}

impl BareJid {
    /// Normalises an address without a resource.
    ///
    /// # Errors
    /// A part is empty, or there is a resource.
    pub fn new(text: &str) -> Result<Self, JidError> {
        match text.parse::<Jid>()? {
            jid if jid.resource().is_some() => Err(JidError::Resource),
            jid => Ok(Self(jid)),
        }
    }

    /// The account of a user name at a host; `None` if the name cannot be one.
    pub fn of_user(name: &str, host: &str) -> Option<Self> {
        if name.contains(['@', '/']) {
            return None;
        }
        Self::new(&format!("{name}@{host}")).ok()
    }
}

impl FullJid {
    /// Normalises an address with a resource.
    ///
    /// # Errors
    /// A part is empty, or there is no resource.
    pub fn new(text: &str) -> Result<Self, JidError> {
        match text.parse::<Jid>()? {
            jid if jid.resource().is_none() => Err(JidError::NoResource),
            jid => Ok(Self(jid)),
        }
    }

    /// The resource.
    pub fn resource(&self) -> &str {
        self.0.resource().unwrap_or_default()
    }
}

/// RFC 7622 §3.1: the resource begins behind the first slash.
fn split_resource(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(bare, resource)| (bare, Some(resource)))
}

/// RFC 7622 §3.1: the domain begins behind the first `@`.
fn split_node(bare: &str) -> (Option<&str>, &str) {
    bare.split_once('@').map_or((None, bare), |(node, domain)| (Some(node), domain))
}

impl FromStr for Jid {
    type Err = JidError;

    fn from_str(text: &str) -> Result<Self, JidError> {
        let jid = Self::new(text);
        if jid.is_complete() { Ok(jid) } else { Err(JidError::Empty) }
    }
}

impl FromStr for BareJid {
    type Err = JidError;

    fn from_str(text: &str) -> Result<Self, JidError> {
        Self::new(text)
    }
}

impl FromStr for FullJid {
    type Err = JidError;

    fn from_str(text: &str) -> Result<Self, JidError> {
        Self::new(text)
    }
}

impl Deref for BareJid {
    type Target = Jid;

    fn deref(&self) -> &Jid {
        &self.0
    }
}

impl Deref for FullJid {
    type Target = Jid;

    fn deref(&self) -> &Jid {
        &self.0
    }
}

impl PartialEq<BareJid> for Jid {
    fn eq(&self, other: &BareJid) -> bool {
        *self == other.0
    }
}

impl PartialEq<FullJid> for Jid {
    fn eq(&self, other: &FullJid) -> bool {
        *self == other.0
    }
}

impl From<String> for Jid {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl TryFrom<String> for BareJid {
    type Error = JidError;

    fn try_from(text: String) -> Result<Self, JidError> {
        Self::new(&text)
    }
}

impl TryFrom<String> for FullJid {
    type Error = JidError;

    fn try_from(text: String) -> Result<Self, JidError> {
        Self::new(&text)
    }
}

impl From<BareJid> for Jid {
    fn from(jid: BareJid) -> Self {
        jid.0
    }
}

impl From<FullJid> for Jid {
    fn from(jid: FullJid) -> Self {
        jid.0
    }
}

/// For people: what would break a line or turn its direction is escaped. [`Jid::as_str`] is for the wire and the disk.
impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        part::write_plain(&self.0, f)
    }
}

impl fmt::Display for BareJid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for FullJid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

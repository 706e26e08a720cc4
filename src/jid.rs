//! Addresses (RFC 7622) in the form in which they are compared: [`Jid`], [`BareJid`] and [`FullJid`].
//!
//! Each part is parsed separately. A part that the `jid` crate can parse is compared in its normal form; any other part
//! is compared byte for byte. The reason: servers allow user names that stringprep rejects, such as most emoji. So
//! every text is an address. An address is missing only if there is no text.

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

/// An address in its normal form.
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

/// The reason why a text is not an address of the required kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    /// The domain is missing, or a part next to a separator is.
    #[error("a part of the address is empty")]
    Empty,
    /// The address has a resource, but a bare JID is required.
    #[error("the address has a resource")]
    Resource,
    /// The address has no resource, but a full JID is required.
    #[error("the address has no resource")]
    NoResource,
}

impl Jid {
    /// Normalises each part of an address that can be parsed.
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

    /// Returns the whole address in its normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the address without its resource.
    pub fn bare(&self) -> &str {
        split_resource(&self.0).0
    }

    /// Returns the part before the `@`.
    pub fn node(&self) -> Option<&str> {
        split_node(self.bare()).0
    }

    /// Returns the domain.
    pub fn domain(&self) -> &str {
        split_node(self.bare()).1
    }

    /// Returns the part after the first `/`.
    pub fn resource(&self) -> Option<&str> {
        split_resource(&self.0).1
    }

    /// Returns a copy without the resource.
    pub fn to_bare(&self) -> BareJid {
        BareJid(Self(self.bare().to_owned()))
    }

    /// Removes the resource.
    pub fn into_bare(mut self) -> BareJid {
        self.0.truncate(self.bare().len());
        BareJid(self)
    }

    /// Returns whether a server could deliver to the address: no part is empty or longer than allowed, and the domain
    /// is a name or an IP literal.
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
    /// Returns an error if a part is empty or if there is a resource.
    pub fn new(text: &str) -> Result<Self, JidError> {
        match text.parse::<Jid>()? {
            jid if jid.resource().is_some() => Err(JidError::Resource),
            jid => Ok(Self(jid)),
        }
    }

    /// Returns the account of a user name at a host, or `None` if the name is not valid.
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
    /// Returns an error if a part is empty or if there is no resource.
    pub fn new(text: &str) -> Result<Self, JidError> {
        match text.parse::<Jid>()? {
            jid if jid.resource().is_none() => Err(JidError::NoResource),
            jid => Ok(Self(jid)),
        }
    }

    /// Returns the resource.
    pub fn resource(&self) -> &str {
        self.0.resource().unwrap_or_default()
    }
}

/// Splits at the first slash, after which the resource begins (RFC 7622 §3.1).
fn split_resource(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(bare, resource)| (bare, Some(resource)))
}

/// Splits at the first `@`, after which the domain begins (RFC 7622 §3.1).
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

/// Formats the address for people: escapes characters that would break a line or change the direction of text. Use
/// [`Jid::as_str`] for the wire and the disk.
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

//! Identifiers of a session and of its client's connections, and the source of random numbers.

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::node_id::NodeId;

/// The source of unguessable numbers: the relay passes a cryptographic generator, tests a counter.
pub type RandomSource = fn() -> u128;

/// One TCP connection of a client to a session. A later attachment has a larger number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Attachment(u32);

impl Attachment {
    /// The connection on which the session was bound.
    pub const FIRST: Self = Self(1);

    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A resumption identifier (XEP-0198 §5 `id`, `previd`): 128 random bits in hexadecimal digits. In a cluster two digits for the node
/// and four for its epoch are in front.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SmId(Arc<str>);

impl SmId {
    /// Creates an id from the text that a client presented.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the node that has created the id, if it names one. A client may present anything.
    pub fn origin(&self) -> Option<SmIdOrigin> {
        let digits = self.0.as_bytes();
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_ours = digits.len() == SmIdOrigin::DIGITS + 32 && digits.iter().all(is_digit);
        let origin = self.0.get(..SmIdOrigin::DIGITS).filter(|_| is_ours)?;
        SmIdOrigin::of_bits(u32::from_str_radix(origin, 16).ok()?)
    }
}

/// The node that has created a resumption id, and the lower 16 bits of its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmIdOrigin {
    node: NodeId,
    epoch: u16,
}

impl SmIdOrigin {
    /// The number of hexadecimal digits.
    const DIGITS: usize = 6;

    /// Creates the origin of the ids that a node creates in this epoch.
    pub fn new(node: NodeId, epoch: u32) -> Self {
        Self { node, epoch: lower_bits(epoch) }
    }

    /// The node.
    pub fn node(self) -> NodeId {
        self.node
    }

    /// Returns whether an id may come from this epoch of its node.
    pub fn may_be_of(self, epoch: u32) -> bool {
        self.epoch == lower_bits(epoch)
    }

    fn bits(self) -> u32 {
        u32::from(self.node.get()) << 16 | u32::from(self.epoch)
    }

    fn of_bits(bits: u32) -> Option<Self> {
        let node = NonZeroU8::new(u8::try_from(bits >> 16).ok()?)?;
        Some(Self::new(NodeId::new(node), bits))
    }
}

fn lower_bits(epoch: u32) -> u16 {
    u16::try_from(epoch & 0xffff).unwrap_or_default()
}

/// Creates resumption ids. They name no node until [`SmIdSource::set`] is called: whenever a node of a cluster takes an epoch.
#[derive(Debug, Default)]
pub struct SmIdSource(AtomicU32);

impl SmIdSource {
    /// Lets ids that are created from now on name this node and epoch.
    pub fn set(&self, origin: SmIdOrigin) {
        self.0.store(origin.bits(), Ordering::Relaxed);
    }

    /// Creates an id from an unguessable number.
    pub(super) fn create(&self, random: u128) -> SmId {
        match SmIdOrigin::of_bits(self.0.load(Ordering::Relaxed)) {
            Some(origin) => SmId::new(format!("{:06x}{random:032x}", origin.bits())),
            None => SmId::new(format!("{random:032x}")),
        }
    }
}

impl fmt::Debug for SmId {
    // Knowledge of the id is half of what a resumption needs, so no log shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmId([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_node_only_in_a_cluster() {
        let (source, node) = (SmIdSource::default(), |number| NodeId::new(NonZeroU8::new(number).unwrap()));
        let id = source.create(7);
        assert_eq!((id.as_str(), id.origin()), (format!("{:032x}", 7).as_str(), None));
        source.set(SmIdOrigin::new(node(255), 0x5_0001));
        let id = source.create(u128::MAX);
        assert_eq!(id.as_str(), format!("ff0001{}", "f".repeat(32)));
        let origin = id.origin().unwrap();
        assert_eq!(origin.node(), node(255));
        assert!(origin.may_be_of(0x5_0001) && !origin.may_be_of(0x5_0002));
        source.set(SmIdOrigin::new(node(1), 2));
        assert_eq!(source.create(0).origin(), Some(SmIdOrigin::new(node(1), 2)));
    }

    #[test]
    fn what_a_client_invents_names_no_node() {
        let rest = "0".repeat(32);
        for id in [
            String::new(),
            rest.clone(),
            format!("000001{rest}"),
            format!("0a000{rest}"),
            format!("+a0001{rest}"),
            format!("0A0001{rest}"),
            format!("0a0001{rest}0"),
            format!("0a0001{}g", "0".repeat(31)),
            format!("0a00é{rest}"),
        ] {
            assert_eq!(SmId::new(id.as_str()).origin(), None, "{id}");
        }
    }
}

//! [`NodeId`], the number of a node of a cluster.

use std::fmt;
use std::num::NonZeroU8;

/// The number of a node of a cluster, 1 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU8);

impl NodeId {
    /// Creates the number of a node.
    pub fn new(number: NonZeroU8) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

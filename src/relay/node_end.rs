//! [`NodeEnd`]: the end of a node's sessions for the sake of other nodes.

use std::sync::atomic::{AtomicBool, Ordering};

/// The end of a node's sessions for the sake of other nodes.
#[derive(Debug, Default)]
pub struct NodeEnd {
    is_fenced: AtomicBool,
    is_leaving: AtomicBool,
}

impl NodeEnd {
    /// Notes that another node acts in the place of this one.
    pub(super) fn fence(&self) {
        self.is_fenced.store(true, Ordering::Release);
    }

    /// Returns whether another node acts in the place of this one.
    pub(super) fn is_fenced(&self) -> bool {
        self.is_fenced.load(Ordering::Acquire)
    }

    /// Lets no further login begin a session here: the sessions move to other nodes, while the process goes on.
    pub fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    /// Returns whether the sessions of this node move to others.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }
}

//! Bounds on what a peer may make us hold or work on.

/// Bounds on the memory that a peer may make us hold. Bounds on its tags protect against clients and strangers; the own server
/// has none.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Bytes of one top-level element, or of a stream header.
    pub bytes: usize,
    /// Nested elements, the top-level one included.
    pub depth: usize,
    peer: LimitedPeer,
}

/// The kind of peer.
#[derive(Clone, Copy, Debug)]
enum LimitedPeer {
    Internet,
    Client,
    Server,
}

impl FrameLimits {
    /// The bounds of a peer on the internet.
    pub const fn new(bytes: usize, depth: usize) -> Self {
        Self { bytes, depth, peer: LimitedPeer::Internet }
    }

    /// The bounds of a client.
    pub const fn client(bytes: usize, depth: usize) -> Self {
        Self { bytes, depth, peer: LimitedPeer::Client }
    }

    /// The bounds of the own server: bytes alone.
    pub const fn server(bytes: usize) -> Self {
        Self { bytes, depth: usize::MAX, peer: LimitedPeer::Server }
    }

    /// Attributes on one tag.
    pub(super) const fn attributes(&self) -> usize {
        match self.peer {
            LimitedPeer::Internet => 128,
            LimitedPeer::Client => 1024,
            LimitedPeer::Server => usize::MAX,
        }
    }

    /// Prefixes that an element declares and that are in scope at any one place.
    pub(super) const fn prefixes(&self) -> usize {
        match self.peer {
            LimitedPeer::Internet | LimitedPeer::Client => 64,
            LimitedPeer::Server => usize::MAX,
        }
    }

    /// Declarations within an element.
    pub(super) const fn declarations(&self) -> usize {
        match self.peer {
            LimitedPeer::Internet | LimitedPeer::Client => 4096,
            LimitedPeer::Server => usize::MAX,
        }
    }
}

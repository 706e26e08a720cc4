//! [`FrameLimits`]: limits on the memory and the work that a peer can cause.

/// Limits on the memory that a peer can occupy. The limits on tags apply to clients and to peers on the internet; the
/// host's own server has none.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// The maximum bytes of one top-level element, or of a stream header.
    pub bytes: usize,
    /// The maximum number of nested elements, including the top-level element.
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
    /// Returns the limits for a peer on the internet.
    pub const fn new(bytes: usize, depth: usize) -> Self {
        Self { bytes, depth, peer: LimitedPeer::Internet }
    }

    /// Returns the limits for a client.
    pub const fn client(bytes: usize, depth: usize) -> Self {
        Self { bytes, depth, peer: LimitedPeer::Client }
    }

    /// Returns the limits for the host's own server: only bytes.
    pub const fn server(bytes: usize) -> Self {
        Self { bytes, depth: usize::MAX, peer: LimitedPeer::Server }
    }

    /// Returns the maximum number of attributes on one tag.
    pub(super) const fn attributes(&self) -> usize {
        match self.peer {
            LimitedPeer::Internet => 128,
            LimitedPeer::Client => 1024,
            LimitedPeer::Server => usize::MAX,
        }
    }

    /// Returns the maximum number of prefixes that an element declares and that are in scope at any place.
    pub(super) const fn prefixes(&self) -> usize {
        match self.peer {
            LimitedPeer::Internet | LimitedPeer::Client => 64,
            LimitedPeer::Server => usize::MAX,
        }
    }

    /// Returns the maximum number of declarations within an element.
    pub(super) const fn declarations(&self) -> usize {
        match self.peer {
            LimitedPeer::Internet | LimitedPeer::Client => 4096,
            LimitedPeer::Server => usize::MAX,
        }
    }
}

//! The rooms that the account's client is in (XEP-0045), and as whom: what it sent there comes back to it.

/// The rooms a client has joined.
#[derive(Clone, Debug, Default)]
pub struct Rooms {}

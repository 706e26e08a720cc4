//! Performs publishes: the choice of transport.
//!
//! So far there is one, `session`: through the user's own upstream stream, where the server stamps the full JID.

pub mod session;

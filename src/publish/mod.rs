//! Performs publishes: the choice of transport.
//!
//! So far there is one, `session`: through the user's own upstream stream, where the server stamps the full JID.

use std::time::Instant;

use crate::push::notification::Publish;
use crate::session::{Input, Session};

/// Sends a publish. Its outcome comes back as an event of the session.
pub fn publish(session: &mut Session, now: Instant, publish: Publish) {
    session.handle(now, Input::Publish(publish));
}

//! The admission of a connection that resumes a session.

use crate::clock::Instant;
use crate::registry::AttachRefusal;
use crate::relay::client::Handle;
use crate::relay::shared::Relay;
use crate::session::{Resumption, Session};

/// Checks a resumption, and redeems its token. Without a valid token the client does not learn whether its count is right.
pub(super) fn admit(
    relay: &Relay,
    handle: &Handle,
    session: &Session,
    resumption: &mut Resumption,
    began: Instant,
) -> Result<(), AttachRefusal> {
    let tokens = relay.accounts().tokens();
    tokens.examine(handle.account(), &resumption.tokens).map_err(AttachRefusal::Token)?;
    if let Err(too_high) = session.check_resume(resumption.h) {
        if let Some(proof) = resumption.tokens.proof.as_ref().filter(|proof| proof.invalidate) {
            // The token ends, whatever else is wrong.
            let _ended = tokens.redeem(handle, proof);
        }
        return Err(AttachRefusal::TooHigh(too_high));
    }
    tokens.complete(handle, resumption, began).map_err(AttachRefusal::Token)
}

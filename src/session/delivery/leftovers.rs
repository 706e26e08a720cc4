//! The stanzas that the client does not have when its session ends.

use crate::clock::Instant;
use crate::jid::BareJid;
use crate::seq::{Seq, ServerSeq};
use crate::session::archive::is_archived;
use crate::session::contract::Output;
use crate::session::effects::Effects;
use crate::session::kind::{is_request, refusal};
use crate::session::queue::{Queue, Queued};
use crate::session::server::ServerStream;
use crate::xml::Kind;

fn is_unacked(item: &Queued, acked: ServerSeq) -> bool {
    item.server_seq.is_some_and(|seq| seq > acked)
}

/// Removes the stanzas that were not acknowledged to the server, and returns them. The server delivers them elsewhere.
pub(super) fn give_back(queue: &mut Queue, acked: ServerSeq, effects: &mut Effects) -> Vec<Queued> {
    let all = queue.iter().chain(queue.in_flight());
    let theirs: Vec<Queued> = all.filter(|item| is_unacked(item, acked)).cloned().collect();
    for item in queue.remove_aside(|item| is_unacked(item, acked)) {
        discard(queue, &item, effects);
    }
    for given in queue.give_back(acked) {
        for places in queue.spare(None, given) {
            effects.push(Output::Unspool { spool: None, places });
        }
    }
    theirs
}

/// Removes subscription presence that was not acknowledged to the server, which repeats it until it is answered.
pub(super) fn forget_repeated(queue: &mut Queue, acked: ServerSeq, effects: &mut Effects) {
    let is_repeated = |item: &Queued| is_unacked(item, acked) && item.durable && item.element.kind() == Kind::Presence;
    for item in queue.remove_where(is_repeated) {
        discard(queue, &item, effects);
    }
    queue.drop_from_flight(is_repeated);
}

/// Removes iq requests that the client will not answer (RFC 6120 §8.2.3), and refuses them if `server` is there.
pub(super) fn refuse_requests(
    queue: &mut Queue,
    now: Instant,
    mut server: Option<&mut ServerStream>,
    effects: &mut Effects,
) {
    let aside = queue.remove_aside(|item| is_request(&item.element));
    for request in queue.remove_where(|item| is_request(&item.element)).into_iter().chain(aside) {
        discard(queue, &request, effects);
        if let Some(server) = server.as_deref_mut() {
            server.answer(now, refusal(&request.element), effects);
        }
    }
    let noted = queue.noted().take_requests();
    queue.drop_from_flight(|item| noted.iter().any(|(seq, _)| *seq == item.seq));
    for (seq, refusal) in noted {
        effects.push(Output::Unspool { spool: None, places: seq..=seq });
        if let Some(server) = server.as_deref_mut() {
            server.answer(now, refusal, effects);
        }
    }
}

/// Removes the stanzas that the archive of `account` has.
pub(super) fn forget_archived(queue: &mut Queue, account: &BareJid, effects: &mut Effects) {
    for item in queue.remove_where(|item| is_archived(&item.element, account)) {
        discard(queue, &item, effects);
    }
    let spilled: Vec<Seq> = queue.archived_of_spilled().collect();
    for seq in spilled {
        effects.push(Output::Unspool { spool: None, places: seq..=seq });
    }
    queue.drop_from_flight(|item| is_archived(&item.element, account));
    for places in queue.noted().take_archived() {
        effects.push(Output::Unspool { spool: None, places });
    }
}

/// Deletes a stanza from its spool, if it is in one.
pub(super) fn discard(queue: &Queue, item: &Queued, effects: &mut Effects) {
    let (spool, place) = match queue.origin(item.seq) {
        Some((spool, place)) => (Some(spool), place),
        None if item.is_spooled() => (None, item.seq),
        None => return,
    };
    effects.push(Output::Unspool { spool, places: place..=place });
}

//! Memory that a session uses beside its queue: it is bounded, and taken from the budget that all sessions share.

use std::sync::Arc;

use super::*;
use crate::session::queue::Budget;

#[test]
fn what_a_session_keeps_beside_its_queue_is_taken_from_the_shared_memory() {
    let budget = Arc::new(Budget::default());
    let mut rig = Rig::new();
    rig.share_budget(Arc::clone(&budget));
    let join = "<x xmlns='http://jabber.org/protocol/muc'/>";
    for room in 0..1500 {
        rig.client(&format!("<presence to='{room}@{room}.example/{}'>{join}</presence>", "x".repeat(1000)));
    }
    rig.input(Input::Quiet);
    let aside = rig.session.memory_aside();
    assert!((256 << 10..512 << 10).contains(&aside), "{aside}");
    assert!(budget.used() >= aside);
    drop(rig);
    assert_eq!(budget.used(), 0);
}

/// Regression test: a reply that waits for the store repeats the id of the request, and 32 such replies took 64 MiB.
#[test]
fn requests_with_long_ids_do_not_wait_for_the_store() {
    let mut rig = Rig::new();
    let id = "x".repeat(100 << 10);
    let enable = "<enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/>";
    rig.client(&format!("<iq type='set' id='{id}'>{enable}</iq>"));
    assert_eq!((rig.session.device.account().promised(), rig.stored.len()), (0, 0));
    let answer = rig.to_client.pop().unwrap();
    assert!(answer.contains(&id) && answer.contains("resource-constraint"));
}

/// Regression test: the client chooses the ids of its open queries, and 32 of them took 32 MiB.
#[test]
fn the_features_of_the_account_are_known_by_an_id_of_any_length() {
    let mut rig = Rig::new();
    let id = "x".repeat(100 << 10);
    let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    rig.client(&format!("<iq type='get' id='{id}' to='juliet@example.org'>{query}</iq>"));
    rig.upstream(&format!("<iq type='result' id='{id}' from='juliet@example.org'>{query}</iq>"));
    assert!(rig.to_client.pop().unwrap().contains("urn:xmpp:push:0"));
}

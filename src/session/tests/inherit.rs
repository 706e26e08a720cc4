//! Stanzas left by earlier and older sessions of the device.

use super::durability::{managed, plain};
use super::*;
use crate::session::backlog::{BacklogReading, EarlierSessions};

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

fn left(seq: u64, n: usize) -> Spooled {
    Spooled {
        seq: Seq::new(seq),
        received: UnixMillis::new(1000),
        shared: false,
        archived: false,
        bytes: Bytes::from(message(n)),
    }
}

fn ack(rig: &mut Rig, h: u32) {
    rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
}

#[test]
fn the_spools_of_earlier_sessions_are_read_in_the_order_of_their_binds() {
    let mut rig = Rig::start(Settings { session_queue: 1 << 20, ..Settings::default() }, vec![left(9, 3)]);
    rig.leave(2, vec![left(1, 4), left(2, 5)]);
    rig.client(ENABLE);
    rig.upstream(&message(6));
    assert_eq!(rig.delivered(), [3, 4, 5, 6]);
    ack(&mut rig, 2);
    let kept: Vec<usize> = rig.earlier.values().map(BTreeMap::len).collect();
    assert_eq!(kept, [0, 1], "each acknowledgement deletes from the spool that has the stanza");
    ack(&mut rig, 4);
    assert!(rig.earlier.values().all(BTreeMap::is_empty) && rig.spool.is_empty());
}

#[test]
fn what_is_no_stanza_in_an_earlier_spool_is_lost_alone() {
    let garbage = |seq| Spooled { bytes: "\u{fffd}".into(), ..left(seq, 0) };
    let spooled = vec![garbage(1), left(2, 3), garbage(3), left(4, 5)];
    let mut rig = Rig::start(Settings { session_queue: 1 << 20, ..Settings::default() }, spooled);
    rig.client(ENABLE);
    rig.upstream(&message(6));
    assert_eq!(rig.delivered(), [3, 5, 6]);
    assert_eq!(rig.events.iter().filter(|event| **event == Event::Unreadable).count(), 2);
    assert_eq!(rig.earlier.values().map(BTreeMap::len).collect::<Vec<_>>(), [2]);
}

/// An older session goes dark while the newer one is live: its stanzas go to the newer session.
#[test]
fn what_an_older_session_leaves_comes_before_what_was_not_written_yet() {
    let mut rig = plain();
    rig.client_available();
    rig.upstream(&message(1));
    rig.disk_is_slow = true;
    rig.leave(1, vec![left(1, 2), left(2, 3)]);
    rig.input(Input::Inherit);
    rig.upstream(&message(4));
    assert_eq!(rig.delivered(), [1], "what comes meanwhile waits");
    rig.disk_is_slow = false;
    rig.sync();
    assert_eq!(rig.delivered(), [1, 2, 3, 4]);
    ack(&mut rig, 4);
    assert!(rig.earlier.values().all(BTreeMap::is_empty) && rig.spool.is_empty());
}

#[test]
fn several_older_sessions_may_leave_something_to_a_session_that_is_dark() {
    let mut rig = plain();
    rig.client_available();
    rig.upstream(&message(1));
    rig.upstream(&message(2));
    ack(&mut rig, 1);
    rig.lose_client();
    rig.upstream(&message(7));
    for (login, n) in [(3, 5), (2, 3)] {
        rig.leave(login, vec![left(1, n), left(2, n + 1)]);
        rig.input(Input::Inherit);
    }
    rig.clear();
    rig.resume(2);
    rig.input(Input::Quiet);
    rig.input(Input::Quiet);
    assert_eq!(rig.delivered(), [3, 4, 5, 6, 7], "in the order of their binds");
    rig.lose_client();
    rig.clear();
    rig.resume(4);
    assert_eq!(rig.delivered(), [5, 6, 7]);
    ack(&mut rig, 7);
    assert!(rig.earlier.values().all(BTreeMap::is_empty) && rig.spool.is_empty());
}

#[test]
fn a_request_to_an_earlier_session_is_dropped_and_deleted() {
    let request = b"<iq type='get' id='q' from='romeo@example.net/x'><query xmlns='jabber:iq:version'/></iq>";
    let request = Spooled { bytes: Bytes::from_static(request), ..left(1, 0) };
    let mut rig = Rig::start(Settings { session_queue: 1 << 20, ..Settings::default() }, vec![request, left(2, 1)]);
    rig.client(ENABLE);
    assert_eq!(rig.delivered(), [1]);
    assert!(!rig.to_client.iter().any(|xml| xml.contains("id='q'")), "{:?}", rig.to_client);
    assert_eq!(rig.earlier[&LoginId(1)].len(), 1);
}

#[test]
fn presence_and_backlog_wait_until_older_sessions_have_ended_or_answered() {
    let mut rig = plain();
    *rig.session.device.backlog_mut() = BacklogReading::new(EarlierSessions::Unsettled);
    rig.leave(1, vec![left(1, 1)]);
    rig.client_available();
    assert_eq!(rig.delivered(), [] as [usize; 0]);
    assert!(rig.to_upstream.is_empty() && rig.session.device.backlog().holds_presence(), "{:?}", rig.to_upstream);
    rig.input(Input::OlderSettled);
    rig.input(Input::Quiet);
    assert_eq!(rig.delivered(), [1]);
    assert!(rig.to_upstream.iter().any(|xml| xml.starts_with("<presence>")), "{:?}", rig.to_upstream);
}

#[test]
fn a_backlog_larger_than_memory_is_read_as_the_client_acknowledges_it() {
    let stanzas: Vec<Spooled> = (1..=30).map(|n| left(n, usize::try_from(n).unwrap())).collect();
    let mut rig = Rig::start(Settings { session_queue: 2000, ..Settings::default() }, stanzas);
    rig.client(ENABLE);
    rig.upstream(&message(31));
    for h in 1..=31 {
        assert!(
            rig.session.device.delivery().queue().bytes() <= 2000 + 300,
            "{}",
            rig.session.device.delivery().queue().bytes()
        );
        ack(&mut rig, h);
    }
    assert_eq!(rig.delivered(), (1..=31).collect::<Vec<_>>());
    assert!(rig.earlier.values().all(BTreeMap::is_empty));
}

/// Regression test: each resumption read one more stanza from the disk, although memory was full.
#[test]
fn a_client_that_resumes_again_and_again_and_acknowledges_nothing_does_not_fill_memory() {
    let stanzas: Vec<Spooled> = (1..=10).map(|n| left(n, usize::try_from(n).unwrap())).collect();
    let mut rig = Rig::start(Settings { session_queue: 2000, ..Settings::default() }, stanzas);
    rig.disk_is_slow = true;
    rig.client(ENABLE);
    rig.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>");
    rig.lose_client();
    rig.disk_is_slow = false;
    rig.sync();
    // The first of these stays in the spool.
    (11..=12).for_each(|n| rig.upstream(&message(n)));
    rig.disk_is_slow = true;
    (13..=20).for_each(|n| rig.upstream(&message(n)));
    rig.resume(0);
    let bytes = rig.session.device.delivery().queue().bytes();
    (0..5).for_each(|_| rig.resume(0));
    assert_eq!((rig.session.device.delivery().queue().bytes(), rig.delivered()), (bytes, vec![1; 6]));
    rig.disk_is_slow = false;
    rig.sync();
    (1..=21).for_each(|h| ack(&mut rig, h));
    assert_eq!(rig.delivered()[5..], (1..=20).collect::<Vec<_>>());
}

#[test]
fn spools_that_cannot_be_read_are_read_again() {
    let mut rig = Rig::start(Settings { session_queue: 1 << 20, ..Settings::default() }, vec![left(1, 1)]);
    rig.disk_is_slow = true;
    rig.client(ENABLE);
    rig.unanswered.clear();
    rig.input(Input::TakeOverFailed);
    rig.disk_is_slow = false;
    rig.seconds(4);
    assert_eq!(rig.delivered(), [] as [usize; 0]);
    rig.seconds(2);
    assert_eq!(rig.delivered(), [1]);
}

/// An acknowledgement never deletes stanzas from another session's spool.
#[test]
fn an_acknowledgement_deletes_nothing_of_a_session_that_is_not_inherited() {
    let mut rig = managed();
    rig.leave(1, vec![left(1, 1)]);
    rig.upstream(&message(2));
    rig.seconds(31);
    ack(&mut rig, 1);
    assert!(rig.spool.is_empty());
    assert_eq!(rig.earlier[&LoginId(1)].len(), 1);
}

/// A session whose spool of an earlier session, with forty messages, is being read.
fn reading(limit: usize) -> Rig {
    let mut rig = Rig::with(Settings { session_queue: limit, ..Settings::default() });
    rig.client(ENABLE);
    rig.client_available();
    rig.leave(1, (1..=40).map(|seq| left(seq, usize::try_from(seq).unwrap())).collect());
    rig.reads_are_slow = true;
    rig.input(Input::Inherit);
    rig.input(Input::Quiet);
    rig
}

/// Regression test: stanzas of the server took the room in memory that was meant for those on their way from the disk. The
/// queue had up to one and a half times its limit.
#[test]
fn what_comes_while_the_disk_is_read_leaves_room_for_what_is_read() {
    let (limit, largest) = (16_000, message(99).len() + 160);
    let mut rig = reading(limit);
    (41..=200).for_each(|n| rig.upstream(&message(n)));
    rig.reads_are_slow = false;
    rig.sync();
    let (mut h, mut most) = (0, 0);
    while h < rig.delivered().len() {
        most = most.max(rig.session.queued().1);
        h = rig.delivered().len();
        ack(&mut rig, u32::try_from(h).unwrap());
    }
    assert_eq!(rig.delivered(), (1..=200).collect::<Vec<_>>());
    assert!((limit / 2..limit + largest).contains(&most), "{most}");
    assert!(rig.earlier.values().all(BTreeMap::is_empty) && rig.spool.is_empty());
}

#[test]
fn a_disk_that_cannot_be_read_takes_no_room_in_memory() {
    for (fails, room) in [(false, 7500..8200), (true, 15_500..16_001)] {
        let mut rig = reading(16_000);
        if fails {
            rig.input(Input::LoadFailed);
        }
        (41..=200).for_each(|n| rig.upstream(&message(n)));
        let bytes = rig.session.queued().1;
        assert!(room.contains(&bytes), "{fails}: {bytes}");
    }
}

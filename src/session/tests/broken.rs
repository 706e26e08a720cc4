//! Broken connections to the server, and the messages that the server sends again afterwards.

use super::durability::{acks, managed, plain};
use super::*;

const LATE: &str = "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='2026-01-01T00:00:00Z'/>";
const ENABLED: &str = "<enabled xmlns='urn:xmpp:sm:3'/>";
const SUBSCRIBE: &str = "<presence type='subscribe' from='nurse@example.net'/>";
const VERSION: &str = "<iq type='get' id='v' from='romeo@example.net/x'><query xmlns='jabber:iq:version'/></iq>";

/// The same message as the server sends it later, with a delay stamp.
fn late(n: usize) -> String {
    message(n).replace("</message>", &format!("{LATE}</message>"))
}

fn ids(spool: &BTreeMap<Seq, Spooled>) -> Vec<String> {
    let id =
        |item: &Spooled| element(std::str::from_utf8(&item.bytes).unwrap()).node().attr("id").map(|id| id.into_owned());
    spool.values().filter_map(id).collect()
}

/// Starts the device's next session with the stanzas that the session before left in the spool.
fn next(before: Rig) -> Rig {
    let earlier: Vec<_> = before.spool.into_values().collect();
    let mut rig = Rig::start_with_server_sm(Settings { session_queue: 1 << 20, ..Settings::default() }, earlier);
    rig.upstream(ENABLED);
    rig.share(before.memory);
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.to_upstream.clear();
    rig
}

#[test]
fn a_silent_clients_stanzas_are_acknowledged_from_disk_after_a_second() {
    let mut rig = managed();
    rig.upstream(&message(1));
    rig.pass(Duration::from_millis(999));
    assert_eq!((rig.spool.len(), acks(&rig.to_upstream)), (0, vec![]));
    rig.pass(Duration::from_millis(1));
    assert_eq!((rig.spool.len(), acks(&rig.to_upstream)), (1, vec![1]), "nobody has to ask");
    let mut rig = plain();
    rig.upstream(&message(1));
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.spool.len(), 1);
}

#[test]
fn a_configured_time_holds_for_both_kinds_of_server() {
    for server_sm in [false, true] {
        let stream_management = crate::session::settings::StreamManagement {
            spool_after: Some(Duration::from_millis(300)),
            ..Default::default()
        };
        let settings = Settings { session_queue: 1 << 20, stream_management, ..Settings::default() };
        let mut rig = Rig::begin(settings, Vec::new(), |bound| bound.server.sm = server_sm);
        rig.upstream(ENABLED);
        rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        rig.upstream(&message(1));
        rig.pass(Duration::from_millis(299));
        assert!(rig.spool.is_empty());
        rig.pass(Duration::from_millis(1));
        assert_eq!(rig.spool.len(), 1, "{server_sm}");
    }
}

#[test]
fn when_the_connection_breaks_messages_are_kept_and_the_rest_stays_with_the_server() {
    for is_dark in [false, true] {
        let mut rig = managed();
        if is_dark {
            rig.lose_client();
            rig.disk_is_slow = true;
        }
        for stanza in [message(1), SUBSCRIBE.into(), VERSION.into(), message(2)] {
            rig.upstream(&stanza);
        }
        rig.input(Input::UpstreamLost);
        assert_eq!((rig.ended, ids(&rig.spool)), (Some(EndReason::UpstreamLost), vec!["1".into(), "2".into()]));
        assert_eq!(rig.memory.kept(), 2);
    }
}

#[test]
fn a_server_that_says_why_it_ends_the_stream_sends_elsewhere_what_was_not_acknowledged() {
    let error = |what| format!("<stream:error><{what} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
    for what in ["system-shutdown", "see-other-host"] {
        let mut rig = managed();
        rig.upstream(&message(1));
        rig.upstream(&error(what));
        rig.input(Input::UpstreamLost);
        assert!(rig.spool.is_empty() && rig.memory.is_empty() && rig.ended.is_some(), "{what}");
    }
    let mut rig = managed();
    rig.upstream(&message(1));
    rig.input(Input::Upstream(Frame::Close));
    assert!(rig.spool.is_empty() && rig.memory.is_empty() && rig.ended.is_some());
}

#[test]
fn what_the_server_sends_again_is_dropped_once_and_counts_for_the_server() {
    let mut rig = managed();
    rig.upstream(&message(1));
    rig.input(Input::UpstreamLost);
    let mut rig = next(rig);
    rig.client_available();
    rig.upstream(&late(1));
    assert_eq!(
        (rig.delivered(), rig.events.contains(&Event::Redelivered)),
        (vec![1], true),
        "the copy comes, the other not"
    );
    // The client need not acknowledge stanzas that it does not get.
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(rig.server_asks(), 1);
    rig.upstream(&late(1));
    assert_eq!(rig.delivered(), [1, 1], "another delivery is another message");
    rig.upstream(&message(2));
    assert_eq!(rig.delivered(), [1, 1, 2]);
}

#[test]
fn what_the_client_has_acknowledged_is_remembered_by_the_devices_next_sessions() {
    let mut rig = managed();
    rig.upstream(&message(1));
    rig.input(Input::UpstreamLost);
    let mut second = next(rig);
    second.client_available();
    second.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(second.delivered(), [1]);
    assert!(second.earlier.values().all(BTreeMap::is_empty));
    second.input(Input::Client { attachment: second.session.attachment(), frame: Frame::Close });
    second.confirm();
    assert!(second.ended.is_some());
    let mut third = next(second);
    third.client_available();
    third.upstream(&late(1));
    assert!(third.delivered().is_empty());
}

/// Regression test: messages were kept only as far as they fitted into the queue. Bytes on their way to the disk do not
/// count against that limit.
#[test]
fn all_messages_given_back_to_a_server_that_dies_are_kept() {
    let mut rig = Rig::start_with_server_sm(Settings { session_queue: 1600, ..Settings::default() }, Vec::new());
    rig.upstream(ENABLED);
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.server_confirms = false;
    rig.disk_is_slow = true;
    let large = |n: usize| message(n).replace("text", &"x".repeat(700));
    (1..=3).for_each(|n| rig.upstream(&large(n)));
    rig.input(Input::Client { attachment: rig.session.attachment(), frame: Frame::Close });
    rig.upstream(&message(4));
    assert!(rig.to_upstream.last().unwrap() == "</stream:stream>");
    let aside = rig.session.memory_aside();
    rig.disk_is_slow = false;
    rig.input(Input::UpstreamLost);
    rig.sync();
    assert_eq!(ids(&rig.spool), ["1", "2", "3", "4"]);
    assert!(aside > 3 * 700, "{aside}");
}

/// Regression test: only the session that first received the message recognised it. The other session delivered it a
/// second time.
#[test]
fn what_comes_again_to_another_session_of_the_device_is_known_there() {
    let mut first = managed();
    first.upstream(&message(1));
    first.input(Input::UpstreamLost);
    let mut second = next(first);
    second.client_available();
    assert_eq!(second.delivered(), [1]);
    let mut third = managed();
    third.share(Arc::clone(&second.memory));
    third.upstream(&late(1));
    assert_eq!((third.delivered(), third.events.contains(&Event::Redelivered)), (vec![], true));
    second.upstream(&late(1));
    assert_eq!(second.delivered(), [1, 1], "another delivery is another message");
    // The connection of an older session breaks while a younger one exists.
    second.upstream(&message(2));
    second.input(Input::UpstreamLost);
    third.upstream(&late(2));
    assert!(third.delivered().is_empty());
}

#[test]
fn of_an_account_that_is_removed_nothing_is_remembered() {
    let mut rig = of_two_devices();
    rig.upstream(&message(1));
    assert!(!rig.memory.is_empty());
    rig.input(Input::AccountRemoved);
    assert!(rig.memory.is_empty());
    rig.upstream(&message(2));
    rig.input(Input::UpstreamLost);
    assert!(rig.memory.is_empty() && rig.ended.is_some());
}

/// Regression test: Gajim shows messages of the same second in reverse order.
#[test]
fn no_two_stanzas_of_a_session_have_the_same_stamp() {
    let mut rig = plain();
    rig.lose_client();
    for n in 1..=20 {
        rig.upstream(&message(n));
        if n == 10 {
            rig.pass(Duration::from_millis(3));
        }
    }
    rig.resume(0);
    let stamps = rig.to_client.iter().filter(|xml| xml.starts_with("<message"));
    let stamps: Vec<_> = stamps.map(|xml| xml.split(" stamp='").nth(1).unwrap()[..24].to_owned()).collect();
    assert_eq!(stamps.len(), 20);
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
    assert!(stamps[0].ends_with("01.000Z") && stamps[19].ends_with("01.019Z"), "{stamps:?}");
    let spooled: Vec<_> = rig.spool.values().map(|item| item.received).collect();
    assert!(spooled.windows(2).all(|pair| pair[0] < pair[1]), "{spooled:?}");
}

/// A session of an account that has another device.
fn of_two_devices() -> Rig {
    let mut rig = plain();
    let mut account = rig.account.clone();
    account.devices.push(Device { id: DeviceId(8), ..account.devices[0].clone() });
    rig.input(Input::Account(Box::new(account)));
    rig
}

#[test]
fn what_may_travel_is_decided_when_it_comes() {
    let to = " to='juliet@example.org/phone'";
    let chat =
        |from: &str, n: usize| format!("<message type='chat' from='{from}' id='{n}'{to}><body>b</body></message>");
    let mut rig = plain();
    rig.client("<presence to='room@conf.example/juliet'><x xmlns='http://jabber.org/protocol/muc'/></presence>");
    rig.lose_client();
    rig.disk_is_slow = true;
    rig.upstream(&chat("room@conf.example/romeo", 1));
    rig.upstream(&chat("romeo@example.net/x", 2));
    rig.upstream("<presence type='unavailable' from='room@conf.example/juliet'><x xmlns='http://jabber.org/protocol/muc#user'/></presence>");
    rig.upstream(&chat("room@conf.example/romeo", 3));
    rig.sync();
    let shared: Vec<_> = rig.spool.values().map(|item| item.shared).collect();
    assert_eq!(shared, [false, true, true]);
}

#[test]
fn another_devices_message_does_not_come_to_one_that_has_it_as_a_copy_or_carbon() {
    let inner = |n: usize, sid: &str| {
        format!(
            "<message xmlns='jabber:client' type='chat' from='romeo@example.net/x' to='juliet@example.org/old' id='{n}'><body>b</body>{sid}</message>"
        )
    };
    let sid = "<stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.org' id='a4'/>";
    let mut rig = of_two_devices();
    let carbon = |inner: String| {
        format!(
            "<message from='juliet@example.org'><received xmlns='urn:xmpp:carbons:2'>\
             <forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></received></message>"
        )
    };
    rig.upstream(&carbon(inner(1, "")));
    rig.upstream(&inner(2, "").replace("/old", "/phone"));
    rig.upstream(&carbon(inner(9, sid)));
    let orphan = |(n, sid): (usize, &str)| Spooled {
        seq: Seq::ZERO,
        received: UnixMillis::new(1000),
        shared: true,
        archived: false,
        bytes: inner(n, sid).into(),
    };
    rig.orphans = [(1, ""), (2, ""), (3, ""), (4, sid)].map(orphan).into();
    rig.clear();
    rig.client_available();
    rig.seconds(10);
    assert_eq!(rig.delivered(), [3]);
    let adopted: Vec<_> =
        rig.spool.values().filter(|item| item.received == UnixMillis::new(1000) && item.shared).collect();
    assert_eq!(adopted.len(), 1, "the others are deleted");
    // The next session recognises it too.
    rig.lose_client();
    rig.input(Input::EndIfHeld(EndReason::Superseded));
    rig.confirm();
    let mut next = of_two_devices();
    next.share(rig.memory);
    next.orphans = [(1, ""), (5, "")].map(orphan).into();
    next.client_available();
    next.seconds(10);
    assert_eq!(next.delivered(), [5]);
}

//! A spool that refuses stanzas, because a limit is reached or the disk fails.

use super::durability::{acks, managed, plain};
use super::*;

const VERSION: &str = "<iq type='get' id='q' from='romeo@example.net/x'><query xmlns='jabber:iq:version'/></iq>";

fn full(mut rig: Rig) -> Rig {
    rig.client_available();
    if rig.session.server.counts() {
        rig.upstream("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    }
    rig.to_upstream.clear();
    rig.spool_refuses = true;
    rig
}

fn small(settings: usize) -> Rig {
    let mut rig = Rig::with(Settings { session_queue: settings, ..Settings::default() });
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig
}

/// Returns the ids of the stanzas that were returned to their senders.
fn returned(rig: &Rig) -> Vec<String> {
    let errors = rig.to_upstream.iter().filter(|xml| {
        xml.contains("type='error'")
            && xml.contains("<error type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>")
    });
    errors.map(|xml| element(xml).node().attr("id").unwrap().into_owned()).collect()
}

fn shed(rig: &Rig) -> (u32, u32) {
    let counts = rig.events.iter().filter_map(|event| if let Event::Shed(shed) = event { Some(shed) } else { None });
    counts.fold((0, 0), |(returned, lost), shed| (returned + shed.returned, lost + shed.lost))
}

/// Regression test: an ack that took over 100 ms ended the session when the disk was full.
#[test]
fn a_live_session_survives_a_spool_that_refuses() {
    let mut rig = full(plain());
    rig.upstream(&message(1));
    rig.seconds(1);
    assert_eq!((rig.ended, rig.session.is_dark()), (None, false));
    assert_eq!(rig.events.iter().filter(|event| **event == Event::SpoolRefuses).count(), 1);
    assert_eq!(rig.session.unsaved().stanzas, 1);
    rig.upstream(&message(2));
    rig.seconds(20);
    assert_eq!(rig.delivered(), [1, 2]);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!((rig.session.unsaved().stanzas, returned(&rig).len(), shed(&rig)), (0, 0, (0, 0)));
    rig.seconds(6);
    assert!(rig.session.spool_accepts(), "nothing is to be spooled");
}

#[test]
fn a_live_client_pauses_the_server_at_the_bound_and_its_acks_go_on() {
    let mut rig = full(small(2000));
    for n in 1..=40 {
        if rig.session.can_read_upstream() {
            rig.upstream(&message(n));
            rig.pass(Duration::from_millis(110));
        }
    }
    let sent = rig.session.unsaved().stanzas;
    assert!(!rig.session.can_read_upstream() && sent < 20, "{sent}");
    assert_eq!((returned(&rig).len(), rig.ended), (0, None));
    let mut h = 0;
    while u32::try_from(sent).unwrap() > h {
        h = u32::try_from(rig.delivered().len()).unwrap();
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    }
    assert_eq!(rig.delivered(), (1..=sent).collect::<Vec<_>>());
    assert!(rig.session.can_read_upstream());
}

#[test]
fn a_live_client_pauses_the_server_at_250_stanzas() {
    let mut rig = full(managed());
    for n in 1..=250 {
        assert!(rig.session.can_read_upstream(), "{n}");
        rig.upstream(&message(n));
    }
    assert!(!rig.session.can_read_upstream());
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert!(rig.session.can_read_upstream());
}

#[test]
fn what_a_dark_session_cannot_spool_stays_in_memory_and_is_offered_again() {
    let mut rig = full(managed());
    rig.lose_client();
    for n in 1..=20 {
        rig.upstream(&message(n));
    }
    assert_eq!(rig.server_asks(), 0, "the server has it as well");
    rig.seconds(60);
    assert_eq!((rig.ended, rig.spool.len(), returned(&rig).len()), (None, 0, 0));
    rig.spool_refuses = false;
    rig.seconds(5);
    assert_eq!((rig.spool.len(), acks(&rig.to_upstream).last()), (20, Some(&20)));
    assert!(rig.events.contains(&Event::SpoolAccepts));
    rig.clear();
    rig.resume(0);
    assert_eq!(rig.delivered(), (1..=20).collect::<Vec<_>>());
}

#[test]
fn beyond_250_stanzas_the_oldest_go_back_so_that_the_acknowledgement_moves_on() {
    let mut rig = full(managed());
    rig.lose_client();
    for n in 1..=260 {
        rig.upstream(&message(n));
    }
    assert_eq!(returned(&rig), (1..=10).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    assert_eq!(acks(&rig.to_upstream).last(), Some(&10));
    rig.clear();
    rig.resume(0);
    assert_eq!(rig.delivered(), (11..=260).collect::<Vec<_>>());
}

#[test]
fn without_a_managing_server_memory_is_the_bound() {
    let mut rig = full(small(2000));
    rig.lose_client();
    for n in 1..=40 {
        rig.upstream(&message(n));
        assert!(rig.session.unsaved().bytes <= 2000);
    }
    let back = returned(&rig);
    assert_eq!(back[..3], ["1", "2", "3"], "the oldest first");
    assert_eq!(shed(&rig), (u32::try_from(back.len()).unwrap(), 0));
    rig.spool_refuses = false;
    rig.seconds(6);
    rig.clear();
    rig.resume(0);
    for h in 1..=40 {
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", rig.delivered().len().min(h)));
    }
    assert_eq!(rig.delivered(), (back.len() + 1..=40).collect::<Vec<_>>());
    assert!(rig.spool.is_empty());
}

#[test]
fn what_must_not_be_answered_is_counted_and_the_rest_goes_back() {
    let from = "from='romeo@example.net/x'";
    let to_phone = "to='juliet@example.org/phone'";
    let table = [
        (VERSION.to_owned(), false, true),
        (format!("<message id='q' {from} {to_phone} type='chat'/>"), true, true),
        (format!("<message id='q' {from} {to_phone}/>"), true, true),
        (format!("<message id='q' {from} to='juliet@example.org' type='normal'/>"), false, true),
        (format!("<message id='q' {from} to='juliet@example.org' type='normal'/>"), true, false),
        (format!("<message id='q' {from} {to_phone} type='error'/>"), false, false),
        (format!("<message id='q' {from} {to_phone} type='groupchat'/>"), false, false),
        (format!("<message id='q' {from} {to_phone} type='headline'/>"), false, false),
        (format!("<message id='q' from='juliet@example.org' {to_phone}/>"), false, false),
        (format!("<message id='q' {to_phone}/>"), false, false),
        (format!("<presence id='q' {from} type='subscribe'/>"), false, false),
    ];
    for (stanza, has_other_clients, goes_back) in table {
        let mut rig = full(small(600));
        rig.session.note_other_clients(has_other_clients);
        rig.lose_client();
        rig.upstream(&stanza);
        rig.session.note_other_clients(!has_other_clients);
        for n in 1..=4 {
            rig.upstream(&format!(
                "<message from='nurse@example.net/x' type='headline' id='{n}'>{}</message>",
                "x".repeat(200)
            ));
        }
        assert_eq!(returned(&rig), if goes_back { vec!["q"] } else { vec![] }, "{stanza}");
        assert_eq!(shed(&rig).0, u32::from(goes_back), "{stanza}");
        assert!(shed(&rig).1 > 0);
    }
}

#[test]
fn a_session_that_ends_returns_what_only_memory_has_before_its_footer() {
    let mut rig = full(plain());
    rig.lose_client();
    rig.upstream(&message(1));
    rig.upstream(VERSION);
    rig.to_upstream.clear();
    rig.server_confirms = false;
    rig.input(Input::Drain);
    assert_eq!(returned(&rig), ["1"]);
    // Stanzas that the server has sent meanwhile come before its answer.
    rig.upstream(&message(2));
    assert_eq!(returned(&rig), ["1", "2"]);
    assert!(rig.to_upstream.contains(&"<presence type='unavailable'/>".to_owned()));
    assert!(rig.to_upstream.iter().all(|xml| xml != "</stream:stream>"));
    rig.server_confirms = true;
    rig.confirm();
    assert_eq!((rig.to_upstream.last().unwrap().as_str(), shed(&rig)), ("</stream:stream>", (2, 0)));
    // The session does not wait without limit for a server that does not answer.
    let mut rig = full(plain());
    rig.server_confirms = false;
    rig.lose_client();
    rig.upstream(&message(1));
    rig.input(Input::Drain);
    rig.seconds(2);
    assert_eq!((rig.to_upstream.last().unwrap().as_str(), shed(&rig)), ("</stream:stream>", (1, 0)));
    // A server with stream management keeps it.
    let mut rig = full(managed());
    rig.lose_client();
    rig.upstream(&message(1));
    rig.input(Input::Drain);
    assert_eq!((returned(&rig).len(), acks(&rig.to_upstream).len()), (0, 0));
    assert_eq!(rig.to_upstream.last().unwrap(), "</stream:stream>");
}

/// Stanzas that come until the server's footer cannot be stored either, so the session waits for those on their way.
#[test]
fn a_session_whose_node_was_replaced_leaves_to_the_server_or_the_senders_what_nobody_has() {
    for is_full in [true, false] {
        let mut rig = full(plain());
        (rig.spool_refuses, rig.server_confirms) = (is_full, false);
        rig.lose_client();
        rig.upstream(&message(1));
        rig.spool_refuses = true;
        rig.to_upstream.clear();
        rig.input(Input::Fence);
        assert!(rig.to_upstream.contains(&"<presence type='unavailable'/>".to_owned()));
        rig.upstream(&message(2));
        rig.upstream(VERSION);
        assert_eq!(returned(&rig), if is_full { vec!["1", "2", "q"] } else { vec!["2", "q"] });
        assert!(rig.to_upstream.iter().all(|xml| xml != "</stream:stream>"));
        rig.server_confirms = true;
        rig.confirm();
        assert_eq!(rig.to_upstream.last().unwrap(), "</stream:stream>");
        rig.input(Input::Upstream(Frame::Close));
        assert_eq!(rig.ended, Some(EndReason::Fenced));
    }
    let mut rig = full(managed());
    rig.lose_client();
    rig.upstream(&message(1));
    rig.to_upstream.clear();
    rig.input(Input::Fence);
    rig.upstream(&message(2));
    assert_eq!((returned(&rig).len(), acks(&rig.to_upstream).len()), (0, 0));
    assert_eq!(rig.to_upstream.last().unwrap(), "</stream:stream>");
}

#[test]
fn a_client_whose_node_was_replaced_is_disconnected_without_a_footer() {
    let mut rig = full(plain());
    rig.upstream(&message(1));
    rig.to_client.clear();
    rig.input(Input::Fence);
    assert_eq!((rig.closed, rig.to_client.len()), (1, 0));
    assert_eq!(returned(&rig), ["1"], "it may not have read it");
}

/// Regression test: while the server went on sending, the end of the session waited for the disk's answer to
/// everything, and then gave up the stanzas on their way to the disk.
#[test]
fn a_session_ends_while_its_server_goes_on_sending() {
    // A server with stream management keeps what it has sent after the last stanza.
    for (server, kept) in [(plain as fn() -> Rig, 20), (managed, 1)] {
        let mut rig = server();
        (rig.disk_is_slow, rig.server_confirms) = (true, false);
        rig.lose_client();
        rig.upstream(&message(1));
        rig.input(Input::Drain);
        for n in 2..=20 {
            let before = std::mem::take(&mut rig.unanswered);
            rig.upstream(&message(n));
            before.into_iter().for_each(|answer| rig.input(answer));
            rig.input(Input::Quiet);
            rig.pass(Duration::from_millis(10));
        }
        assert!(rig.to_upstream.contains(&"</stream:stream>".to_owned()));
        rig.sync();
        rig.input(Input::Upstream(Frame::Close));
        assert_eq!((rig.ended, shed(&rig), rig.spool.len()), (Some(EndReason::Drained), (0, 0), kept));
        assert!(!rig.events.contains(&Event::SpoolLate));
    }
}

/// If the disk answers too late, returned stanzas are deleted after the commit that is under way.
#[test]
fn what_the_store_has_not_answered_in_time_goes_back_and_is_deleted_behind() {
    let mut rig = full(plain());
    (rig.spool_refuses, rig.disk_is_slow, rig.server_confirms) = (false, true, false);
    rig.lose_client();
    rig.upstream(&message(1));
    rig.to_upstream.clear();
    rig.input(Input::Drain);
    assert_eq!((rig.ended, rig.to_upstream.len()), (None, 0));
    rig.seconds(7);
    assert_eq!(returned(&rig), ["1"]);
    assert!(rig.events.contains(&Event::SpoolLate));
    assert_eq!(rig.to_upstream.last().unwrap(), "</stream:stream>");
    assert!(rig.spool.is_empty(), "{:?}", rig.spool);
}

/// The client had read the returned stanzas meanwhile, so its `h` covers more stanzas than the queue holds.
#[test]
fn what_went_back_keeps_its_place_in_the_count_of_the_client() {
    let mut rig = full(small(2000));
    for n in 1..=3 {
        rig.upstream(&message(n));
    }
    rig.lose_client();
    for n in 4..=12 {
        rig.upstream(&message(n));
    }
    let back = returned(&rig).len();
    assert!(back > 1 && back < 9, "{back}");
    rig.clear();
    rig.resume(1);
    assert_eq!(rig.delivered().last(), Some(&12));
    assert!(rig.delivered().iter().all(|n| *n > back), "{:?} {back}", rig.delivered());
    assert!(rig.delivered().is_sorted() && rig.delivered()[0] == (back + 1).max(2));
}

#[test]
fn nothing_of_a_removed_account_is_kept_or_alarms_anybody() {
    let mut rig = plain();
    rig.disk_is_slow = true;
    rig.lose_client();
    rig.upstream(&message(1));
    rig.input(Input::AccountRemoved);
    rig.sync();
    rig.disk_is_slow = false;
    rig.upstream(&message(2));
    assert!(rig.events.iter().all(|event| *event != Event::SpoolRefuses));
    assert_eq!((rig.spool.len(), rig.ended), (1, None), "the store keeps nothing, and was not asked again");
}

/// Regression test: a stalled disk stopped a client that acknowledged everything it received.
#[test]
fn a_disk_that_stalls_does_not_stop_a_client_that_acknowledges() {
    let mut rig = small(3000);
    rig.client_available();
    rig.disk_is_slow = true;
    let (mut sent, mut h) = (0, 0);
    for round in 0..300 {
        // In some rounds the client is late, and memory overflows.
        for _ in 0..if round % 10 == 0 { 12 } else { 3 } {
            if rig.session.can_read_upstream() {
                sent += 1;
                rig.upstream(&message(sent));
            }
        }
        rig.pass(Duration::from_millis(110));
        h = h.max(u32::try_from(rig.delivered().len()).unwrap());
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    }
    assert!(sent > 800, "{sent}");
    for _ in 0..10 {
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", rig.delivered().len()));
    }
    assert_eq!(rig.delivered(), (1..=sent).collect::<Vec<_>>());
}

//! Stanzas of the server that no client could have read.

use super::{Rig, element, message};
use crate::push::outcome::Outcome;
use crate::session::{Event, Input, Settings};
use crate::xml::{Frame, FrameLimits, Framer, Kind, stream_header};

/// Returns the frame that a framer makes of a stanza with an undeclared prefix in it.
fn skipped(start: &str) -> Frame {
    let mut framer = Framer::new(FrameLimits::server(1 << 20));
    framer.skip_unfit(None);
    framer.buffer().extend_from_slice(&stream_header("example.org", "1", None));
    assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
    let name = start.trim_start_matches('<').split(' ').next().unwrap();
    framer.buffer().extend_from_slice(format!("{start}><p:x/></{name}>").as_bytes());
    match framer.next_frame() {
        Ok(Some(frame @ Frame::Skipped(_))) => frame,
        other => panic!("{other:?}"),
    }
}

fn skip(rig: &mut Rig, start: &str) {
    rig.input(Input::Upstream(skipped(start)));
    rig.input(Input::Quiet);
    rig.confirm();
}

const ROMEO: &str = "from='romeo@example.net/x'";
const PHONE: &str = "to='juliet@example.org/phone'";

/// Returns the answer that the server gets for a stanza: the error condition and the addressee.
fn answer(start: &str) -> Option<(String, String)> {
    let mut rig = Rig::with_push();
    skip(&mut rig, start);
    assert!(rig.to_client.iter().all(|xml| xml.starts_with("<r ")), "{start}: {:?}", rig.to_client);
    assert_eq!(rig.ended, None);
    let errors: Vec<_> = rig.to_upstream.iter().filter(|xml| xml.contains("type='error'")).collect();
    let [error] = errors[..] else {
        assert!(errors.is_empty() && rig.to_upstream.is_empty(), "{start}: {:?}", rig.to_upstream);
        return None;
    };
    let error = element(error);
    let node = error.node();
    assert_eq!((node.attr("id").as_deref(), error.kind() != Kind::Presence), (Some("1"), true), "{start}");
    let condition = node.children().find(|child| child.name() == "error").unwrap().children().next().unwrap();
    Some((condition.name().to_owned(), node.attr("to").unwrap().into_owned()))
}

#[test]
fn senders_get_an_error_if_nobody_else_can_have_the_stanza() {
    let bounce = |condition: &str| Some((condition.to_owned(), "romeo@example.net/x".to_owned()));
    for (start, expected) in [
        (format!("<iq {ROMEO} {PHONE} id='1' type='get'"), bounce("not-acceptable")),
        (format!("<iq {ROMEO} {PHONE} id='1' type='set'"), bounce("not-acceptable")),
        (format!("<message {ROMEO} {PHONE} id='1' type='chat'"), bounce("resource-constraint")),
        (format!("<message {ROMEO} {PHONE} id='1'"), bounce("resource-constraint")),
        (format!("<message {ROMEO} {PHONE} id='1' type='normal'"), bounce("resource-constraint")),
        (format!("<message {ROMEO} to='juliet@example.org' id='1' type='chat'"), None),
        (format!("<message {ROMEO} id='1' type='chat'"), None),
        (format!("<message {ROMEO} to='juliet@example.org/desk' id='1' type='chat'"), None),
        (format!("<message from='juliet@example.org' {PHONE} id='1' type='chat'"), None),
        (format!("<message {PHONE} id='1' type='chat'"), None),
        (format!("<message {ROMEO} {PHONE} id='1' type='groupchat'"), None),
        (format!("<message {ROMEO} {PHONE} id='1' type='headline'"), None),
        (format!("<message {ROMEO} {PHONE} id='1' type='error'"), None),
        (format!("<presence {ROMEO} {PHONE} id='1'"), None),
        (format!("<presence {ROMEO} {PHONE} id='1' type='subscribe'"), None),
        (format!("<x {ROMEO} {PHONE} id='1' type='get'"), None),
    ] {
        assert_eq!(answer(&start), expected, "{start}");
    }
}

#[test]
fn a_client_gets_an_error_if_its_request_has_no_answer() {
    for kind in ["result", "error"] {
        for dark in [false, true] {
            let mut rig = Rig::with_push();
            if dark {
                rig.lose_client();
            }
            skip(&mut rig, &format!("<iq from='juliet@example.org' {PHONE} id='roster' type='{kind}'"));
            assert!(rig.to_upstream.is_empty(), "{:?}", rig.to_upstream);
            if dark {
                rig.resume(1);
            }
            let answer = rig.to_client.iter().find(|xml| xml.starts_with("<iq")).unwrap();
            assert_eq!(
                answer,
                "<iq type='error' id='roster' from='juliet@example.org' to='juliet@example.org/phone'>\
                 <error type='modify'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            );
        }
    }
}

#[test]
fn a_client_that_asked_for_the_accounts_features_still_sees_push() {
    let mut rig = Rig::with_push();
    rig.client(
        "<iq type='get' id='d' to='juliet@example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    );
    skip(&mut rig, &format!("<iq from='juliet@example.org' {PHONE} id='d' type='result'"));
    assert!(rig.to_client.iter().any(|xml| xml.contains("id='d'") && xml.contains("urn:xmpp:push:0")));
}

#[test]
fn what_is_left_of_an_answer_to_a_request_of_our_own_is_enough() {
    let mut rig = Rig::with_push();
    rig.server_confirms = false;
    rig.client("<message id='1' to='romeo@example.net'><body>1</body></message>");
    rig.client("<r xmlns='urn:xmpp:sm:3'/>");
    rig.seconds(5);
    let ping = rig.to_upstream.iter().find(|xml| xml.contains("urn:xmpp:ping")).unwrap();
    let id = element(ping).node().attr("id").unwrap().into_owned();
    rig.clear();
    skip(&mut rig, &format!("<iq from='example.org' {PHONE} id='{id}' type='result'"));
    assert!(rig.to_client.iter().all(|xml| !xml.starts_with("<iq")), "{:?}", rig.to_client);
    assert_eq!(rig.to_client, ["<a xmlns='urn:xmpp:sm:3' h='2'/>"]);
}

#[test]
fn a_push_service_that_answered_has_answered() {
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.upstream(&message(1));
    rig.seconds(60);
    let publishes = rig.publish_all();
    let [publish] = &publishes[..] else { panic!("{publishes:?}") };
    let id = element(publish).node().attr("id").unwrap().into_owned();
    rig.clear();
    skip(&mut rig, &format!("<iq from='push.example' {PHONE} id='{id}' type='result'"));
    let accepted = |event: &Event| matches!(event, Event::PublishOutcome(.., Outcome::Accepted));
    assert!(rig.events.iter().any(accepted), "{:?}", rig.events);
}

/// The server counts the stanzas that it sent, whatever they contain.
#[test]
fn stanzas_count_for_the_servers_stream_management_and_nothing_else_does() {
    let mut rig = Rig::start_with_server_sm(Settings::default(), Vec::new());
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let h = |rig: &mut Rig| {
        rig.clear();
        rig.upstream("<r xmlns='urn:xmpp:sm:3'/>");
        let ack = rig.to_upstream.iter().find(|xml| xml.starts_with("<a ")).unwrap();
        element(ack).node().attr("h").unwrap().parse::<u32>().unwrap()
    };
    let before = h(&mut rig);
    skip(&mut rig, &format!("<message {ROMEO} id='1'"));
    assert_eq!(h(&mut rig), before + 1);
    skip(&mut rig, "<features xmlns='http://etherx.jabber.org/streams'");
    assert_eq!(h(&mut rig), before + 1);
    skip(&mut rig, &format!("<presence {ROMEO}"));
    skip(&mut rig, &format!("<iq {ROMEO} type='result' id='2'"));
    assert_eq!(h(&mut rig), before + 3);
}

#[test]
fn one_that_comes_while_a_session_gives_back_stays_the_servers() {
    let mut rig = Rig::start_with_server_sm(Settings::default(), Vec::new());
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.disk_is_slow = true;
    // It came before the server counts, so the session keeps it.
    rig.upstream(&message(1));
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.input(Input::Client { attachment: rig.session.attachment(), frame: Frame::Close });
    rig.clear();
    skip(&mut rig, &format!("<iq {ROMEO} {PHONE} id='1' type='get'"));
    assert!(rig.to_upstream.is_empty(), "{:?}", rig.to_upstream);
    rig.sync();
    assert_eq!(rig.to_upstream, ["</stream:stream>"]);
}

/// The stanza has all of `session_queue` to itself, on its way through the spool.
#[test]
fn a_stanza_that_is_larger_than_the_queue_is_kept_and_written_alone() {
    for dark in [false, true] {
        let mut rig = Rig::with(Settings { session_queue: 20_000, ..Settings::default() }).pushing();
        if dark {
            rig.lose_client();
        }
        let body = "x".repeat(100_000);
        let large = |id: usize| format!("<message {ROMEO} type='chat' id='{id}'><body>{body}</body></message>");
        let roster = format!("<iq type='result' id='r'><query xmlns='jabber:iq:roster'>{body}</query></iq>");
        for xml in [message(1), large(2), message(3), roster, large(4), message(5)] {
            rig.upstream(&xml);
        }
        if dark {
            rig.resume(1);
        }
        for _ in 0..10 {
            let stanzas = rig.to_client.iter().filter(|xml| xml.starts_with("<message") || xml.starts_with("<iq"));
            let h = 1 + stanzas.count();
            rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
        }
        assert_eq!(rig.delivered(), [1, 2, 3, 4, 5], "dark: {dark}");
        assert!(rig.to_client.iter().any(|xml| xml.contains("jabber:iq:roster")));
        assert!(rig.spool.is_empty() && rig.ended.is_none());
    }
}

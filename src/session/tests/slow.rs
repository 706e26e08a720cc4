//! A slow connection, or a count that stays behind, does not mean that the peer is gone. No timeout starts before the
//! question has been sent, and no peer is asked without limit.

use std::time::Duration;

use super::{Rig, element, message};
use crate::session::{EndReason, Event, Input, Peer};

const ASK: &str = "<r xmlns='urn:xmpp:sm:3'/>";

fn suspects(rig: &Rig) -> bool {
    rig.events.iter().any(|event| matches!(event, Event::Suspect))
}

/// Returns how often the client was asked, by `<r/>` or by ping.
fn asked(rig: &Rig) -> usize {
    rig.to_client.iter().filter(|xml| xml.as_str() == ASK || xml.contains("urn:xmpp:ping")).count()
}

/// A session of a client without stream management that has a registration, and is therefore pinged.
fn pinged() -> Rig {
    let mut rig = Rig::new();
    rig.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>");
    rig.clear();
    rig
}

/// Answers the newest ping.
fn answer_ping(rig: &mut Rig) {
    let ping = rig.to_client.iter().rfind(|xml| xml.contains("urn:xmpp:ping")).expect("a ping").clone();
    let id = element(&ping).node().attr("id").unwrap().into_owned();
    rig.client(&format!("<iq type='result' id='{id}' to='example.org'/>"));
}

fn check_client_is_late_only_behind_its_question(mut rig: Rig) {
    rig.upstream(&message(1));
    assert_eq!((asked(&rig), rig.watched.as_slice()), (1, [Peer::Client].as_slice()));
    rig.input(Input::Waits(Peer::Client));
    rig.seconds(200);
    for n in 2..300 {
        rig.upstream(&message(n));
    }
    rig.seconds(3600);
    assert!(!suspects(&rig) && rig.publishes.is_empty());
    rig.input(Input::Left(Peer::Client));
    rig.seconds(29);
    for n in 300..600 {
        rig.upstream(&message(n));
    }
    assert_eq!(rig.watched, [Peer::Client], "what is asked behind the question changes nothing");
    rig.pass(Duration::from_millis(900));
    assert!(!suspects(&rig));
    rig.pass(Duration::from_millis(200));
    assert!(suspects(&rig));
    rig.seconds(29);
    assert_eq!(rig.closed, 0);
    rig.seconds(2);
    assert_eq!(rig.closed, 1);
}

#[test]
fn a_client_with_stream_management_is_late_only_behind_a_question_that_has_left() {
    check_client_is_late_only_behind_its_question(Rig::with_push());
}

#[test]
fn a_client_that_is_pinged_is_late_only_behind_a_question_that_has_left() {
    check_client_is_late_only_behind_its_question(pinged());
}

#[test]
fn a_question_that_leaves_at_once_has_its_clock_from_then_on() {
    let mut rig = Rig::with_push();
    rig.upstream(&message(1));
    rig.seconds(29);
    assert!(!suspects(&rig));
    rig.seconds(2);
    assert!(suspects(&rig));
}

#[test]
fn a_watch_for_an_answered_question_says_nothing_about_the_next_one() {
    let mut rig = Rig::with_push();
    rig.upstream(&message(1));
    rig.input(Input::Waits(Peer::Client));
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    rig.seconds(20);
    rig.input(Input::Left(Peer::Client));
    rig.upstream(&message(2));
    assert_eq!(rig.watched, [Peer::Client, Peer::Client]);
    rig.seconds(31);
    assert!(suspects(&rig));
}

#[test]
fn a_question_of_the_connection_before_says_nothing_of_the_next_one() {
    let mut rig = Rig::with_push();
    rig.upstream(&message(1));
    rig.input(Input::Waits(Peer::Client));
    rig.resume(1);
    assert_eq!(rig.watched, [Peer::Client, Peer::Client]);
    rig.seconds(31);
    assert!(suspects(&rig));
}

#[test]
fn one_answer_to_many_questions_leaves_a_clock_for_the_others() {
    let mut rig = Rig::with_push();
    rig.lose_client();
    for n in 1..=350 {
        rig.upstream(&message(n));
    }
    rig.clear();
    rig.resume(1);
    assert_eq!((asked(&rig), rig.watched.len()), (4, 1));
    rig.input(Input::Waits(Peer::Client));
    rig.seconds(60);
    rig.input(Input::Left(Peer::Client));
    rig.client("<a xmlns='urn:xmpp:sm:3' h='101'/>");
    assert_eq!((asked(&rig), rig.watched.len()), (4, 2), "nothing was written since");
    rig.seconds(29);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='201'/>");
    rig.seconds(29);
    assert!(!suspects(&rig));
    rig.seconds(2);
    assert!(suspects(&rig));
    rig.client("<a xmlns='urn:xmpp:sm:3' h='351'/>");
    rig.seconds(200);
    assert_eq!((asked(&rig), rig.closed), (4, 0));
}

#[test]
fn a_server_is_lost_only_behind_a_question_that_has_left() {
    let mut rig = Rig::with_push();
    rig.server_confirms = false;
    rig.client("<message id='1'/>");
    assert_eq!(rig.watched, [Peer::Server]);
    rig.input(Input::Waits(Peer::Server));
    rig.seconds(600);
    assert_eq!(rig.ended, None);
    rig.input(Input::Left(Peer::Server));
    rig.seconds(59);
    rig.client("<message id='2'/>");
    assert_eq!(rig.ended, None);
    rig.seconds(2);
    assert_eq!(rig.ended, Some(EndReason::UpstreamLost));
}

#[test]
fn a_client_whose_count_stays_behind_is_asked_again_only_behind_something_new() {
    let mut rig = Rig::with_push();
    for n in 1..=2 {
        rig.upstream(&message(n));
        rig.seconds(1);
        rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    }
    assert_eq!(asked(&rig), 2);
    for _ in 0..100 {
        rig.seconds(1);
        rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    }
    assert_eq!(asked(&rig), 2);
    rig.upstream(&message(3));
    rig.seconds(1);
    assert_eq!(asked(&rig), 3);
    rig.seconds(31);
    assert!(suspects(&rig), "it has not answered");
}

#[test]
fn a_client_that_is_pinged_has_one_ping_at_a_time_and_none_without_news() {
    let mut rig = pinged();
    for n in 0..350 {
        rig.upstream(&message(n));
    }
    assert_eq!(asked(&rig), 1, "one that is replaced would not count when it is answered");
    rig.seconds(20);
    answer_ping(&mut rig);
    rig.seconds(20);
    assert_eq!(asked(&rig), 2);
    answer_ping(&mut rig);
    for _ in 0..100 {
        rig.seconds(1);
        rig.client("<presence/>");
    }
    assert_eq!(asked(&rig), 2);
    assert!(!suspects(&rig));
}

#[test]
fn a_client_that_enables_stream_management_behind_a_ping_is_not_late_with_its_answer() {
    let mut rig = pinged();
    rig.upstream(&message(1));
    assert_eq!(asked(&rig), 1);
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    answer_ping(&mut rig);
    rig.seconds(1);
    assert_eq!(asked(&rig), 2, "what went before is asked about as clients with stream management are");
    rig.client("<a xmlns='urn:xmpp:sm:3' h='0'/>");
    rig.seconds(100);
    assert!(!suspects(&rig));
}

#[test]
fn a_server_whose_count_stays_behind_is_asked_ever_more_seldom() {
    let mut rig = Rig::start_with_server_sm(crate::session::Settings::default(), Vec::new());
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.clear();
    rig.client("<message id='1'/>");
    // Pushward must now answer the client, which needs the server's confirmation.
    rig.client(ASK);
    let asked = |rig: &Rig| rig.to_upstream.iter().filter(|xml| xml.as_str() == ASK).count();
    for _ in 0..1000 {
        rig.upstream("<a xmlns='urn:xmpp:sm:3' h='0'/>");
        rig.pass(Duration::from_millis(20));
    }
    assert!((5..=9).contains(&asked(&rig)), "{} times in 20 s", asked(&rig));
    let before = asked(&rig);
    rig.client("<message id='2'/>");
    rig.seconds(1);
    assert_eq!(asked(&rig), before + 1, "something new");
}

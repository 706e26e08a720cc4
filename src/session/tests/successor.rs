//! Two sessions of one device: which one ends, and when.

use super::*;
use crate::session::{OtherSession, Successor};

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

fn managed() -> Rig {
    let mut rig = Rig::new();
    rig.client(ENABLE);
    rig.clear();
    rig
}

fn succeed_elsewhere(rig: &mut Rig) {
    rig.input(Input::Successor(Some(Successor { same_address: false })));
}

fn succeed_at_same_address(rig: &mut Rig) {
    rig.input(Input::Successor(Some(Successor { same_address: true })));
}

fn got_conflict(rig: &Rig) -> bool {
    rig.to_client.iter().any(|xml| xml.contains("<conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"))
}

#[test]
fn a_session_without_its_client_gives_way_at_once() {
    let mut rig = managed();
    rig.lose_client();
    succeed_elsewhere(&mut rig);
    rig.confirm();
    assert_eq!((rig.ended, rig.both_stay), (Some(EndReason::Superseded), 0));
}

#[test]
fn a_session_of_the_same_full_jid_ends_at_once_and_its_client_gets_a_conflict() {
    let mut rig = managed();
    succeed_at_same_address(&mut rig);
    rig.confirm();
    assert_eq!(rig.ended, Some(EndReason::Superseded));
    assert!(got_conflict(&rig), "{:?}", rig.to_client);
}

#[test]
fn a_client_that_shows_nothing_for_two_seconds_is_ended_with_a_conflict() {
    let mut rig = managed();
    succeed_elsewhere(&mut rig);
    assert_eq!(rig.to_client, ["<r xmlns='urn:xmpp:sm:3'/>"]);
    rig.pass(Duration::from_millis(1999));
    assert_eq!((rig.ended, rig.both_stay), (None, 0));
    rig.pass(Duration::from_millis(1));
    rig.confirm();
    assert_eq!(rig.ended, Some(EndReason::Superseded));
    assert!(got_conflict(&rig), "{:?}", rig.to_client);
}

#[test]
fn whatever_a_client_sends_shows_that_it_is_there() {
    let frames = [
        Frame::Whitespace,
        frame("<a xmlns='urn:xmpp:sm:3' h='0'/>"),
        frame("<message to='romeo@example.net'><body>hi</body></message>"),
    ];
    for sent in frames {
        let mut rig = managed();
        succeed_elsewhere(&mut rig);
        rig.input(Input::Client { attachment: rig.session.attachment(), frame: sent });
        assert_eq!(rig.both_stay, 1);
        rig.seconds(10);
        assert_eq!((rig.ended, rig.both_stay), (None, 1));
    }
}

#[test]
fn a_client_without_stream_management_is_asked_by_ping_and_its_answer_stays_here() {
    let mut rig = Rig::new();
    succeed_elsewhere(&mut rig);
    let ping = element(rig.to_client.last().unwrap());
    assert!(ping.node().child("ping", "urn:xmpp:ping").is_some());
    rig.clear();
    rig.client(&format!("<iq type='result' id='{}'/>", ping.node().attr("id").unwrap()));
    assert_eq!((rig.both_stay, rig.to_upstream.as_slice()), (1, [].as_slice()));
}

#[test]
fn of_two_living_copies_the_older_ends_when_it_loses_its_client() {
    let mut rig = managed();
    succeed_elsewhere(&mut rig);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='0'/>");
    rig.lose_client();
    assert_eq!(rig.ended, Some(EndReason::Superseded));
}

#[test]
fn an_older_session_whose_successor_is_gone_is_held_again() {
    let mut rig = managed();
    succeed_elsewhere(&mut rig);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='0'/>");
    rig.input(Input::Successor(None));
    rig.lose_client();
    assert_eq!((rig.ended, rig.session.reach()), (None, crate::session::liveness::Reach::Dark));
}

#[test]
fn each_newer_session_gets_an_answer() {
    let mut rig = managed();
    for n in 1..=3 {
        succeed_elsewhere(&mut rig);
        rig.client("<a xmlns='urn:xmpp:sm:3' h='0'/>");
        assert_eq!(rig.both_stay, n);
    }
}

#[test]
fn nothing_is_pushed_while_another_session_of_the_device_has_its_client() {
    let mut rig = Rig::with_push();
    rig.input(Input::OtherSession(OtherSession::Live));
    rig.lose_client();
    rig.upstream(&message(1));
    rig.seconds(30);
    assert_eq!(rig.publishes.len(), 0);
    rig.input(Input::OtherSession(OtherSession::Away));
    assert_eq!(rig.publishes.len(), 1);
}

//! Session behaviour while a peer is not read, and while its own output waits.

use std::time::Duration;

use super::{Rig, element, message};
use crate::clock::UnixMillis;
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::session::{EndReason, Event, Input, Output, Peer, Replies, Settings};

const ASK: &str = "<r xmlns='urn:xmpp:sm:3'/>";

fn acks(stanzas: &[String]) -> Vec<u32> {
    let acks = stanzas.iter().filter(|xml| xml.starts_with("<a "));
    acks.map(|xml| element(xml).node().attr("h").unwrap().parse().unwrap()).collect()
}

fn suspects(rig: &Rig) -> bool {
    rig.events.iter().any(|event| matches!(event, Event::Suspect))
}

#[test]
fn no_clock_runs_for_an_acknowledgement_of_a_client_that_is_not_read() {
    let mut rig = Rig::with_push();
    rig.upstream(&message(1));
    rig.seconds(20);
    rig.input(Input::Paused(Peer::Client));
    rig.seconds(600);
    assert!(!suspects(&rig) && rig.publishes.is_empty());
    rig.input(Input::Unpaused(Peer::Client));
    rig.seconds(9);
    assert!(!suspects(&rig), "the time before the pause counts, the pause does not");
    rig.seconds(2);
    assert!(suspects(&rig));
    rig.input(Input::Paused(Peer::Client));
    rig.seconds(600);
    assert_eq!(rig.closed, 0);
    rig.input(Input::Unpaused(Peer::Client));
    rig.seconds(31);
    assert_eq!(rig.closed, 1);
}

#[test]
fn what_is_asked_during_a_pause_has_its_whole_time_behind_it() {
    let mut rig = Rig::with_push();
    rig.input(Input::Paused(Peer::Client));
    rig.seconds(100);
    rig.upstream(&message(1));
    rig.seconds(100);
    rig.input(Input::Unpaused(Peer::Client));
    rig.seconds(29);
    assert!(!suspects(&rig));
    rig.seconds(2);
    assert!(suspects(&rig));
}

#[test]
fn a_call_is_not_pushed_for_a_client_that_is_not_read() {
    let mut rig = Rig::with_push();
    rig.input(Input::Paused(Peer::Client));
    rig.upstream(
        "<message from='romeo@example.net/x' type='chat' id='1'><propose xmlns='urn:xmpp:jingle-message:0' id='s'>\
         <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose></message>",
    );
    rig.seconds(60);
    assert!(rig.publishes.is_empty());
    rig.input(Input::Unpaused(Peer::Client));
    rig.seconds(4);
    assert!(rig.publishes.is_empty());
    rig.seconds(2);
    assert_eq!(rig.publishes.len(), 1);
}

#[test]
fn no_clock_runs_for_a_server_that_is_not_read() {
    let mut rig = Rig::with_push();
    rig.server_confirms = false;
    rig.client("<message id='1'><body>1</body></message>");
    rig.seconds(30);
    rig.input(Input::Paused(Peer::Server));
    rig.seconds(200);
    assert_eq!(rig.ended, None);
    rig.input(Input::Unpaused(Peer::Server));
    rig.seconds(29);
    assert_eq!(rig.ended, None);
    rig.seconds(2);
    assert_eq!(rig.ended, Some(EndReason::UpstreamLost));
}

#[test]
fn requests_for_acks_that_come_while_answers_wait_get_one_together() {
    let mut rig = Rig::with_push();
    rig.client(ASK);
    assert_eq!(acks(&rig.to_client).len(), 1);
    rig.input(Input::RepliesWait(Replies::Many));
    for n in 0..1000 {
        rig.client(&format!("<message id='{n}'/>"));
        rig.client(ASK);
    }
    rig.seconds(1);
    assert_eq!(acks(&rig.to_client).len(), 1);
    rig.input(Input::RepliesWait(Replies::Few));
    assert_eq!(acks(&rig.to_client).len(), 2);
    let first = acks(&rig.to_client)[0];
    assert_eq!(acks(&rig.to_client)[1], first + 1000);
}

#[test]
fn requests_for_acks_that_a_slow_server_holds_up_are_not_answered_one_by_one_without_end() {
    let mut rig = Rig::with_push();
    rig.server_confirms = false;
    rig.client("<message id='1'/>");
    for _ in 0..10_000 {
        rig.client(ASK);
    }
    rig.seconds(1);
    assert_eq!(acks(&rig.to_client).len(), 256);
}

#[test]
fn answers_to_a_peer_are_distinguished_from_relayed_stanzas() {
    let mut rig = Rig::with_push();
    let mut replies = |input: Input| {
        rig.session.handle(rig.now, input);
        let mut seen = (0, 0);
        while let Some(output) = rig.session.poll() {
            seen.0 += usize::from(matches!(output, Output::ToClient(_) | Output::ToUpstream(_)));
            seen.1 += usize::from(matches!(output, Output::ReplyToClient(_) | Output::ReplyToUpstream(_)));
        }
        seen
    };
    let attachment = crate::session::Attachment::FIRST;
    let client = |xml: &str| Input::Client { attachment, frame: super::frame(xml) };
    assert_eq!(replies(client(ASK)), (0, 1));
    assert_eq!(replies(client("<x xmlns='urn:xmpp:sm:3'/>")), (0, 1));
    assert_eq!(replies(client("<iq type='set' id='1'><enable xmlns='urn:xmpp:push:0'/></iq>")), (0, 1));
    assert_eq!(replies(client("<message id='1'/>")), (1, 0));
    assert_eq!(replies(Input::Upstream(super::frame(&message(1)))), (1, 0));
    assert_eq!(replies(Input::Upstream(super::frame("<r xmlns='urn:xmpp:sm:3'/>"))), (0, 1));
}

/// A session whose first presence waits, because the disk is slow to return the backlog.
fn held() -> Rig {
    let bytes = message(7).into();
    let mut rig = Rig::start(
        Settings { session_queue: 1 << 20, ..Settings::default() },
        vec![Spooled { seq: Seq::new(1), received: UnixMillis::new(0), shared: false, archived: false, bytes }],
    );
    rig.disk_is_slow = true;
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.clear();
    rig.client("<presence id='p'/>");
    rig
}

/// Lets the disk catch up, so that the whole backlog is read back.
fn catch_up(rig: &mut Rig) {
    rig.sync();
    for _ in 0..3 {
        rig.input(Input::Quiet);
        rig.confirm();
    }
}

#[test]
fn what_follows_a_presence_that_waits_is_read_and_follows_it_in_order() {
    let mut rig = held();
    assert_eq!(rig.to_upstream, Vec::<String>::new());
    rig.client("<message id='1'/>");
    rig.client("<presence to='room@example.net/me' id='2'/>");
    rig.client("<iq type='get' id='3' to='example.org'/>");
    assert!(rig.session.can_read_client());
    let weight = rig.session.held_bytes();
    assert!(weight > 100, "{weight}");
    assert_eq!(rig.to_upstream, Vec::<String>::new());
    catch_up(&mut rig);
    let order: Vec<_> = rig.to_upstream.iter().filter(|xml| xml.contains(" id='")).collect();
    let at = |id: &str| order.iter().position(|xml| xml.contains(&format!("id='{id}'")));
    let places = [at("p"), at("1"), at("2"), at("3")];
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{order:?}");
    assert_eq!(rig.session.held_bytes(), 0);
}

#[test]
fn acknowledgements_and_requests_for_them_do_not_wait_behind_a_presence() {
    let mut rig = held();
    rig.client("<message id='1'/>");
    rig.client(ASK);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='0'/>");
    rig.pass(Duration::from_millis(201));
    // The answer stays behind the replay.
    assert_eq!(acks(&rig.to_client), Vec::<u32>::new());
    catch_up(&mut rig);
    rig.seconds(1);
    assert_eq!(acks(&rig.to_client).last(), Some(&2), "the presence and the message: {:?}", rig.to_client);
}

#[test]
fn a_footer_behind_a_presence_that_waits_ends_the_session_after_all_of_it() {
    let mut rig = held();
    rig.client("<message id='1'/>");
    rig.input(Input::Client { attachment: rig.session.attachment(), frame: crate::xml::Frame::Close });
    assert_eq!(rig.ended, None);
    catch_up(&mut rig);
    rig.confirm();
    rig.seconds(10);
    assert_eq!(rig.ended, Some(EndReason::ClientClosed));
    assert!(rig.to_upstream.iter().any(|xml| xml.contains("id='1'")), "{:?}", rig.to_upstream);
}

#[test]
fn what_waited_behind_a_presence_is_sent_again_by_a_client_that_resumes() {
    let mut rig = held();
    rig.client("<message id='1'/>");
    rig.lose_client();
    assert_eq!(rig.session.held_bytes(), 0);
    rig.resume(0);
    catch_up(&mut rig);
    rig.client("<presence id='p'/>");
    rig.client("<message id='1'/>");
    catch_up(&mut rig);
    let count = rig.to_upstream.iter().filter(|xml| xml.contains("<message id='1'")).count();
    assert_eq!(count, 1, "{:?}", rig.to_upstream);
}

fn unhurried() -> Settings {
    Settings { session_queue: 1 << 20, ..Settings::default() }
}

#[test]
fn a_server_that_does_not_answer_enable_is_given_up_after_server_timeout() {
    let mut rig =
        Rig::start_with_server_sm(Settings { server_timeout: Duration::from_secs(7), ..unhurried() }, Vec::new());
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.clear();
    rig.seconds(4);
    // The server's timeout does not run while the server is not read.
    rig.input(Input::Paused(Peer::Server));
    rig.seconds(10);
    rig.input(Input::Unpaused(Peer::Server));
    rig.seconds(2);
    assert_eq!((rig.ended, rig.closed), (None, 0));
    rig.seconds(2);
    assert_eq!((rig.ended, rig.closed), (Some(EndReason::UpstreamSilent), 1));
    assert!(rig.to_client.last().is_some_and(|xml| xml.contains("<remote-connection-failed ")), "{:?}", rig.to_client);
    assert!(rig.events.contains(&Event::ServerSilent));

    for answer in ["<enabled xmlns='urn:xmpp:sm:3'/>", "<failed xmlns='urn:xmpp:sm:3'/>"] {
        let mut rig = Rig::start_with_server_sm(unhurried(), Vec::new());
        rig.upstream(answer);
        rig.seconds(600);
        assert_eq!(rig.ended, None, "{answer}");
    }
}

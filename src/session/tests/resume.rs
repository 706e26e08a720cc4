//! Stream management on the client leg (XEP-0198).

use super::super::queue::{Budget, Full};
use super::*;

fn sm_rig() -> Rig {
    let mut rig = Rig::new();
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.clear();
    rig
}

#[test]
fn enabled_carries_id_resume_and_max() {
    let mut rig = Rig::new();
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let previd = rig.previd.clone().unwrap();
    assert_eq!(rig.to_client, [format!("<enabled xmlns='urn:xmpp:sm:3' id='{previd}' resume='true' max='259200'/>")]);
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    assert!(rig.to_client.last().unwrap().contains("unexpected-request"));
}

#[test]
fn without_resume_there_is_no_id() {
    let mut rig = Rig::new();
    rig.client("<enable xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(rig.to_client, ["<enabled xmlns='urn:xmpp:sm:3'/>"]);
    rig.lose_client();
    assert_eq!(rig.ended, Some(EndReason::ClientLost));
    assert_eq!(rig.to_upstream, ["</stream:stream>"]);
}

#[test]
fn stanzas_of_the_client_count_whoever_answers_them() {
    let mut rig = sm_rig();
    rig.client("<presence/>");
    rig.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example'/></iq>");
    rig.client("<active xmlns='urn:xmpp:csi:0'/>");
    rig.client("<r xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(rig.to_client.last().unwrap(), "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!(rig.to_upstream, ["<presence/>", "<active xmlns='urn:xmpp:csi:0'/>"]);
}

#[test]
fn a_burst_with_messages_is_followed_by_one_ack_request() {
    let mut rig = sm_rig();
    rig.input(Input::Upstream(frame(&message(1))));
    rig.input(Input::Upstream(frame(&message(2))));
    rig.input(Input::Quiet);
    rig.upstream(&message(3));
    assert_eq!(rig.to_client.iter().filter(|xml| xml.starts_with("<r ")).count(), 1);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    rig.pass(Duration::from_millis(45));
    assert_eq!(rig.to_client.iter().filter(|xml| xml.starts_with("<r ")).count(), 2);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    rig.upstream("<presence from='romeo@example.net/x'/>");
    rig.pass(Duration::from_millis(45));
    assert_eq!(rig.to_client.iter().filter(|xml| xml.starts_with("<r ")).count(), 2);
}

#[test]
fn a_stream_of_stanzas_costs_few_questions() {
    let mut rig = sm_rig();
    for n in 1..=1000 {
        rig.upstream(&message(n));
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{n}'/>"));
        rig.pass(Duration::from_millis(1));
    }
    let questions = rig.to_client.iter().filter(|xml| xml.starts_with("<r ")).count();
    assert!((20..=30).contains(&questions), "{questions}");
    assert_eq!(rig.session.deadline().map(|at| at > rig.now), Some(true));
}

#[test]
fn an_h_beyond_what_was_sent_ends_the_stream() {
    let mut rig = sm_rig();
    rig.upstream(&message(1));
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    let error = rig.to_client.last().unwrap();
    assert!(error.contains("<undefined-condition"), "{error}");
    assert!(error.contains("<handled-count-too-high xmlns='urn:xmpp:sm:3' h='2' send-count='1'/>"), "{error}");
    assert_eq!(rig.ended, Some(EndReason::ClientError));
}

#[test]
fn what_was_not_acked_is_replayed_once_in_order_with_its_delay() {
    let mut rig = sm_rig();
    for n in 1..=3 {
        rig.upstream(&message(n));
    }
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.lose_client();
    assert!(rig.session.is_dark());
    rig.upstream(&message(4));
    rig.upstream("<iq type='get' id='q' from='romeo@example.net/x'><query xmlns='jabber:iq:version'/></iq>");
    rig.clear();
    // The client had handled the second message too.
    rig.resume(2);
    assert!(rig.to_client[0].starts_with("<resumed xmlns='urn:xmpp:sm:3' h='0' previd='"), "{:?}", rig.to_client);
    assert_eq!(rig.delivered(), [3, 4]);
    assert!(
        rig.to_client[1]
            .contains("<delay xmlns='urn:xmpp:delay' from='example.org' stamp='1970-01-01T00:00:01.002Z'/>")
    );
    assert!(!rig.to_client[3].contains("<delay"));
    assert_eq!(rig.to_client[4], "<r xmlns='urn:xmpp:sm:3'/>");
    rig.client("<a xmlns='urn:xmpp:sm:3' h='5'/>");
    assert_eq!(rig.ended, None);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='6'/>");
    assert_eq!(rig.ended, Some(EndReason::ClientError));
}

#[test]
fn a_resume_with_an_h_too_high_is_refused_and_the_session_stays() {
    let mut rig = sm_rig();
    rig.upstream(&message(1));
    rig.lose_client();
    assert!(rig.session.check_resume(sm::Handled::new(2)).is_err());
    rig.clear();
    rig.resume(0);
    assert_eq!(rig.delivered(), [1]);
}

/// Invariant 10: a connection that was taken over can neither detach the session nor send frames for it.
#[test]
fn only_the_owner_detaches() {
    let mut rig = sm_rig();
    rig.resume(0);
    rig.clear();
    rig.input(Input::Client { attachment: Attachment::FIRST, frame: frame(&message(1)) });
    rig.input(Input::ClientLost(Attachment::FIRST));
    assert!(!rig.session.is_dark());
    assert_eq!(rig.to_upstream, Vec::<String>::new());
    rig.client("<r xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(rig.to_client, ["<a xmlns='urn:xmpp:sm:3' h='0'/>"]);
}

#[test]
fn a_silent_client_goes_dark_after_both_delays_and_comes_back() {
    let mut rig = sm_rig();
    rig.upstream(&message(1));
    rig.seconds(29);
    assert!(!rig.events.contains(&Event::Suspect));
    rig.seconds(2);
    assert!(rig.events.contains(&Event::Suspect));
    assert!(!rig.session.is_dark());
    rig.seconds(30);
    assert!(rig.session.is_dark());
    assert_eq!(rig.closed, 1);
    rig.clear();
    rig.resume(0);
    assert_eq!(rig.delivered(), [1]);
}

#[test]
fn a_late_ack_ends_the_suspicion() {
    let mut rig = sm_rig();
    rig.upstream(&message(1));
    rig.seconds(40);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.seconds(100);
    assert!(!rig.session.is_dark());
}

#[test]
fn an_idle_client_is_asked_before_its_session_goes_dark() {
    let mut rig = sm_rig();
    rig.seconds(299);
    assert_eq!(rig.to_client, Vec::<String>::new());
    rig.seconds(2);
    assert_eq!(rig.to_client, ["<r xmlns='urn:xmpp:sm:3'/>"]);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='0'/>");
    rig.seconds(250);
    assert!(!rig.session.is_dark());
    rig.seconds(120);
    assert!(rig.session.is_dark());
}

#[test]
fn the_hold_ends_after_resume_timeout_or_what_the_client_asked() {
    let mut rig = sm_rig();
    rig.lose_client();
    rig.clear();
    rig.seconds(599);
    assert_eq!(rig.ended, None);
    rig.seconds(2);
    assert_eq!(rig.ended, Some(EndReason::Expired));
    assert_eq!(rig.to_upstream.last().unwrap(), "</stream:stream>");

    let mut rig = Rig::new();
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true' max='90'/>");
    rig.lose_client();
    rig.seconds(91);
    assert_eq!(rig.ended, Some(EndReason::Expired));
}

#[test]
fn a_registration_extends_the_hold_even_of_a_client_that_asked_for_less() {
    let mut rig = Rig::new();
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true' max='90'/>");
    rig.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example'/></iq>");
    rig.lose_client();
    rig.seconds(71 * 3600);
    assert_eq!(rig.ended, None);
    rig.seconds(2 * 3600);
    assert_eq!(rig.ended, Some(EndReason::Expired));
}

#[test]
fn what_exceeds_memory_lives_in_the_spool_and_comes_back_in_order() {
    let mut rig = Rig::with(Settings { session_queue: 2000, ..Settings::default() });
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.lose_client();
    for n in 1..=50 {
        rig.upstream(&message(n));
    }
    assert_eq!(rig.spool.len(), 50);
    rig.clear();
    rig.resume(0);
    for h in 1..=50 {
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
        if h == 25 {
            rig.upstream(&message(51));
        }
    }
    assert_eq!(rig.delivered(), (1..=51).collect::<Vec<_>>());
    rig.client("<a xmlns='urn:xmpp:sm:3' h='51'/>");
    assert_eq!(rig.spool.len(), 0);
    assert_eq!(rig.ended, None);
}

/// Regression test: stanzas that were read back were counted by their bytes alone, so a great many tiny stanzas took
/// several times the memory that a session may have.
#[test]
fn tiny_stanzas_come_back_from_the_spool_only_as_memory_has_room() {
    let limit = 16_000;
    let mut rig = Rig::with(Settings { session_queue: limit, ..Settings::default() });
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.lose_client();
    for _ in 0..500 {
        rig.upstream("<message/>");
    }
    rig.resume(0);
    let mut h = 0;
    while h < 500 {
        let waiting = rig.session.device.delivery().queue().len();
        assert!((1..=limit / 160).contains(&waiting), "{waiting} in memory, {h} acknowledged");
        h += waiting;
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    }
    assert_eq!((h, rig.spool.len(), rig.ended), (500, 0, None));
}

#[test]
fn closes_and_errors_travel_both_ways() {
    let mut rig = sm_rig();
    rig.input(Input::Client { attachment: Attachment::FIRST, frame: Frame::Close });
    rig.confirm();
    assert_eq!(rig.to_upstream, ["</stream:stream>"]);
    assert_eq!(rig.to_client, ["</stream:stream>"]);
    assert_eq!(rig.ended, Some(EndReason::ClientClosed));

    let mut rig = sm_rig();
    let error = "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    rig.upstream(error);
    rig.input(Input::Upstream(Frame::Close));
    assert_eq!(rig.to_client, [error, "</stream:stream>"]);
    assert_eq!(rig.ended, Some(EndReason::UpstreamClosed));

    let mut rig = sm_rig();
    rig.input(Input::UpstreamLost);
    assert_eq!((rig.to_client.len(), rig.closed, rig.ended), (0, 1, Some(EndReason::UpstreamLost)));
}

#[test]
fn a_resumed_stream_is_active_for_the_server_too() {
    let mut rig = sm_rig();
    rig.client("<inactive xmlns='urn:xmpp:csi:0'/>");
    rig.lose_client();
    rig.clear();
    rig.resume(0);
    assert_eq!(rig.to_upstream, ["<active xmlns='urn:xmpp:csi:0'/>"]);
}

#[test]
fn whitespace_never_reaches_the_client_and_keeps_the_server_awake() {
    let mut rig = sm_rig();
    rig.input(Input::Upstream(Frame::Whitespace));
    assert_eq!(rig.to_client, Vec::<String>::new());
    rig.lose_client();
    rig.clear();
    rig.seconds(310);
    assert_eq!(rig.to_upstream, [" "]);
}

#[test]
fn pings_to_a_dark_client_are_answered_for_it() {
    let mut rig = sm_rig();
    rig.lose_client();
    rig.clear();
    rig.upstream(
        "<iq type='get' id='7' from='example.org' to='juliet@example.org/phone'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    assert_eq!(rig.to_upstream, ["<iq type='result' id='7' from='juliet@example.org/phone' to='example.org'/>"]);
}

#[test]
fn elements_that_would_change_the_upstream_stream_are_not_forwarded() {
    for nonza in [
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        "<compress xmlns='http://jabber.org/protocol/compress'/>",
    ] {
        let mut rig = sm_rig();
        rig.client(nonza);
        assert_eq!(rig.to_upstream, ["</stream:stream>"]);
        assert_eq!(rig.ended, Some(EndReason::ClientError));
    }
}

#[test]
fn without_memory_for_all_a_session_goes_on_from_disk_in_order() {
    let mut rig = Rig::with(Settings { session_queue: 1 << 20, ..Settings::default() });
    let memory: Arc<Budget> = Arc::default();
    rig.share_budget(Arc::clone(&memory));
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.lose_client();
    rig.upstream(&message(1));
    let one = memory.used();
    assert!(one > 0);
    memory.update(1);
    for n in 2..=50 {
        rig.upstream(&message(n));
    }
    assert_eq!((rig.session.device.delivery().queue().len(), rig.spool.len()), (1, 50));
    assert_eq!(memory.used(), one);
    let full = rig.events.iter().filter(|event| matches!(event, Event::QueueFull(Full::All))).count();
    assert_eq!(full, 1);
    rig.clear();
    rig.resume(0);
    for h in 1..=50 {
        assert_eq!(rig.session.device.delivery().queue().len(), 1, "{h}");
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    }
    assert_eq!(rig.delivered(), (1..=50).collect::<Vec<_>>());
    assert_eq!((memory.used(), rig.spool.len(), rig.ended), (0, 0, None));
    rig.upstream(&message(51));
    drop(rig);
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_session_that_gives_way_keeps_what_waits_and_a_live_one_does_not_give_way() {
    let mut rig = sm_rig();
    rig.input(Input::EndIfHeld(EndReason::Crowded));
    assert_eq!(rig.ended, None);
    rig.lose_client();
    rig.upstream(&message(1));
    rig.input(Input::EndIfHeld(EndReason::Crowded));
    rig.input(Input::Upstream(Frame::Close));
    rig.pass(Duration::from_secs(3));
    assert_eq!((rig.ended, rig.spool.len()), (Some(EndReason::Crowded), 1));
}

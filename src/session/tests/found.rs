//! Failures that the model (`model.rs`) has found, each reduced to the shortest sequence of events.

use super::*;
use crate::session::Orphans;

fn waiting(seq: u64, xml: &str) -> Spooled {
    let bytes = Bytes::copy_from_slice(xml.as_bytes());
    Spooled { seq: Seq::new(seq), received: UnixMillis::new(1000), shared: false, archived: false, bytes }
}

fn enabled(mut rig: Rig) -> Rig {
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.clear();
    rig
}

/// The client asked for an `<a/>` while its backlog was read from the disk. The answer waited for the backlog, but its
/// deadline did not: the session was woken repeatedly until the disk had answered.
#[test]
fn an_ack_that_waits_for_the_backlog_does_not_keep_the_session_awake() {
    let mut rig = Rig::start(Settings { session_queue: 1 << 20, ..Settings::default() }, Vec::new());
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.disk_is_slow = true;
    let Session { device, effects, .. } = &mut rig.session;
    device.take_over(effects);
    rig.drain();
    rig.client("<r xmlns='urn:xmpp:sm:3'/>");
    rig.seconds(5);
    assert!(rig.session.deadline().unwrap() > rig.now);
    rig.sync();
    rig.input(Input::Quiet);
    assert_eq!(rig.to_client.last().unwrap(), "<a xmlns='urn:xmpp:sm:3' h='0'/>");
}

/// The client closed its stream while a spool job was under way. The answer to the job came after the footer, and the
/// session then acknowledged all the stanzas that it had just given back.
#[test]
fn what_was_given_back_is_not_acknowledged_afterwards() {
    let mut rig =
        enabled(Rig::start_with_server_sm(Settings { session_queue: 1 << 20, ..Settings::default() }, Vec::new()));
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.server_confirms = false;
    rig.disk_is_slow = true;
    rig.upstream(&message(1));
    rig.seconds(31);
    rig.input(Input::Client { attachment: rig.session.attachment(), frame: Frame::Close });
    rig.sync();
    rig.upstream("<r xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(rig.to_upstream.last().unwrap(), "</stream:stream>");
}

/// The server closed its stream, and the stanzas that the client had not acknowledged went back to the server. The
/// session then also deleted from the disk all the stanzas that it had adopted since.
#[test]
fn what_was_adopted_stays_when_the_server_takes_back_the_rest() {
    let mut rig =
        enabled(Rig::start_with_server_sm(Settings { session_queue: 1 << 20, ..Settings::default() }, Vec::new()));
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.upstream(&message(1));
    rig.orphans = vec![waiting(1, &message(7))];
    let Session { device, effects, .. } = &mut rig.session;
    device.adopt(Orphans::OfUnregistered, effects);
    rig.drain();
    rig.disk_is_slow = true;
    rig.upstream(&message(2));
    rig.input(Input::Upstream(Frame::Close));
    let left: Vec<&Spooled> = rig.spool.values().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    // The first was on disk before, and is acknowledged.
    assert_eq!(left[1].bytes, message(7));
}

/// The server had not yet confirmed a message when its sender resumed. The client was sent `h='0'` and sent the message
/// again. It was counted twice, and from then on each `h` was too high: the client dropped a message that the server
/// did not have.
#[test]
fn what_is_sent_again_after_a_resumption_is_counted_once() {
    let mut rig = enabled(Rig::new());
    rig.server_confirms = false;
    rig.client("<message id='a'/>");
    rig.lose_client();
    rig.resume(0);
    rig.seconds(3);
    assert!(rig.to_client[0].starts_with("<resumed xmlns='urn:xmpp:sm:3' h='0'"), "{:?}", rig.to_client);
    rig.server_confirms = true;
    rig.client("<message id='a'/>");
    rig.client("<r xmlns='urn:xmpp:sm:3'/>");
    rig.seconds(1);
    assert_eq!(rig.to_client.last().unwrap(), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
}

/// A client's `unavailable` was held until the next event, and that event was a resumption over another connection. The
/// `h` for the client was too low, so the client sent the presence again, which counted twice.
#[test]
fn a_presence_that_is_held_is_counted_before_a_takeover() {
    let mut rig = Rig::with_push();
    rig.client("<presence/>");
    rig.client("<presence type='unavailable'/>");
    rig.clear();
    rig.resume(1);
    rig.confirm();
    assert!(rig.to_client[0].starts_with("<resumed xmlns='urn:xmpp:sm:3' h='3'"), "{:?}", rig.to_client);
}

/// The first presence waited for the backlog when the client resumed over another connection. It was not counted, so
/// the client sent it again, and both were forwarded and counted.
#[test]
fn a_presence_that_waits_for_the_backlog_is_forwarded_once_after_a_takeover() {
    let mut rig = Rig::start(Settings { session_queue: 1 << 20, ..Settings::default() }, vec![waiting(1, &message(1))]);
    rig.disk_is_slow = true;
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.client("<presence/>");
    rig.resume(0);
    rig.sync();
    rig.input(Input::Quiet);
    rig.client("<presence/>");
    assert_eq!(rig.to_upstream.iter().filter(|xml| *xml == "<presence/>").count(), 1);
}

/// A contact came online while a session's queue was full, so its presence was spooled behind the messages. The session
/// ended, the contact went offline, and the next session still sent that presence to its client.
#[test]
fn the_presence_of_an_earlier_session_is_not_delivered() {
    let earlier = vec![waiting(1, &message(1)), waiting(2, "<presence from='nurse@example.net/x'/>")];
    let mut rig = Rig::start(Settings { session_queue: 1 << 20, ..Settings::default() }, earlier);
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    assert_eq!(rig.delivered(), [1]);
    assert!(!rig.to_client.iter().any(|xml| xml.starts_with("<presence")), "{:?}", rig.to_client);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert!(rig.spool.is_empty());
}

/// The answer to a client's request waited in the spool. When the session ended before the client had it, the session
/// refused the answer as if it were a request.
#[test]
fn an_answer_that_waited_in_the_spool_is_not_refused() {
    let mut rig = enabled(Rig::with(Settings { session_queue: 700, ..Settings::default() }));
    rig.lose_client();
    for n in 1..=4 {
        rig.upstream(&message(n));
    }
    rig.upstream("<iq type='result' id='q' from='example.org'/>");
    rig.resume(0);
    for h in 1..=4 {
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    }
    assert!(rig.to_client.iter().any(|xml| xml.contains("id='q'")), "{:?}", rig.to_client);
    rig.input(Input::Drain);
    assert!(!rig.to_upstream.iter().any(|xml| xml.contains("type='error'")), "{:?}", rig.to_upstream);
}

/// A message came before the server's `<enabled/>`, so the server did not count it. Only the session had it, but the
/// session relied on the server to keep it for 30 s.
#[test]
fn what_the_server_does_not_count_is_spooled_in_time() {
    let mut rig =
        enabled(Rig::start_with_server_sm(Settings { session_queue: 1 << 20, ..Settings::default() }, Vec::new()));
    rig.upstream(&message(1));
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.seconds(1);
    assert_eq!(rig.spool.len(), 1);
}

/// The server confirmed the client's last message when the session was about to end. The session wrote to the client
/// although it had already closed that connection.
#[test]
fn nothing_is_written_to_a_client_after_its_connection_was_closed() {
    let mut rig = enabled(Rig::new());
    rig.server_confirms = false;
    rig.client("<message id='a'/>");
    rig.client("<r xmlns='urn:xmpp:sm:3'/>");
    let id = element(&rig.to_upstream[1]).node().attr("id").unwrap().into_owned();
    rig.input(Input::Drain);
    let before = rig.to_client.len();
    rig.upstream(&format!("<iq type='result' id='{id}' from='example.org'/>"));
    assert_eq!(rig.to_client.len(), before, "{:?}", rig.to_client);
}

/// A message came between the session's footer and the server's footer. It was not written to disk until the server had
/// closed its stream.
#[test]
fn what_comes_while_the_session_ends_is_spooled_at_once() {
    let mut rig = enabled(Rig::new());
    rig.server_confirms = false;
    rig.input(Input::Client { attachment: rig.session.attachment(), frame: Frame::Close });
    rig.upstream(&message(1));
    assert_eq!(rig.spool.len(), 1);
    assert_eq!(rig.ended, None);
}

/// Stanzas that do not notify filled the memory, and a message waited on disk behind them. Nobody asked the client for the
/// acknowledgement that makes room, until the client had been silent for `idle_probe`: it got the message minutes late, or
/// never, if it was never silent.
fn check_client_gets_what_waits_on_disk(mut rig: Rig, answer: impl Fn(&str) -> Option<String>) {
    for n in 1..=40 {
        rig.upstream(&format!("<iq type='get' id='{n}' from='romeo@example.net/x'><ping xmlns='urn:xmpp:ping'/></iq>"));
    }
    rig.upstream(&message(41));
    assert!(rig.delivered().is_empty() && !rig.spool.is_empty());
    let mut read = 0;
    for _ in 0..60 {
        rig.seconds(1);
        let answers: Vec<_> = rig.to_client[read..].iter().filter_map(|xml| answer(xml)).collect();
        read = rig.to_client.len();
        let written = rig.to_client.iter().filter(|xml| xml.starts_with("<iq") || xml.starts_with("<message")).count();
        for answer in answers {
            rig.client(&answer.replace("COUNT", &written.to_string()));
        }
        rig.client("<presence/>");
    }
    assert_eq!((rig.delivered(), rig.spool.len()), (vec![41], 0));
}

#[test]
fn a_client_that_acknowledges_gets_what_waits_on_disk_while_it_is_busy() {
    let rig = enabled(Rig::with(Settings { session_queue: 1600, ..Settings::default() }));
    check_client_gets_what_waits_on_disk(rig, |xml| {
        xml.starts_with("<r ").then(|| "<a xmlns='urn:xmpp:sm:3' h='COUNT'/>".into())
    });
}

#[test]
fn a_client_that_is_pinged_gets_what_waits_on_disk_while_it_is_busy() {
    let mut rig = Rig::with(Settings { session_queue: 1600, ..Settings::default() });
    rig.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>");
    rig.clear();
    check_client_gets_what_waits_on_disk(rig, |xml| {
        let ping = Some(xml).filter(|xml| xml.starts_with("<iq") && xml.contains("from='example.org'"))?;
        let id = element(ping).node().attr("id").unwrap().into_owned();
        Some(format!("<iq type='result' id='{id}' to='example.org'/>"))
    });
}

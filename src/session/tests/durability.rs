//! Invariant 1 (nothing lost, nothing twice) on both legs, in the spool and at each kind of session end.

use super::*;

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const REQUEST: &str = "<r xmlns='urn:xmpp:sm:3'/>";

fn settings() -> Settings {
    Settings { session_queue: 1 << 20, ..Settings::default() }
}

/// A resumable session on a server with stream management.
pub(super) fn managed() -> Rig {
    let mut rig = Rig::start_with_server_sm(settings(), Vec::new());
    assert_eq!(rig.to_upstream, ["<enable xmlns='urn:xmpp:sm:3'/>"]);
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.client(ENABLE);
    rig.clear();
    rig
}

pub(super) fn plain() -> Rig {
    let mut rig = Rig::with(settings());
    rig.client(ENABLE);
    rig.clear();
    rig
}

pub(super) fn acks(stanzas: &[String]) -> Vec<u32> {
    let acks = stanzas.iter().filter(|xml| xml.starts_with("<a "));
    acks.map(|xml| element(xml).node().attr("h").unwrap().parse().unwrap()).collect()
}

impl Rig {
    pub(super) fn server_asks(&mut self) -> u32 {
        self.to_upstream.clear();
        self.upstream(REQUEST);
        acks(&self.to_upstream)[0]
    }

    pub(super) fn client_available(&mut self) {
        self.client("<presence><priority>5</priority></presence>");
    }
}

/// Invariant 2.
#[test]
fn an_offline_stanza_is_acked_only_once_durable() {
    let mut rig = managed();
    rig.lose_client();
    rig.disk_is_slow = true;
    rig.upstream(&message(1));
    assert_eq!(rig.server_asks(), 0);
    rig.to_upstream.clear();
    rig.sync();
    assert_eq!(acks(&rig.to_upstream), [1], "at once, though nobody asks again");
    assert_eq!(rig.spool.len(), 1);
}

#[test]
fn while_live_the_server_gets_the_acks_of_the_client() {
    let mut rig = managed();
    rig.upstream(&message(1));
    rig.upstream(&message(2));
    rig.upstream("<presence from='romeo@example.net/x'/>");
    assert_eq!(rig.server_asks(), 0);
    rig.to_upstream.clear();
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(acks(&rig.to_upstream), [1]);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!(rig.server_asks(), 3, "presence needs no ack of the client");
    assert_eq!(rig.spool.len(), 0);
}

#[test]
fn the_spool_takes_over_before_a_server_loses_patience() {
    let mut rig = managed();
    for n in 1..=249 {
        rig.upstream(&message(n));
    }
    assert_eq!(rig.spool.len(), 0);
    rig.upstream(&message(250));
    assert_eq!(rig.spool.len(), 250);
    assert_eq!(rig.server_asks(), 250);

    let mut rig = managed();
    rig.upstream(&message(1));
    rig.pass(Duration::from_millis(900));
    assert_eq!(rig.spool.len(), 0);
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.spool.len(), 1);
}

#[test]
fn without_a_managing_server_the_spool_follows_at_once() {
    let mut rig = plain();
    rig.upstream(&message(1));
    assert_eq!(rig.spool.len(), 0);
    rig.pass(Duration::from_millis(101));
    assert_eq!(rig.spool.len(), 1);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(rig.spool.len(), 0);
}

#[test]
fn an_ack_to_the_client_is_earned() {
    let mut rig = managed();
    rig.client(&message(1));
    rig.client(REQUEST);
    assert_eq!(acks(&rig.to_client), Vec::<u32>::new());
    rig.upstream("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(acks(&rig.to_client), [1]);

    rig.client(&message(2));
    rig.client(REQUEST);
    rig.pass(Duration::from_millis(201));
    assert_eq!(acks(&rig.to_client), [1, 1]);
    rig.upstream("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!(acks(&rig.to_client), [1, 1, 2]);
}

#[test]
fn a_resumption_waits_for_what_the_client_sent_last() {
    let mut rig = plain();
    rig.server_confirms = false;
    rig.client("<message id='1'><body>1</body></message>");
    rig.lose_client();
    let ping = rig.to_upstream.last().unwrap().clone();
    assert!(ping.contains("<ping xmlns='urn:xmpp:ping'/>"), "{ping}");
    rig.to_client.clear();
    rig.resume(0);
    assert_eq!(rig.to_client, Vec::<String>::new());
    assert!(!rig.session.can_read_client());
    let id = element(&ping).node().attr("id").unwrap().into_owned();
    rig.upstream(&format!("<iq type='result' id='{id}' from='example.org'/>"));
    assert!(rig.to_client[0].starts_with("<resumed xmlns='urn:xmpp:sm:3' h='1'"), "{:?}", rig.to_client);
}

#[test]
fn a_server_that_answers_nothing_is_lost() {
    let mut rig = plain();
    rig.server_confirms = false;
    rig.client("<message id='1'><body>1</body></message>");
    rig.seconds(61);
    assert_eq!(rig.ended, Some(EndReason::UpstreamLost));
    assert_eq!(rig.tombstones, [0]);
}

/// Regression test: a session that ended right after a message had a count without that message, so the client sent it
/// again.
#[test]
fn what_the_server_confirms_in_parting_counts_too() {
    for server_has_sm in [false, true] {
        let mut rig = if server_has_sm { managed() } else { plain() };
        rig.server_confirms = false;
        rig.client("<message id='1'><body>1</body></message>");
        rig.client("<message id='2'><body>2</body></message>");
        rig.lose_client();
        rig.to_upstream.clear();
        rig.input(Input::Drain);
        rig.sync();
        assert_eq!(rig.tombstones, [0]);
        let [.., question, footer] = &rig.to_upstream[..] else { panic!("{:?}", rig.to_upstream) };
        assert_eq!(footer, "</stream:stream>");
        if server_has_sm {
            assert_eq!(question, "<r xmlns='urn:xmpp:sm:3'/>");
            rig.upstream("<a xmlns='urn:xmpp:sm:3' h='2'/>");
        } else {
            let id = element(question).node().attr("id").unwrap().into_owned();
            rig.upstream(&format!("<iq type='result' id='{id}' from='example.org'/>"));
        }
        assert_eq!(rig.tombstones, [0, 2]);
        rig.input(Input::Upstream(Frame::Close));
        assert_eq!(rig.ended, Some(EndReason::Drained));
    }
}

/// A process that is stopped and not followed by another one leaves the same on disk as a drain.
#[test]
fn a_handover_leaves_the_stanzas_and_the_count_on_disk_and_the_session_as_it_is() {
    let mut rig = plain();
    rig.client("<message id='1'><body>1</body></message>");
    rig.sync();
    rig.upstream("<message from='romeo@example.net' id='a'><body>a</body></message>");
    assert!(rig.spool.is_empty(), "it waits in memory for the client's acknowledgement");
    rig.input(Input::HandOver);
    assert_eq!((rig.spool.len(), &rig.tombstones[..]), (1, &[1][..]));
    assert!(rig.ended.is_none() && !rig.session.is_dark() && rig.closed == 0);
    rig.lose_client();
    assert!(rig.session.is_dark() && rig.ended.is_none());
}

#[test]
fn a_fresh_session_of_a_device_gets_what_waited_before_its_presence_passes() {
    let earlier = |seq| Spooled {
        seq: Seq::new(seq),
        received: UnixMillis::new(0),
        shared: true,
        archived: false,
        bytes: Bytes::from(message(usize::try_from(seq).unwrap())),
    };
    let mut rig = Rig::start(settings(), vec![earlier(1), earlier(2)]);
    rig.client(ENABLE);
    assert_eq!(rig.delivered(), [1, 2]);
    assert!(rig.to_client.iter().all(|xml| !xml.starts_with("<message") || xml.contains("<delay ")));
    rig.upstream(&message(3));
    assert_eq!(rig.delivered(), [1, 2, 3]);
    rig.client_available();
    assert!(rig.to_upstream.iter().any(|xml| xml.starts_with("<presence>")));
    rig.client("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!(rig.spool.len(), 0);
}

#[test]
fn a_superseded_session_leaves_all_on_disk_before_it_closes() {
    let mut rig = managed();
    rig.disk_is_slow = true;
    rig.lose_client();
    rig.upstream(&message(1));
    rig.to_upstream.clear();
    rig.input(Input::EndIfHeld(EndReason::Superseded));
    assert_eq!(rig.to_upstream, Vec::<String>::new());
    rig.sync();
    assert_eq!(rig.to_upstream, ["<a xmlns='urn:xmpp:sm:3' h='1'/>", "</stream:stream>"]);
    rig.confirm();
    assert_eq!(rig.ended, Some(EndReason::Superseded));
    assert_eq!((rig.spool.len(), rig.tombstones.len()), (1, 1));
}

/// Regression test: stanzas that came while the last ones were on their way to the disk were kept but not acknowledged,
/// so the server sent them as well. They are left to the server, unless the disk has them by then.
#[test]
fn what_comes_while_a_session_ends_is_acknowledged_or_not_kept() {
    let mut rig = managed();
    rig.disk_is_slow = true;
    rig.lose_client();
    rig.upstream(&message(1));
    rig.to_upstream.clear();
    rig.input(Input::EndIfHeld(EndReason::Superseded));
    rig.upstream(&message(2));
    rig.sync();
    assert_eq!(acks(&rig.to_upstream).last(), Some(&1));
    assert_eq!(rig.to_upstream.last().unwrap(), "</stream:stream>");
    rig.upstream(&message(3));
    rig.confirm();
    assert_eq!((rig.ended, rig.spool.len()), (Some(EndReason::Superseded), 1));
}

/// Regression test: a server that ended its stream in this moment sent all of these stanzas again, and the kept copies
/// were delivered too.
#[test]
fn what_is_still_on_its_way_to_the_disk_is_the_servers_once_that_ends_its_stream() {
    for error in [None, Some("<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")] {
        let mut rig = managed();
        rig.disk_is_slow = true;
        rig.lose_client();
        rig.upstream(&message(1));
        rig.to_upstream.clear();
        rig.input(Input::EndIfHeld(EndReason::Superseded));
        match error {
            None => rig.input(Input::Upstream(Frame::Close)),
            Some(error) => {
                rig.upstream(error);
                rig.input(Input::UpstreamLost);
            }
        }
        rig.sync();
        assert_eq!((rig.ended, rig.spool.len()), (Some(EndReason::Superseded), 0), "{error:?}");
        let answer: &[&str] = if error.is_none() { &["</stream:stream>"] } else { &[] };
        assert_eq!(rig.to_upstream, answer, "nothing is acknowledged, and a footer is answered");
    }
}

#[test]
fn what_a_managing_server_was_not_acked_stays_its_own() {
    let mut rig = managed();
    rig.upstream(&message(1));
    rig.upstream(&message(2));
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.server_asks();
    rig.input(Input::Upstream(Frame::Close));
    assert_eq!(rig.ended, Some(EndReason::UpstreamClosed));
    assert_eq!(rig.spool.len(), 0);

    let mut rig = plain();
    rig.upstream(&message(1));
    rig.input(Input::UpstreamLost);
    assert_eq!(rig.spool.len(), 1, "nobody else has it");
}

#[test]
fn iq_requests_that_nobody_will_answer_are_refused() {
    let mut rig = plain();
    rig.lose_client();
    rig.upstream("<iq type='get' id='q' from='romeo@example.net/x' to='juliet@example.org/phone'><query xmlns='jabber:iq:version'/></iq>");
    rig.to_upstream.clear();
    rig.seconds(601);
    let refusal = |xml: &String| xml.contains("type='error' id='q'") && xml.contains("<service-unavailable");
    assert_eq!(rig.to_upstream.iter().filter(|xml| refusal(xml)).count(), 1);
    assert_eq!(rig.ended, Some(EndReason::Expired));
    assert_eq!(rig.spool.len(), 0);
}

const VERSION: &str = "<iq type='get' id='q' from='romeo@example.net/x'><query xmlns='jabber:iq:version'/></iq>";

fn refusals(stanzas: &[String]) -> usize {
    let refusal = |xml: &&String| xml.contains("type='error' id='q'") && xml.contains("<service-unavailable");
    stanzas.iter().filter(refusal).count()
}

/// Regression test: a request that came after memory was full was not answered when the session ended, and stayed in
/// the spool.
#[test]
fn iq_requests_that_only_the_spool_has_are_refused_too() {
    let mut rig = overflowing();
    rig.upstream(VERSION);
    rig.upstream(&message(9));
    let before = rig.spool.len();
    rig.seconds(601);
    assert_eq!((refusals(&rig.to_upstream), rig.ended), (1, Some(EndReason::Expired)));
    assert_eq!(rig.spool.len(), before - 1);
    assert!(rig.spool.values().all(|item| item.bytes.starts_with(b"<message")), "{:?}", rig.spool);
}

#[test]
fn a_request_that_was_read_back_and_handled_is_not_refused() {
    let mut rig = overflowing();
    rig.upstream(VERSION);
    rig.resume(0);
    for h in 1..=4 {
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    }
    rig.client("<a xmlns='urn:xmpp:sm:3' h='5'/>");
    rig.input(Input::Drain);
    assert_eq!((refusals(&rig.to_upstream), rig.spool.len()), (0, 0));
}

#[test]
fn a_request_that_comes_while_the_session_ends_is_refused() {
    let mut rig = plain();
    rig.lose_client();
    rig.disk_is_slow = true;
    rig.upstream(&message(1));
    rig.server_confirms = false;
    rig.input(Input::Drain);
    assert_eq!(rig.ended, None);
    rig.upstream(VERSION);
    assert!(rig.spool.values().all(|item| item.bytes.starts_with(b"<message")), "{:?}", rig.spool);

    let mut rig = managed();
    rig.lose_client();
    rig.disk_is_slow = true;
    rig.upstream(&message(1));
    rig.input(Input::Drain);
    rig.upstream(VERSION);
    assert_eq!((refusals(&rig.to_upstream), rig.spool.len()), (1, 1));
    rig.sync();
    assert_eq!(acks(&rig.to_upstream).last(), Some(&2));
}

/// A dark session whose next stanza goes to the spool only.
fn overflowing() -> Rig {
    let mut rig = Rig::with(Settings { session_queue: 700, ..settings() });
    rig.client(ENABLE);
    rig.lose_client();
    for n in 1..=4 {
        rig.upstream(&message(n));
    }
    assert!(rig.session.device.delivery().queue().has_tail());
    rig.clear();
    rig
}

#[test]
fn archived_messages_are_not_kept_for_a_user_who_asks_the_archive() {
    let archived = "<message from='romeo@example.net/x'><body>x</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.org' id='1'/></message>";
    for (asks, kept) in [(true, 1), (false, 2)] {
        let mut rig = plain();
        if asks {
            rig.client("<iq type='set' id='m'><query xmlns='urn:xmpp:mam:2'/></iq>");
        }
        rig.lose_client();
        rig.upstream(archived);
        rig.upstream(&message(1));
        rig.seconds(601);
        assert_eq!(rig.spool.len(), kept);
    }
}

/// Regression test: messages that came after memory was full were kept even if the archive had them.
#[test]
fn archived_messages_that_only_the_spool_has_are_not_kept_either() {
    let archived = "<message from='romeo@example.net/x'><body>x</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.org' id='1'/></message>";
    for (asks, kept) in [(true, 6), (false, 9)] {
        let mut rig = Rig::with(Settings { session_queue: 700, ..settings() });
        rig.client(ENABLE);
        if asks {
            rig.client("<iq type='set' id='m'><query xmlns='urn:xmpp:mam:2'/></iq>");
        }
        rig.lose_client();
        for n in 1..=5 {
            rig.upstream(&message(n));
        }
        rig.upstream(archived);
        rig.upstream(archived);
        rig.upstream(&message(6));
        rig.upstream(archived);
        assert_eq!((rig.session.device.delivery().queue().len(), rig.spool.len()), (2, 9));
        rig.seconds(601);
        assert_eq!((rig.spool.len(), rig.ended), (kept, Some(EndReason::Expired)));
    }
}

#[test]
fn presence_that_waits_is_the_newest_and_a_visit_leaves_no_trace() {
    let mut rig = plain();
    rig.client("<presence to='room@rooms.example.org/me'/>");
    rig.lose_client();
    rig.upstream("<presence from='romeo@example.net/x'><status>1</status></presence>");
    rig.upstream("<presence from='romeo@example.net/x'><status>2</status></presence>");
    rig.upstream("<presence from='tybalt@example.net/x'/>");
    rig.upstream("<presence from='tybalt@example.net/x' type='unavailable'/>");
    rig.upstream("<presence from='room@rooms.example.org/bob'/>");
    rig.upstream("<presence from='room@rooms.example.org/bob' type='unavailable'/>");
    rig.upstream("<presence from='paris@example.net' type='subscribe'/>");
    rig.clear();
    rig.resume(0);
    let presences: Vec<_> = rig.to_client.iter().filter(|xml| xml.starts_with("<presence")).collect();
    assert_eq!(presences.len(), 3, "{presences:?}");
    assert!(presences[0].contains("<status>2<") && presences[1].contains("type='unavailable'"), "{presences:?}");
}

/// Found by the model: for the client, a contact that was there, left, came and left again was still available.
#[test]
fn a_contact_that_was_there_before_is_seen_to_leave() {
    for visits in [1, 2] {
        let mut rig = plain();
        rig.upstream("<presence from='romeo@example.net/x'/>");
        rig.lose_client();
        for _ in 0..visits {
            rig.upstream("<presence from='romeo@example.net/x' type='unavailable'/>");
            rig.upstream("<presence from='romeo@example.net/x'/>");
        }
        rig.upstream("<presence from='romeo@example.net/x' type='unavailable'/>");
        rig.clear();
        rig.resume(1);
        let written: Vec<_> = rig.to_client.iter().filter(|xml| xml.starts_with("<presence")).collect();
        assert!(written.len() == 1 && written[0].contains("unavailable"), "{written:?}");
    }
}

#[test]
fn a_client_that_closes_its_stream_lingers_for_its_pushes() {
    let mut rig = Rig::with_push();
    rig.client_available();
    rig.to_upstream.clear();
    rig.client("<presence type='unavailable'/>");
    assert_eq!(rig.to_upstream, Vec::<String>::new());
    rig.input(Input::Client { attachment: Attachment::FIRST, frame: Frame::Close });
    assert_eq!(rig.to_upstream, ["<presence><show>xa</show><priority>0</priority></presence>"]);
    assert_eq!((rig.closed, rig.ended, rig.tombstones.len()), (1, None, 1));
    rig.seconds(5);
    rig.upstream(&message(1));
    assert_eq!(rig.publishes.len(), 1);
}

#[test]
fn an_unavailable_that_is_no_parting_passes_with_the_next_frame() {
    let mut rig = Rig::with_push();
    rig.client_available();
    rig.to_upstream.clear();
    rig.client("<presence type='unavailable'/>");
    rig.client("<message to='romeo@example.net'/>");
    assert_eq!(rig.to_upstream, ["<presence type='unavailable'/>", "<message to='romeo@example.net'/>"]);
    rig.input(Input::Client { attachment: Attachment::FIRST, frame: Frame::Close });
    rig.confirm();
    assert_eq!(rig.ended, Some(EndReason::ClientClosed), "who is not available does not linger");
}

#[test]
fn a_client_without_stream_management_is_held_for_its_registration() {
    let mut rig = Rig::with(settings());
    rig.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>");
    rig.clear();
    rig.upstream(&message(1));
    let ping = rig.to_client.last().unwrap().clone();
    assert!(ping.contains("<ping xmlns='urn:xmpp:ping'/>"), "{ping}");
    let id = element(&ping).node().attr("id").unwrap().into_owned();
    rig.client(&format!("<iq type='result' id='{id}'/>"));
    rig.upstream(&message(2));
    rig.lose_client();
    assert!(rig.session.is_dark());
    rig.seconds(2);
    assert_eq!(rig.publishes.len(), 1);
    assert_eq!(rig.spool.len(), 1, "only what it has not read");
    assert!(rig.to_upstream.iter().all(|xml| !xml.contains(&id)), "our own ping is none of the server's business");
}

#[test]
fn a_hold_that_ends_soon_wakes_the_device() {
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.seconds(72 * 3600 - 121);
    assert_eq!(rig.publishes, []);
    rig.seconds(2);
    assert_eq!(rig.publishes.len(), 1);
    assert_eq!((rig.publishes[0].summary.count, &rig.publishes[0].summary.body), (0, &None));
}

#[test]
fn once_notified_a_device_may_have_only_so_long() {
    let hibernation =
        crate::session::settings::Hibernation { after_push: Some(Duration::from_secs(600)), ..Default::default() };
    let mut rig = Rig::with(Settings { session_queue: 1 << 20, hibernation, ..Settings::default() }).pushing();
    rig.lose_client();
    rig.seconds(3600);
    rig.upstream(&message(1));
    rig.seconds(599);
    assert_eq!(rig.ended, None);
    rig.seconds(2);
    assert_eq!(rig.ended, Some(EndReason::Expired));
}

#[test]
fn a_device_whose_session_is_lost_is_to_be_woken() {
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.input(Input::UpstreamLost);
    assert_eq!(rig.wakes, [WakeReason::UpstreamLost]);
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.input(Input::Drain);
    assert_eq!(rig.wakes, [WakeReason::Restart]);
}

/// Without stream management the server is not asked how much it has handled, so nothing may accumulate and the client
/// may not be held back.
#[test]
fn a_client_that_does_not_count_is_never_held_back() {
    let mut rig = Rig::with(settings());
    for n in 0..5_000 {
        rig.client(&message(n));
    }
    assert!(rig.session.can_read_client());
}

/// The pending answer to an ack request must not wake the session repeatedly while the session may not send it yet.
#[test]
fn an_ack_request_in_the_middle_of_a_replay_waits_quietly() {
    let mut rig = Rig::with(Settings { session_queue: 2000, ..Settings::default() });
    rig.client(ENABLE);
    rig.lose_client();
    for n in 1..=50 {
        rig.upstream(&message(n));
    }
    rig.resume(0);
    rig.client(REQUEST);
    rig.seconds(10);
    assert_eq!(acks(&rig.to_client), Vec::<u32>::new());
}

#[test]
fn nothing_is_kept_of_a_removed_account() {
    let mut rig = plain();
    rig.client("<iq type='set' id='x'><query xmlns='jabber:iq:register'><remove/></query></iq>");
    rig.upstream("<iq type='result' id='x'/>");
    assert!(rig.stored.contains(&Change::Removed));
    rig.upstream(&message(1));
    rig.input(Input::Upstream(Frame::Close));
    assert_eq!((rig.spool.len(), rig.tombstones.len()), (0, 0));
}

/// The client cannot connect to the server behind Pushward. A stream that ends without a footer makes the client
/// reconnect to Pushward.
#[test]
fn a_client_is_never_sent_to_another_host() {
    let mut rig = Rig::with_push();
    rig.upstream(
        "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>10.0.0.1</see-other-host></stream:error>",
    );
    assert_eq!((rig.to_client.concat(), rig.closed), (String::new(), 1));
    assert_eq!(rig.ended, Some(EndReason::UpstreamLost));
}

fn resumable() -> Rig {
    let mut rig = Rig::with(settings());
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig
}

/// A session whose client sends its presence and then a request about its registration, and leaves, all in one write.
fn leaving(mut rig: Rig, end: impl Fn(&mut Rig)) -> Rig {
    rig.client_available();
    rig.store_is_late = true;
    rig.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>");
    rig.clear();
    end(&mut rig);
    assert_eq!((rig.ended, rig.closed, rig.to_client.len()), (None, 0, 0), "the store decides");
    rig
}

fn close(rig: &mut Rig) {
    rig.client("<presence type='unavailable'/>");
    rig.input(Input::Client { attachment: Attachment::FIRST, frame: Frame::Close });
}

#[test]
fn a_client_that_closes_its_stream_behind_a_request_gets_the_answer_and_lingers() {
    for (with_sm, stays) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut rig = leaving(if with_sm { resumable() } else { Rig::with(settings()) }, close);
        if !stays {
            rig.lose_client();
        }
        // Stanzas that come meanwhile are not lost, although the client reads no more.
        rig.upstream(&message(1));
        rig.seconds(4);
        assert_eq!((rig.ended, rig.closed), (None, 0));
        rig.sync();
        let answer = rig.to_client.iter().position(|xml| xml.starts_with("<iq type='result' id='p'"));
        let footer = rig.to_client.iter().position(|xml| xml == "</stream:stream>");
        assert!(
            if stays { answer.is_some() && answer < footer } else { rig.to_client.is_empty() },
            "{:?}",
            rig.to_client
        );
        assert!(rig.to_upstream.iter().any(|xml| xml.contains("<show>xa</show>")), "{:?}", rig.to_upstream);
        assert!(rig.events.contains(&Event::Lingering) && rig.session.is_dark() && rig.ended.is_none());
        rig.seconds(5);
        assert_eq!((rig.publishes.len(), rig.spool.len()), (1, 1));
    }
}

#[test]
fn a_client_that_leaves_behind_a_request_waits_five_seconds_for_the_store() {
    let mut rig = leaving(resumable(), close);
    rig.seconds(4);
    assert_eq!((rig.ended, rig.closed), (None, 0));
    rig.seconds(2);
    assert_eq!((rig.closed, &*rig.to_client), (1, &["</stream:stream>".to_owned()][..]));
    assert_eq!(rig.to_upstream, ["<presence type='unavailable'/>", "</stream:stream>"]);
    assert_eq!(rig.ended, Some(EndReason::ClientClosed));
}

#[test]
fn a_session_whose_client_vanishes_is_held_for_a_registration_that_is_being_stored() {
    let mut rig = leaving(Rig::with(settings()), Rig::lose_client);
    rig.upstream(&message(1));
    rig.sync();
    assert!(rig.session.is_dark() && rig.ended.is_none());
    rig.seconds(5);
    assert_eq!((rig.publishes.len(), rig.spool.len()), (1, 1));

    let mut rig = leaving(Rig::with(settings()), Rig::lose_client);
    rig.seconds(6);
    assert_eq!(rig.ended, Some(EndReason::ClientLost));
}

/// The store waits for a database that does not answer until `[store] patience` is over, and then reports a refusal.
#[test]
fn a_session_waits_for_a_database_that_does_not_answer_while_both_peers_are_served() {
    let mut rig = managed();
    rig.client_available();
    rig.upstream("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.lose_client();
    rig.disk_is_slow = true;
    for n in 1..=3 {
        rig.upstream(&message(n));
    }
    rig.seconds(50);
    assert_eq!((rig.server_asks(), rig.ended), (0, None), "unacknowledged, and in memory");
    rig.clear();
    rig.resume(0);
    assert_eq!(rig.delivered(), [1, 2, 3]);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!(rig.server_asks(), 2, "what the client has");
    // The store deletes stanzas again that reach the spool late.
    rig.unanswered = vec![Input::SpoolRefused];
    rig.spool.clear();
    rig.disk_is_slow = false;
    rig.sync();
    rig.seconds(6);
    assert_eq!(rig.spool.len(), 1, "the third is offered again");
    assert_eq!(rig.server_asks(), 3);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    rig.lose_client();
    rig.clear();
    rig.resume(3);
    assert_eq!((rig.delivered(), rig.spool.len()), (vec![], 0));
}

//! The poison guard: a stanza on which the client breaks is set aside, and no other stanza is.

use super::durability::managed;
use super::*;
use crate::session::Reported;

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const ASK: &str = "<r xmlns='urn:xmpp:sm:3'/>";

impl Rig {
    /// The client closes or resets its connection, or closes its stream.
    fn break_client(&mut self) {
        self.input(Input::ClientBroke(self.session.attachment()));
        self.input(Input::Quiet);
        self.confirm();
    }

    /// Breaks the client's connection a second after it has received the waiting stanzas.
    fn break_after_a_second(&mut self) {
        self.seconds(1);
        self.break_client();
    }

    fn resume_again(&mut self, h: u32) {
        self.clear();
        self.resume(h);
    }

    fn ack(&mut self, h: u32) {
        self.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    }

    /// Returns the ids of the stanzas on disk, in the session's own spool and in earlier ones.
    fn on_disk(&self) -> Vec<usize> {
        let spools = self.earlier.values().chain([&self.spool]);
        let items = spools.flat_map(|spool| spool.values());
        let id = |item: &Spooled| element(std::str::from_utf8(&item.bytes).unwrap()).node().attr("id").unwrap().parse();
        items.map(|item| id(item).unwrap()).collect()
    }

    fn set_aside(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::SetAside(_))).count()
    }

    fn given_back(&self) -> Vec<usize> {
        let given = |event: &Event| if let Event::GivenBack(stanzas) = event { Some(*stanzas) } else { None };
        self.events.iter().filter_map(given).collect()
    }

    /// Logs the device in again, after the end of the session or of the whole daemon.
    fn log_in_again(self) -> Self {
        let mut spools: BTreeMap<LoginId, BTreeMap<Seq, Spooled>> = self.earlier;
        let next = spools.keys().last().map_or(1, |login| login.0 + 1);
        spools.insert(LoginId(next), self.spool);
        let settings = Settings { session_queue: 1 << 20, ..Settings::default() };
        let mut rig = Rig::begin(settings, vec![left()], |_| {});
        rig.earlier = spools;
        // The account is a JSON record, as in the store.
        let account: Account = serde_json::from_str(&serde_json::to_string(&self.account).unwrap()).unwrap();
        rig.account = Account { revision: 1, ..account };
        rig.input(Input::Account(Box::new(rig.account.clone())));
        rig
    }

    fn release(&mut self) {
        self.account.apply(Change::Released);
        self.account.revision += 1;
        self.input(Input::Account(Box::new(self.account.clone())));
        self.input(Input::Quiet);
    }
}

/// A stanza that waits for the device.
fn left() -> Spooled {
    Spooled {
        seq: Seq::new(1),
        received: UnixMillis::new(1000),
        shared: false,
        archived: false,
        bytes: Bytes::from(message(99)),
    }
}

/// A client that can resume, with these messages written to it.
fn written(messages: impl IntoIterator<Item = usize>) -> Rig {
    let mut rig = Rig::new();
    rig.client(ENABLE);
    rig.clear();
    messages.into_iter().for_each(|n| rig.upstream(&message(n)));
    rig
}

/// The same after the client has broken three times on the first message.
fn set_aside(messages: impl IntoIterator<Item = usize>) -> Rig {
    let mut rig = written(messages);
    rig.break_after_a_second();
    for _ in 0..2 {
        rig.resume_again(0);
        rig.break_after_a_second();
    }
    assert_eq!(rig.set_aside(), 1);
    rig
}

#[test]
fn after_two_ends_the_first_stanza_is_written_alone_until_it_is_acknowledged() {
    let mut rig = written(1..=3);
    let stanza = Reported { name: "message".to_owned(), id: Some("1".to_owned()), len: message(1).len() };
    let suspected = Event::Suspected(stanza);
    rig.break_after_a_second();
    assert!(rig.events.contains(&suspected), "{:?}", rig.events);
    rig.resume_again(0);
    assert_eq!(rig.delivered(), [1, 2, 3]);
    rig.break_after_a_second();
    assert!(rig.events.contains(&suspected), "{:?}", rig.events);
    rig.resume_again(0);
    rig.upstream(&message(4));
    rig.client("<iq type='get' id='q' to='romeo@example.net'><q xmlns='x'/></iq>");
    rig.upstream("<iq type='result' id='q' from='romeo@example.net'/>");
    assert!(rig.to_client[0].starts_with("<resumed"));
    assert_eq!((rig.delivered(), &rig.to_client[2..]), (vec![1], &[ASK.to_owned()][..]), "{:?}", rig.to_client);
    rig.ack(1);
    assert_eq!(rig.delivered(), [1, 2, 3, 4]);
    rig.upstream(&message(5));
    assert_eq!(rig.delivered(), [1, 2, 3, 4, 5]);
    // The guard has no record of it any more.
    assert_eq!(rig.account.guard(DEVICE), None);
    rig.break_after_a_second();
    rig.resume_again(1);
    assert_eq!(rig.delivered(), [2, 3, 4, 5]);
}

/// The guard asks whether the client has the stanza, although it notifies nobody.
#[test]
fn a_suspect_that_notifies_nobody_is_asked_about_as_well() {
    let mut rig = written([]);
    rig.upstream("<presence from='romeo@example.net/x' id='7'/>");
    rig.upstream("<presence from='mercutio@example.net/x' id='8'/>");
    rig.break_after_a_second();
    rig.resume_again(0);
    rig.break_after_a_second();
    rig.resume_again(0);
    assert_eq!(rig.to_client.len(), 3, "{:?}", rig.to_client);
    assert!(rig.to_client[1].starts_with("<presence") && rig.to_client[2] == ASK);
    rig.ack(1);
    assert!(rig.to_client[3].contains("mercutio"), "{:?}", rig.to_client);
}

#[test]
fn after_the_third_end_the_stanza_goes_to_the_device_no_more_and_stays_on_disk() {
    let mut rig = set_aside(1..=3);
    let stanza = Reported { name: "message".to_owned(), id: Some("1".to_owned()), len: message(1).len() };
    let set_aside = Event::SetAside(stanza);
    assert!(rig.events.contains(&set_aside));
    rig.resume_again(0);
    assert_eq!(rig.delivered(), [2, 3]);
    rig.seconds(6);
    rig.ack(2);
    rig.upstream(&message(4));
    rig.ack(3);
    assert_eq!((rig.delivered(), rig.on_disk()), (vec![2, 3, 4], vec![1]));
    for _ in 0..3 {
        rig.break_after_a_second();
        rig.resume_again(3);
        assert_eq!(rig.delivered(), [0; 0]);
    }
    assert_eq!((rig.given_back(), rig.session.set_aside()), (vec![], 1));
}

#[test]
fn where_the_client_breaks_without_the_stanza_all_goes_back_to_its_place() {
    for written in [true, false] {
        let mut rig = set_aside(if written { 1..=3 } else { 1..=1 });
        rig.resume_again(0);
        rig.seconds(4);
        rig.break_client();
        assert_eq!((rig.given_back(), rig.session.set_aside()), (vec![1], 0));
        let all: &[usize] = if written { &[1, 2, 3] } else { &[1] };
        // The guard is off for an hour.
        for _ in 0..10 {
            rig.resume_again(0);
            assert_eq!((rig.delivered(), rig.set_aside()), (all.to_vec(), 0));
            rig.break_after_a_second();
        }
        rig.resume_again(0);
        rig.ack(u32::try_from(all.len()).unwrap());
        assert_eq!(rig.on_disk(), [0; 0]);
    }
}

#[test]
fn timeouts_and_ends_of_our_own_making_never_count() {
    let mut rig = written(1..=2);
    for _ in 0..10 {
        rig.seconds(1);
        // The network path broke, or the client did not read.
        rig.lose_client();
        rig.resume_again(0);
        assert_eq!(rig.delivered(), [1, 2]);
    }
    // The client does not answer, and the session goes dark.
    for _ in 0..4 {
        while rig.session.reach() != crate::session::liveness::Reach::Dark {
            rig.seconds(1);
        }
        rig.resume_again(0);
        assert_eq!(rig.delivered(), [1, 2]);
    }
    assert_eq!(rig.account.guard(DEVICE), None);
    rig.client("<message><no-h/></message>");
    rig.client("<a xmlns='urn:xmpp:sm:3'/>");
    assert!(rig.to_client.iter().any(|xml| xml.contains("bad-format")));
    assert_eq!(rig.account.guard(DEVICE), None);
}

#[test]
fn an_end_long_after_the_writing_does_not_count() {
    let mut rig = written(1..=2);
    for _ in 0..5 {
        rig.seconds(6);
        rig.break_client();
        rig.resume_again(0);
        assert_eq!(rig.delivered(), [1, 2]);
    }
    assert_eq!(rig.account.guard(DEVICE), None);
}

#[test]
fn a_footer_and_a_stream_error_are_ends_of_the_client_and_count_once() {
    const ERROR: &str = "<stream:error xmlns:stream='http://etherx.jabber.org/streams'>\
        <not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    for error in [false, true] {
        let mut rig = Rig::with_push();
        rig.client("<presence/>");
        rig.upstream(&message(1));
        rig.upstream(&message(2));
        let end = |rig: &mut Rig| {
            rig.seconds(1);
            if error {
                rig.client(ERROR);
                assert!(!rig.to_upstream.iter().any(|xml| xml.contains("error")), "it is no error of the server");
                rig.input(Input::ClientLost(rig.session.attachment()));
            } else {
                rig.input(Input::Client { attachment: rig.session.attachment(), frame: Frame::Close });
                rig.input(Input::ClientBroke(rig.session.attachment()));
            }
            rig.input(Input::Quiet);
            rig.confirm();
        };
        end(&mut rig);
        assert_eq!((rig.ended, rig.set_aside()), (None, 0), "it lingers for its pushes");
        for n in 0..2 {
            let (account, spool, earlier) = (rig.account.clone(), rig.spool.clone(), rig.earlier.clone());
            let mut next = Rig { account, spool, earlier, ..Rig::new() }.log_in_again();
            next.client(ENABLE);
            assert_eq!(next.delivered(), if n == 0 { vec![1, 2] } else { vec![1] }, "{n}");
            end(&mut next);
            rig = next;
        }
        assert_eq!((rig.set_aside(), rig.account.guard(DEVICE).unwrap().count()), (1, 1));
        assert_eq!(rig.on_disk(), [1, 2]);
    }
}

#[test]
fn it_is_counted_and_set_aside_across_new_logins_and_restarts() {
    let mut rig = written(1..=3);
    rig.break_after_a_second();
    rig.resume_again(0);
    rig.break_after_a_second();
    let mut rig = rig.log_in_again();
    rig.client(ENABLE);
    assert_eq!((rig.delivered(), rig.to_client.last().unwrap().as_str()), (vec![1], ASK));
    rig.break_after_a_second();
    assert_eq!((rig.set_aside(), rig.on_disk()), (1, vec![1, 2, 3]));
    let mut rig = rig.log_in_again();
    rig.client(ENABLE);
    rig.upstream(&message(4));
    assert_eq!(rig.delivered(), [2, 3, 4]);
    rig.seconds(6);
    rig.ack(3);
    assert_eq!(rig.on_disk(), [1], "what was delivered behind it is deleted");
    let mut rig = rig.log_in_again();
    rig.client(ENABLE);
    assert_eq!((rig.delivered(), rig.on_disk()), (vec![], vec![1]));
    // The operator releases it.
    rig.release();
    assert_eq!(rig.delivered(), [1]);
    rig.ack(1);
    assert_eq!(rig.on_disk(), [0; 0]);
}

#[test]
fn a_new_login_that_breaks_at_once_gets_all_back() {
    let rig = set_aside(1..=3);
    let mut rig = rig.log_in_again();
    rig.client(ENABLE);
    assert_eq!(rig.delivered(), [2, 3]);
    rig.ack(1);
    rig.break_after_a_second();
    assert_eq!(rig.given_back(), [1]);
    rig.resume_again(1);
    assert_eq!(rig.delivered(), [1, 3]);
    rig.ack(2);
    assert_eq!(rig.on_disk(), [3]);
    let mut rig = rig.log_in_again();
    rig.client(ENABLE);
    assert_eq!(rig.delivered(), [3]);
}

#[test]
fn what_is_released_comes_as_soon_as_nothing_awaits_an_acknowledgement() {
    let mut rig = set_aside(1..=3);
    rig.resume_again(0);
    rig.seconds(6);
    rig.release();
    assert_eq!(rig.delivered(), [2, 3]);
    rig.ack(1);
    assert_eq!(rig.delivered(), [2, 3]);
    rig.ack(2);
    assert_eq!((rig.delivered(), rig.on_disk()), (vec![2, 3, 1], vec![1]));
    rig.upstream(&message(4));
    rig.ack(3);
    assert_eq!(rig.on_disk(), [0; 0]);
    rig.ack(4);
    assert_eq!(rig.delivered(), [2, 3, 1, 4]);
}

#[test]
fn a_client_that_has_it_after_all_says_so_as_it_resumes() {
    let mut rig = set_aside(1..=3);
    rig.resume_again(1);
    assert_eq!((rig.delivered(), rig.on_disk()), (vec![2, 3], vec![2, 3]));
    assert_eq!((rig.session.set_aside(), rig.account.guard(DEVICE)), (0, None));
    rig.ack(3);
    assert_eq!(rig.on_disk(), [0; 0]);
}

#[test]
fn what_is_set_aside_is_pushed_for_no_more_and_not_counted() {
    let count = |rig: &Rig| rig.publishes.last().map(|publish| publish.summary.count);
    let mut rig = Rig::with_push();
    rig.upstream(&message(1));
    rig.upstream(&message(2));
    for _ in 0..2 {
        rig.break_after_a_second();
        rig.seconds(60);
        assert_eq!(count(&rig), Some(2));
        rig.resume_again(1);
    }
    rig.publishes.clear();
    rig.break_after_a_second();
    rig.seconds(60);
    assert_eq!((rig.set_aside(), count(&rig)), (1, Some(1)));
}

#[test]
fn ten_attachments_that_break_after_a_second_with_good_messages_set_nothing_aside() {
    let mut rig = written(1..=3);
    let mut h = 0;
    for n in 4..14 {
        rig.break_after_a_second();
        rig.resume_again(h);
        // The client reads and answers, and breaks before it has answered everything.
        if rig.to_client.iter().any(|xml| xml == ASK) {
            h += 1;
            rig.ack(h);
        }
        rig.upstream(&message(n));
        assert_eq!(rig.set_aside(), 0);
    }
    // A client that does not answer in time gets all of them back, and nothing is set aside any more.
    let mut rig = written(1..=3);
    for _ in 0..10 {
        rig.break_after_a_second();
        rig.resume_again(0);
    }
    assert_eq!((rig.session.set_aside(), rig.delivered()), (0, vec![1, 2, 3]));
}

#[test]
fn the_guard_works_for_a_client_that_is_asked_by_ping() {
    let mut rig = Rig::new();
    rig.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>");
    rig.clear();
    rig.upstream(&message(1));
    rig.upstream(&message(2));
    // The answer to the client's request comes first.
    rig.break_after_a_second();
    for _ in 0..2 {
        rig = rig.log_in_again();
        rig.client("<presence/>");
        assert_eq!(rig.delivered(), [1, 2]);
        rig.break_after_a_second();
    }
    let mut rig = rig.log_in_again();
    rig.client("<presence/>");
    assert_eq!(rig.delivered(), [1]);
    let ping = rig.to_client.iter().find(|xml| xml.contains("urn:xmpp:ping")).unwrap();
    let id = element(ping).node().attr("id").unwrap().into_owned();
    rig.client(&format!("<iq type='result' id='{id}' to='example.org'/>"));
    assert_eq!((rig.delivered(), rig.account.guard(DEVICE)), (vec![1, 2], None));
}

#[test]
fn a_request_that_is_set_aside_is_answered_at_the_end() {
    let mut rig = written([]);
    rig.upstream("<iq type='get' id='7' from='romeo@example.net/x' to='juliet@example.org/phone'><q xmlns='x'/></iq>");
    rig.break_after_a_second();
    for _ in 0..2 {
        rig.resume_again(0);
        rig.break_after_a_second();
    }
    assert_eq!((rig.set_aside(), rig.on_disk()), (1, vec![7]));
    rig.input(Input::EndIfHeld(EndReason::Superseded));
    rig.input(Input::Quiet);
    assert!(rig.to_upstream.iter().any(|xml| xml.contains("type='error'") && xml.contains("service-unavailable")));
    assert_eq!(rig.on_disk(), [0; 0]);
}

/// A client that has broken three times on this request. It is on disk, and memory has no room for its content.
fn request_without_room() -> Rig {
    let mut rig = Rig::with(Settings { session_queue: 1600, ..Settings::default() });
    rig.client(ENABLE);
    rig.clear();
    rig.upstream("<iq type='get' id='7' from='romeo@example.net/x' to='juliet@example.org/phone'><q xmlns='x'/></iq>");
    rig.break_after_a_second();
    for _ in 0..2 {
        rig.resume_again(0);
        rig.break_after_a_second();
    }
    assert_eq!((rig.set_aside(), rig.on_disk()), (1, vec![7]));
    rig
}

/// Regression test: only the spool had the request, so the end of the session left it there, without an answer.
#[test]
fn a_request_that_is_set_aside_on_disk_only_is_answered_at_the_end_as_well() {
    let mut rig = request_without_room();
    assert!(rig.session.queued().1 < 8 * 160, "{:?}", rig.session.queued());
    rig.input(Input::EndIfHeld(EndReason::Superseded));
    rig.input(Input::Quiet);
    let refusal = "<iq type='error' id='7' from='juliet@example.org/phone' to='romeo@example.net/x'><error type='cancel'>\
        <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>";
    assert!(rig.to_upstream.iter().any(|xml| xml == refusal), "{:?}", rig.to_upstream);
    assert_eq!(rig.on_disk(), [0; 0]);
}

/// Regression test: the log named it `presence`, as the entry that stays in memory for it.
#[test]
fn what_is_set_aside_on_disk_only_is_reported_by_its_own_name() {
    let rig = request_without_room();
    let reported =
        rig.events.iter().find_map(|event| if let Event::SetAside(stanza) = event { Some(stanza) } else { None });
    assert_eq!(reported.map(|stanza| (stanza.name.as_str(), stanza.id.as_deref())), Some(("iq", Some("7"))));
    assert!(reported.is_some_and(|stanza| stanza.len > 80), "{reported:?}");
}

/// Regression test: the guard did not recognize the stanza, and withheld it whenever it came again.
#[test]
fn a_client_that_has_what_is_set_aside_on_disk_only_says_so_as_it_resumes() {
    let mut rig = request_without_room();
    rig.resume_again(1);
    assert_eq!((rig.on_disk(), rig.session.set_aside(), rig.account.guard(DEVICE)), (vec![], 0, None));
}

/// A session on a server with stream management, after the device's client has broken this often on the first message.
fn managed_after(ends: usize) -> Rig {
    let mut other = written(1..=1);
    for _ in 0..ends {
        other.break_after_a_second();
        other.resume_again(0);
    }
    let mut rig = managed();
    rig.account = Account { revision: 1, ..other.account };
    rig.input(Input::Account(Box::new(rig.account.clone())));
    rig
}

#[test]
fn a_set_aside_stanza_that_the_server_delivers_again_is_withheld_and_kept_on_disk() {
    let mut rig = managed_after(3);
    rig.upstream(&message(1));
    rig.upstream(&message(2));
    assert_eq!((rig.delivered(), rig.on_disk()), (vec![2], vec![1]));
    rig.ack(1);
    assert_eq!((rig.server_asks(), rig.on_disk()), (2, vec![1]));
    // The stanza causes no push either.
    rig.client("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>");
    rig.ack(2);
    rig.lose_client();
    rig.upstream(&message(1));
    rig.seconds(60);
    assert_eq!(rig.publishes, []);
    rig.upstream(&message(3));
    rig.seconds(60);
    assert_eq!(rig.publishes.last().map(|publish| publish.summary.count), Some(1));
}

#[test]
fn what_no_disk_has_at_the_end_stays_the_servers() {
    for late in [false, true] {
        let mut rig = managed_after(2);
        rig.disk_is_slow = late;
        rig.upstream(&message(1));
        rig.upstream(&message(2));
        assert_eq!(rig.delivered(), [1]);
        if !late {
            rig.seconds(2);
        }
        rig.input(Input::Client { attachment: rig.session.attachment(), frame: Frame::Close });
        rig.input(Input::Quiet);
        rig.sync();
        // The server delivers it again, and by then the session recognises it.
        assert_eq!((rig.set_aside(), rig.on_disk()), (1, if late { vec![] } else { vec![1, 2] }));
    }
}

/// Regression test: the repeated stanza was withheld for as long as the set-aside one was kept.
#[test]
fn what_is_said_again_without_an_id_is_another_stanza() {
    for stanza in [
        "<message from='romeo@example.net/x'><body>ok</body></message>",
        "<presence type='subscribe' from='romeo@example.net'/>",
    ] {
        let mut rig = written([]);
        rig.upstream(stanza);
        rig.break_after_a_second();
        for _ in 0..2 {
            rig.resume_again(0);
            rig.break_after_a_second();
        }
        assert_eq!(rig.set_aside(), 1, "{stanza}");
        rig.resume_again(0);
        assert!(!rig.to_client.iter().any(|xml| xml.contains("romeo")), "{stanza}: {:?}", rig.to_client);
        rig.upstream(stanza);
        assert!(rig.to_client.iter().any(|xml| xml == stanza), "{stanza}: {:?}", rig.to_client);
        assert_eq!(rig.session.set_aside(), 1, "{stanza}");
    }
}

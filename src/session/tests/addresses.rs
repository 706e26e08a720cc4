//! Sessions with addresses of every kind: the rules for plain names must hold for all of them.

use super::super::archive::is_archived;
use super::super::negotiate::{CloseReason, HeldSession, LoginInput as Step};
use super::super::queue::OnlineClients;
use super::super::shed::returned;
use super::super::travel::may_travel;
use super::login::Login;
use super::*;
use crate::jid::BareJid;
use crate::jid::addresses::{ALL, Addresses};

const BODY: &str = "<body>hi</body>";

/// A device that has joined one room, has left another, and has a push registration.
fn device(at: &Addresses) -> Rig {
    let jid = FullJid::new(&at.fill("ACCOUNT/PHONE")).unwrap();
    let settings = Settings { session_queue: 1 << 20, ..Settings::default() };
    let mut rig = Rig::begin(settings, Vec::new(), |bound| bound.jid = jid);
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    assert!(rig.to_client.iter().any(|xml| xml.starts_with("<enabled")), "{}", at.name);
    rig.client(&at.fill("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='SERVICE' node='n'/></iq>"));
    assert!(
        rig.to_client.iter().any(|xml| xml.starts_with("<iq type='result' id='p'")),
        "{}: {:?}",
        at.name,
        rig.to_client
    );
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.client("<presence/>");
    for room in ["ROOM", "leftROOM"] {
        let join = format!("<presence to='{room}/MYNICK'><x xmlns='http://jabber.org/protocol/muc'/></presence>");
        rig.client(&at.fill(&join));
    }
    rig.client(&at.fill("<presence to='leftROOM/MYNICK' type='unavailable'/>"));
    rig.clear();
    rig
}

impl Rig {
    fn pushes(&mut self, at: &Addresses, stanza: &str) -> usize {
        self.upstream(&at.fill(stanza));
        self.seconds(25);
        std::mem::take(&mut self.publishes).len()
    }
}

#[test]
fn a_device_is_notified_of_what_others_write_and_call() {
    for at in ALL {
        let mut rig = device(&at);
        rig.lose_client();
        rig.seconds(5);
        let groupchat = |nick: &str, id: &str, inside: &str| {
            format!("<message from='ROOM/{nick}' type='groupchat' id='{id}'>{BODY}{inside}</message>")
        };
        let history = "<delay xmlns='urn:xmpp:delay' from='ROOM' stamp='2026-01-01T00:00:00Z'/>";
        assert_eq!(rig.pushes(&at, &groupchat("MYNICK", "1", "")), 0, "{}", at.name);
        assert_eq!(rig.pushes(&at, &groupchat("HISNICK", "2", history)), 0, "{}", at.name);
        assert_eq!(rig.pushes(&at, &groupchat("HISNICK", "3", "")), 1, "{}", at.name);
        let call = "<message from='OTHER' type='chat' id='4'><propose xmlns='urn:xmpp:jingle-message:0' id='c'>\
            <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose></message>";
        assert_eq!(rig.pushes(&at, call), 1, "{}", at.name);
    }
}

#[test]
fn what_was_read_elsewhere_rings_no_more() {
    for at in ALL {
        let mut rig = device(&at);
        rig.lose_client();
        rig.seconds(5);
        assert_eq!(rig.pushes(&at, "<message from='OTHER' type='chat' id='1'><body>hi</body></message>"), 1);
        let read = "<message from='ACCOUNT' type='headline' id='2'><event xmlns='http://jabber.org/protocol/pubsub#event'>\
            <items node='urn:xmpp:mds:displayed:0'><item id='BARE'/></items></event></message>";
        rig.pushes(&at, read);
        rig.seconds(600);
        assert_eq!(rig.publishes.len(), 0, "{}", at.name);
    }
}

#[test]
fn a_client_that_leaves_a_room_is_still_available() {
    for at in ALL {
        let mut rig = device(&at);
        rig.input(Input::Client { attachment: rig.session.attachment(), frame: Frame::Close });
        rig.input(Input::Quiet);
        assert!(
            rig.to_upstream.iter().any(|xml| xml.contains("<show>xa</show>")),
            "{}: {:?}",
            at.name,
            rig.to_upstream
        );
    }
}

#[test]
fn what_is_shared_archived_and_returned_does_not_depend_on_the_names() {
    for at in ALL {
        let account = BareJid::new(at.account).unwrap();
        for (online_clients, travels) in [(OnlineClients::None, true), (OnlineClients::Room, false)] {
            let shared = |to: &str| {
                let element = element(&at.fill(&format!("<message from='OTHER'{to}>{BODY}</message>")));
                may_travel(&element, online_clients)
            };
            let found = ["", " to='ACCOUNT'", " to='ACCOUNT/PHONE'"].map(shared);
            assert_eq!(found, [travels; 3], "{}", at.name);
        }
        let archived = |by: &str| {
            let id = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='1'/>");
            is_archived(&element(&at.fill(&format!("<message>{id}</message>"))), &account)
        };
        assert_eq!(["ACCOUNT", "BARE", "ACCOUNT/PHONE"].map(archived), [true, false, false], "{}", at.name);
        let is_returned = |from: &str, to: &str| {
            let xml = at.fill(&format!("<message from='{from}' to='{to}'>{BODY}</message>"));
            returned(&element(&xml), &account, OnlineClients::Others).is_some()
        };
        let pairs = [("OTHER", "ACCOUNT/PHONE"), ("OTHER", "ACCOUNT"), ("ACCOUNT/x", "ACCOUNT/PHONE")];
        assert_eq!(pairs.map(|(from, to)| is_returned(from, to)), [true, false, false], "{}", at.name);
    }
}

#[test]
fn presence_of_one_sender_replaces_its_own_only() {
    for at in ALL {
        let mut rig = device(&at);
        rig.lose_client();
        for from in ["OTHER", "ROOM/HISNICK", "OTHER", "ROOM/HISNICK"] {
            rig.upstream(&at.fill(&format!("<presence from='{from}'/>")));
        }
        rig.to_client.clear();
        rig.resume(1);
        rig.confirm();
        let presence = rig.to_client.iter().filter(|xml| xml.starts_with("<presence")).count();
        assert_eq!(presence, 2, "{}: {:?}", at.name, rig.to_client);
    }
}

fn bind_result(id: &str, jid: &str) -> String {
    format!("<iq type='result' id='{id}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>{jid}</jid></bind></iq>")
}

/// A stream on which this user may bind or resume.
fn authenticated(user: &str) -> Login {
    let mut login = Login::opened();
    login.auth(user);
    login.upstream("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    login.restart();
    login
}

#[test]
fn a_session_takes_whatever_full_jid_the_server_binds() {
    for at in ALL {
        let mut login = authenticated("juliet");
        login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        login.upstream(&bind_result("b", &at.fill("ACCOUNT/PHONE")));
        let bound = login.bound.expect(at.name);
        assert_eq!((bound.jid.as_str(), bound.jid.to_bare().as_str()), (&*at.fill("ACCOUNT/PHONE"), at.account));
    }
}

#[test]
fn a_resource_that_is_asked_for_is_compared_as_it_will_be_bound() {
    for (asked, bound) in [("Phone 🦊", "Phone 🦊"), ("a\u{a0}b", "a b"), ("Phone", "Phone")] {
        let mut login = authenticated("juliet");
        let resource = format!("<resource>{asked}</resource>");
        login.client(&format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{resource}</bind></iq>"
        ));
        assert_eq!(login.released[0].1, bound);
    }
}

/// Invariant 4: the addresses must be identical byte for byte where the address cannot be parsed.
#[test]
fn a_resumption_is_proven_by_the_same_address_only() {
    for (account, proof, resumes) in [
        ("juliet@example.org", "Juliet@Example.org/x", true),
        ("ana🦊@example.org", "ana🦊@example.org/🦊", true),
        ("ana🦊@example.org", "Ana🦊@example.org/x", false),
        ("anaא@example.org", "anaא@example.org/x", true),
        ("é🦊@example.org", "e\u{301}🦊@example.org/x", false),
        ("ana🦊@example.org", "example.org/x", false),
        ("ana🦊@example.org", "ana🦊@example.org", false),
    ] {
        let mut login = authenticated("somebody");
        login.client("<resume xmlns='urn:xmpp:sm:3' previd='abc' h='3'/>");
        let account = BareJid::new(account).unwrap();
        login.input(Step::Found(Ok(HeldSession { account: account.clone(), identity: None })));
        let probe = element(login.to_upstream.last().unwrap()).node().attr("id").unwrap().into_owned();
        login.upstream(&bind_result(&probe, proof));
        assert_eq!(login.resumed_from().is_some(), resumes, "{account} by {proof}");
        assert_eq!(login.closed == Some(CloseReason::ResumeRefused), !resumes, "{account} by {proof}");
    }
}

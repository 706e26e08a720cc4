//! An answer is recognised by its id and its sender. A stranger who knows the id of a request cannot answer it.

use super::login::Login;
use super::*;

const REMOVE: &str = "<query xmlns='jabber:iq:register'><remove/></query>";
const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const BIND: &str = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";

/// Senders who can each send an iq result to the client's full JID.
const STRANGERS: [&str; 5] =
    ["mallory@example.org/x", "mallory@example.org", "juliet@example.org/laptop", "push.example", "example.org/x"];

const SERVER: [&str; 4] = ["", " from='example.org'", " from='juliet@example.org'", " from='juliet@example.org/phone'"];

fn removed(rig: &Rig) -> bool {
    rig.stored.contains(&Change::Removed)
}

fn remove(id: &str) -> String {
    format!("<iq type='set'{id}>{REMOVE}</iq>")
}

fn stream_error(condition: &str) -> String {
    format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
}

#[test]
fn only_the_server_answers_for_the_features_of_the_account() {
    for server in SERVER {
        let mut rig = Rig::new();
        rig.client(&format!("<iq type='get' id='d'>{INFO}</iq>"));
        for stranger in STRANGERS {
            let answer = format!("<iq type='result' id='d' from='{stranger}'>{INFO}</iq>");
            rig.upstream(&answer);
            assert_eq!(rig.to_client.last(), Some(&answer));
        }
        rig.upstream(&format!("<iq type='result' id='d'{server}>{INFO}</iq>"));
        assert!(rig.to_client.last().unwrap().contains("var='urn:xmpp:push:0'"), "{server}: {:?}", rig.to_client);
    }
}

#[test]
fn only_the_server_confirms_that_an_account_is_removed() {
    for server in SERVER {
        let mut rig = Rig::with_push();
        rig.client(&remove(" id='bye'"));
        for stranger in STRANGERS {
            rig.upstream(&format!("<iq type='result' id='bye' from='{stranger}'/>"));
            rig.input(Input::Routed(element(&format!("<iq type='result' id='bye' from='{stranger}'/>"))));
        }
        assert!(!removed(&rig));
        rig.upstream(&format!("<iq type='result' id='bye'{server}/>"));
        assert!(removed(&rig), "{server}");
    }
}

/// Regression test: a stranger's result came first, then the server refused. All records were deleted.
#[test]
fn a_removal_that_the_server_refuses_deletes_nothing() {
    let mut rig = Rig::with_push();
    rig.client(&remove(" id='bye'"));
    rig.upstream("<iq type='result' id='bye' from='mallory@example.org/x'/>");
    rig.upstream("<iq type='error' id='bye'><error type='cancel'/></iq>");
    rig.upstream("<iq type='result' id='bye'/>");
    rig.upstream(&stream_error("conflict"));
    assert!(!removed(&rig));
}

#[test]
fn a_removal_without_an_id_counts_once_the_server_ends_the_stream() {
    for id in ["", " id=''"] {
        for condition in ["not-authorized", "conflict"] {
            let mut rig = Rig::with_push();
            rig.client(&remove(id));
            rig.upstream("<iq type='result'/>");
            rig.upstream("<iq type='result' id=''/>");
            assert!(!removed(&rig), "an answer confirms nothing");
            rig.upstream(&stream_error(condition));
            assert!(removed(&rig), "{condition}");
        }
    }
}

#[test]
fn a_removal_without_an_id_counts_for_nothing_otherwise() {
    let ended = |rig: &mut Rig, condition: &str| {
        rig.upstream(&stream_error(condition));
        rig.input(Input::Upstream(Frame::Close));
        removed(rig)
    };
    let mut rig = Rig::with_push();
    rig.client(&remove(""));
    assert!(!ended(&mut rig, "system-shutdown"));

    let mut refused = Rig::with_push();
    refused.client(&remove(""));
    refused.upstream("<iq type='error' from='mallory@example.org/x'><error type='cancel'/></iq>");
    refused.upstream("<iq type='error' from='example.org'><error type='cancel'/></iq>");
    assert!(!ended(&mut refused, "conflict"));

    let mut later = Rig::with_push();
    later.client(&remove(""));
    later.seconds(61);
    assert!(!ended(&mut later, "conflict"), "another client has taken the address meanwhile");

    let mut other = Rig::with_push();
    assert!(!ended(&mut other, "conflict"));
}

#[test]
fn a_removal_without_an_id_counts_while_the_client_is_dark_too() {
    let mut rig = Rig::with_push();
    rig.client(&remove(""));
    rig.lose_client();
    rig.upstream(&stream_error("not-authorized"));
    assert!(removed(&rig));
}

#[test]
fn a_query_without_an_id_has_no_answer() {
    let mut rig = Rig::new();
    rig.client(&format!("<iq type='get'>{INFO}</iq>"));
    let answer = format!("<iq type='result' id=''>{INFO}</iq>");
    rig.upstream(&answer);
    assert_eq!(rig.to_client, [answer]);
}

/// Regression test: Prosody binds such a client and answers without an id, and the login hung until a timeout.
#[test]
fn a_bind_without_an_id_is_answered_without_one() {
    let answer = |id: &str| {
        let jid = "<jid>juliet@example.org/phone</jid>";
        format!("<iq type='result'{id}><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{jid}</bind></iq>")
    };
    for asked in ["", " id=''"] {
        for answered in ["", " id=''"] {
            let mut login = Login::authenticated("juliet");
            login.client(&format!("<iq type='set'{asked}>{BIND}</iq>"));
            login.upstream("<iq type='result' id='x'/>");
            assert!(login.bound.is_none());
            login.upstream(&answer(answered));
            assert_eq!(login.bound.unwrap().jid.as_str(), "juliet@example.org/phone");
            assert_eq!(login.to_client.last(), Some(&answer(answered)));
        }
    }
    let mut login = Login::authenticated("juliet");
    login.client(&format!("<iq type='set' id='b'>{BIND}</iq>"));
    login.upstream(&answer(""));
    assert!(login.bound.is_none());
}

#[test]
fn only_the_server_answers_a_bind() {
    let answer = |from: &str, jid: &str| {
        let bind = format!("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>{jid}</jid></bind>");
        format!("<iq type='result' id='b'{from}>{bind}</iq>")
    };
    for server in SERVER {
        let mut login = Login::authenticated("juliet");
        login.client(&format!("<iq type='set' id='b'>{BIND}</iq>"));
        for stranger in STRANGERS {
            if !stranger.starts_with("juliet") {
                login.upstream(&answer(&format!(" from='{stranger}'"), "juliet@example.org/evil"));
            }
        }
        assert!(login.bound.is_none());
        login.upstream(&answer(server, "juliet@example.org/phone"));
        assert_eq!(login.bound.unwrap().jid.as_str(), "juliet@example.org/phone", "{server}");
    }
}

#[test]
fn only_the_server_tells_who_resumes() {
    let mut login = Login::authenticated("mallory");
    login.client("<resume xmlns='urn:xmpp:sm:3' previd='abc' h='3'/>");
    login.found("juliet");
    let id = login.last_iq_id();
    let answer = |from: &str| {
        let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>juliet@example.org/x</jid></bind>";
        format!("<iq type='result' id='{id}'{from}>{bind}</iq>")
    };
    login.upstream(&answer(" from='mallory@example.org/x'"));
    login.upstream(&answer(" from='example.net'"));
    assert_eq!(login.resumed_from(), None);
    login.upstream(&answer(" from='example.org'"));
    assert_eq!(login.resumed_from(), Some(3));
}

#[test]
fn another_caller_with_the_same_id_is_another_call() {
    let call = |from: &str, step: &str| {
        let media = "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>";
        format!(
            "<message from='{from}' type='chat'><{step} xmlns='urn:xmpp:jingle-message:0' id='c1'>{media}</{step}></message>"
        )
    };
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.seconds(5);
    rig.upstream(&call("mallory@example.org/x", "propose"));
    rig.upstream(&call("romeo@example.net/x", "propose"));
    assert_eq!(rig.publishes.len(), 2, "{:?}", rig.events);
}

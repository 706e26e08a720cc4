//! Tokens end when the server stops trusting a login, and when the password changes.

use super::*;
use crate::push::fast::TokenChange;

const SERVER: [&str; 4] = ["", " from='example.org'", " from='juliet@example.org'", " from='juliet@example.org/phone'"];
const STRANGERS: [&str; 4] = ["mallory@example.org", "juliet@example.org/laptop", "example.net", "example.org/x"];

fn revoked(rig: &Rig) -> usize {
    rig.stored.iter().filter(|change| **change == Change::Token(TokenChange::Revoked)).count()
}

fn register(attributes: &str, content: &str) -> String {
    format!("<iq type='set'{attributes}><query xmlns='jabber:iq:register'>{content}</query></iq>")
}

const PASSWORD: &str = "<username>juliet</username><password>hunter2</password>";
const FORM: &str = "<x xmlns='jabber:x:data' type='submit'><field var='password'><value>hunter2</value></field></x>";

#[test]
fn tokens_end_with_a_stream_that_the_server_does_not_trust() {
    for (condition, expected) in [
        ("not-authorized", 1),
        ("policy-violation", 1),
        ("reset", 1),
        ("conflict", 0),
        ("system-shutdown", 0),
        ("connection-timeout", 0),
        ("see-other-host", 0),
    ] {
        for is_dark in [false, true] {
            let mut rig = Rig::with_push();
            if is_dark {
                rig.lose_client();
            }
            rig.upstream(&format!(
                "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
            ));
            assert_eq!(revoked(&rig), expected, "{condition}");
        }
    }
    let mut rig = Rig::with_push();
    rig.input(Input::UpstreamLost);
    assert_eq!(revoked(&rig), 0);
}

#[test]
fn tokens_end_when_the_server_confirms_another_password() {
    for content in [PASSWORD, FORM] {
        for to in ["", " to='example.org'", " to='juliet@example.org'"] {
            for server in SERVER {
                let mut rig = Rig::new();
                rig.client(&register(&format!(" id='p'{to}"), content));
                assert!(rig.to_upstream.last().unwrap().contains("hunter2"), "it is passed on");
                for stranger in STRANGERS {
                    rig.upstream(&format!("<iq type='result' id='p' from='{stranger}'/>"));
                }
                rig.upstream("<iq type='result' id='q'/>");
                assert_eq!(revoked(&rig), 0);
                let answer = format!("<iq type='result' id='p'{server}/>");
                rig.upstream(&answer);
                assert_eq!((revoked(&rig), rig.to_client.last()), (1, Some(&answer)), "{to} {server}");
                rig.upstream(&answer);
                assert_eq!(revoked(&rig), 1);
            }
        }
    }
}

#[test]
fn tokens_stay_if_the_password_stays() {
    let mut rig = Rig::new();
    rig.client(&register(" id='p'", PASSWORD));
    rig.upstream("<iq type='error' id='p'><error type='cancel'/></iq>");
    rig.upstream("<iq type='result' id='p'/>");
    // Other requests, and the password of another account.
    rig.client("<iq type='get' id='g'><query xmlns='jabber:iq:register'/></iq>");
    rig.client(&register(" id='n'", "<name>Juliet</name>"));
    rig.client(&register(" id='o' to='gateway.example.net'", PASSWORD));
    for id in ["g", "n", "o"] {
        rig.upstream(&format!("<iq type='result' id='{id}'/>"));
    }
    assert_eq!(revoked(&rig), 0);
}

#[test]
fn requests_for_another_password_are_bounded() {
    let mut rig = Rig::new();
    for number in 0..9 {
        rig.client(&register(&format!(" id='{number}'"), PASSWORD));
    }
    for (id, expected) in [(0, 0), (1, 1), (8, 2)] {
        rig.upstream(&format!("<iq type='result' id='{id}'/>"));
        assert_eq!(revoked(&rig), expected, "{id}");
    }
    // A removal is known beside them.
    rig.client(&register(" id='bye'", "<remove/>"));
    rig.upstream("<iq type='result' id='bye'/>");
    assert!(rig.stored.contains(&Change::Removed));
    rig.upstream("<iq type='result' id='2'/>");
    assert_eq!(revoked(&rig), 2, "nothing of the account is left");
}

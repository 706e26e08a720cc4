//! Unusual behaviour of some clients and servers: all of it is legal, or has to be tolerated.

use super::super::mechanism_filter::Leg;
use super::super::negotiate::LoginInput as Happened;
use super::login::Login;
use super::*;

const OTHER_STYLE: &str = "<stream xmlns='http://etherx.jabber.org/streams' to='example.org' version='1.0'>";

/// Regression test: QXmpp 1.4 (Kaidan 0.8) hung on a stream error.
#[test]
fn a_resumption_of_nothing_outside_its_namespace_fails_and_the_client_binds() {
    let mut login = Login::authenticated("juliet");
    login.client("<resume xmlns='jabber:client' previd='' h='0'/>");
    assert!(login.to_client[0].starts_with("<failed xmlns='urn:xmpp:sm:3'"), "{:?}", login.to_client);
    assert_eq!((login.closed, login.finds.len(), login.to_upstream.len()), (None, 0, 0));
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    login.upstream(
        "<iq type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>juliet@example.org/x</jid></bind></iq>",
    );
    assert!(login.bound.is_some());
}

/// RFC 6120 §4.8.3: both legs may declare the content namespace on each stanza instead of on the stream. The other leg
/// is written in the usual style, which everything that Pushward adds relies on.
#[test]
fn a_stream_that_leaves_its_content_namespace_to_the_stanzas_is_one() {
    let open = |xml: &str| Frame::Open(Arc::new(Header::parse(Bytes::copy_from_slice(xml.as_bytes())).unwrap()));
    let other = Arc::new(Header::parse(Bytes::from_static(OTHER_STYLE.as_bytes())).unwrap());
    let frame = |xml: &str| Frame::Element(Element::parse(Bytes::copy_from_slice(xml.as_bytes()), &other).unwrap());
    let mut login = Login::new();
    login.input(Happened::Client(open(OTHER_STYLE)));
    login.input(Happened::Connected(Leg::Plain));
    login.input(Happened::Upstream(open(&OTHER_STYLE.replace("to=", "from="))));
    let usual =
        "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'";
    assert!(login.to_upstream[0].starts_with(usual), "{:?}", login.to_upstream);
    assert!(login.to_client[0].starts_with(usual), "{:?}", login.to_client);
    let mechanisms = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>";
    login.input(Happened::Upstream(frame(&format!("<features>{mechanisms}</features>"))));
    assert_eq!(
        login.to_client[1],
        format!("<features xmlns='http://etherx.jabber.org/streams'>{mechanisms}</features>")
    );
    login.auth("juliet");
    assert_eq!(login.closed, None);
}

/// XEP-0480: the server asks for the hash of another mechanism after the client is authenticated.
#[test]
fn a_task_that_upgrades_what_the_server_has_passes() {
    const SASL2: &str = "urn:xmpp:sasl:2";
    let mut login = Login::new();
    login.input(Happened::Client(super::login::client_header("example.org")));
    login.input(Happened::Connected(Leg::Plain));
    login.input(Happened::Upstream(Frame::Open(header())));
    let upgrade = "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade>";
    login.upstream(&format!(
        "<stream:features><authentication xmlns='{SASL2}'><mechanism>SCRAM-SHA-1</mechanism>{upgrade}<inline>\
         <bind xmlns='urn:xmpp:bind:0'/></inline></authentication></stream:features>"
    ));
    assert!(login.to_client.last().unwrap().contains(upgrade), "{:?}", login.to_client);
    login.client(&format!(
        "<authenticate xmlns='{SASL2}' mechanism='SCRAM-SHA-1'><initial-response>biwsbj1qdWxpZXQscj1hYmM=</initial-response>\
         {upgrade}<bind xmlns='urn:xmpp:bind:0'><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind></authenticate>"
    ));
    assert!(login.to_upstream.last().unwrap().contains(upgrade), "{:?}", login.to_upstream);
    let mut passes = |from: Peer, xml: String| {
        let written = match from {
            Peer::Server => {
                login.upstream(&xml);
                &login.to_client
            }
            Peer::Client => {
                login.client(&xml);
                &login.to_upstream
            }
        };
        assert_eq!(written.last(), Some(&xml));
    };
    passes(Peer::Server, format!("<challenge xmlns='{SASL2}'>cj1hYmM=</challenge>"));
    passes(Peer::Client, format!("<response xmlns='{SASL2}'>Yz1iaXdz</response>"));
    let tasks = "<additional-data>dj0x</additional-data><tasks><task>UPGR-SCRAM-SHA-256</task></tasks>";
    passes(Peer::Server, format!("<continue xmlns='{SASL2}'>{tasks}</continue>"));
    passes(Peer::Client, format!("<next xmlns='{SASL2}' task='UPGR-SCRAM-SHA-256'/>"));
    let salt = "<salt xmlns='urn:xmpp:scram-upgrade:0' iterations='4096'>QV9TWENSWFE2c2VrOGJmX1o=</salt>";
    passes(Peer::Server, format!("<task-data xmlns='{SASL2}'>{salt}</task-data>"));
    passes(
        Peer::Client,
        format!("<task-data xmlns='{SASL2}'><hash xmlns='urn:xmpp:scram-upgrade:0'>BAj3</hash></task-data>"),
    );
    login.upstream(&format!(
        "<success xmlns='{SASL2}'><authorization-identifier>juliet@example.org/x</authorization-identifier>\
         <bound xmlns='urn:xmpp:bind:0'/></success>"
    ));
    assert!(login.to_client.last().unwrap().contains("<enabled xmlns='urn:xmpp:sm:3'"), "{:?}", login.to_client);
    login.upstream("<stream:features/>");
    assert!(login.bound.is_some_and(|bound| bound.identity.is_some_and(|identity| identity.authcid == "juliet")));
}

#[test]
fn whatever_may_notify_is_asked_about_once_it_is_written() {
    let asks = |stanza: &str| {
        let mut rig = Rig::with_push();
        rig.upstream(stanza);
        assert!(rig.to_client[0].starts_with(&stanza[..4]), "{:?}", rig.to_client);
        rig.to_client.iter().any(|xml| xml.starts_with("<r "))
    };
    let media = "<content><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></content>";
    for (stanza, asked) in [
        ("<presence type='subscribe' from='romeo@example.net'/>", true),
        ("<message from='romeo@example.net'><body>b</body></message>", true),
        (
            &format!(
                "<iq type='set' id='1' from='romeo@example.net/x'><jingle xmlns='urn:xmpp:jingle:1' \
                 action='session-initiate' sid='1'>{media}</jingle></iq>"
            ),
            true,
        ),
        (
            "<iq type='set' id='1' from='up.example'><push xmlns='http://gultsch.de/xmpp/drafts/unified-push'/></iq>",
            true,
        ),
        ("<presence from='romeo@example.net/x'/>", false),
        ("<presence from='romeo@example.net/x'><status>subscribe</status></presence>", false),
        ("<iq type='result' id='1' from='romeo@example.net/x'><jingle xmlns='urn:xmpp:jingle:1'/></iq>", false),
        ("<iq type='get' id='1' from='romeo@example.net/x'><query xmlns='jabber:iq:version'/></iq>", false),
    ] {
        assert_eq!(asks(stanza), asked, "{stanza}");
    }
}

/// Regression test: the request was read and answered five seconds before the connection broke, and was pushed as a new
/// message.
#[test]
fn a_subscription_request_that_was_read_is_not_pushed() {
    let mut rig = Rig::with_push();
    rig.upstream("<presence type='subscribe' from='romeo@example.net'/>");
    let request = rig.to_client.iter().filter(|xml| xml.starts_with("<r ")).count();
    for _ in 0..request {
        rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    }
    rig.client("<presence type='subscribed' to='romeo@example.net'/>");
    rig.seconds(5);
    rig.lose_client();
    rig.seconds(60);
    assert_eq!(rig.publishes, []);
}

/// A message of another client of the account in a subscribed room comes back like a message from a stranger, because
/// nobody has joined the room.
#[test]
fn what_the_account_writes_in_a_room_that_it_has_subscribed_to_is_not_pushed_in_any_session() {
    let event = |nick: &str| {
        format!(
            "<message from='tea@rooms.example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'>\
             <items node='urn:xmpp:mucsub:nodes:messages'><item id='1'><message xmlns='jabber:client' type='groupchat' \
             from='tea@rooms.example.org/{nick}' id='{nick}'><body>b</body></message></item></items></event></message>"
        )
    };
    let mut rig = Rig::with_push();
    let subscribe = "<subscribe xmlns='urn:xmpp:mucsub:0' nick='Juliet'/>";
    rig.client(&format!("<iq type='set' id='s' to='tea@rooms.example.org'>{subscribe}</iq>"));
    rig.client(&format!("<iq type='set' id='t' to='tea@rooms.example.org'>{subscribe}</iq>"));
    assert_eq!(rig.stored.iter().filter(|change| matches!(change, Change::Subscribes(_))).count(), 1);
    assert_eq!(rig.to_upstream.len(), 2, "they pass");
    let account = rig.account.clone();
    let mut later = Rig::with_push();
    later.input(Input::Account(Box::new(Account { revision: 1, ..account })));
    for mut rig in [rig, later] {
        rig.lose_client();
        rig.seconds(5);
        rig.upstream(&event("Juliet"));
        rig.seconds(60);
        assert_eq!(rig.publishes.len(), 0);
        rig.upstream(&event("Romeo"));
        assert_eq!(rig.publishes.len(), 1);
    }
}

//! The look-up of the node that owns an account, before a login goes on, and streams that go on at another node.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::SmId;
use super::super::mechanism_filter::Leg;
use super::super::negotiate::{AccountPlace, CloseReason, Lockout, LoginInput, LoginName, Stop, offered_carbons};
use super::fronted::{AGENT, OFFER, RESUME, settings};
use super::login::{Login, client_header_with};
use super::*;
use crate::jid::BareJid;

const FEATURES: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                        <mechanism>PLAIN</mechanism></mechanisms></stream:features>";
const FOOTER: &str = "</stream:stream>";

/// A connection of a cluster, on which SASL may begin. The client's header has these attributes.
fn opened(attributes: &str) -> Login {
    opened_with(Arc::default(), attributes, FEATURES)
}

fn opened_with(settings: Arc<Settings>, attributes: &str, features: &str) -> Login {
    let mut login = Login::with(settings);
    login.negotiation.locate_logins();
    login.negotiation.set_channel(Some([7; 32]));
    login.input(LoginInput::Client(client_header_with("example.org", attributes)));
    if !login.connects.is_empty() {
        login.input(LoginInput::Connected(Leg::Plain));
        login.input(LoginInput::Upstream(Frame::Open(header())));
        login.upstream(features);
    }
    login.to_upstream.clear();
    login
}

fn auth(mechanism: &str, message: &str) -> String {
    let message = STANDARD.encode(message);
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{message}</auth>")
}

fn plain() -> String {
    auth("PLAIN", "\0juliet\0secret")
}

fn token(inner: &str) -> String {
    let message = STANDARD.encode([b"juliet\0", &[1; 32][..]].concat());
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-EXPR'><initial-response>{message}</initial-response>\
         {AGENT}{inner}</authenticate>"
    )
}

fn authcid(name: &str) -> Option<LoginName> {
    Some(LoginName::Authcid { host: "example.org".into(), authcid: name.into() })
}

fn account(jid: &str) -> Option<LoginName> {
    Some(LoginName::Account(BareJid::new(jid).unwrap()))
}

#[test]
fn a_message_reaches_the_server_once_the_owner_is_known() {
    let mut login = opened("");
    login.client(&plain());
    assert_eq!(login.questions[0].login, authcid("juliet"));
    assert_eq!(login.questions[0].login.as_ref().unwrap().account(), BareJid::new("juliet@example.org").ok());
    assert!(!login.negotiation.can_read_client() && login.negotiation.awaits().is_none());
    assert_eq!(login.to_upstream, [""; 0]);
    login.input(LoginInput::Located(AccountPlace::Here));
    assert_eq!(login.to_upstream, [plain()]);
    assert!(login.negotiation.awaits().is_some());
}

#[test]
fn each_login_of_a_connection_is_looked_up_and_answers_to_none_have_no_effect() {
    let mut login = opened("");
    login.input(LoginInput::Located(AccountPlace::OtherNode));
    for attempt in 1..4 {
        login.client(&plain());
        assert_eq!(login.questions.len(), attempt);
        login.input(LoginInput::Located(AccountPlace::Here));
        login.input(LoginInput::Located(AccountPlace::Unknown));
        login.upstream("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>");
        assert_eq!(login.to_upstream.len(), attempt);
    }
    assert_eq!((login.closed, login.passed.is_some()), (None, false));
}

#[test]
fn without_a_cluster_nothing_is_looked_up() {
    let mut login = Login::opened();
    login.auth("juliet");
    assert!(login.questions.is_empty() && login.negotiation.awaits().is_some());
}

#[test]
fn the_account_is_that_of_the_message_or_else_that_of_the_header() {
    const FROM: &str = " from='romeo@example.org/phone'";
    let asked = |attributes: &str, message: String| {
        let mut login = opened(attributes);
        login.client(&message);
        login.questions.pop().and_then(|question| question.login)
    };
    assert_eq!(asked(FROM, plain()), authcid("juliet"));
    assert_eq!(asked(FROM, auth("SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=juliet,r=1")), authcid("juliet"));
    assert_eq!(asked(FROM, auth("HT-SHA-256-NONE", "juliet\0hash")), authcid("juliet"));
    assert_eq!(asked(FROM, auth("EXTERNAL", "")), account("romeo@example.org"));
    assert_eq!(asked(FROM, auth("EXTERNAL", "Juliet@example.org")), account("juliet@example.org"));
    assert_eq!(asked("", auth("PLAIN", "juliet@example.org\0admin\0x")), account("juliet@example.org"));
    assert_eq!(asked("", auth("PLAIN", "juliet@example.net\0admin\0x")), authcid("admin"));
    assert_eq!(asked("", auth("DIGEST-MD5", "")), None);
    assert_eq!(asked(" from='romeo@example.net'", auth("X-OTHER", "a")), None);
    assert_eq!(asked(" from='example.org'", auth("X-OTHER", "a")), None);
    // With child elements it is read by nobody but the server.
    assert_eq!(asked(FROM, plain().replace("</auth>", "<x/></auth>")), account("romeo@example.org"));
}

#[test]
fn a_login_that_names_nobody_goes_on_here() {
    let mut login = opened("");
    let message = auth("EXTERNAL", "");
    login.client(&message);
    assert_eq!((login.questions.len(), &login.to_upstream[..]), (0, &[message][..]));
}

#[test]
fn another_node_gets_the_bytes_of_the_client() {
    let mut login = Login::new();
    login.negotiation.locate_logins();
    // The prefix is not the usual one, and neither is the place of the namespace.
    let header = "<?xml version='1.0'?><s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:client' \
                  to='example.org' version='1.0'>";
    let opening = Arc::new(Header::parse(Bytes::from(header)).unwrap());
    login.input(LoginInput::Client(Frame::Open(Arc::clone(&opening))));
    login.input(LoginInput::Connected(Leg::Plain));
    login.input(LoginInput::Upstream(Frame::Open(super::header())));
    login.upstream(FEATURES);
    let message = Element::parse(Bytes::from(plain()), &opening).unwrap();
    login.to_client.clear();
    login.input(LoginInput::Client(Frame::Element(message)));
    login.input(LoginInput::Located(AccountPlace::OtherNode));
    let passed = login.passed.take().unwrap();
    assert_eq!((passed.header.bytes(), &passed.message.bytes()[..]), (header.as_bytes(), plain().as_bytes()));
    assert!(!login.to_upstream.concat().contains("<auth"));
    assert_eq!((&login.to_client[..], login.closed), (&[][..], None));
    assert!(!login.negotiation.can_read_client());
}

/// A client that gets a failure or a stream error may discard its password or its token.
#[test]
fn a_client_whose_owner_is_unknown_or_silent_loses_its_connection_and_gets_no_answer() {
    for (inputs, reason) in [
        (vec![LoginInput::Located(AccountPlace::Unknown)], CloseReason::OwnerUnknown),
        (vec![LoginInput::Located(AccountPlace::OtherNode), LoginInput::NotPassedOn], CloseReason::NotPassedOn),
    ] {
        let mut login = opened("");
        login.client(&plain());
        login.to_client.clear();
        inputs.into_iter().for_each(|input| login.input(input));
        assert_eq!((&login.to_client[..], login.closed), (&[][..], Some(reason)));
        assert_eq!(login.to_upstream, [FOOTER]);
    }
}

#[test]
fn other_ends_come_while_the_owner_is_looked_up() {
    for (input, reason) in [
        (LoginInput::Stop(Stop::Timeout), CloseReason::Timeout),
        (LoginInput::Stop(Stop::Shutdown), CloseReason::Shutdown),
        (LoginInput::UpstreamLost, CloseReason::UpstreamLost),
        (LoginInput::Upstream(frame(&plain().replace("auth", "success"))), CloseReason::UpstreamError),
    ] {
        let mut login = opened("");
        login.client(&plain());
        login.input(input);
        assert_eq!(login.closed, Some(reason));
    }
    // The answer to an earlier request is none.
    let mut login = opened("");
    login.client("<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>");
    login.client(&plain());
    login.upstream("<iq type='result' id='1'/>");
    assert_eq!((login.to_client.last().unwrap().as_str(), login.closed), ("<iq type='result' id='1'/>", None));
    login.input(LoginInput::Located(AccountPlace::Here));
    assert_eq!(login.to_upstream.last().unwrap(), &plain());
}

#[test]
fn a_locked_out_address_is_refused_without_a_look_up() {
    let mut login = opened("");
    login.negotiation.set_lockout(Lockout::Active);
    login.client(&plain());
    assert!(login.questions.is_empty() && login.to_client.last().unwrap().contains("temporary-auth-failure"));
}

/// Settings under which a client was connected before: the next one gets its offer without the server.
fn known() -> Arc<Settings> {
    let settings = settings();
    let mut login = Login::with(Arc::clone(&settings));
    login.input(LoginInput::Client(client_header_with("example.org", " from='juliet@example.org'")));
    login.input(LoginInput::Connected(Leg::Plain));
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(OFFER);
    settings
}

#[test]
fn a_token_is_looked_up_before_the_session_and_before_the_server_is_connected() {
    let mut login = opened_with(known(), " from='juliet@example.org'", OFFER);
    assert!(login.connects.is_empty());
    login.client(&token(RESUME));
    assert_eq!((login.questions[0].login.clone(), login.finds.len(), login.checked.len()), (authcid("juliet"), 0, 0));
    assert_eq!(login.questions[0].previd, Some(SmId::new("abc")));
    login.input(LoginInput::Located(AccountPlace::Here));
    assert_eq!((&login.finds[..], login.connects.len()), (&[SmId::new("abc")][..], 0));

    let mut login = opened_with(known(), " from='juliet@example.org'", OFFER);
    login.client(&token(RESUME));
    login.input(LoginInput::Located(AccountPlace::OtherNode));
    let passed = login.passed.unwrap();
    assert!(login.connects.is_empty() && login.finds.is_empty() && login.to_upstream.is_empty());
    assert_eq!(passed.message.bytes(), token(RESUME).as_bytes());
}

#[test]
fn a_password_is_looked_up_once_although_the_server_is_connected_late() {
    let mut login = opened_with(known(), " from='juliet@example.org'", OFFER);
    login.client(&plain());
    login.input(LoginInput::Located(AccountPlace::Here));
    assert_eq!(login.connects, ["example.org"]);
    login.input(LoginInput::Connected(Leg::Plain));
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(OFFER);
    assert_eq!((login.questions.len(), login.to_upstream.last()), (1, Some(&plain())));
}

#[test]
fn offers_are_the_same_whatever_their_stream_id_and_order() {
    let mut login = opened("");
    login.client(&plain());
    login.input(LoginInput::Located(AccountPlace::OtherNode));
    let shown = login.passed.unwrap().shown;
    let header_of = |from: &str, id: &str, more: &str| {
        let xml = format!(
            "<?xml version='1.0'?><stream:stream from='{from}' id='{id}' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' version='1.0' xml:lang='en'{more}>"
        );
        Header::parse(Bytes::from(xml)).unwrap()
    };
    let own = header_of("example.org", "other", "");
    assert!(shown.is_same(&own, &element(FEATURES)));
    assert!(shown.is_same(&header_of("example.org", "x", " to='juliet@example.org'"), &element(FEATURES)));
    assert!(!shown.is_same(&header_of("example.net", "1", ""), &element(FEATURES)));
    assert!(!shown.is_same(&header_of("example.org", "1", " xmlns:x='y'"), &element(FEATURES)));
    let fewer = FEATURES.replace("<mechanism>PLAIN</mechanism>", "");
    let more = FEATURES.replace("</mechanisms>", "<mechanism>SCRAM-SHA-1</mechanism></mechanisms>");
    let required = FEATURES.replace("<mechanisms ", "<mechanisms required='1' ");
    for other in [&fewer, &more, &required, "<stream:features/>"] {
        assert!(!shown.is_same(&own, &element(other)), "{other}");
    }
    let mut login = opened_with(Arc::default(), "", &more);
    login.client(&plain());
    login.input(LoginInput::Located(AccountPlace::OtherNode));
    let shown = login.passed.unwrap().shown;
    let swapped = more.replace("PLAIN", "A").replace("SCRAM-SHA-1", "PLAIN").replace(">A<", ">SCRAM-SHA-1<");
    assert_ne!(more, swapped);
    assert!(shown.is_same(&own, &element(&swapped)));
}

/// Each node learns by itself what a server refuses. The client must not have been shown what the owner does not do.
#[test]
fn the_owner_may_offer_more_in_front_of_the_server_and_never_less() {
    let offers = |settings: Arc<Settings>| {
        let mut login = opened_with(settings, "", OFFER);
        let features = element(&login.to_client.pop().unwrap());
        login.client(&plain());
        login.input(LoginInput::Located(AccountPlace::OtherNode));
        (login.passed.unwrap().shown, features)
    };
    let (all, all_features) = offers(settings());
    let without = |learned: fn(&Settings)| {
        let settings = settings();
        learned(&settings);
        offers(settings)
    };
    let (no_carbons, no_carbons_features) = without(|s| s.fronting.on_carbons_refused("example.org"));
    let (no_sasl2, no_sasl2_features) = without(|s| s.fronting.on_own_sasl2("example.org"));
    assert_eq!(offered_carbons(&all_features.node()), Some(true));
    assert_eq!(offered_carbons(&no_carbons_features.node()), Some(false));
    assert_eq!(offered_carbons(&no_sasl2_features.node()), None);
    for (shown, same) in
        [(&all, [true, false, false]), (&no_carbons, [true, true, false]), (&no_sasl2, [true, true, true])]
    {
        let all = [&all_features, &no_carbons_features, &no_sasl2_features];
        assert_eq!(all.map(|features| shown.is_same(&header(), features)), same);
    }
}

#[test]
fn an_offer_from_memory_that_nobody_took_is_forgotten() {
    let settings = known();
    let opened = || opened_with(Arc::clone(&settings), " from='juliet@example.org'", OFFER);
    let mut used = opened();
    used.client(&token(""));
    used.negotiation.forget_unused_offer();
    assert!(opened().connects.is_empty());
    opened().negotiation.forget_unused_offer();
    assert_eq!(opened().connects, ["example.org"]);
    // The server itself has made the first of these.
    let settings = super::fronted::settings();
    let opened = || opened_with(Arc::clone(&settings), " from='juliet@example.org'", OFFER);
    opened().negotiation.forget_unused_offer();
    assert!(opened().connects.is_empty());
}

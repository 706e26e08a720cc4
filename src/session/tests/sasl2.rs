//! SASL2, Bind 2, stream management and resumption inside them, and FAST (XEP-0388, XEP-0386, XEP-0198, XEP-0484).

use base64::Engine as _;

use super::super::negotiate::{CloseReason, Ended, LoginInput, Proof};
use super::super::{Input as SessionInput, SmId};
use super::login::{Login, client_header, client_header_with};
use super::*;
use crate::jid::BareJid;

const OFFER: &str = "<stream:features><authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism>\
                     <inline><bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:carbons:2'/></inline></bind>\
                     <fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast></inline></authentication>\
                     <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>\
                     </stream:features>";
const FEATURES: &str = "<stream:features><sm xmlns='urn:xmpp:sm:3'/><csi xmlns='urn:xmpp:csi:0'/></stream:features>";
const BIND_FEATURES: &str = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>";
const AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>x</software></user-agent>";
const TAG: &str = "<tag>Phone</tag><enable xmlns='urn:xmpp:carbons:2'/>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true' max='90'/>";
const RESUME: &str = "<resume xmlns='urn:xmpp:sm:3' previd='abc' h='3'/>";
const TOKEN: &str = "<token xmlns='urn:xmpp:fast:0' expiry='2030-01-01T00:00:00Z' token='secret'/>";
const NOT_FOUND: &str = "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";

fn bind(inner: &str) -> String {
    format!("<bind xmlns='urn:xmpp:bind:0'>{inner}</bind>")
}

/// Returns the `<authenticate/>` of a client that logs in as this user with these inline requests.
fn authenticate(user: &str, inline: &str) -> String {
    let initial = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0secret"));
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{initial}</initial-response>{AGENT}\
         {inline}</authenticate>"
    )
}

/// Returns the server's `<success/>` for this JID.
fn success(jid: &str, inline: &str) -> String {
    format!(
        "<success xmlns='urn:xmpp:sasl:2'><additional-data>dj0=</additional-data>\
         <authorization-identifier>{jid}</authorization-identifier>{inline}{TOKEN}</success>"
    )
}

fn bound(inner: &str) -> String {
    format!("<bound xmlns='urn:xmpp:bind:0'><enabled xmlns='urn:xmpp:carbons:2'/>{inner}</bound>")
}

fn ended(user: &str, h: u32) -> Option<Ended> {
    Some(Ended { account: BareJid::new(&format!("{user}@example.org")).unwrap(), h: sm::Handled::new(h) })
}

/// A stream on which SASL2 may begin.
fn offered() -> Login {
    let mut login = Login::new();
    login.input(LoginInput::Client(client_header("example.org")));
    login.input(LoginInput::Connected(crate::session::mechanism_filter::Leg::Plain));
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(OFFER);
    login.to_client.clear();
    login.to_upstream.clear();
    login
}

/// A client that asked to resume, and to bind if that fails. The session belongs to this user.
fn resuming(user: &str) -> Login {
    let mut login = offered();
    login.client(&authenticate(user, &format!("{}{RESUME}", bind(&format!("{TAG}{ENABLE}")))));
    assert_eq!((&login.finds[..], &login.to_upstream[..]), (&[SmId::new("abc")][..], &[][..]), "decided before");
    assert!(!login.negotiation.can_read_client());
    login
}

/// Returns the first stanza or nonza written to the client, and the rest.
fn written(login: &Login) -> (&str, &[String]) {
    let (first, rest) = login.to_client.split_first().unwrap();
    (first, rest)
}

#[test]
fn inline_resumption_and_stream_management_are_offered() {
    let mut login = Login::new();
    login.input(LoginInput::Client(client_header("example.org")));
    login.input(LoginInput::Connected(crate::session::mechanism_filter::Leg::Plain));
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(OFFER);
    let features = login.to_client.last().unwrap();
    assert!(features.contains("<feature xmlns='urn:xmpp:bind:0' var='urn:xmpp:sm:3'/>"), "{features}");
    assert!(features.contains("<sm xmlns='urn:xmpp:sm:3'/></inline></authentication>"), "{features}");
    assert!(features.contains("HT-SHA-256-NONE"), "{features}");
}

#[test]
fn a_fresh_login_is_bound_and_counts_from_its_success() {
    let mut login = offered();
    let request = format!(
        "{}<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>",
        bind(&format!("{TAG}{ENABLE}"))
    );
    login.client(&authenticate("juliet", &request));
    assert_eq!(login.to_upstream, [authenticate("juliet", &request).replace(ENABLE, "")]);
    login.upstream("<challenge xmlns='urn:xmpp:sasl:2'>eA==</challenge>");
    login.client("<response xmlns='urn:xmpp:sasl:2'>eA==</response>");
    assert_eq!(login.to_upstream.len(), 2);
    login.to_client.clear();
    login.upstream(&success("juliet@example.org/Phone~x", &bound("<metadata xmlns='urn:xmpp:mam:2'/>")));
    assert!(!login.negotiation.can_read_client() && login.bound.is_none(), "the features are part of it");
    login.upstream(FEATURES);

    let session = login.bound.take().unwrap();
    let enabled = session.enabled.clone().unwrap();
    let id = enabled.id.clone().unwrap();
    let ours = format!(
        "<metadata xmlns='urn:xmpp:mam:2'/><enabled xmlns='urn:xmpp:sm:3' id='{}' resume='true' max='259200'/>",
        id.as_str()
    );
    let features = "<stream:features><csi xmlns='urn:xmpp:csi:0'/></stream:features>";
    assert_eq!(login.to_client, [success("juliet@example.org/Phone~x", &bound(&ours)), features.into()]);
    assert_eq!(login.restarts, 0);
    assert_eq!(session.jid.as_str(), "juliet@example.org/Phone~x");
    assert_eq!(session.agent.as_deref(), Some("d4565fa7-4d72-4749-b3d3-740edbf87770"));
    assert_eq!((enabled.asked_max, session.server.sm, session.server.csi), (Some(90), true, true));
    assert_eq!(session.identity.unwrap().authcid, "juliet");
}

#[test]
fn without_stream_management_in_the_bind_none_is_enabled() {
    let mut login = offered();
    login.client(&authenticate("juliet", &bind(&format!("{TAG}<inactive xmlns='urn:xmpp:csi:0'/>"))));
    let answer = success("juliet@example.org/Phone~x", &bound(""));
    login.upstream(&answer);
    login.upstream(FEATURES);
    assert_eq!(login.to_client[0], answer);
    let session = login.bound.unwrap();
    assert_eq!((session.enabled, session.inactive), (None, true));
}

#[test]
fn a_live_session_is_resumed_and_nothing_is_bound_beside_it() {
    let mut login = resuming("juliet");
    login.found("juliet");
    assert_eq!(login.to_upstream, [authenticate("juliet", "")], "a bind would end the session that is held");
    let answer = success("juliet@example.org", "");
    login.upstream(&answer);
    let resumption = login.handed_over.take().unwrap();
    assert_eq!(resumption.h, sm::Handled::new(3));
    assert_eq!(resumption.success.unwrap().bytes(), answer.as_bytes());
    assert_eq!(login.to_client, Vec::<String>::new(), "the session says it");
}

#[test]
fn an_unknown_session_fails_beside_a_fresh_bind() {
    for (ended, h) in [(None, ""), (ended("juliet", 7), " h='7'"), (ended("romeo", 7), "")] {
        let mut login = resuming("juliet");
        login.input(LoginInput::Found(Err(ended)));
        assert_eq!(login.to_upstream, [authenticate("juliet", &bind(TAG))]);
        login.upstream(&success("juliet@example.org/Phone~x", &bound("")));
        login.upstream(FEATURES);
        let (written, _) = written(&login);
        assert!(written.contains("<enabled xmlns='urn:xmpp:sm:3' id='") && written.contains(TOKEN), "{written}");
        let failed = format!("<failed xmlns='urn:xmpp:sm:3'{h}>{NOT_FOUND}</success>");
        assert!(written.ends_with(&failed), "{written}");
        let session = login.bound.unwrap();
        assert_eq!(session.presented, Some(SmId::new("abc")));
        assert!(session.enabled.is_some());
    }
}

/// Invariant 4: a client that knows the id is still authenticated only as itself.
#[test]
fn a_session_of_somebody_else_is_not_resumed() {
    let mut login = resuming("mallory");
    login.found("juliet");
    login.upstream(&success("mallory@example.org", ""));
    assert_eq!(login.resumed_from(), None);
    let expected = success("mallory@example.org", "")
        .replace("</success>", &format!("<failed xmlns='urn:xmpp:sm:3'>{NOT_FOUND}</success>"));
    assert_eq!(login.to_client, [expected]);
    login.upstream(BIND_FEATURES);
    login.client(
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>x</resource></bind></iq>",
    );
    let mallory = Proof::Account(BareJid::new("mallory@example.org").unwrap());
    assert_eq!(login.released, [(mallory, "x".into())]);
    login.upstream(
        "<iq type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>mallory@example.org/x</jid></bind></iq>",
    );
    assert_eq!(login.bound.unwrap().jid.as_str(), "mallory@example.org/x");
}

#[test]
fn what_the_server_does_not_say_proves_nothing() {
    let mut login = resuming("juliet");
    login.found("juliet");
    login.upstream("<success xmlns='urn:xmpp:sasl:2'/>");
    assert_eq!(login.resumed_from(), None);
    assert!(login.to_client[0].contains("<failed "), "{:?}", login.to_client);
}

#[test]
fn a_client_that_says_it_is_somebody_else_keeps_its_bind() {
    let mut login = Login::new();
    login.input(LoginInput::Client(client_header_with("example.org", " from='mallory@example.org'")));
    login.input(LoginInput::Connected(crate::session::mechanism_filter::Leg::Plain));
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(OFFER);
    login.to_upstream.clear();
    login.client(&authenticate("mallory", &format!("{}{RESUME}", bind(TAG))));
    login.found("juliet");
    assert_eq!(login.to_upstream, [authenticate("mallory", &bind(TAG))]);
}

#[test]
fn a_session_that_ended_meanwhile_leaves_the_client_to_bind() {
    let mut login = resuming("juliet");
    login.found("juliet");
    login.upstream(&success("juliet@example.org", ""));
    login.input(LoginInput::Gone(ended("juliet", 9)));
    let failed = format!("<failed xmlns='urn:xmpp:sm:3' h='9'>{NOT_FOUND}");
    assert_eq!(
        login.to_client,
        [success("juliet@example.org", "").replace("</success>", &format!("{failed}</success>"))]
    );
    assert!(!login.negotiation.can_read_client());
    login.upstream(BIND_FEATURES);
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert_eq!(login.to_upstream.len(), 2);
}

#[test]
fn a_resumption_that_does_not_say_of_what_fails() {
    let mut login = offered();
    login.client(&authenticate("juliet", "<resume xmlns='urn:xmpp:sm:3' previd='abc'/>"));
    assert_eq!(login.to_upstream, [authenticate("juliet", "")]);
    login.upstream(&success("juliet@example.org", ""));
    assert!(login.to_client[0].contains("<failed xmlns='urn:xmpp:sm:3'><bad-request "), "{:?}", login.to_client);
}

#[test]
fn a_token_that_is_refused_is_followed_by_the_password_on_the_same_stream() {
    let mut login = offered();
    login.client(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'><initial-response>anVsaWV0AHg=</initial-response>\
         <user-agent id='u'/><fast xmlns='urn:xmpp:fast:0'/><resume xmlns='urn:xmpp:sm:3' previd='old' h='1'/></authenticate>",
    );
    login.found("juliet");
    assert!(login.to_upstream[0].contains("<fast xmlns='urn:xmpp:fast:0'/>"), "{:?}", login.to_upstream);
    let failure =
        "<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>";
    login.upstream(failure);
    assert_eq!(login.to_client, [failure]);
    login.client(&authenticate("juliet", &bind(TAG)));
    login.upstream(&success("juliet@example.org/Phone~x", &bound("")));
    login.upstream(FEATURES);
    assert_eq!(login.resumed_from(), None, "what the failed login asked for is forgotten");
    assert!(!login.to_client[1].contains("<failed"), "{:?}", login.to_client);
    let session = login.bound.unwrap();
    assert_eq!((session.presented, session.agent.as_deref()), (None, Some("d4565fa7-4d72-4749-b3d3-740edbf87770")));
}

#[test]
fn further_tasks_pass_both_ways() {
    let mut login = offered();
    login.client(&authenticate("juliet", "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade>"));
    let server = [
        "<continue xmlns='urn:xmpp:sasl:2'><tasks><task>UPGR-SCRAM-SHA-256</task></tasks></continue>",
        "<task-data xmlns='urn:xmpp:sasl:2'><salt xmlns='urn:xmpp:scram-upgrade:0' iterations='1'>eA==</salt></task-data>",
    ];
    let client = [
        "<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'/>",
        "<task-data xmlns='urn:xmpp:sasl:2'><hash xmlns='urn:xmpp:scram-upgrade:0'>eA==</hash></task-data>",
    ];
    for (server, client) in server.iter().zip(client) {
        login.upstream(server);
        login.client(client);
        assert!(!login.negotiation.can_read_client(), "one after the other");
    }
    assert_eq!(login.to_client, server);
    assert_eq!(login.to_upstream[1..], client);
    login.upstream("<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>juliet@example.org</authorization-identifier></success>");
    login.upstream(BIND_FEATURES);
    assert!(login.negotiation.can_read_client());
}

#[test]
fn a_login_without_inline_features_binds_and_resumes_as_of_old() {
    let logged_in = |user: &str| {
        let mut login = offered();
        login.client(&authenticate(user, ""));
        login.upstream(&success(&format!("{user}@example.org"), ""));
        login.upstream(BIND_FEATURES);
        assert!(login.to_client[1].contains("<sm xmlns='urn:xmpp:sm:3'/>"), "{:?}", login.to_client);
        login.to_client.clear();
        login
    };
    let mut login = logged_in("juliet");
    login.client(RESUME);
    login.found("juliet");
    assert_eq!(login.resumed_from(), Some(3));
    assert!(login.handed_over.as_ref().unwrap().success.is_none());

    let mut login = logged_in("mallory");
    login.client(RESUME);
    login.found("juliet");
    assert_eq!((login.resumed_from(), login.to_upstream.len()), (None, 1), "nothing is left to probe");
    assert_eq!(login.to_client, [format!("<failed xmlns='urn:xmpp:sm:3'>{NOT_FOUND}")]);

    let mut login = logged_in("juliet");
    login.client(RESUME);
    login.input(LoginInput::Found(Err(ended("juliet", 7))));
    assert_eq!(login.to_client, [format!("<failed xmlns='urn:xmpp:sm:3' h='7'>{NOT_FOUND}")]);
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    login.upstream(
        "<iq type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>juliet@example.org/x</jid></bind></iq>",
    );
    let session = login.bound.unwrap();
    assert!(session.agent.is_some() && session.enabled.is_none());
}

#[test]
fn the_two_profiles_do_not_mix() {
    let mut login = offered();
    login.client(&authenticate("juliet", ""));
    login.upstream("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert_eq!(login.closed, Some(CloseReason::UpstreamError));

    let mut login = offered();
    login.client(&authenticate("juliet", ""));
    login.upstream("<challenge xmlns='urn:xmpp:sasl:2'/>");
    login.client("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert_eq!(login.closed, Some(CloseReason::ClientError));

    let mut login = offered();
    login.upstream(&success("juliet@example.org", ""));
    assert_eq!(login.closed, Some(CloseReason::UpstreamError), "nobody asked");

    let mut login = offered();
    login.auth("juliet");
    login.upstream("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert_eq!(login.restarts, 1);
    login.restart();
    assert!(login.negotiation.can_read_client());
}

#[test]
fn nothing_stands_between_success_and_features() {
    let mut login = offered();
    login.client(&authenticate("juliet", &bind(TAG)));
    login.upstream(&success("juliet@example.org/Phone~x", &bound("")));
    login.input(LoginInput::Upstream(Frame::Whitespace));
    assert_eq!(login.to_client.len(), 1);
    login.upstream("<message><body>too early</body></message>");
    assert_eq!(login.closed, Some(CloseReason::UpstreamError));
}

#[test]
fn a_bind_without_a_full_jid_is_none() {
    let mut login = offered();
    login.client(&authenticate("juliet", &bind(TAG)));
    login.upstream(&success("juliet@example.org", &bound("")));
    assert_eq!(login.closed, Some(CloseReason::UpstreamError));
}

// The session that follows

fn inline_session(earlier: Vec<Spooled>) -> Rig {
    inline_session_with(earlier, |bound| bound.server.sm = true)
}

fn inline_session_with(earlier: Vec<Spooled>, adjust: impl FnOnce(&mut Bound)) -> Rig {
    let id = SmId::new("abc");
    let enabled = Some(sm::nonza::Enabled { id: Some(id), asked_max: None });
    let settings = Settings { session_queue: 1 << 20, ..Settings::default() };
    Rig::begin(settings, earlier, |bound| {
        bound.enabled = enabled;
        adjust(bound);
    })
}

#[test]
fn a_session_that_began_with_stream_management_counts_both_ways_from_there() {
    let mut rig = inline_session(Vec::new());
    assert_eq!(rig.previd.as_deref(), Some("abc"));
    assert_eq!(rig.to_upstream, ["<enable xmlns='urn:xmpp:sm:3'/>"], "our own, with the server");
    assert_eq!(rig.to_client, Vec::<String>::new(), "the success has said it all");
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.upstream(&message(1));
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(rig.ended, None);
    rig.client("<message id='1'><body>1</body></message>");
    rig.upstream("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.client("<r xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(rig.to_client.last().unwrap(), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.client("<enable xmlns='urn:xmpp:sm:3'/>");
    assert!(rig.to_client.last().unwrap().contains("unexpected-request"));
}

#[test]
fn a_client_that_is_bound_in_the_background_is_left_alone_from_the_start() {
    for (inactive, written) in [(true, 0), (false, 1)] {
        let mut rig = inline_session_with(Vec::new(), |bound| (bound.inactive, bound.server.csi) = (inactive, false));
        rig.upstream("<presence from='romeo@example.net/x'/>");
        assert_eq!(rig.to_client.iter().filter(|xml| xml.starts_with("<presence")).count(), written);
    }
}

#[test]
fn what_waited_for_the_device_follows_the_features() {
    let bytes = Bytes::from(message(1));
    let mut rig = inline_session(vec![Spooled {
        seq: Seq::new(1),
        received: UnixMillis::new(0),
        shared: true,
        archived: false,
        bytes,
    }]);
    rig.input(SessionInput::Quiet);
    assert_eq!(rig.delivered(), [1]);
}

#[test]
fn a_resumed_session_says_so_inside_the_success_before_all_else() {
    let mut rig = inline_session(Vec::new());
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.client("<message id='1'><body>1</body></message>");
    rig.lose_client();
    rig.upstream(&message(1));
    rig.clear();
    let answer = success("juliet@example.org", "");
    let resumption = |h| Resumption {
        h: sm::Handled::new(h),
        server_header: header(),
        success: Some(element(&answer)),
        tokens: Default::default(),
    };
    rig.input(SessionInput::Attach(Box::new(resumption(0))));
    assert_eq!(rig.to_client, Vec::<String>::new(), "the server has not confirmed what the client sent last");
    rig.upstream("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    let expected = answer
        .replace(
            "<authorization-identifier>juliet@example.org<",
            "<authorization-identifier xmlns='urn:xmpp:sasl:2'>juliet@example.org/phone<",
        )
        .replace("</success>", "<resumed xmlns='urn:xmpp:sm:3' h='1' previd='abc'/></success>");
    assert_eq!(rig.to_client[0], expected);
    assert!(rig.to_client[1].starts_with("<message "), "{:?}", rig.to_client);
    assert_eq!(rig.to_client[2..], ["<r xmlns='urn:xmpp:sm:3'/>"]);
}

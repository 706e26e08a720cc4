//! SASL2 and Bind 2 in front of a server that has neither (XEP-0388, XEP-0386).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::SmId;
use super::super::mechanism_filter::{ChannelBinding, Leg, UpstreamWarning};
use super::super::negotiate::{CloseReason, HeldSession, LoginInput, Proof, ServerAnswer, Stop};
use super::login::{Login, client_header, client_header_with};
use super::*;
use crate::jid::BareJid;
use crate::secret::Secret;
use crate::session::fronting::{FrontedParts, Fronting};
use crate::session::sasl::LoginMethod;
use crate::xml::ns;

pub(super) const OFFER: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1-PLUS</mechanism>\
                     <mechanism>SCRAM-SHA-1</mechanism><mechanism>X-OAUTH2</mechanism><mechanism>PLAIN</mechanism></mechanisms>\
                     <register xmlns='http://jabber.org/features/iq-register'/></stream:features>";
pub(super) const BIND: &str =
    "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/></stream:features>";
pub(super) const AGENT: &str =
    "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>x</software></user-agent>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true' max='90'/>";
const CARBONS: &str = "<enable xmlns='urn:xmpp:carbons:2'/>";
pub(super) const RESUME: &str = "<resume xmlns='urn:xmpp:sm:3' previd='abc' h='3'/>";
const NOT_FOUND: &str =
    "<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";
const FAILURE: &str = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/><text>No.</text></failure>";

pub(super) fn settings() -> Arc<Settings> {
    let fronting = Fronting::new(["example.org".to_owned()], Secret::new(7));
    Arc::new(Settings { fronting: Arc::new(fronting), stanza: 10_000, ..Settings::default() })
}

/// A stream of this leg on which the client has these features of the server.
pub(super) fn offered_over(settings: &Arc<Settings>, leg: Leg, features: &str) -> Login {
    let mut login = Login::with(Arc::clone(settings));
    login.input(LoginInput::Client(client_header("example.org")));
    login.input(LoginInput::Connected(leg));
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(features);
    login
}

fn offered_with(settings: &Arc<Settings>) -> Login {
    let mut login = offered_over(settings, Leg::Plain, OFFER);
    login.to_client.clear();
    login.to_upstream.clear();
    login
}

fn offered() -> Login {
    offered_with(&settings())
}

pub(super) fn plain(message: &str) -> String {
    STANDARD.encode(message)
}

pub(super) fn bind(inner: &str) -> String {
    format!("<bind xmlns='urn:xmpp:bind:0'><tag>Phone</tag>{inner}</bind>")
}

pub(super) fn authenticate_with(message: &str, inline: &str) -> String {
    let initial = plain(message);
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{initial}</initial-response>{AGENT}\
         {inline}</authenticate>"
    )
}

pub(super) fn authenticate(inline: &str) -> String {
    authenticate_with("\0juliet\0secret", inline)
}

pub(super) fn auth(message: &str) -> String {
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>", plain(message))
}

pub(super) fn refusal(condition: &str) -> String {
    format!("<failure xmlns='urn:xmpp:sasl:2'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>")
}

/// The server lets the client in with this data, and the login goes on behind its restart.
pub(super) fn let_in(login: &mut Login, data: &str) {
    login.upstream(&format!("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{data}</success>"));
}

/// The server opens its stream again.
fn reopened(login: &mut Login) {
    assert_eq!((login.server_restarts, login.restarts), (1, 0), "the client's stream goes on");
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(BIND);
}

/// Answers the bind request that was written last. Returns the resource that it asked for.
pub(super) fn bound_as(login: &mut Login, jid: &str) -> String {
    let request = element(login.to_upstream.last().unwrap());
    let resource =
        request.node().child("bind", ns::BIND).unwrap().child("resource", ns::BIND).unwrap().text().into_owned();
    let id = login.last_iq_id();
    login.upstream(&format!(
        "<iq type='result' id='{id}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>{jid}</jid></bind></iq>"
    ));
    resource
}

/// The iq id of the request of ours that contains this, among those written last.
pub(super) fn id_of(login: &Login, part: &str) -> String {
    let request = login.to_upstream.iter().rev().find(|xml| xml.contains(part)).unwrap();
    element(request).node().attr("id").unwrap().into_owned()
}

fn answer(login: &mut Login, id: &str, from: &str, content: &str) {
    login.upstream(&format!("<iq type='result' id='{id}' from='{from}' to='juliet@example.org/Phone'>{content}</iq>"));
}

pub(super) fn refuse(login: &mut Login, id: &str) {
    login.upstream(&format!(
        "<iq type='error' id='{id}'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    ));
}

/// A login that asked for this in its bind and is bound. Its requests for carbons and metadata wait for their answers.
fn asking(settings: &Arc<Settings>, inner: &str) -> Login {
    let mut login = offered_with(settings);
    login.client(&authenticate(&bind(inner)));
    let_in(&mut login, "");
    reopened(&mut login);
    bound_as(&mut login, "juliet@example.org/Phone");
    login
}

#[test]
fn the_mechanisms_that_name_the_account_are_offered() {
    let login = offered_over(&settings(), Leg::Plain, OFFER);
    let features = login.to_client.last().unwrap();
    let ours = "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism>\
                <inline><sm xmlns='urn:xmpp:sm:3'/><bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:carbons:2'/>\
                <feature var='urn:xmpp:sm:3'/><feature var='urn:xmpp:csi:0'/></inline></bind><fast xmlns='urn:xmpp:fast:0'>\
                <mechanism>HT-SHA-256-NONE</mechanism></fast></inline></authentication>";
    assert!(features.ends_with(&format!("{ours}</stream:features>")), "{features}");
    assert!(
        features.contains("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1<"),
        "{features}"
    );
    let bound = offered_over(&settings(), Leg::Tls(ChannelBinding::Strip), OFFER);
    assert!(!bound.to_client.last().unwrap().contains("PLUS"));
}

#[test]
fn nothing_is_added_to_a_server_with_sasl2_or_without_a_mechanism_or_to_a_host_that_is_not_fronted() {
    let theirs = OFFER.replace(
        "<register",
        "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>EXTERNAL</mechanism></authentication><register",
    );
    let opaque = OFFER.replace("SCRAM-SHA-1", "X-OAUTH2").replace("PLAIN", "X-TOKEN");
    for features in [theirs.as_str(), opaque.as_str()] {
        let login = offered_over(&settings(), Leg::Plain, features);
        assert!(!login.to_client.last().unwrap().contains("urn:xmpp:sasl:2"), "{:?}", login.to_client);
    }
    let login = offered_over(&Arc::default(), Leg::Plain, OFFER);
    assert!(!login.to_client.last().unwrap().contains("urn:xmpp:sasl:2"));
}

#[test]
fn one_success_has_all_that_was_asked_for() {
    let mut login = offered();
    login.client(&authenticate(&bind(&format!("{CARBONS}{ENABLE}<inactive xmlns='urn:xmpp:csi:0'/>"))));
    assert_eq!(login.to_upstream, [auth("\0juliet\0secret")]);
    login.upstream("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>=</challenge>");
    login.client("<response xmlns='urn:xmpp:sasl:2'>eA==</response>");
    assert_eq!(login.to_upstream.last().unwrap(), "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>eA==</response>");
    assert_eq!(login.to_client, ["<challenge xmlns='urn:xmpp:sasl:2'/>"]);
    login.to_client.clear();
    let_in(&mut login, "dj0=");
    assert!(!login.negotiation.can_read_client());
    reopened(&mut login);
    let resource = bound_as(&mut login, "juliet@example.org/Phone");
    assert!(resource.starts_with("Phone/") && !resource.contains("d4565fa7"), "{resource}");
    assert_eq!(login.released.len(), 1, "an older session with this resource ends first");
    assert_eq!(login.released[0].1, resource);
    assert_eq!(login.negotiation.awaits().unwrap().answer, ServerAnswer::Extras);
    let (carbons, metadata) = (id_of(&login, "carbons"), id_of(&login, "metadata"));
    login.upstream("<message from='romeo@example.org' id='early'/>");
    answer(&mut login, &carbons, "mallory@example.org", "");
    answer(&mut login, &carbons, "juliet@example.org", "");
    assert_eq!(login.to_client, [""; 0]);
    answer(&mut login, &metadata, "juliet@example.org", "<metadata xmlns='urn:xmpp:mam:2'><start id='1'/></metadata>");

    let session = login.bound.take().unwrap();
    let id = session.enabled.clone().unwrap().id.unwrap();
    assert_eq!(
        login.to_client,
        [
            format!(
                "<success xmlns='urn:xmpp:sasl:2'><additional-data>dj0=</additional-data>\
                 <authorization-identifier>juliet@example.org/Phone</authorization-identifier>\
                 <bound xmlns='urn:xmpp:bind:0'><enabled xmlns='urn:xmpp:carbons:2'/>\
                 <metadata xmlns='urn:xmpp:mam:2'><start id='1'/></metadata>\
                 <enabled xmlns='urn:xmpp:sm:3' id='{}' resume='true' max='259200'/></bound></success>",
                id.as_str()
            ),
            "<stream:features><csi xmlns='urn:xmpp:csi:0'/></stream:features>".to_owned(),
        ]
    );
    assert_eq!(session.jid.as_str(), "juliet@example.org/Phone");
    assert_eq!(session.identity.unwrap().authcid, "juliet");
    assert!(session.inactive && session.server.sm && session.asked.is_none());
    assert_eq!((login.method, login.round_trips_saved), (Some(LoginMethod::FrontedSasl2), 4));
    let [Frame::Element(stranger), Frame::Element(forged)] = &session.early[..] else { panic!("{:?}", session.early) };
    assert!(stranger.mentions("early") && forged.mentions("mallory"));
}

#[test]
fn the_resource_is_the_same_at_the_next_login_of_the_agent() {
    let settings = settings();
    let resource = |user: &str| {
        let mut login = offered_with(&settings);
        login.client(&authenticate_with(&format!("\0{user}\0secret"), &bind("")));
        let_in(&mut login, "");
        reopened(&mut login);
        bound_as(&mut login, &format!("{user}@example.org/x"))
    };
    assert_eq!(resource("juliet"), resource("juliet"));
    assert_eq!(resource("juliet"), resource("Juliet"));
    assert_ne!(resource("juliet"), resource("romeo"));
}

#[test]
fn a_server_that_wants_a_session_gets_its_request_first() {
    for (session, wants) in [("<session xmlns='urn:ietf:params:xml:ns:xmpp-session'>", false), ("", false), ("x", true)]
    {
        let session = match (session, wants) {
            ("", _) => String::new(),
            (open, false) => format!("{open}<optional/></session>"),
            _ => "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>".to_owned(),
        };
        let mut login = offered();
        login.client(&authenticate(&bind(CARBONS)));
        let_in(&mut login, "");
        login.input(LoginInput::Upstream(Frame::Open(header())));
        login.upstream(&BIND.replace("<sm ", &format!("{session}<sm ")));
        bound_as(&mut login, "juliet@example.org/Phone");
        let asked: Vec<_> = login.to_upstream.iter().filter(|xml| xml.contains("xmpp-session")).collect();
        assert_eq!(asked.len(), usize::from(wants), "{session}");
        if wants {
            let at = |part: &str| login.to_upstream.iter().position(|xml| xml.contains(part)).unwrap();
            assert!(at("xmpp-session") < at("carbons"));
        }
    }
}

#[test]
fn a_late_answer_is_not_waited_for_and_never_reaches_the_client() {
    let mut login = asking(&settings(), CARBONS);
    let carbons = id_of(&login, "carbons");
    login.input(LoginInput::Stop(Stop::ServerSilent));
    assert!(login.to_client[0].contains("<bound xmlns='urn:xmpp:bind:0'/>"), "{:?}", login.to_client);
    let session = login.bound.take().unwrap();
    assert!(session.asked.unwrap().is_ours(&carbons));
    let patience = ServerAnswer::Extras.patience(Duration::from_secs(25));
    assert_eq!(patience, Duration::from_secs(5));
    assert_eq!(ServerAnswer::Extras.patience(Duration::from_secs(2)), Duration::from_secs(2));
}

#[test]
fn a_server_that_floods_the_login_does_not_hold_it_up() {
    let mut login = asking(&settings(), CARBONS);
    for n in 0..64 {
        assert!(login.bound.is_none(), "{n}");
        login.upstream(&format!("<message id='{n}'/>"));
    }
    assert_eq!(login.bound.take().unwrap().early.len(), 64);
    let mut login = offered();
    login.client(&authenticate(&bind("")));
    let_in(&mut login, "");
    login.input(LoginInput::Upstream(Frame::Open(header())));
    for _ in 0..64 {
        login.upstream("<message/>");
    }
    assert_eq!(login.closed, Some(CloseReason::UpstreamError), "it never sends its features");
}

#[test]
fn what_a_server_refuses_is_not_asked_for_again() {
    let settings = settings();
    let mut login = asking(&settings, CARBONS);
    let (carbons, metadata) = (id_of(&login, "carbons"), id_of(&login, "metadata"));
    refuse(&mut login, &carbons);
    refuse(&mut login, &metadata);
    assert!(login.to_client[0].contains("<bound xmlns='urn:xmpp:bind:0'/>"), "{:?}", login.to_client);
    assert!(login.bound.is_some());
    assert_eq!(
        settings.fronting.parts("example.org"),
        Some(FrontedParts { carbons: false, metadata: false, tokens: None })
    );
    let next = offered_over(&settings, Leg::Plain, OFFER);
    assert!(!next.to_client.last().unwrap().contains("carbons"));
    let login = asking(&settings, CARBONS);
    assert!(login.bound.is_some(), "nothing is asked, so nothing is waited for");
}

#[test]
fn without_a_bind_the_client_binds_by_itself() {
    let mut login = offered();
    login.client(&authenticate(""));
    let_in(&mut login, "=");
    reopened(&mut login);
    let success = "<success xmlns='urn:xmpp:sasl:2'><additional-data/>\
                   <authorization-identifier>juliet@example.org</authorization-identifier></success>";
    assert_eq!(login.to_client[0], success);
    assert!(login.to_client[1].contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"), "{:?}", login.to_client);
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    login.upstream("<iq type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>juliet@example.org/1</jid></bind></iq>");
    assert_eq!(login.bound.unwrap().jid.as_str(), "juliet@example.org/1");
}

#[test]
fn a_server_that_binds_another_account_than_it_named_ends_the_login() {
    let mut login = offered();
    login.client(&authenticate(""));
    let_in(&mut login, "");
    reopened(&mut login);
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    login.to_client.clear();
    login.upstream("<iq type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>romeo@example.org/1</jid></bind></iq>");
    assert!(login.bound.is_none());
    assert_eq!(
        (login.closed, &login.warnings[..]),
        (Some(CloseReason::OtherAccount), &[UpstreamWarning::OtherAccount][..])
    );
    assert!(login.to_client[0].starts_with("<stream:error>"), "{:?}", login.to_client);
    assert_eq!(login.to_upstream.last().unwrap(), "</stream:stream>");
}

#[test]
fn a_bind_that_the_server_refuses_leaves_it_to_the_client() {
    let mut login = offered();
    login.client(&authenticate(&bind(ENABLE)));
    let_in(&mut login, "");
    reopened(&mut login);
    let id = login.last_iq_id();
    refuse(&mut login, &id);
    assert!(!login.to_client[0].contains("bound") && login.to_client[0].contains(">juliet@example.org<"));
    assert!(login.to_client[1].contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"));
    assert!(login.negotiation.can_read_client() && login.closed.is_none());
}

#[test]
fn a_server_that_is_lost_before_the_success_is_a_stream_error() {
    for lost in [LoginInput::UpstreamLost, LoginInput::Upstream(Frame::Close)] {
        let mut login = asking(&settings(), "");
        login.input(lost);
        assert!(login.to_client[0].contains("<remote-connection-failed"), "{:?}", login.to_client);
        assert_eq!(login.closed, Some(CloseReason::UpstreamLost));
    }
}

#[test]
fn a_stream_error_of_the_server_is_the_only_one() {
    let mut login = asking(&settings(), "");
    let theirs = "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    login.upstream(theirs);
    login.input(LoginInput::Upstream(Frame::Close));
    assert_eq!(login.to_client, [theirs, "</stream:stream>"]);
    assert_eq!(login.closed, Some(CloseReason::UpstreamClosed));
}

#[test]
fn the_same_login_resumes_inline_and_the_server_is_not_asked_for_more() {
    let mut login = offered();
    login.client(&authenticate(&format!("{}{RESUME}", bind(ENABLE))));
    assert_eq!((&login.finds[..], &login.to_upstream[..]), (&[SmId::new("abc")][..], &[][..]), "decided before");
    login.found("juliet");
    let_in(&mut login, "dj0=");
    let resumption = login.handed_over.take().unwrap();
    assert_eq!((resumption.h.get(), login.server_restarts, &login.to_client[..]), (3, 0, &[][..]));
    let resumed = super::super::rewrite::sasl2::resumed(
        resumption.success.as_ref().unwrap(),
        &FullJid::new("juliet@example.org/Phone").unwrap(),
        b"<resumed/>",
    );
    let resumed = std::str::from_utf8(&resumed).unwrap();
    assert!(resumed.contains("<additional-data>dj0=</additional-data>"), "{resumed}");
    assert!(resumed.contains(">juliet@example.org/Phone</authorization-identifier><resumed/></success>"), "{resumed}");
}

#[test]
fn a_session_that_is_gone_or_not_proven_or_unknown_is_failed_and_the_bind_goes_on() {
    let held = |authcid: Option<&str>| {
        let identity = authcid.map(|authcid| SaslIdentity { host: "example.org".into(), authcid: authcid.into() });
        Ok(HeldSession { account: BareJid::new("juliet@example.org").unwrap(), identity })
    };
    for (found, gone) in [
        (Err(None), false),
        (held(None), false),
        (held(Some("Juliet")), false),
        (held(Some("romeo")), false),
        (held(Some("juliet")), true),
    ] {
        let mut login = offered();
        login.client(&authenticate(&format!("{}{RESUME}", bind(""))));
        login.input(LoginInput::Found(found));
        let_in(&mut login, "");
        assert_eq!(login.handed_over.is_some(), gone);
        if gone {
            login.input(LoginInput::Gone(None));
        }
        reopened(&mut login);
        assert_eq!(login.to_upstream.iter().filter(|xml| xml.contains("xmpp-bind")).count(), 1, "no probe");
        bound_as(&mut login, "juliet@example.org/Phone");
        let metadata = id_of(&login, "metadata");
        refuse(&mut login, &metadata);
        assert!(login.to_client[0].ends_with(&format!("{NOT_FOUND}</success>")), "{:?}", login.to_client);
        assert!(login.bound.is_some());
    }
}

#[test]
fn a_session_of_another_account_is_not_resumed() {
    let mut login = offered();
    login.client(&authenticate(&format!("{}{RESUME}", bind(""))));
    login.found("romeo");
    let_in(&mut login, "");
    assert!(login.handed_over.is_none());
    reopened(&mut login);
    let mut login = offered();
    let mut header = Login::with(settings());
    header.input(LoginInput::Client(client_header_with("example.org", " from='romeo@example.org'")));
    login.client(&authenticate_with("juliet@example.org\0juliet\0secret", RESUME));
    login.found("juliet");
    let_in(&mut login, "");
    assert!(login.handed_over.is_none(), "with an authorization identity, the login is not the same");
}

#[test]
fn an_authorization_identity_of_another_account_is_refused_before_the_server_is_asked() {
    for (message, condition) in [
        ("romeo\0juliet\0x", "invalid-authzid"),
        ("romeo@example.org\0juliet\0x", "invalid-authzid"),
        ("juliet@example.org/phone\0juliet\0x", "invalid-authzid"),
        ("\0\0x", "malformed-request"),
        ("\0juliet@example.net\0x", "malformed-request"),
        ("juliet", "malformed-request"),
    ] {
        let mut login = offered();
        login.client(&authenticate_with(message, ""));
        assert_eq!((&login.to_upstream[..], &login.to_client[..]), (&[][..], &[refusal(condition)][..]), "{message:?}");
        login.client(&authenticate(""));
        assert_eq!(login.to_upstream, [auth("\0juliet\0secret")], "another attempt works");
    }
    let mut login = offered();
    login.client(&authenticate_with("Juliet@example.org\0juliet\0x", ""));
    assert_eq!(login.to_upstream, [auth("Juliet@example.org\0juliet\0x")]);
}

#[test]
fn a_name_in_a_later_message_is_checked_too() {
    let mut login = offered();
    login.client("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'/>");
    assert_eq!(login.to_upstream, ["<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'/>"]);
    login.upstream("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    login.client(&format!("<response xmlns='urn:xmpp:sasl:2'>{}</response>", plain("n,a=romeo,n=juliet,r=1")));
    assert_eq!(login.to_upstream.last().unwrap(), "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    login.to_client.clear();
    login.upstream("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><aborted/></failure>");
    assert_eq!((&login.to_client[..], login.failed), (&[refusal("invalid-authzid")][..], 0));
    login.client(&authenticate(""));
    assert_eq!(login.to_upstream.last().unwrap(), &auth("\0juliet\0secret"));
}

#[test]
fn a_mechanism_that_was_not_offered_is_refused_here() {
    for mechanism in ["X-OAUTH2", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "HT-SHA-512-NONE", "EXTERNAL", ""] {
        let mut login = offered();
        login.client(&format!("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'/>"));
        assert_eq!((&login.to_upstream[..], &login.to_client[..]), (&[][..], &[refusal("invalid-mechanism")][..]));
    }
}

#[test]
fn a_failure_is_translated_and_either_profile_may_go_on() {
    let mut login = offered();
    login.client(&authenticate(""));
    login.upstream(FAILURE);
    let failure = "<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>\
                   <text xmlns='urn:xmpp:sasl:2'>No.</text></failure>";
    assert_eq!((login.to_client.last().unwrap().as_str(), login.sasl_failed.len(), login.failed), (failure, 1, 1));
    login.auth("juliet");
    login.upstream(FAILURE);
    assert_eq!(login.to_client.last().unwrap(), FAILURE);
    login.client(&authenticate(""));
    let_in(&mut login, "");
    assert_eq!(login.server_restarts, 1);
}

#[test]
fn an_abort_aborts_and_another_attempt_works() {
    let mut login = offered();
    login.client("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>");
    login.upstream("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    login.client("<abort xmlns='urn:xmpp:sasl:2'/>");
    assert_eq!(login.to_upstream.last().unwrap(), "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    login.upstream("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><aborted/></failure>");
    assert_eq!(login.to_client.last().unwrap(), &refusal("aborted"));
    login.to_upstream.clear();
    login.client("<abort xmlns='urn:xmpp:sasl:2'/>");
    assert_eq!((&login.to_upstream[..], login.to_client.last().unwrap()), (&[][..], &refusal("aborted")));
    login.to_client.clear();
    login.client("<response xmlns='urn:xmpp:sasl:2'/>");
    assert_eq!((&login.to_upstream[..], &login.to_client[..]), (&[][..], &[refusal("aborted")][..]));
    login.auth("juliet");
    login.upstream("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert_eq!(login.restarts, 1);
}

#[test]
fn the_profiles_do_not_mix_in_one_exchange() {
    let open = |profile: &str| {
        let mut login = offered();
        if profile == ns::SASL2 {
            login.client("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'/>");
        } else {
            login.client("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'/>");
        }
        login.upstream("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        login
    };
    for (profile, others) in [(ns::SASL2, ns::SASL), (ns::SASL, ns::SASL2)] {
        for name in ["auth", "authenticate", "response", "abort", "next"] {
            let mut login = open(profile);
            login.client(&format!("<{name} xmlns='{others}' mechanism='PLAIN'/>"));
            assert_eq!(login.closed, Some(CloseReason::ClientError), "<{name} xmlns='{others}'/>");
        }
    }
    let mut login = open(ns::SASL2);
    login.client("<next xmlns='urn:xmpp:sasl:2'/>");
    assert_eq!(login.closed, Some(CloseReason::ClientError), "the server has no tasks");
    for forged in ["<challenge xmlns='urn:xmpp:sasl:2'/>", "<success xmlns='urn:xmpp:sasl:2'/>"] {
        let mut login = offered();
        login.client(&authenticate(""));
        login.upstream(forged);
        assert_eq!(login.closed, Some(CloseReason::UpstreamError), "{forged}");
    }
}

#[test]
fn after_the_success_no_profile_goes_on() {
    for xml in [authenticate(""), auth("\0juliet\0x"), "<response xmlns='urn:xmpp:sasl:2'/>".to_owned()] {
        let mut login = offered();
        login.client(&authenticate(""));
        let_in(&mut login, "");
        reopened(&mut login);
        login.client(&xml);
        assert_eq!(login.closed, Some(CloseReason::ClientError), "{xml}");
    }
}

#[test]
fn a_server_whose_challenges_depend_on_its_offers_is_not_fronted_from_then_on() {
    for (attribute, ends) in [("h=aGFzaA==", true), ("d=aGFzaA==", true), ("t=1", true), ("x=1", false)] {
        for sasl2 in [false, true] {
            let settings = settings();
            let mut login = offered_with(&settings);
            let first = plain("n,,n=juliet,r=1");
            login.client(&if sasl2 {
                format!(
                    "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'>\
                     <initial-response>{first}</initial-response></authenticate>"
                )
            } else {
                format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>{first}</auth>")
            });
            let challenge = plain(&format!("r=12,s=c2FsdA==,i=4096,{attribute}"));
            login.upstream(&format!("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{challenge}</challenge>"));
            assert_eq!(login.warnings.contains(&UpstreamWarning::FrontingEnds), ends, "{attribute}");
            let next = offered_over(&settings, Leg::Plain, OFFER);
            assert_eq!(next.to_client.last().unwrap().contains("urn:xmpp:sasl:2"), !ends, "{attribute}");
        }
    }
}

#[test]
fn a_server_that_declares_other_namespaces_after_its_restart_is_not_read() {
    let mut login = offered();
    login.client(&authenticate(""));
    let_in(&mut login, "");
    let other =
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:x='urn:x' id='2'>";
    login.input(LoginInput::Upstream(Frame::Open(Arc::new(Header::parse(Bytes::from(other)).unwrap()))));
    assert_eq!(login.closed, Some(CloseReason::UpstreamError));
}

#[test]
fn a_login_with_the_resource_of_a_held_session_ends_it_only_with_proof() {
    let mut login = offered();
    login.client(&authenticate(&bind("")));
    let_in(&mut login, "");
    reopened(&mut login);
    let identity = SaslIdentity { host: "example.org".into(), authcid: "juliet".into() };
    assert_eq!(login.released[0].0, Proof::Login(identity));
    let mut login = offered();
    login.client(&authenticate_with("juliet@example.org\0juliet\0secret", &bind("")));
    let_in(&mut login, "");
    reopened(&mut login);
    assert_eq!(login.released, [], "nothing is proven");
}

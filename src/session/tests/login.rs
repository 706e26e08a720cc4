//! Stream opening, SASL, stream features, resource binding and the proof that a resumption needs.

use std::collections::HashSet;

use base64::Engine as _;

use super::super::SmId;
use super::super::mechanism_filter::{Leg, UpstreamWarning};
use super::super::negotiate::{
    CloseReason, HeldSession, LocateRequest, Lockout, LoginInput, LoginOutput, Negotiation, PassedStream, Proof,
    SaslFailure, Stop,
};
use super::*;
use crate::jid::BareJid;
use crate::push::fast::TokenProof;
use crate::session::TokenWish;
use crate::session::mechanism_filter::ChannelBinding;
use crate::session::sasl::LoginMethod;

const FEATURES: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                        <mechanism>PLAIN</mechanism></mechanisms></stream:features>";
const BIND: &str = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const RESUME: &str = "<resume xmlns='urn:xmpp:sm:3' previd='abc' h='3'/>";

/// A connection that has not bound yet, with its outputs so far.
pub(super) struct Login {
    pub(super) negotiation: Negotiation,
    pub(super) to_client: Vec<String>,
    pub(super) to_upstream: Vec<String>,
    pub(super) connects: Vec<String>,
    pub(super) finds: Vec<SmId>,
    pub(super) questions: Vec<LocateRequest>,
    pub(super) claimed: Vec<BareJid>,
    pub(super) passed: Option<PassedStream>,
    pub(super) handed_over: Option<Resumption>,
    pub(super) bound: Option<Box<Bound>>,
    pub(super) released: Vec<(Proof, String)>,
    pub(super) restarts: usize,
    pub(super) server_restarts: usize,
    pub(super) checked: Vec<(BareJid, TokenProof)>,
    pub(super) wished: Vec<(BareJid, TokenWish, Option<String>)>,
    pub(super) revoked: Vec<BareJid>,
    pub(super) method: Option<LoginMethod>,
    pub(super) round_trips_saved: u32,
    pub(super) warnings: Vec<UpstreamWarning>,
    pub(super) sasl_failed: Vec<SaslFailure>,
    pub(super) failed: usize,
    refused: usize,
    pub(super) closed: Option<CloseReason>,
}

pub(super) fn client_header(to: &str) -> Frame {
    client_header_with(to, "")
}

pub(super) fn client_header_with(to: &str, attributes: &str) -> Frame {
    let xml = format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         to='{to}' version='1.0'{attributes}>"
    );
    Frame::Open(Arc::new(Header::parse(Bytes::from(xml)).unwrap()))
}

impl Login {
    pub(super) fn new() -> Self {
        Self::with(Arc::default())
    }

    /// A connection under these settings.
    pub(super) fn with(settings: Arc<Settings>) -> Self {
        let hosts = Arc::new(HashSet::from(["example.org".to_owned()]));
        Self {
            negotiation: Negotiation::new(hosts, settings, random, Instant::now()),
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            connects: Vec::new(),
            finds: Vec::new(),
            questions: Vec::new(),
            claimed: Vec::new(),
            passed: None,
            handed_over: None,
            bound: None,
            released: Vec::new(),
            restarts: 0,
            server_restarts: 0,
            checked: Vec::new(),
            wished: Vec::new(),
            revoked: Vec::new(),
            method: None,
            round_trips_saved: 0,
            warnings: Vec::new(),
            sasl_failed: Vec::new(),
            failed: 0,
            refused: 0,
            closed: None,
        }
    }

    /// A stream on which SASL may begin.
    pub(super) fn opened() -> Self {
        let mut login = Self::new();
        login.input(LoginInput::Client(client_header("example.org")));
        login.input(LoginInput::Connected(Leg::Plain));
        login.input(LoginInput::Upstream(Frame::Open(header())));
        login.upstream(FEATURES);
        login
    }

    /// A stream on which this account may bind or resume.
    pub(super) fn authenticated(user: &str) -> Self {
        let mut login = Self::opened();
        login.auth(user);
        login.upstream(SUCCESS);
        login.restart();
        login
    }

    pub(super) fn auth(&mut self, user: &str) {
        let message = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0secret"));
        self.client(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>"));
    }

    pub(super) fn restart(&mut self) {
        self.input(LoginInput::Client(client_header("example.org")));
        self.input(LoginInput::Upstream(Frame::Open(header())));
        self.upstream(BIND);
        self.to_client.clear();
        self.to_upstream.clear();
    }

    pub(super) fn client(&mut self, xml: &str) {
        assert!(self.negotiation.can_read_client(), "{xml} would have to wait");
        self.input(LoginInput::Client(frame(xml)));
    }

    pub(super) fn upstream(&mut self, xml: &str) {
        self.input(LoginInput::Upstream(frame(xml)));
    }

    pub(super) fn input(&mut self, input: LoginInput) {
        self.negotiation.handle(input);
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        while let Some(output) = self.negotiation.poll() {
            match output {
                LoginOutput::ToClient(bytes) | LoginOutput::ReplyToClient(bytes) => self.to_client.push(text(bytes)),
                LoginOutput::ToUpstream(bytes) => self.to_upstream.push(text(bytes)),
                LoginOutput::Connect(host) => self.connects.push(host),
                LoginOutput::Authenticated(method) => self.method = Some(method),
                LoginOutput::Claim(account) => self.claimed.push(account),
                LoginOutput::Answered => {}
                LoginOutput::Locate(question) => self.questions.push(*question),
                LoginOutput::PassOn(passed) => self.passed = Some(*passed),
                LoginOutput::RoundTripsSaved(saved) => self.round_trips_saved += saved,
                LoginOutput::SaslFailed(failure) => self.sasl_failed.push(failure),
                LoginOutput::LoginFailed => self.failed += 1,
                LoginOutput::LoginRefused => self.refused += 1,
                LoginOutput::Restart => self.restarts += 1,
                LoginOutput::RestartServer => self.server_restarts += 1,
                LoginOutput::CheckToken { account, proof } => self.checked.push((account, *proof)),
                LoginOutput::IssueToken { account, wish, authcid } => self.wished.push((account, wish, authcid)),
                LoginOutput::RevokeTokens(account) => self.revoked.push(account),
                LoginOutput::Find(id) => self.finds.push(id),
                LoginOutput::HandOver { resumption, .. } => self.handed_over = Some(resumption),
                LoginOutput::Release { proof, resource } => self.released.push((proof, resource)),
                LoginOutput::Bound(bound) => self.bound = Some(bound),
                LoginOutput::UpstreamWarning { warning, .. } => self.warnings.push(warning),
                LoginOutput::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    pub(super) fn found(&mut self, user: &str) {
        let identity = Some(SaslIdentity { host: "example.org".into(), authcid: user.into() });
        let account = BareJid::new(&format!("{user}@example.org")).unwrap();
        self.input(LoginInput::Found(Ok(HeldSession { account, identity })));
    }

    pub(super) fn resumed_from(&self) -> Option<u32> {
        self.handed_over.as_ref().map(|resumption| resumption.h.get())
    }

    pub(super) fn last_iq_id(&self) -> String {
        element(self.to_upstream.last().unwrap()).node().attr("id").unwrap().into_owned()
    }
}

#[test]
fn headers_and_sasl_pass_as_they_came() {
    let mut login = Login::opened();
    assert_eq!(login.connects, ["example.org"]);
    assert!(login.to_upstream[0].starts_with("<?xml version='1.0'?><stream:stream xmlns='jabber:client'"));
    assert!(login.to_client[1].contains("<mechanism>PLAIN</mechanism>"));
    login.auth("juliet");
    assert!(!login.negotiation.can_read_client(), "the next auth waits for the answer to this one");
    login.upstream("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>");
    login.auth("juliet");
    login.upstream(SUCCESS);
    assert_eq!(login.to_client.last().unwrap(), SUCCESS);
}

#[test]
fn an_unknown_host_is_refused_without_asking_any_server() {
    let mut login = Login::new();
    login.input(LoginInput::Client(client_header("example.com")));
    assert_eq!(login.closed, Some(CloseReason::HostUnknown));
    assert!(login.to_client[0].contains("from='example.com'") && login.to_client[0].contains("<host-unknown"));
    assert_eq!(login.connects, Vec::<String>::new());
}

#[test]
fn a_server_that_is_down_is_a_stream_error_behind_a_header() {
    let mut login = Login::new();
    login.input(LoginInput::Client(client_header("example.org")));
    login.input(LoginInput::UpstreamLost);
    let reply = login.to_client.concat();
    assert!(reply.starts_with("<?xml version='1.0'?><stream:stream"), "{reply}");
    assert!(reply.contains("<remote-connection-failed") && reply.ends_with("</stream:stream>"), "{reply}");
    assert_eq!(login.closed, Some(CloseReason::UpstreamLost));
}

#[test]
fn the_bind_result_is_the_identity() {
    let mut login = Login::authenticated("juliet");
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(!login.negotiation.can_read_client());
    let result = "<iq type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                  <jid>juliet@example.org/phone</jid></bind></iq>";
    login.upstream(result);
    assert_eq!(login.to_client, [result]);
    let bound = login.bound.unwrap();
    assert_eq!(bound.jid.as_str(), "juliet@example.org/phone");
    assert_eq!(bound.identity.unwrap().authcid, "juliet");
}

#[test]
fn a_bind_that_fails_can_be_tried_again() {
    let mut login = Login::authenticated("juliet");
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    login.upstream("<iq type='error' id='b'><error type='cancel'/></iq>");
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(login.bound.is_none());
}

/// Invariant 4: neither the id alone nor the login of any other account is enough to resume.
#[test]
fn the_same_login_resumes_at_once() {
    let mut login = Login::authenticated("juliet");
    login.client(RESUME);
    assert_eq!(login.finds, [SmId::new("abc")]);
    login.found("juliet");
    assert_eq!(login.resumed_from(), Some(3));
    assert_eq!(login.to_upstream, Vec::<String>::new());
}

#[test]
fn another_login_is_probed_and_refused() {
    let mut login = Login::authenticated("mallory");
    login.client(RESUME);
    login.found("juliet");
    assert_eq!(login.resumed_from(), None);
    let id = login.last_iq_id();
    login.upstream(&format!(
        "<iq type='result' id='{id}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>mallory@example.org/1</jid></bind></iq>"
    ));
    assert_eq!(login.resumed_from(), None);
    assert_eq!(login.closed, Some(CloseReason::ResumeRefused));
    assert!(login.to_client[0].starts_with("<failed xmlns='urn:xmpp:sm:3'><item-not-found"));
}

#[test]
fn an_opaque_login_is_probed_and_resumes_if_the_server_says_so() {
    let mut login = Login::opened();
    login.client("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='OAUTHBEARER'>bixh</auth>");
    login.upstream(SUCCESS);
    login.restart();
    login.client(RESUME);
    login.found("juliet");
    assert!(login.to_upstream[0].contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"));
    let id = login.last_iq_id();
    login.upstream("<message><body>for the probe</body></message>");
    login.upstream(&format!(
        "<iq type='result' id='{id}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>juliet@example.org/1</jid></bind></iq>"
    ));
    assert_eq!(login.resumed_from(), Some(3));
    assert_eq!(login.to_client, Vec::<String>::new());
}

#[test]
fn what_a_failed_login_said_proves_nothing() {
    let mut login = Login::opened();
    login.auth("juliet");
    login.upstream("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>");
    login.client("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>");
    login.upstream(SUCCESS);
    login.restart();
    login.client(RESUME);
    login.found("juliet");
    assert_eq!(login.resumed_from(), None);
}

#[test]
fn a_name_in_a_message_with_child_elements_proves_nothing() {
    let mut login = Login::opened();
    let message = base64::engine::general_purpose::STANDARD.encode("\0juliet\0secret");
    login.client(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}<x/></auth>"));
    login.upstream(SUCCESS);
    login.restart();
    login.client(RESUME);
    login.found("juliet");
    assert!(login.handed_over.is_none() && login.to_upstream[0].contains("xmpp-bind"), "the server is asked");
}

#[test]
fn an_unknown_previd_fails_and_the_client_binds_on() {
    let mut login = Login::authenticated("juliet");
    login.client(RESUME);
    login.input(LoginInput::Found(Err(None)));
    assert_eq!(
        login.to_client,
        ["<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"]
    );
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert_eq!(login.to_upstream.len(), 1);
}

#[test]
fn a_session_that_ended_while_it_was_resumed_fails_too() {
    let mut login = Login::authenticated("juliet");
    login.client(RESUME);
    login.found("juliet");
    login.input(LoginInput::Gone(None));
    assert!(login.to_client[0].starts_with("<failed "));
    login.client("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
}

#[test]
fn nothing_that_logs_in_or_changes_the_stream_unseen_is_forwarded() {
    for xml in [
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        "<compress xmlns='http://jabber.org/protocol/compress'/>",
        "<message to='romeo@example.net'/>",
    ] {
        let mut login = Login::opened();
        login.client(xml);
        assert!(!login.to_upstream.iter().any(|sent| sent == xml), "{xml}");
        assert_eq!(login.closed, Some(CloseReason::ClientError), "{xml}");
    }
    let mut login = Login::opened();
    login.client("<iq type='get' id='a'><query xmlns='jabber:iq:auth'/></iq>");
    assert!(login.to_client.last().unwrap().contains("service-unavailable"));
    login.client("<iq type='get' id='a'><query xmlns='jabber:iq:register'/></iq>");
    assert!(login.to_upstream.last().unwrap().contains("jabber:iq:register"));
}

// The server's TLS and the client's channel binding (RFC 5802 §6, XEP-0474)

const OFFERS_PLUS: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
    <mechanism>SCRAM-SHA-1-PLUS</mechanism><mechanism>SCRAM-SHA-1</mechanism></mechanisms></stream:features>";
const REFUSED: &str = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><malformed-request/></failure>";

fn scram(login: &mut Login, first: &str) {
    let message = base64::engine::general_purpose::STANDARD.encode(first);
    login.client(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>{message}</auth>"));
}

fn challenge(login: &mut Login, text: &str) {
    let message = base64::engine::general_purpose::STANDARD.encode(text);
    login.upstream(&format!("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{message}</challenge>"));
}

fn offered(leg: Leg, features: &str) -> Login {
    let mut login = Login::new();
    login.input(LoginInput::Client(client_header("example.org")));
    login.input(LoginInput::Connected(leg));
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(features);
    login
}

#[test]
fn a_client_refused_for_the_channel_binding_it_misses_is_noticed() {
    for (features, first, expect) in [
        (OFFERS_PLUS, "y,,n=juliet,r=1", &[UpstreamWarning::BindingMissed][..]),
        (OFFERS_PLUS, "n,,n=juliet,r=1", &[]),
        (FEATURES, "y,,n=juliet,r=1", &[]),
    ] {
        let mut login = offered(Leg::Tls(ChannelBinding::Strip), features);
        scram(&mut login, first);
        login.upstream(REFUSED);
        assert_eq!(login.warnings, expect, "{first} of {features}");
        assert_eq!(login.to_client.last().map(String::as_str), Some(REFUSED));
    }
}

#[test]
fn a_hash_of_offers_is_noticed_where_some_were_stripped() {
    for (features, server_first, expect) in [
        (OFFERS_PLUS, "r=12,s=c2E=,i=4096,h=aGFzaA==", &[UpstreamWarning::OffersHashed][..]),
        (OFFERS_PLUS, "r=12,s=c2E=,i=4096", &[]),
        (FEATURES, "r=12,s=c2E=,i=4096,h=aGFzaA==", &[]),
    ] {
        let mut login = offered(Leg::Tls(ChannelBinding::Strip), features);
        scram(&mut login, "n,,n=juliet,r=1");
        challenge(&mut login, server_first);
        assert_eq!(login.warnings, expect, "{server_first} after {features}");
    }
}

#[test]
fn a_server_that_requires_tls_on_a_plain_leg_ends_the_login() {
    let required =
        "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>";
    let login = offered(Leg::Plain, required);
    assert_eq!(login.warnings, [UpstreamWarning::TlsRequired]);
    assert_eq!(login.closed, Some(CloseReason::UpstreamWantsTls));
    assert!(login.to_client.last().is_some_and(|last| last.contains("<remote-connection-failed")));
    assert!(offered(Leg::Tls(ChannelBinding::Strip), required).warnings.is_empty());
}

#[test]
fn a_server_that_sends_its_clients_elsewhere_is_out_of_reach() {
    let mut login = Login::opened();
    login.upstream(
        "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>10.0.0.1</see-other-host></stream:error>",
    );
    let written = login.to_client.concat();
    assert!(!written.contains("see-other-host") && written.contains("remote-connection-failed"), "{written}");
    assert_eq!(login.closed, Some(CloseReason::UpstreamLost));
}

#[test]
fn a_failed_login_counts_unless_the_client_gave_up_or_the_server_could_not_ask() {
    let mut login = Login::opened();
    for (n, (condition, counted)) in
        [("not-authorized", 1), ("aborted", 1), ("temporary-auth-failure", 1), ("account-disabled", 2)]
            .into_iter()
            .enumerate()
    {
        login.auth("juliet");
        login.upstream(&format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/></failure>"));
        assert_eq!((login.failed, login.sasl_failed.len()), (counted, n + 1), "{condition}");
        let failure = login.sasl_failed.last().unwrap();
        assert_eq!((&*failure.host, &*failure.mechanism, &*failure.condition), ("example.org", "PLAIN", condition));
    }
}

#[test]
fn a_locked_out_login_is_refused_here_and_the_server_is_not_asked() {
    let mut login = Login::opened();
    login.negotiation.set_lockout(Lockout::Active);
    login.to_upstream.clear();
    let sasl = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGp1bGlldABzZWNyZXQ=</auth>";
    let sasl2 = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>";
    for (request, profile) in [
        (sasl, "urn:ietf:params:xml:ns:xmpp-sasl"),
        (sasl2, "urn:xmpp:sasl:2"),
        (sasl, "urn:ietf:params:xml:ns:xmpp-sasl"),
    ] {
        login.client(request);
        let answer = element(login.to_client.last().unwrap());
        assert!(answer.is("failure", profile), "{answer:?}");
        assert!(answer.node().child("temporary-auth-failure", "urn:ietf:params:xml:ns:xmpp-sasl").is_some());
    }
    assert!(login.to_upstream.is_empty() && login.closed.is_none());
    login.client(sasl);
    assert!(login.to_client.last().is_some_and(|last| last.contains("<policy-violation")));
    assert_eq!((login.refused, login.failed, login.closed), (4, 0, Some(CloseReason::LockedOut)));
    assert_eq!(login.to_upstream, ["</stream:stream>"]);
}

#[test]
fn a_login_that_has_to_make_room_gets_an_error() {
    let mut login = Login::opened();
    login.input(LoginInput::Stop(Stop::Crowded));
    assert!(login.to_client.last().is_some_and(|last| last.contains("<resource-constraint")));
    assert_eq!(login.closed, Some(CloseReason::Crowded));
}

#[test]
fn an_error_on_a_stream_that_begins_again_has_a_header_in_front() {
    let restarting = || {
        let mut login = Login::opened();
        login.auth("juliet");
        login.upstream(SUCCESS);
        login.to_client.clear();
        login.to_upstream.clear();
        login
    };
    let check = |login: &Login, error: &str, to_upstream: &[&str]| {
        let reply = login.to_client.concat();
        assert!(reply.starts_with("<?xml version='1.0'?><stream:stream"), "{reply}");
        assert!(reply.contains(error) && reply.ends_with("</stream:stream>"), "{reply}");
        assert_eq!(login.to_upstream, to_upstream);
    };
    let mut login = restarting();
    login.input(LoginInput::Stop(Stop::Timeout));
    check(&login, "<connection-timeout", &[]);
    // The server has a header again, and the client has none.
    let mut login = restarting();
    login.input(LoginInput::Client(client_header("example.org")));
    login.to_upstream.clear();
    login.input(LoginInput::UpstreamLost);
    check(&login, "<remote-connection-failed", &["</stream:stream>"]);
}

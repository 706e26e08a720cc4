//! Logins by token in front of a server that lacks SASL2 (XEP-0484).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::SmId;
use super::super::mechanism_filter::Leg;
use super::super::negotiate::{CloseReason, Ended, HeldSession, Lockout, LoginInput, TokenRefusal};
use super::fronted::{
    AGENT, BIND, OFFER, RESUME, auth, authenticate, authenticate_with, bind, bound_as, id_of, let_in, offered_over,
    plain, refusal, refuse, settings,
};
use super::login::{Login, client_header_with};
use super::*;
use crate::jid::BareJid;
use crate::push::fast::{FastSettings, IssuedToken, TokenBinding, TokenMechanism, TokenRequest};
use crate::session::TokenWish;

const WISH: &str = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
const FAST: &str = "<fast xmlns='urn:xmpp:fast:0'/>";
const FROM: &str = " from='juliet@example.org'";
const CHANNEL: [u8; 32] = [7; 32];

/// Settings under which a client was connected before: the server is known.
fn known() -> Arc<Settings> {
    let settings = settings();
    offered_with_header(&settings, FROM, OFFER);
    settings
}

/// A client whose header has these attributes gets these features of the server.
fn offered_with_header(settings: &Arc<Settings>, attributes: &str, features: &str) {
    let mut login = Login::with(Arc::clone(settings));
    login.input(LoginInput::Client(client_header_with("example.org", attributes)));
    login.input(LoginInput::Connected(Leg::Plain));
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(features);
}

/// A connection whose client's header has these attributes.
fn opened(settings: &Arc<Settings>, attributes: &str) -> Login {
    let mut login = Login::with(Arc::clone(settings));
    login.negotiation.set_channel(Some(CHANNEL));
    login.input(LoginInput::Client(client_header_with("example.org", attributes)));
    login
}

fn initial(user: &str) -> String {
    STANDARD.encode([user.as_bytes(), b"\0", &[1; 32]].concat())
}

fn token_with(mechanism: &str, initial: &str, inner: &str) -> String {
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{initial}</initial-response>{inner}\
         </authenticate>"
    )
}

/// The `<authenticate/>` of juliet's token with these elements.
fn token(inner: &str) -> String {
    token_with("HT-SHA-256-NONE", &initial("juliet"), &format!("{AGENT}{inner}"))
}

fn held(user: &str) -> Result<HeldSession, Option<Ended>> {
    Ok(HeldSession { account: BareJid::new(&format!("{user}@example.org")).unwrap(), identity: None })
}

fn issued() -> IssuedToken {
    let request = TokenRequest { agent: "a".into(), mechanism: TokenMechanism::Sha256None, root: UnixSecs::new(1) };
    IssuedToken::new(request, FastSettings::default().ttl, UnixSecs::new(1), random).unwrap()
}

/// The server is connected at last, and sends these features.
fn connected(login: &mut Login, features: &str) {
    assert_eq!(login.connects, ["example.org"]);
    assert!(!login.negotiation.can_read_client());
    login.to_client.clear();
    login.input(LoginInput::Connected(Leg::Plain));
    assert!(login.to_upstream[0].contains("to='example.org'"), "{:?}", login.to_upstream);
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(features);
}

#[test]
fn a_client_that_may_have_a_token_gets_the_last_features_and_no_server_is_connected() {
    let settings = known();
    let login = opened(&settings, FROM);
    assert_eq!((&login.connects[..], &login.to_upstream[..]), (&[][..], &[][..]));
    let [header, features] = &login.to_client[..] else { panic!("{:?}", login.to_client) };
    assert!(header.contains("from='example.org'") && !header.contains("id='1'"), "{header}");
    let mechanisms = "<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-EXPR</mechanism><mechanism>HT-SHA-256-NONE</mechanism></fast>";
    assert!(features.contains(mechanisms) && features.contains("<register "), "{features}");
    let header_of = |login: Login| login.to_client[0].clone();
    assert_ne!(header_of(opened(&settings, FROM)), header_of(opened(&settings, FROM)), "each stream has its own id");
}

/// Some servers answer in the language of the client's header, others in their own or in none. The header that a client gets from
/// memory had the language of the client itself, and was never used where the server's has another one.
#[test]
fn a_client_gets_the_header_that_the_server_sends_in_its_language() {
    let settings = settings();
    let server = |lang: &str| {
        let xml = format!(
            "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client' xmlns:x='urn:x' id='2'{lang}>"
        );
        LoginInput::Upstream(Frame::Open(Arc::new(Header::parse(Bytes::from(xml)).unwrap())))
    };
    let languages = [(" xml:lang='de'", " xml:lang='de'"), (" xml:lang='fr'", " xml:lang='en'"), ("", "")];
    for (asked, answered) in languages {
        let mut login = opened(&settings, &format!("{FROM}{asked}"));
        assert_eq!(login.connects, ["example.org"], "nothing is known for this language");
        login.input(LoginInput::Connected(Leg::Plain));
        login.input(server(answered));
        login.upstream(OFFER);
    }
    for (asked, answered) in languages {
        let mut login = opened(&settings, &format!("{FROM}{asked}"));
        assert!(login.connects.is_empty());
        let header = login.to_client[0].clone();
        assert!(
            header.contains(" xmlns:x='urn:x'") && header.ends_with(&format!(" version='1.0'{answered}>")),
            "{header}"
        );
        login.client(&authenticate(""));
        login.input(LoginInput::Connected(Leg::Plain));
        login.input(server(answered));
        login.upstream(OFFER);
        assert_eq!(login.closed, None);
    }
    // The features are the same in all languages.
    offered_with_header(&settings, &format!("{FROM} xml:lang='it'"), &OFFER.replace("PLAIN", "X-OTHER"));
    assert_eq!(opened(&settings, &format!("{FROM} xml:lang='de'")).connects, ["example.org"]);
}

#[test]
fn the_server_is_connected_at_the_header_if_no_token_is_possible_or_nothing_is_known() {
    let off = Settings { fast: FastSettings { ttl: Duration::ZERO }, ..(*known()).clone() };
    let not_fronted = known();
    not_fronted.fronting.on_own_sasl2("example.org");
    for (settings, attributes) in [
        (settings(), FROM),
        (known(), ""),
        (known(), " from='juliet@example.net'"),
        (known(), " from='example.org'"),
        (Arc::new(off), FROM),
        (not_fronted, FROM),
    ] {
        let login = opened(&settings, attributes);
        assert_eq!((&login.connects[..], login.to_client.len()), (&["example.org".to_owned()][..], 0), "{attributes}");
    }
}

#[test]
fn a_token_goes_to_the_session_and_the_server_is_never_connected() {
    let mut login = opened(&known(), FROM);
    login.to_client.clear();
    login.client(&token(&format!("{}{RESUME}<fast xmlns='urn:xmpp:fast:0' count='5'/>{WISH}", bind(""))));
    assert_eq!(login.finds, [SmId::new("abc")]);
    login.input(LoginInput::Found(held("juliet")));
    let mut resumption = login.handed_over.take().unwrap();
    let proof = resumption.tokens.proof.clone().unwrap();
    assert_eq!(
        (proof.agent.as_str(), proof.count, proof.invalidate),
        ("d4565fa7-4d72-4749-b3d3-740edbf87770", Some(5), false)
    );
    assert_eq!((proof.binding, *proof.hash.expose(), resumption.h.get()), (TokenBinding::Unbound, [1; 32], 3));
    assert_eq!(resumption.tokens.wish.as_ref().unwrap().mechanism, TokenMechanism::Sha256None);
    assert_eq!((&login.to_client[..], &login.connects[..], &login.to_upstream[..]), (&[][..], &[][..], &[][..]));
    let new = issued();
    resumption.complete(Some(&[2; 32]), Some(&new));
    let jid = FullJid::new("juliet@example.org/Phone").unwrap();
    let success = super::super::rewrite::sasl2::resumed(resumption.success.as_ref().unwrap(), &jid, b"<resumed/>");
    let success = std::str::from_utf8(&success).unwrap();
    let data = STANDARD.encode([2; 32]);
    assert!(
        success.starts_with(&format!(
            "<success xmlns='urn:xmpp:sasl:2'><additional-data xmlns='urn:xmpp:sasl:2'>{data}</additional-data>\
         <authorization-identifier xmlns='urn:xmpp:sasl:2'>juliet@example.org/Phone</authorization-identifier>"
        )),
        "{success}"
    );
    let token = format!("expiry='{}' token='{}'/>", new.expiry(), new.text.expose());
    assert!(success.contains(&token) && success.ends_with("<resumed/></success>"), "{success}");
}

#[test]
fn a_token_with_channel_binding_is_bound_to_the_connection_of_the_client() {
    let mut login = opened(&known(), FROM);
    login.client(&token_with("HT-SHA-256-EXPR", &initial("juliet"), &format!("{AGENT}{RESUME}{FAST}")));
    login.input(LoginInput::Found(held("juliet")));
    assert_eq!(login.handed_over.unwrap().tokens.proof.unwrap().binding, TokenBinding::Exporter(CHANNEL));
    let mut login = Login::with(known());
    login.input(LoginInput::Client(client_header_with("example.org", FROM)));
    assert!(!login.to_client[1].contains("EXPR"), "the connection has none");
    login.client(&token_with("HT-SHA-256-EXPR", &initial("juliet"), &format!("{AGENT}{RESUME}{FAST}")));
    assert_eq!((login.to_client.last().unwrap(), &login.finds[..]), (&refusal("not-authorized"), &[][..]));
}

#[test]
fn what_is_no_token_of_the_account_in_the_header_is_refused_here() {
    for xml in [
        token_with("HT-SHA-256-NONE", &initial("romeo"), &format!("{AGENT}{RESUME}{FAST}")),
        token_with("HT-SHA-256-NONE", &initial("juliet"), &format!("{RESUME}{FAST}")),
        token_with("HT-SHA-256-NONE", &plain("juliet\0short"), &format!("{AGENT}{RESUME}{FAST}")),
        token_with("HT-SHA-256-NONE", "not base64!", &format!("{AGENT}{RESUME}{FAST}")),
        token_with("HT-SHA-256-NONE", "", &format!("{AGENT}{RESUME}{FAST}")),
        token(&format!("{RESUME}<fast xmlns='urn:xmpp:fast:0' count='-1'/>")),
        token(&format!("{RESUME}<fast xmlns='urn:xmpp:fast:0' count='x'/>")),
    ] {
        let mut login = opened(&known(), FROM);
        login.client(&xml);
        assert_eq!(login.to_client.last().unwrap(), &refusal("not-authorized"), "{xml}");
        assert_eq!((&login.connects[..], &login.finds[..], login.checked.len()), (&[][..], &[][..], 0), "{xml}");
        assert!(login.negotiation.can_read_client(), "another attempt is possible");
    }
}

#[test]
fn a_token_without_its_session_is_checked_and_refused() {
    let session = |found| {
        let mut login = opened(&known(), FROM);
        login.client(&token(&format!("{RESUME}<fast xmlns='urn:xmpp:fast:0' invalidate='true'/>")));
        login.input(LoginInput::Found(found));
        login
    };
    let mut gone = session(held("juliet"));
    gone.input(LoginInput::Gone(None));
    let mut without = opened(&known(), FROM);
    without.client(&token("<fast xmlns='urn:xmpp:fast:0' invalidate='1'/>"));
    for mut login in [session(Err(None)), session(held("romeo")), gone, without] {
        let [(account, proof)] = &login.checked[..] else { panic!("{:?}", login.checked) };
        assert_eq!((account.as_str(), proof.invalidate), ("juliet@example.org", true));
        assert!(!login.negotiation.can_read_client());
        login.input(LoginInput::TokenRefused(TokenRefusal::NotAuthorized));
        assert_eq!(login.to_client.last().unwrap(), &refusal("not-authorized"));
        assert!(login.negotiation.can_read_client() && login.connects.is_empty());
    }
}

#[test]
fn a_refused_token_leaves_the_password_and_the_server_is_connected_then() {
    let mut login = opened(&known(), FROM);
    login.client(&token(&format!("{RESUME}{FAST}")));
    login.input(LoginInput::Found(held("juliet")));
    assert!(login.handed_over.is_some());
    login.input(LoginInput::TokenRefused(TokenRefusal::Expired));
    assert_eq!(login.to_client.last().unwrap(), &refusal("credentials-expired"));
    login.client(&authenticate(""));
    connected(&mut login, OFFER);
    assert_eq!((&login.to_client[..], &login.to_upstream[1..]), (&[][..], &[auth("\0juliet\0secret")][..]));
    let_in(&mut login, "");
    assert_eq!(login.server_restarts, 1);
}

#[test]
fn either_profile_and_an_iq_connect_the_server() {
    let register = "<iq type='get' id='r'><query xmlns='jabber:iq:register'/></iq>";
    for (xml, sent) in [
        (auth("\0juliet\0secret"), auth("\0juliet\0secret")),
        (authenticate(""), auth("\0juliet\0secret")),
        (register.to_owned(), register.to_owned()),
    ] {
        let mut login = opened(&known(), FROM);
        login.client(&xml);
        connected(&mut login, OFFER);
        assert_eq!(login.to_upstream[1..], [sent]);
    }
    let mut login = opened(&known(), FROM);
    login.client("<message/>");
    assert_eq!((login.closed, &login.connects[..]), (Some(CloseReason::ClientError), &[][..]));
}

#[test]
fn a_server_that_does_not_offer_the_chosen_mechanism_any_more_ends_the_login() {
    let less = OFFER.replace("PLAIN", "X-OTHER");
    let own = OFFER.replace(
        "<register",
        "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism></authentication><register",
    );
    for (xml, features) in [(auth("\0juliet\0secret"), &less), (authenticate(""), &less), (authenticate(""), &own)] {
        let mut login = opened(&known(), FROM);
        login.client(&xml);
        connected(&mut login, features);
        let last = login.to_client.last().unwrap();
        assert!(last.contains("<temporary-auth-failure") && last.ends_with("</failure></stream:stream>"), "{last}");
        assert_eq!(login.closed, Some(CloseReason::OfferChanged));
    }
    let mut login = opened(&known(), FROM);
    login.client(&authenticate("").replace("PLAIN", "X-NONE"));
    connected(&mut login, OFFER);
    assert_eq!(login.to_client, [refusal("invalid-mechanism")], "it was never offered");
}

#[test]
fn a_server_that_cannot_be_reached_or_declares_other_namespaces_ends_the_login() {
    let mut login = opened(&known(), FROM);
    login.client(&authenticate(""));
    login.input(LoginInput::UpstreamLost);
    assert!(login.to_client.last().unwrap().starts_with("<stream:error><remote-connection-failed"));
    let mut login = opened(&known(), FROM);
    login.client(&authenticate(""));
    login.input(LoginInput::Connected(Leg::Plain));
    let other =
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:x='urn:x' id='2'>";
    login.input(LoginInput::Upstream(Frame::Open(Arc::new(Header::parse(Bytes::from(other)).unwrap()))));
    assert_eq!(login.closed, Some(CloseReason::OfferChanged));
}

#[test]
fn a_token_is_taken_on_a_connection_that_has_a_server_too() {
    let mut login = opened(&settings(), FROM);
    login.input(LoginInput::Connected(Leg::Plain));
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(OFFER);
    login.to_upstream.clear();
    login.client(&token(&format!("{RESUME}{FAST}")));
    login.input(LoginInput::Found(held("juliet")));
    assert!(login.handed_over.is_some() && login.to_upstream.is_empty());
}

#[test]
fn without_tokens_their_mechanisms_are_as_any_other() {
    let settings = Settings { fast: FastSettings { ttl: Duration::ZERO }, ..(*settings()).clone() };
    let mut login = offered_over(&Arc::new(settings), Leg::Plain, OFFER);
    assert!(!login.to_client.last().unwrap().contains("HT-SHA"));
    login.client(&token(&format!("{RESUME}{FAST}")));
    assert_eq!(login.to_client.last().unwrap(), &refusal("invalid-mechanism"));
}

#[test]
fn a_locked_out_address_has_no_token_checked() {
    let mut login = opened(&known(), FROM);
    login.negotiation.set_lockout(Lockout::Active);
    login.client(&token(&format!("{RESUME}{FAST}")));
    assert_eq!((login.to_client.last().unwrap(), &login.finds[..]), (&refusal("temporary-auth-failure"), &[][..]));
}

/// A login by password that asks for a token and is bound as this account.
fn asking_for_token(jid: &str) -> Login {
    let mut login = offered_over(&settings(), Leg::Plain, OFFER);
    login.to_client.clear();
    login.client(&authenticate(&format!("{}{WISH}", bind(""))));
    let_in(&mut login, "");
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(BIND);
    assert!(login.wished.is_empty(), "the server has not named the account");
    bound_as(&mut login, jid);
    login
}

#[test]
fn a_login_by_password_gets_the_token_that_it_asks_for() {
    let wish =
        TokenWish { agent: "d4565fa7-4d72-4749-b3d3-740edbf87770".into(), mechanism: TokenMechanism::Sha256None };
    for jid in ["juliet@example.org/Phone", "romeo@example.org/Phone"] {
        let mut login = asking_for_token(jid);
        let account = FullJid::new(jid).unwrap().to_bare();
        assert_eq!(
            login.wished,
            [(account, wish.clone(), None)],
            "the token is for the account that the server has bound"
        );
        login.input(LoginInput::TokenIssued(Some(issued())));
        let metadata = id_of(&login, "metadata");
        refuse(&mut login, &metadata);
        assert!(login.to_client[0].contains("<token xmlns='urn:xmpp:fast:0' expiry='"), "{:?}", login.to_client);
    }
    let mut login = offered_over(&settings(), Leg::Plain, OFFER);
    login.client(&authenticate(&format!("{RESUME}{WISH}")));
    login.found("juliet");
    let_in(&mut login, "");
    assert_eq!((login.handed_over.unwrap().tokens.wish, login.wished.len()), (Some(wish), 0), "the session issues it");
}

#[test]
fn a_token_for_an_account_that_only_pushward_has_named_is_limited_to_the_login() {
    let let_in_as = |message: &str| {
        let mut login = offered_over(&settings(), Leg::Plain, OFFER);
        login.to_client.clear();
        login.client(&authenticate_with(message, WISH));
        let_in(&mut login, "");
        login.input(LoginInput::Upstream(Frame::Open(header())));
        login.upstream(BIND);
        login
    };
    let mut login = let_in_as("\0juliet\0secret");
    assert_eq!((login.wished[0].0.as_str(), login.wished[0].2.as_deref()), ("juliet@example.org", Some("juliet")));
    assert!(login.to_client.is_empty());
    login.input(LoginInput::TokenIssued(Some(issued())));
    assert!(login.to_client[0].contains("<token ") && login.negotiation.can_read_client(), "{:?}", login.to_client);
    let login = let_in_as("juliet@example.org\0juliet\0secret");
    assert!(login.wished.is_empty() && login.to_client[0].contains("<success "), "the name proves nothing");
}

#[test]
fn a_login_that_waits_only_for_its_token_is_welcomed_with_it() {
    let settings = settings();
    settings.fronting.on_metadata_refused("example.org");
    let mut login = offered_over(&settings, Leg::Plain, OFFER);
    login.to_client.clear();
    login.client(&authenticate(&format!("{}{WISH}", bind(""))));
    let_in(&mut login, "");
    login.input(LoginInput::Upstream(Frame::Open(header())));
    login.upstream(BIND);
    bound_as(&mut login, "juliet@example.org/Phone");
    assert!(login.bound.is_none());
    login.input(LoginInput::TokenIssued(None));
    assert!(login.bound.is_some() && !login.to_client[0].contains("<token"), "{:?}", login.to_client);
}

#[test]
fn another_default_language_of_the_server_does_not_matter_and_other_namespaces_are_forgotten() {
    let settings = settings();
    offered_with_header(&settings, " from='juliet@example.org' xml:lang='de'", OFFER);
    let header_with = |attributes: &str| {
        let xml = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='2'{attributes}>"
        );
        LoginInput::Upstream(Frame::Open(Arc::new(Header::parse(Bytes::from(xml)).unwrap())))
    };
    let late = |attributes: &str| {
        let mut login = opened(&settings, " from='juliet@example.org' xml:lang='de'");
        assert!(login.connects.is_empty());
        login.client(&authenticate(""));
        login.input(LoginInput::Connected(Leg::Plain));
        login.input(header_with(attributes));
        login
    };
    let mut login = late(" xml:lang='fr'");
    login.upstream(OFFER);
    assert_eq!(login.to_upstream.last().unwrap(), &auth("\0juliet\0secret"));
    let login = late(" xmlns:x='urn:x'");
    assert!(login.to_client.last().unwrap().contains("<temporary-auth-failure"), "{:?}", login.to_client);
    assert_eq!(login.closed, Some(CloseReason::OfferChanged));
    assert_eq!(opened(&settings, " from='juliet@example.org' xml:lang='de'").connects.len(), 1);
}

#[test]
fn features_are_remembered_of_clients_that_name_their_account_and_forgotten_when_they_change() {
    let settings = settings();
    offered_with_header(&settings, "", OFFER);
    assert_eq!(opened(&settings, FROM).connects.len(), 1, "ejabberd shows SASL2 only to those that name it");
    offered_with_header(&settings, FROM, OFFER);
    assert_eq!(opened(&settings, FROM).connects.len(), 0);
    offered_with_header(&settings, "", &OFFER.replace("PLAIN", "X-A").replace("SCRAM-SHA-1", "X-B"));
    assert_eq!(opened(&settings, FROM).connects.len(), 1);
}

#[test]
fn an_abort_or_response_without_an_exchange_needs_no_server() {
    for profile in ["urn:ietf:params:xml:ns:xmpp-sasl", "urn:xmpp:sasl:2"] {
        for name in ["abort", "response"] {
            let mut login = opened(&known(), FROM);
            login.client(&format!("<{name} xmlns='{profile}'/>"));
            assert!(login.to_client.last().unwrap().contains("<aborted "), "{:?}", login.to_client);
            login.client(&authenticate(""));
            assert_eq!(login.connects.len(), 1, "another attempt works");
        }
    }
}

#[test]
fn a_stream_error_before_the_session_ends_the_tokens_too() {
    for (condition, ends) in
        [("policy-violation", true), ("reset", true), ("not-authorized", true), ("conflict", false)]
    {
        let error = format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
        let mut fronted = offered_over(&settings(), Leg::Plain, OFFER);
        fronted.client(&authenticate(""));
        let_in(&mut fronted, "");
        for mut login in [fronted, Login::authenticated("juliet")] {
            login.upstream(&error);
            assert_eq!(login.revoked.len(), usize::from(ends), "{condition}");
        }
    }
    let mut login = offered_over(&settings(), Leg::Plain, OFFER);
    login.upstream("<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
    assert!(login.revoked.is_empty(), "nobody has logged in");
}

#[test]
fn an_account_that_the_server_has_disabled_loses_its_tokens() {
    for (condition, ends) in [("account-disabled", true), ("credentials-expired", true), ("not-authorized", false)] {
        for xml in [auth("\0juliet\0secret"), authenticate("")] {
            let mut login = offered_over(&settings(), Leg::Plain, OFFER);
            login.client(&xml);
            login.upstream(&format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/></failure>"));
            let juliet = BareJid::new("juliet@example.org").unwrap();
            assert_eq!(login.revoked, if ends { vec![juliet] } else { vec![] }, "{condition}");
        }
    }
}

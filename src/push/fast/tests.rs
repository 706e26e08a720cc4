use std::time::Duration;

use aws_lc_rs::hmac;

use super::settings::DAY;
use super::*;
use crate::clock::UnixSecs;

const TTL: Duration = Duration::from_secs(1000);

/// A generator of different numbers.
fn numbers(seed: u128) -> impl FnMut() -> u128 {
    let mut next = seed << 64;
    move || {
        next += 1;
        next.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_0C6F_6A4B_2D1B)
    }
}

fn issued_as(number: u128, agent: &str, mechanism: TokenMechanism, at: u64) -> IssuedToken {
    let request = TokenRequest { agent: agent.to_owned(), mechanism, root: UnixSecs::new(at) };
    IssuedToken::new(request, TTL, UnixSecs::new(at), numbers(number)).unwrap()
}

fn issued(number: u128, at: u64) -> IssuedToken {
    issued_as(number, "phone", TokenMechanism::Sha256None, at)
}

fn list<'t>(tokens: impl IntoIterator<Item = &'t IssuedToken>) -> TokenList {
    let mut list = TokenList::default();
    for issued in tokens {
        list.apply(TokenChange::Issued(Box::new(issued.token.clone())));
    }
    list
}

fn used(issued: &IssuedToken, count: Option<u64>, at: u64) -> TokenChange {
    TokenChange::Used { id: issued.token.id, count, at: UnixSecs::new(at) }
}

/// The HMAC of a client or server that knows the whole text.
fn hmac_of(issued: &IssuedToken, role: &str, binding: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, issued.text.expose().as_bytes());
    hmac::sign(&key, &[role.as_bytes(), binding].concat()).as_ref().try_into().unwrap()
}

/// The proof of a client that has a token.
pub(crate) fn proof(issued: &IssuedToken, count: Option<u64>) -> TokenProof {
    TokenProof {
        agent: issued.token.agent.clone(),
        hash: crate::secret::Secret::new(hmac_of(issued, "Initiator", b"")),
        binding: TokenBinding::Unbound,
        count,
        invalidate: false,
    }
}

fn verdict(list: &TokenList, proof: &TokenProof, at: u64) -> &'static str {
    match list.verify(proof, UnixSecs::new(at)) {
        TokenVerdict::Accepted(_) => "accepted",
        TokenVerdict::Expired => "expired",
        TokenVerdict::Replayed => "replayed",
        TokenVerdict::WrongHash => "wrong",
        TokenVerdict::Unknown => "unknown",
    }
}

/// Returns the tokens of a list, as their positions in `all`.
fn left(list: &TokenList, all: &[&IssuedToken]) -> Vec<usize> {
    list.iter().map(|token| all.iter().position(|issued| issued.token.id == token.id).unwrap()).collect()
}

#[test]
fn a_mechanism_is_parsed_from_its_name() {
    for mechanism in TokenMechanism::ALL {
        assert_eq!(TokenMechanism::parse(mechanism.name()), Some(mechanism));
        assert_eq!(serde_json::to_string(&mechanism).unwrap(), format!("\"{mechanism}\""));
    }
    for name in ["HT-SHA-256-ENDP", "HT-SHA-256-UNIQ", "HT-SHA-512-NONE", "ht-sha-256-none", "PLAIN", ""] {
        assert_eq!(TokenMechanism::parse(name), None, "{name}");
    }
    let none = TokenMechanism::Sha256None;
    assert_eq!((none.bind(None), none.bind(Some([1; 32]))), (Some(TokenBinding::Unbound), Some(TokenBinding::Unbound)));
    let bound = TokenMechanism::Sha256Exporter.bind(Some([1; 32])).unwrap();
    assert_eq!((bound.mechanism(), TokenMechanism::Sha256Exporter.bind(None)), (TokenMechanism::Sha256Exporter, None));
}

#[test]
fn the_message_of_a_client_is_a_name_and_an_hmac() {
    let hash = [0u8, 7].repeat(16);
    let parsed = InitiatorMessage::parse(&[b"juliet\0", &hash[..]].concat()).unwrap();
    assert_eq!((parsed.authcid.as_str(), &parsed.hash.expose()[..]), ("juliet", &hash[..]), "an HMAC may begin with 0");
    for message in [
        &b""[..],
        b"juliet",
        b"\0",
        &[b"\0", &hash[..]].concat(),
        &[b"juliet", &hash[1..]].concat(),
        &[b"juliet\0", &hash[1..]].concat(),
        &[b"juliet\0", &hash[..], b"x"].concat(),
        &[b"\xFF\0", &hash[..]].concat(),
    ] {
        assert_eq!(InitiatorMessage::parse(message), None, "{message:?}");
    }
}

#[test]
fn a_client_with_the_text_proves_itself_and_so_does_the_holder_of_the_key() {
    let token = issued(1, 100);
    assert_eq!(token.text.expose().len(), 86);
    let TokenVerdict::Accepted(accepted) = list([&token]).verify(&proof(&token, None), UnixSecs::new(101)) else {
        panic!("not accepted");
    };
    assert_eq!((accepted.id, accepted.root), (token.token.id, UnixSecs::new(100)));
    assert_eq!(accepted.responder, hmac_of(&token, "Responder", b""));
}

#[test]
fn a_token_of_a_bound_mechanism_is_valid_on_its_connection_only() {
    let token = issued_as(1, "phone", TokenMechanism::Sha256Exporter, 100);
    let list = list([&token]);
    let on = |connection: u8, bound_to: u8| TokenProof {
        hash: crate::secret::Secret::new(hmac_of(&token, "Initiator", &[bound_to; 32])),
        binding: TokenBinding::Exporter([connection; 32]),
        ..proof(&token, None)
    };
    let TokenVerdict::Accepted(accepted) = list.verify(&on(5, 5), UnixSecs::new(101)) else { panic!("not accepted") };
    assert_eq!(accepted.responder, hmac_of(&token, "Responder", &[5; 32]));
    assert_eq!(verdict(&list, &on(5, 6), 101), "wrong");
    assert_eq!(verdict(&list, &proof(&token, None), 101), "unknown", "the other mechanism");
}

#[test]
fn each_refusal_has_its_reason() {
    let (token, other) = (issued(1, 100), issued(2, 100));
    let mut list = list([&token]);
    assert_eq!(verdict(&list, &proof(&other, None), 101), "wrong");
    let elsewhere = TokenProof { agent: "laptop".to_owned(), ..proof(&token, None) };
    assert_eq!(verdict(&list, &elsewhere, 101), "unknown");
    assert_eq!(verdict(&TokenList::default(), &proof(&token, None), 101), "unknown");
    // The key that stands for no token opens nothing.
    let nothing = key::TokenKey::of_nothing().hash(b"Initiator", &TokenBinding::Unbound);
    let nothing = TokenProof { hash: crate::secret::Secret::new(nothing), ..proof(&token, None) };
    assert_eq!(verdict(&list, &nothing, 101), "wrong");
    assert_eq!(verdict(&TokenList::default(), &nothing, 101), "unknown");
    assert_eq!(
        (verdict(&list, &proof(&token, None), 1099), verdict(&list, &proof(&token, None), 1100)),
        ("accepted", "expired")
    );
    assert_eq!(verdict(&list, &proof(&other, None), 1100), "wrong", "a stranger does not learn that it has expired");
    list.apply(used(&token, Some(5), 101));
    for (count, expected) in
        [(Some(4), "replayed"), (Some(5), "replayed"), (Some(6), "accepted"), (None, "accepted"), (Some(0), "replayed")]
    {
        assert_eq!(verdict(&list, &proof(&token, count), 102), expected, "{count:?}");
    }
    // A login without a count does not reset it.
    list.apply(used(&token, None, 103));
    list.apply(used(&token, Some(3), 103));
    assert_eq!(verdict(&list, &proof(&token, Some(5)), 104), "replayed");
}

#[test]
fn an_old_token_is_valid_until_the_new_one_is_used() {
    let tokens = [issued(1, 100), issued(2, 200), issued(3, 300), issued(4, 400)];
    let all: Vec<&IssuedToken> = tokens.iter().collect();
    let [first, second, third, fourth] = &tokens;
    let mut list = list([first, second]);
    assert_eq!(verdict(&list, &proof(first, None), 201), "accepted");
    list.apply(used(first, None, 201));
    assert_eq!(left(&list, &all), [0, 1], "the client may not have received the second");
    list.apply(TokenChange::Issued(Box::new(third.token.clone())));
    assert_eq!(left(&list, &all), [0, 2], "the first was used, so the client has it");
    list.apply(used(third, None, 301));
    assert_eq!(left(&list, &all), [2]);
    assert_eq!(verdict(&list, &proof(first, None), 302), "wrong");
    for change in [used(third, None, 301), TokenChange::Issued(Box::new(third.token.clone()))] {
        list.apply(change);
        assert_eq!(left(&list, &all), [2], "again");
    }
    list.apply(TokenChange::Issued(Box::new(fourth.token.clone())));
    list.apply(TokenChange::Ended { id: third.token.id });
    assert_eq!(left(&list, &all), [3]);
    list.apply(used(third, None, 401));
    assert_eq!(left(&list, &all), [3], "a token that has ended replaces nothing");
    list.apply(TokenChange::Revoked);
    assert_eq!(list, TokenList::default());
}

/// XEP-0484 §3.5: "all tokens issued to the same client with an earlier expiry".
#[test]
fn a_used_token_replaces_older_ones_of_the_client_for_other_mechanisms() {
    let bound = |at| issued_as(9, "phone", TokenMechanism::Sha256Exporter, at);
    let (old, new) = (issued(1, 100), bound(200));
    let laptop = issued_as(2, "laptop", TokenMechanism::Sha256None, 50);
    let mut tokens = list([&laptop, &old, &new]);
    tokens.apply(used(&old, None, 201));
    assert_eq!(left(&tokens, &[&laptop, &old, &new]), [0, 1, 2]);
    tokens.apply(used(&new, None, 201));
    assert_eq!(left(&tokens, &[&laptop, &old, &new]), [0, 2]);
    // In the same second, both stay.
    let (one, other) = (issued(1, 100), bound(100));
    let mut tokens = list([&one, &other]);
    tokens.apply(used(&other, None, 101));
    assert_eq!(left(&tokens, &[&one, &other]), [0, 1]);
}

#[test]
fn a_chain_of_tokens_ends_90_days_after_the_password() {
    let root = UnixSecs::new(1_000_000);
    let issue = |days: u32, ttl: Duration| {
        let request = TokenRequest { agent: "phone".to_owned(), mechanism: TokenMechanism::Sha256None, root };
        IssuedToken::new(request, ttl, root.plus(DAY * days), numbers(1))
    };
    let issued = issue(0, DAY * 21).unwrap();
    assert_eq!((issued.token.expires, issued.expiry().as_str()), (root.plus(DAY * 21), "1970-02-02T13:46:40Z"));
    assert_eq!(issue(80, DAY * 21).map(|issued| issued.token.expires), Some(root.plus(DAY * 90)));
    assert_eq!(issue(0, DAY * 1000).map(|issued| issued.token.expires), Some(root.plus(DAY * 90)));
    assert!(issue(90, DAY * 21).is_none() && issue(0, Duration::ZERO).is_none());
    assert_eq!(
        issue(0, Duration::from_millis(1)).map(|issued| issued.token.expires),
        Some(root.plus(Duration::from_secs(1)))
    );
    let agent = |agent: &str| {
        let request = TokenRequest { agent: agent.to_owned(), mechanism: TokenMechanism::Sha256None, root };
        IssuedToken::new(request, TTL, root, numbers(1))
    };
    assert!(agent("").is_none() && agent(&"x".repeat(257)).is_none() && agent(&"x".repeat(256)).is_some());
    // The clock was set back after the login.
    let request = TokenRequest { agent: "phone".to_owned(), mechanism: TokenMechanism::Sha256None, root };
    let early = IssuedToken::new(request, DAY * 1000, UnixSecs::new(10), numbers(1)).unwrap();
    assert_eq!(early.token.expires, UnixSecs::new(10).plus(DAY * 90));
}

#[test]
fn the_user_agents_of_an_account_are_bounded() {
    let tokens: Vec<IssuedToken> = (0..70)
        .map(|n: u32| issued_as(n.into(), &n.to_string(), TokenMechanism::Sha256None, u64::from(100 + (n + 35) % 70)))
        .collect();
    let list = list(&tokens);
    assert_eq!(list.iter().count(), 64);
    assert!(list.iter().all(|token| token.issued >= UnixSecs::new(106)), "those that expire first are gone");
}

#[test]
fn an_expired_token_is_kept_for_some_days_for_its_error() {
    let token = issued(1, 100);
    let mut list = list([&token]);
    list.forget_expired(UnixSecs::new(1100).plus(DAY * 6));
    assert_eq!(verdict(&list, &proof(&token, None), 1100), "expired");
    list.forget_expired(UnixSecs::new(1100).plus(DAY * 7));
    assert!(list.is_empty());
}

#[test]
fn the_record_has_no_text_and_nothing_prints_a_secret() {
    let token = issued(1, 100);
    let stored = serde_json::to_string(&list([&token])).unwrap();
    assert_eq!(serde_json::from_str::<TokenList>(&stored).unwrap(), list([&token]));
    assert!(!stored.contains(token.text.expose()));
    let key = stored.split("\"key\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let printed = format!("{token:?} {:?} {:?}", list([&token]), proof(&token, None));
    assert!(printed.contains("[redacted]"));
    for secret in [token.text.expose(), key] {
        assert!(!printed.contains(secret), "{printed}");
    }
    let wrong = serde_json::from_str::<TokenList>(&stored.replace(key, "hunter2")).unwrap_err();
    assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
}

//! Tests of the equality of addresses.

use super::*;

/// Checks the parts of an address in its normal form.
fn check(text: &str, expect: (Option<&str>, &str, Option<&str>)) {
    let jid = Jid::new(text);
    assert_eq!((jid.node(), jid.domain(), jid.resource()), expect, "{text}");
    assert_eq!(Jid::new(jid.as_str()), jid, "the normal form of {text} is normal");
}

#[test]
fn each_part_is_normalised_by_itself() {
    check("Juliet@Capulet.LIT/Phone", (Some("juliet"), "capulet.lit", Some("Phone")));
    check("Juliet@Capulet.LIT/Phone 🦊", (Some("juliet"), "capulet.lit", Some("Phone 🦊")));
    check("Juliet🦊@Capulet.LIT/a\u{a0}b", (Some("Juliet🦊"), "capulet.lit", Some("a b")));
    check("Juliet@Cap%20.LIT", (Some("juliet"), "Cap%20.LIT", None));
    check("Capulet.LIT.", (None, "capulet.lit", None));
    check("Capulet.LIT/a@b/c", (None, "capulet.lit", Some("a@b/c")));
    check("A@B@C/d", (Some("a"), "B@C", Some("d")));
    check("a＠b@c", (Some("a＠b"), "c", None));
}

#[test]
fn a_text_with_empty_parts_is_an_address_too() {
    for (text, expect) in [
        ("", (None, "", None)),
        ("@", (Some(""), "", None)),
        ("@a", (Some(""), "a", None)),
        ("a@", (Some("a"), "", None)),
        ("a/", (None, "a", Some(""))),
        ("//", (None, "", Some("/"))),
    ] {
        check(text, expect);
        assert_eq!((text.parse::<Jid>(), Jid::new(text).is_routable()), (Err(JidError::Empty), false), "{text}");
    }
}

#[test]
fn a_name_of_letters_digits_and_hyphens_is_a_domain() {
    for (text, expect) in [
        ("My--Chat.example", "my--chat.example"),
        ("ab--gw.example", "ab--gw.example"),
        ("-a-.B-.example", "-a-.b-.example"),
        ("xn--a.example", "xn--a.example"),
        ("XN--MLLER-KVA.example", "xn--mller-kva.example"),
        ("a_b--c.example.", "a_b--c.example"),
        ("Mü--ller.example", "mü--ller.example"),
        ("🦊.Example", "🦊.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:db8::1]", "[2001:db8::1]"),
    ] {
        assert_eq!(domain(text).as_deref(), Some(expect), "{text}");
        assert_eq!(domain(expect).as_deref(), Some(expect), "{text}");
    }
    let long = "x".repeat(1024);
    for text in
        ["", ".", "a..b", "a--..b", "a b", "a--b c", "a%20b", "a/b", "a@b", "[::1%1]", "שaב.example", "a。。--b", &long]
    {
        assert_eq!(domain(text), None, "{text}");
    }
}

#[test]
fn the_dns_and_tls_have_names_in_ascii() {
    for (text, expect) in [
        ("müller.example", Some("xn--mller-kva.example")),
        ("My--Chat.example", Some("my--chat.example")),
        ("xn--a.example", Some("xn--a.example")),
        ("שaב.example", None),
    ] {
        assert_eq!(ascii(text).as_deref(), expect, "{text}");
    }
}

#[test]
fn what_cannot_be_parsed_is_compared_byte_for_byte() {
    assert_eq!(Jid::new("Ana@X.org/Phone 🦊"), Jid::new("ana@x.org/Phone 🦊"));
    for (one, other) in [
        ("Ana🦊@x.org", "ana🦊@x.org"),
        ("a@x.org/Phone 🦊", "a@x.org/phone 🦊"),
        ("a@x.org/e\u{301}🦊", "a@x.org/é🦊"),
        ("a@A%20.org", "a@a%20.org"),
    ] {
        assert_ne!(Jid::new(one), Jid::new(other));
        assert_ne!(BareJid::of_user("Ana🦊", "x.org"), BareJid::of_user("ana🦊", "x.org"));
    }
}

#[test]
fn the_text_decides_between_bare_and_full() {
    for at in addresses::ALL {
        let (account, full) = (at.account, format!("{}/{}", at.account, at.resource));
        assert_eq!(BareJid::new(account).unwrap().as_str(), account);
        assert_eq!(FullJid::new(account), Err(JidError::NoResource), "{}", at.name);
        assert_eq!(BareJid::new(&full), Err(JidError::Resource), "{}", at.name);
        let jid = FullJid::new(&full).unwrap();
        assert_eq!((jid.bare(), jid.to_bare().as_str(), jid.resource()), (account, account, at.resource));
        assert_eq!(Jid::from(jid.clone()).into_bare(), jid.to_bare());
    }
}

#[test]
fn a_user_name_is_one_part() {
    assert_eq!(BareJid::of_user("Juliet", "x.org").unwrap().as_str(), "juliet@x.org");
    for name in ["", "juliet@y.org", "juliet@y.org/", "y.org/juliet"] {
        assert_eq!(BareJid::of_user(name, "x.org"), None, "{name}");
    }
}

#[test]
fn an_address_is_stored_as_text_and_logged_in_one_line() {
    let jid = Jid::new("a@b/c\n🦊\u{202e}");
    let json = serde_json::to_string(&jid).unwrap();
    assert_eq!(json, "\"a@b/c\\n🦊\u{202e}\"");
    assert_eq!(serde_json::from_str::<Jid>(&json).unwrap(), jid);
    assert_eq!(jid, serde_json::from_str::<FullJid>(&json).unwrap());
    assert!(serde_json::from_str::<BareJid>(&json).is_err() && serde_json::from_str::<BareJid>("\"@\"").is_err());
    assert_eq!(jid.to_string(), "a@b/c\\n🦊\\u{202e}");
}

#[test]
fn only_what_a_server_could_deliver_to_is_routable() {
    let long = format!("{}@x.org", "x".repeat(1024));
    for (text, expect) in [
        ("push.example", true),
        ("ab--gw.example", true),
        ("gw🦊@push.example/Bob 🦊", true),
        ("a b", false),
        ("x@a%20b", false),
        (&long, false),
    ] {
        assert_eq!(Jid::new(text).is_routable(), expect, "{text}");
    }
}

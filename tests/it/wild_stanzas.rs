//! Large or unusual stanzas: they reach the client, or are skipped, and never end the session.

use std::time::{Duration, Instant};

use crate::support::{
    Element, PATIENCE, Pushward, Scene, Server, Setup, StubOptions, StubUpstream, bodies, fresh, lost, message, resumed,
};

/// Returns stanzas that a contact may send, but none of our clients does: many attributes, prefixes, levels; each with
/// a mark.
fn wild(mark: &str) -> [String; 4] {
    let attributes: String = (0..200).map(|n| format!(" a{n}=''")).collect();
    let prefixes: String = (0..70).map(|n| format!(" xmlns:p{n}='u'")).collect();
    let deep = "<a>".repeat(150) + &"</a>".repeat(150);
    let inner = [
        format!("<x xmlns='urn:x'{attributes}/>"),
        format!("<x xmlns='urn:x'{prefixes}><p69:a/></x>"),
        format!("<x xmlns='urn:x'>{deep}</x>"),
        format!("<x xmlns='urn:x'>{}</x>", "x".repeat(3 << 20)),
    ];
    let mut number = 0;
    inner.map(|inner| {
        number += 1;
        format!(
            "<message from='bob@localhost/b' to='alice@localhost/phone' type='chat' id='{mark}-{number}'>\
             <body>{mark} {number}</body>{inner}</message>"
        )
    })
}

/// Stanzas that no client can read, with the reason.
const UNFIT: [(&str, &str); 4] = [
    ("<message from='bob@localhost/b' type='chat' id='unfit'><q:x/></message>", "undeclared_prefix"),
    ("<message from='bob@localhost/b' type='chat'><x\u{220}/></message>", "invalid_name"),
    ("<message from='bob@localhost/b' type='chat'><x a='1' a='2'/></message>", "not_well_formed"),
    ("<presence from='bob@localhost/b'><status>\u{1}</status></presence>", "not_well_formed"),
];

/// Checks that the client gets these stanzas unchanged, in order.
async fn gets(client: &mut crate::support::Client, stanzas: &[String]) {
    for stanza in stanzas {
        let got = client.messages(1).await.remove(0);
        let body = |xml: &str| xml.find("<body>").map(|at| xml[at..].to_owned()).unwrap();
        let got = got.replace(&got[got.find("<delay").unwrap_or(got.len())..], "") + "</message>";
        let got = got.replace("</message></message>", "</message>");
        assert!(body(&got) == body(stanza), "{} bytes instead of {}", got.len(), stanza.len());
    }
}

#[tokio::test]
async fn unusual_valid_stanzas_of_a_contact_reach_the_client_live_dark_and_at_login() {
    for options in [StubOptions::default(), StubOptions::managed()] {
        let mut scene = Scene::with(options, |setup| setup).await;
        let live = wild("live");
        live.iter().for_each(|stanza| scene.server.send(stanza.as_str()));
        gets(&mut scene.client, &live).await;
        scene.client.ack().await;
        let jid = scene.server.bound().await;
        lost(&scene.pushward, scene.client, &jid).await;
        let dark = wild("dark");
        dark.iter().for_each(|stanza| scene.server.send(stanza.as_str()));
        scene.pushward.stored("dark 4").await;
        let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 4).await;
        gets(&mut client, &dark).await;
        // They are written again to a new session, as to one that resumes.
        client.acks = false;
        lost(&scene.pushward, client, &jid).await;
        let mut client = scene.pushward.authenticated("alice").await;
        fresh(&mut client, "phone").await;
        gets(&mut client, &dark).await;
    }
}

#[tokio::test]
async fn stanzas_that_no_client_can_read_are_skipped_live_dark_and_at_login() {
    for options in [StubOptions::default(), StubOptions::managed()] {
        let managed = options.after.contains("urn:xmpp:sm:3");
        let mut stub = StubUpstream::start(options).await;
        let pushward = Pushward::start(Setup::new(stub.address).with_metrics()).await;
        let mut client = pushward.login("alice", "phone").await;
        let server = stub.session().await;
        if managed {
            server.managed().await;
        }
        // Sent first, as offline messages would be.
        for (stanza, _) in UNFIT {
            server.send(stanza);
        }
        server.send(message("login"));
        assert!(client.messages(1).await[0].contains("login"));
        let enabled = client.enable().await;
        for (stanza, _) in UNFIT {
            server.send(stanza);
        }
        server.send(message("live"));
        assert!(client.messages(1).await[0].contains("live"));
        client.ack().await;
        if managed {
            server.acked(10, PATIENCE).await;
        }
        lost(&pushward, client, &server.bound().await).await;
        for (stanza, _) in UNFIT {
            server.send(stanza);
        }
        server.send(message("dark"));
        pushward.stored("dark").await;
        if managed {
            server.acked(15, PATIENCE).await;
        }
        let (mut client, _) = resumed(&pushward, &enabled, 1).await;
        assert!(client.messages(1).await[0].contains("dark"));
        server.assert_open();
        for (_, reason) in UNFIT {
            let count = 3 * UNFIT.iter().filter(|(_, other)| *other == reason).count() as u64;
            assert_eq!(pushward.metric(&format!("pushward_skipped_stanzas_total{{reason=\"{reason}\"}}")).await, count);
        }
        let line = pushward.logged(&["stanza skipped", "undeclared_prefix"]).await;
        let shown =
            ["\"name\":\"message\"", "\"id\":\"unfit\"", "upstream server sent a stanza that cannot be relayed"];
        assert!(shown.iter().all(|part| line.contains(part)) && !line.contains("bob"), "{line}");
    }
}

#[tokio::test]
async fn a_stanza_larger_than_upstream_stanza_is_skipped_and_its_requester_gets_an_error() {
    let settings = |setup: Setup| setup.set("limits.stanza", "'20 kB'").set("limits.upstream_stanza", "'100 kB'");
    let mut scene = Scene::with(StubOptions::managed(), settings).await;
    let filler = "x".repeat(150_000);
    let jid = scene.server.bound().await;
    scene.server.send(format!("<iq from='localhost' to='{jid}' id='q' type='get'><x>{filler}</x></iq>"));
    let answer = scene.server.expect("id='q'").await;
    assert!(answer.contains("<not-acceptable ") && answer.contains("type='error'"), "{answer}");
    scene
        .server
        .send(format!("<message from='bob@localhost/b' to='{jid}' id='m' type='chat'><body>{filler}</body></message>"));
    let answer = scene.server.expect("id='m'").await;
    assert!(answer.contains("<resource-constraint ") && answer.contains("to='bob@localhost/b'"), "{answer}");
    scene.client.send("<iq id='roster' type='get'><query xmlns='jabber:iq:roster'/></iq>").await;
    scene.server.expect("id='roster'").await;
    scene.server.send(format!(
        "<iq to='{jid}' id='roster' type='result'><query xmlns='jabber:iq:roster'>{filler}</query></iq>"
    ));
    let answer = scene.client.expect("id='roster'").await;
    assert!(answer.contains("<not-acceptable ") && answer.contains("type='error'"), "{answer}");
    scene.server.send(format!("<message from='bob@localhost/b' to='alice@localhost' type='chat'>{filler}</message>"));
    scene.server.send(message("after"));
    assert!(scene.client.messages(1).await[0].contains("after"));
    scene.client.ack().await;
    scene.server.acked(5, PATIENCE).await;
    assert!(
        !scene.server.rest().iter().any(|xml| xml.contains("type='error'")),
        "the account's other devices may have it"
    );
}

#[tokio::test]
async fn a_large_stanza_without_room_is_skipped_and_others_are_not_affected() {
    let settings = |setup: Setup| {
        let setup = setup.set("limits.stanza", "'20 kB'").set("limits.session_queue", "'20 kB'");
        setup.set("limits.queue_memory", "'1 MB'").with_metrics()
    };
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    let (mut other, second) = crate::support::another(&scene.pushward, &mut scene.stub, "desk").await;
    let large = |bytes: usize| format!("<message from='bob@localhost/b'><body>{}</body></message>", "x".repeat(bytes));
    scene.server.send(large(2_000_000));
    second.send(message("unharmed"));
    assert!(other.messages(1).await[0].contains("unharmed"));
    second.send(large(50_000));
    // It is larger than the queue, so it was on disk.
    let got = other.messages(1).await;
    assert!(bodies(&got) == ["x".repeat(50_000)], "{} bytes", got[0].len());
    scene.server.send(message("after"));
    assert!(scene.client.messages(1).await[0].contains("after"));
    assert_eq!(scene.pushward.metric("pushward_skipped_stanzas_total{reason=\"no_room\"}").await, 1);
}

#[tokio::test]
async fn a_roster_of_12_000_contacts_arrives() {
    let items: String = (0..12_000)
        .map(|n| {
            let group = "<group>Friends and acquaintances of the past</group>";
            format!(
                "<item jid='contact{n}@some.example.org' name='Contact number {n}' subscription='both'>{group}</item>"
            )
        })
        .collect();
    for options in [StubOptions::default(), StubOptions::managed()] {
        let mut scene = Scene::with(options, |setup| setup).await;
        scene.client.send("<iq id='roster' type='get'><query xmlns='jabber:iq:roster'/></iq>").await;
        scene.server.expect("id='roster'").await;
        let roster = format!("<iq type='result' id='roster'><query xmlns='jabber:iq:roster'>{items}</query></iq>");
        assert!(roster.len() > 1_500_000, "{}", roster.len());
        scene.server.send(roster.as_str());
        assert!(scene.client.answer("id='roster'").await == roster, "the roster as the server sent it");
        scene.client.roundtrip().await;
    }
}

/// A mebibyte of the costliest XML delays nobody else.
#[tokio::test]
async fn wild_stanzas_do_not_delay_others() {
    let mut scene = Scene::with(StubOptions::default(), |setup| setup).await;
    let (mut other, second) = crate::support::another(&scene.pushward, &mut scene.stub, "desk").await;
    let prefixes: String = (0..30_000).map(|n| format!(" xmlns:p{n:x}='u'")).collect();
    let elements: String = (0..30_000).map(|n| format!("<p{n:x}:a/>")).collect();
    let stanza = format!("<message from='bob@localhost/b'><body>wild</body><x{prefixes}>{elements}</x></message>");
    for _ in 0..3 {
        scene.server.send(stanza.as_str());
    }
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let sent = Instant::now();
        second.send(message(&format!("quick {round}")));
        other.messages(1).await;
        slowest = slowest.max(sent.elapsed());
    }
    assert_eq!(scene.client.messages(3).await.len(), 3);
    // The build is not optimised, and the machine may be busy.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

async fn contacts_cannot_lock_a_user_out(server: Server) {
    let pushward = Pushward::start(Setup::new(server.address())).await;
    let mut client = pushward.login("alice", "phone").await;
    client.available().await;
    let enabled = client.enable().await;
    let mut bob = server.bob().await;
    bob.available().await;
    let send = |mark: &str| {
        let stanzas = wild(mark).map(|stanza| stanza.replace(" from='bob@localhost/b'", ""));
        let to_account = stanzas.map(|stanza| stanza.replace("alice@localhost/phone", "alice@localhost"));
        // Servers have limits of their own on a client's stanza.
        to_account.into_iter().take(3).collect::<Vec<_>>()
    };
    for stanza in send("live") {
        bob.send(stanza).await;
    }
    bob.roundtrip().await;
    let seen = client.messages(3).await;
    for (number, got) in seen.iter().enumerate() {
        let message = Element::parse(got);
        assert_eq!(message.child("body").unwrap().text, format!("live {}", number + 1));
    }
    client.ack().await;
    lost(&pushward, client, "alice@localhost/phone").await;
    for stanza in send("dark") {
        bob.send(stanza).await;
    }
    bob.roundtrip().await;
    pushward.stored("dark 3").await;
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    let mut bodies = Vec::new();
    while !bodies.contains(&"dark 3".to_owned()) {
        let got = client.messages(1).await.remove(0);
        bodies.push(Element::parse(&got).child("body").unwrap().text.clone());
    }
    assert!(["dark 1", "dark 2"].iter().all(|body| bodies.contains(&(*body).to_owned())), "{bodies:?}");
}

#[tokio::test]
async fn contacts_cannot_lock_a_user_out_with_prosody() {
    contacts_cannot_lock_a_user_out(Server::prosody().await).await;
    contacts_cannot_lock_a_user_out(Server::managed_prosody().await).await;
}

#[tokio::test]
async fn contacts_cannot_lock_a_user_out_with_ejabberd() {
    contacts_cannot_lock_a_user_out(Server::ejabberd().await).await;
    contacts_cannot_lock_a_user_out(Server::managed_ejabberd().await).await;
}

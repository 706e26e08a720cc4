//! TLS between proxy and server: both kinds, and the messages where it fails.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::version::{TLS12, TLS13};

use crate::person::run;
use crate::support::{
    Authority, Client, Ejabberd, Element, PATIENCE, Prosody, PushService, Pushward, Setup, StubOptions, StubUpstream,
    bodies, enable_push, failed, free_address, fresh, lost, numbered, resumed,
};

/// Returns a setup for a server that the proxy trusts by its authority.
fn setup(upstream: SocketAddr, tls: &str, authority: &Authority) -> Setup {
    let setup = Setup::new(upstream).set("host.upstream_tls", &format!("'{tls}'"));
    setup.set("host.upstream_ca", &authority.toml()).set("push.batch_delay", "'50ms'")
}

/// bob is connected to the server without proxy and TLS.
async fn a_dark_phone_is_notified_and_finds_everything(setup: Setup, plain: SocketAddr, mut service: PushService) {
    let pushward = Pushward::start(setup).await;
    let mut bob = Client::plain(plain).await;
    bob.login("bob", "desk").await;
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    enable_push(&mut alice, "n").await;
    bob.say("alice@localhost", "live").await;
    assert_eq!(bodies(&alice.messages(1).await), ["live"]);
    let handled = alice.handled;
    alice.reset();
    let dark = numbered("dark", 1..=3);
    for body in &dark {
        bob.say("alice@localhost", body).await;
    }
    assert_eq!(service.publish(PATIENCE).await.node.as_deref(), Some("n"));
    let (mut alice, _) = resumed(&pushward, &enabled, handled).await;
    assert_eq!(bodies(&alice.messages(3).await), dark);
    let large = "0123456789 é".repeat(8 * 1024);
    bob.say("alice@localhost", &large).await;
    assert!(bodies(&alice.messages(1).await) == [large], "a large message changed on its way");
    alice.say("bob@localhost/desk", "back").await;
    assert_eq!(bodies(&bob.messages(1).await), ["back"]);
}

#[tokio::test]
async fn a_dark_phone_is_notified_over_starttls_to_prosody() {
    let authority = Authority::new("ours");
    let certificate = authority.issue("localhost");
    for prosody in [Prosody::over_tls(&certificate, "").await, Prosody::managed_over_tls(&certificate).await] {
        let setup = setup(prosody.address, "starttls", &authority);
        let service = PushService::connect(&prosody).await;
        a_dark_phone_is_notified_and_finds_everything(setup, prosody.address, service).await;
    }
}

#[tokio::test]
async fn a_dark_phone_is_notified_over_direct_tls_to_prosody() {
    let authority = Authority::new("ours");
    let (prosody, direct) = prosody_with_direct_tls(&authority).await;
    let service = PushService::connect(&prosody).await;
    a_dark_phone_is_notified_and_finds_everything(setup(direct, "direct", &authority), prosody.address, service).await;
}

#[tokio::test]
async fn a_dark_phone_is_notified_over_starttls_to_ejabberd() {
    let authority = Authority::new("ours");
    let certificate = authority.issue("localhost");
    for ejabberd in [Ejabberd::over_tls(&certificate).await, Ejabberd::managed_over_tls(&certificate).await] {
        let setup = setup(ejabberd.address, "starttls", &authority);
        let service = PushService::at(ejabberd.components).await;
        a_dark_phone_is_notified_and_finds_everything(setup, ejabberd.address, service).await;
    }
}

/// The keys of a TLS connection cannot be handed over. The messages wait on disk.
#[tokio::test]
async fn sessions_over_tls_end_at_an_upgrade_and_the_log_gives_the_remedy() {
    let authority = Authority::new("ours");
    let prosody = Prosody::over_tls(&authority.issue("localhost"), "").await;
    let pushward = Pushward::start(setup(prosody.address, "starttls", &authority).copied()).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    bob.say("alice@localhost/phone", "kept").await;
    pushward.stored("kept").await;
    let (code, text) = pushward.ask(&["upgrade"]).await;
    assert!(code == Some(0) && text.contains("0 sessions kept, 1 ended (1 TLS to the server)"), "{code:?} {text}");
    pushward.logged(&["session cannot be handed over", "without TLS over loopback"]).await;
    let (mut alice, _) = failed(&pushward, &enabled, 0).await;
    fresh(&mut alice, "phone").await;
    assert_eq!(alice.bodies_until(&["kept".to_owned()]).await, ["kept"]);
}

async fn prosody_with_direct_tls(authority: &Authority) -> (Prosody, SocketAddr) {
    let direct = free_address();
    let settings =
        format!("c2s_direct_tls_ports = {{ {} }}\nc2s_direct_tls_interfaces = {{ \"127.0.0.1\" }}", direct.port());
    (Prosody::over_tls(&authority.issue("localhost"), &settings).await, direct)
}

/// `SSL_CERT_FILE` names the system's authorities.
#[tokio::test]
async fn the_systems_authorities_are_trusted_by_default() {
    let authority = Authority::new("ours");
    let (_prosody, direct) = prosody_with_direct_tls(&authority).await;
    let file = authority.file().display().to_string().leak();
    let setup = Setup::new(direct).set("host.upstream_tls", "'direct'").env("SSL_CERT_FILE", file);
    Pushward::start(setup).await.login("alice", "phone").await;
}

/// Checks the refusal: clients get an error that the server is unreachable. The log and `check` give the reason and the
/// remedy.
async fn check_refused(setup: Setup, reason: &str, remedy: &str) {
    let pushward = Pushward::start(setup).await;
    let mut client = pushward.connect().await;
    client.send(crate::support::HEADER).await;
    let last = client.closed(PATIENCE).await.concat();
    assert!(last.contains("<remote-connection-failed"), "{last}");
    let line = pushward.logged(&["WARN", reason]).await;
    assert!(line.contains(remedy), "{line}");
    let (code, output) = run(&pushward.file(""), &["check"], PATIENCE).await;
    assert_eq!(code, Some(69), "{output}");
    let printed = output.lines().find(|line| line.contains("[[host]] localhost upstream: ")).unwrap_or_default();
    assert!(printed.contains(reason) && printed.contains(remedy), "{output}");
}

#[tokio::test]
async fn a_server_with_a_wrong_certificate_is_not_connected_to() {
    let (ours, other) = (Authority::new("ours"), Authority::new("another"));
    for (certificate, reason, remedy) in [
        (other.issue("localhost"), "issued by an unknown authority", "upstream_ca"),
        (ours.issue("other.test"), "its certificate is for other.test, not for localhost", "lists the domain"),
        (ours.issue_for("localhost", 2020..=2021), "its certificate expired at 2021-01-01T00:00:00Z", "renew it"),
    ] {
        let prosody = Prosody::over_tls(&certificate, "").await;
        check_refused(setup(prosody.address, "starttls", &ours), reason, remedy).await;
    }
}

#[tokio::test]
async fn a_server_without_tls_is_reported_where_tls_is_required() {
    let authority = Authority::new("ours");
    let stub = StubUpstream::start(StubOptions::default()).await;
    let (reason, remedy) = ("does not offer STARTTLS", "upstream_tls");
    check_refused(setup(stub.address, "starttls", &authority), reason, remedy).await;
    check_refused(setup(free_address(), "direct", &authority), "cannot connect", "start the server").await;
}

#[tokio::test]
async fn a_server_that_requires_tls_is_reported_on_a_plain_leg() {
    let authority = Authority::new("ours");
    let certificate = authority.issue("localhost");
    let prosody = Prosody::over_tls(&certificate, "c2s_require_encryption = true").await;
    check_refused(Setup::new(prosody.address), "requires TLS", "c2s_require_encryption = false").await;
    let pushward = Pushward::start(setup(prosody.address, "starttls", &authority)).await;
    pushward.login("alice", "phone").await;
    let (code, output) = run(&pushward.file(""), &["check"], PATIENCE).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("is ready over TLS; login mechanisms: "), "{output}");
}

#[tokio::test]
async fn a_missing_file_of_authorities_stops_the_start_and_is_reported_by_check() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[[host]]\ndomain = 'localhost'\nupstream_tls = 'direct'\nupstream_ca = 'missing.pem'\n";
    std::fs::write(directory.path().join("config.toml"), config).unwrap();
    let (code, output) = run(directory.path(), &["check"], PATIENCE).await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("config.toml:4: [[host]] localhost upstream_ca: "), "{output}");
    let (code, output) = run(directory.path(), &["run"], PATIENCE).await;
    assert_ne!(code, Some(0));
    assert!(output.contains("upstream_ca") && output.contains("missing.pem"), "{output}");
}

fn scram(first: &str) -> String {
    let message = BASE64.encode(first);
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>{message}</auth>")
}

/// Prosody offers channel binding with TLS 1.2. Removing it from the offer makes `y` fail (RFC 5802 §6).
#[tokio::test]
async fn stripped_channel_binding_is_reported_by_check_and_logged_once() {
    let authority = Authority::new("ours");
    let certificate = authority.issue("localhost");
    let (file, key) = (certificate.certificate.display(), certificate.key.display());
    let settings = format!("ssl = {{ certificate = \"{file}\"; key = \"{key}\"; protocol = \"tlsv1_2\" }}");
    let prosody = Prosody::over_tls(&certificate, &settings).await;
    let pushward = Pushward::start(setup(prosody.address, "starttls", &authority)).await;
    let (code, output) = run(&pushward.file(""), &["check"], PATIENCE).await;
    assert_eq!(code, Some(0), "{output}");
    let printed = output.lines().find(|line| line.contains("channel_binding: ")).unwrap_or_default();
    assert!(printed.contains("SCRAM-SHA-1-PLUS") && printed.contains("upstream_tls = \"off\""), "{output}");
    for _ in 0..2 {
        let mut client = pushward.connect().await;
        let features = client.open().await;
        assert!(!features.contains("-PLUS") && !features.contains("channel-binding"), "{features}");
        client.send(scram("y,,n=alice,r=a-nonce-of-the-client")).await;
        assert!(client.next().await.starts_with("<failure"));
    }
    pushward.logged(&["WARN", "channel binding", "remedy"]).await;
    let stripped = |line: &&String| line.contains("is not compatible") && line.contains("supports channel binding");
    let logged = pushward.log().iter().filter(stripped).count();
    assert_eq!(logged, 1, "{:?}", pushward.log());
    pushward.assert_log_never_contains("a-nonce-of-the-client");
    let kept = setup(prosody.address, "starttls", &authority).set("host.channel_binding", "'server-end-point'");
    let kept = Pushward::start(kept).await;
    let (_, output) = run(&kept.file(""), &["check"], PATIENCE).await;
    assert!(output.contains("offers no mechanism with tls-server-end-point"), "{output}");
    let features = kept.connect().await.open().await;
    assert!(!features.contains("-PLUS"), "Prosody 0.12 names no types, so clients would guess one: {features}");
    let answer = Element::parse(&pushward.connect().await.authenticated("alice").await);
    assert_eq!(answer.all("bind").len(), 1, "{answer:?}");
}

/// XEP-0515: a client fails if the server sees another version of TLS than the client itself uses.
#[tokio::test]
async fn the_server_sees_the_tls_version_of_the_client_or_log_and_check_report_that_it_cannot() {
    let authority = Authority::new("ours");
    let certificate = authority.issue("localhost");
    let (file, key) = (certificate.certificate.display(), certificate.key.display());
    let old = format!("ssl = {{ certificate = \"{file}\"; key = \"{key}\"; protocol = \"tlsv1_2\" }}");
    for (settings, lacking) in [("", None), (&*old, Some("TLS 1.3"))] {
        let prosody = Prosody::over_tls(&certificate, settings).await;
        let pushward =
            Pushward::start(setup(prosody.address, "starttls", &authority).set("log.level", "'debug'")).await;
        for (version, name) in [(&TLS12, "TLSv1_2"), (&TLS13, "TLSv1_3")] {
            for resource in ["one", "two"] {
                let mut client = Client::direct(pushward.direct, &pushward.tls().only(version)).await;
                client.login("alice", resource).await;
            }
            let upstream = if lacking.is_some() { "TLSv1_2" } else { name };
            pushward.logged(&["TLS with upstream server established", upstream]).await;
        }
        let warnings = || pushward.log().iter().filter(|line| line.contains("XEP-0515")).count();
        assert_eq!(warnings(), usize::from(lacking.is_some()), "{}", pushward.log().join("\n"));
        let (code, output) = run(&pushward.file(""), &["check"], PATIENCE).await;
        assert_eq!(code, Some(0), "{output}");
        let expect = match lacking {
            Some(version) => format!("does not support {version}"),
            None => "the server supports TLS 1.2 and TLS 1.3".to_owned(),
        };
        assert!(output.contains(&expect), "{output}");
    }
}

//! Reloads of the configuration while sessions run.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Authority, Client, Issued, PATIENCE, Prosody, PushServer, PushServerOptions, PushService, Pushward, Setup, World,
    binary, eventually, free_address, lost, quick, resumed,
};

/// Replaces the certificate of the host `localhost`.
fn installed(setup: Setup, issued: &Issued) -> Setup {
    setup
        .file("certs/localhost.pem", fs::read_to_string(&issued.certificate).unwrap())
        .file("certs/localhost.key", fs::read_to_string(&issued.key).unwrap())
}

/// Runs a command. Returns its exit code and output.
async fn command(pushward: &Pushward, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = binary();
    command.args(arguments).current_dir(pushward.file(""));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

async fn metrics(pushward: &Pushward) -> String {
    let line: Value = serde_json::from_str(&pushward.logged(&["admin page and metrics served"]).await).unwrap();
    let address: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut response = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut response)).await.unwrap().unwrap();
    response
}

#[tokio::test]
async fn a_certificate_swapped_on_disk_is_shown_from_then_on_and_sessions_go_on() {
    let mut world = World::with(quick).await;
    let (mut alice, enabled) = world.phone("phone", "n").await;
    let before = world.pushward.tls();
    let authority = Authority::new("an authority");
    world.pushward.configure(|setup| installed(setup, &authority.issue("localhost")));
    // Until the reload, the proxy shows the old certificate.
    Client::direct(world.pushward.direct, &before).await;
    assert!(world.pushward.reload().await);
    let after = world.pushward.tls();
    Client::direct(world.pushward.direct, &after).await;
    Client::starttls(world.pushward.starttls, &after).await;
    // The session still has its connection, and can be resumed over the new certificate.
    world.bob.say("alice@localhost/phone", "on the old connection").await;
    alice.expect("on the old connection").await;
    lost(&world.pushward, alice, "alice@localhost/phone").await;
    world.bob.say("alice@localhost/phone", "in the dark").await;
    world.service.publish(PATIENCE).await;
    let (mut alice, _) = resumed(&world.pushward, &enabled, 0).await;
    alice.expect("in the dark").await;
}

#[tokio::test]
async fn an_invalid_configuration_is_rejected_with_a_reason_and_the_previous_one_stays() {
    let prosody = Prosody::start().await;
    let page = |setup: Setup| setup.set("admin.listen", "'127.0.0.1:0'");
    let mut pushward = Pushward::start(page(Setup::new(prosody.address))).await;
    let mut alice = pushward.login("alice", "phone").await;
    pushward.configure(|setup| setup.set("push.max_device", "3").set("push.with_body", "1"));
    assert!(!pushward.reload().await);
    for key in ["[push] max_device", "[push] with_body"] {
        pushward.logged(&["configuration rejected", key]).await;
    }
    let (code, printed) = command(&pushward, &["reload"]).await;
    assert_eq!(code, Some(78), "{printed}");
    assert!(printed.contains("max_device"), "{printed}");
    // The configuration is valid, but a file that it names is missing: no part of it takes effect.
    pushward.configure(|_| {
        page(Setup::new(prosody.address))
            .set("log.level", "'debug'")
            .table("[[host]]\ndomain = 'jabber.org'\n[[host]]\ndomain = 'two.test'\nupstream_tls = 'starttls'")
            .table("upstream_ca = 'missing.pem'")
    });
    let (code, printed) = command(&pushward, &["reload", "--json"]).await;
    let printed: Value = serde_json::from_str(printed.trim()).unwrap();
    assert_eq!((code, &printed["done"]), (Some(1), &Value::from(false)), "{printed}");
    let problems = printed["problems"].to_string();
    assert!(problems.contains("certs/jabber.org.pem") && problems.contains("missing.pem"), "{printed}");
    pushward.logged(&["reload failed"]).await;
    alice.roundtrip().await;
    pushward.login("alice", "desk").await;
    assert!(!pushward.log().iter().any(|line| line.contains("\"DEBUG\"")), "nothing of it is in force");
    let metrics = metrics(&pushward).await;
    for line in ["pushward_reloads_total{outcome=\"refused\"} 2", "pushward_reloads_total{outcome=\"done\"} 0"] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains("two.test"), "{metrics}");
}

#[tokio::test]
async fn an_address_in_use_makes_the_reload_fail_and_the_previous_configuration_stays() {
    let prosody = Prosody::start().await;
    let mut pushward = Pushward::start(Setup::new(prosody.address)).await;
    let taken = format!("[[listen]]\naddress = '{}'", prosody.components);
    pushward.configure(|setup| setup.set("log.level", "'debug'").table(&taken));
    assert!(!pushward.reload().await);
    pushward.logged(&["configuration rejected", "cannot listen on", &prosody.components.to_string()]).await;
    pushward.login("alice", "phone").await;
    assert!(!pushward.log().iter().any(|line| line.contains("\"DEBUG\"")), "nothing of it is in force");
}

/// The new address is bound before the old one is closed.
#[tokio::test]
async fn an_address_that_includes_an_open_one_takes_a_restart_and_the_error_says_so() {
    let prosody = Prosody::start().await;
    let port = free_address().port();
    let listen = |ip: &str| format!("[[listen]]\naddress = '{ip}:{port}'");
    let mut pushward = Pushward::start(Setup::new(prosody.address).table(&listen("127.0.0.1"))).await;
    pushward.configure(|setup| setup.without_tables().table(&listen("0.0.0.0")));
    assert!(!pushward.reload().await);
    let why = format!("Pushward listens on 127.0.0.1:{port}, which a reload cannot replace by this address: restart");
    pushward.logged(&["configuration rejected", "cannot listen on 0.0.0.0", &why]).await;
    pushward.configure(|setup| setup.without_tables().table(&listen("127.0.0.1")).table(&listen("[::]")));
    assert!(!pushward.reload().await);
    let why = format!("127.0.0.1:{port}, of another [[listen]], takes the same connections");
    pushward.logged(&["configuration rejected", "cannot listen on [::]", &why]).await;
}

#[tokio::test]
async fn the_log_level_and_limits_change() {
    let prosody = Prosody::start().await;
    let mut pushward = Pushward::start(Setup::new(prosody.address)).await;
    let mut alice = pushward.login("alice", "phone").await;
    assert!(!pushward.log().iter().any(|line| line.contains("\"DEBUG\"")));
    pushward.configure(|setup| setup.set("log.level", "'debug'").set("limits.connections_per_address", "1"));
    assert!(pushward.reload().await);
    Client::plain(pushward.starttls).await.closed(PATIENCE).await;
    pushward.logged(&["limit reached", "connections_per_address"]).await;
    alice.roundtrip().await;
    pushward.configure(|setup| setup.set("limits.connections_per_address", "2"));
    assert!(pushward.reload().await);
    pushward.login("alice", "desk").await;
    pushward.logged(&["\"DEBUG\"", "TLS established"]).await;
    pushward.configure(|setup| setup.set("limits.connections_per_address", "9").set("limits.stanza", "'20 KiB'"));
    assert!(pushward.reload().await);
    let mut small = pushward.login("alice", "small").await;
    small.send(format!("<message to='bob@localhost'><body>{}</body></message>", "x".repeat(30 << 10))).await;
    let last = small.closed(PATIENCE).await;
    assert!(last.iter().any(|element| element.contains("policy-violation")), "{last:?}");
}

#[tokio::test]
async fn a_level_that_the_environment_overrides_is_reported() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut pushward = Pushward::start(Setup::new(nobody).env("RUST_LOG", "info")).await;
    pushward.configure(|setup| setup.set("log.level", "'debug'"));
    assert!(pushward.reload().await);
    pushward.logged(&["restart required", "the environment variable RUST_LOG overrides it"]).await;
    assert!(pushward.reload().await);
    let notes = pushward.log().iter().filter(|line| line.contains("restart required")).count();
    assert_eq!(notes, 1, "{:?}", pushward.log());
}

#[tokio::test]
async fn push_rules_change_for_sessions_that_are_held() {
    let mut world = World::with(quick).await;
    let (alice, _) = world.phone("phone", "n").await;
    lost(&world.pushward, alice, "alice@localhost/phone").await;
    world.bob.say("alice@localhost/phone", "before").await;
    assert_eq!(world.service.publish(PATIENCE).await.body(), Some("New Message!"));
    world.pushward.configure(|setup| setup.set("push.with_body", "true").set("push.with_sender", "true"));
    assert!(world.pushward.reload().await);
    world.bob.say("alice@localhost/phone", "after").await;
    let publish = world.service.publish(PATIENCE).await;
    assert_eq!((publish.body(), publish.sender()), (Some("after"), Some("bob@localhost/desk")));
}

#[tokio::test]
async fn a_new_host_is_served_and_a_removed_one_keeps_only_its_sessions() {
    let prosody = Prosody::with_hosts("VirtualHost \"two.test\"").await;
    let mut service = PushService::connect(&prosody).await;
    let two = format!("[[host]]\ndomain = 'two.test'\nupstream = '{}'", prosody.address);
    let mut pushward = Pushward::start(quick(Setup::new(prosody.address))).await;
    let refused = async |domain: &'static str| {
        let mut client = pushward_client(&pushward, "localhost").await.towards(domain);
        client.send(crate::support::HEADER.replace("localhost", domain)).await;
        let last = client.closed(PATIENCE).await;
        assert!(last.iter().any(|element| element.contains("host-unknown")), "{domain}: {last:?}");
    };
    refused("two.test").await;
    pushward.configure(|setup| setup.table(&two));
    assert!(pushward.reload().await);
    let mut live = pushward_client(&pushward, "two.test").await.towards("two.test");
    live.login("alice", "desk").await;
    let mut phone = pushward_client(&pushward, "two.test").await.towards("two.test");
    phone.login("bob", "phone").await;
    phone.enable().await;
    phone.send("<presence/>").await;
    phone.ping("two.test").await;
    crate::support::enable_push(&mut phone, "n").await;
    lost(&pushward, phone, "bob@two.test/phone").await;

    pushward.configure(Setup::without_tables);
    assert!(pushward.reload().await);
    let mut client = pushward_client(&pushward, "localhost").await.towards("two.test");
    client.send(crate::support::HEADER.replace("localhost", "two.test")).await;
    let last = client.closed(PATIENCE).await;
    assert!(last.iter().any(|element| element.contains("host-unknown")), "{last:?}");
    live.send("<message type='chat' to='bob@two.test/phone'><body>still here</body></message>").await;
    live.ping("two.test").await;
    let publish = service.publish(PATIENCE).await;
    assert_eq!((publish.from.as_str(), publish.count()), ("bob@two.test/phone", Some(1)));
    pushward.login("alice", "phone").await;
}

/// Opens a connection that trusts the certificate of a domain.
async fn pushward_client(pushward: &Pushward, domain: &'static str) -> Client {
    let tls = crate::support::Tls::trusting(&pushward.file(&format!("certs/{domain}.pem"))).named(domain);
    Client::direct(pushward.direct, &tls).await
}

#[tokio::test]
async fn addresses_are_opened_and_closed_and_their_connections_stay() {
    let prosody = Prosody::start().await;
    let (old, new) = (free_address(), free_address());
    let listen = |address: SocketAddr, tls: &str| format!("[[listen]]\naddress = '{address}'\ntls = '{tls}'");
    let mut pushward = Pushward::start(Setup::new(prosody.address).table(&listen(old, "direct"))).await;
    let mut alice = Client::direct(old, &pushward.tls()).await;
    alice.login("alice", "phone").await;
    pushward.configure(|setup| setup.without_tables().table(&listen(new, "direct")));
    assert!(pushward.reload().await);
    let mut desk = Client::direct(new, &pushward.tls()).await;
    desk.login("alice", "desk").await;
    let closed = || std::net::TcpStream::connect(old).is_err().then_some(());
    eventually(PATIENCE, || format!("{old} to be closed"), closed).await;
    alice.roundtrip().await;
    // The same address with another TLS mode.
    pushward.configure(|setup| setup.without_tables().table(&listen(new, "starttls")));
    assert!(pushward.reload().await);
    Client::starttls(new, &pushward.tls()).await.login("alice", "another").await;
    desk.roundtrip().await;
    pushward.login("alice", "first").await;
}

#[tokio::test]
async fn push_services_see_the_new_certificate() {
    let (authority, stranger) = (Authority::new("an authority"), Authority::new("a stranger"));
    let (prosody, peer) =
        (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
    let mut service = peer.push_service().await;
    let route =
        format!("[[push.route]]\ndomain = 'push.test'\naddress = '{}'\ntls = 'direct'\nca = 'ca.pem'", peer.direct);
    let setup = quick(installed(Setup::new(prosody.address), &stranger.issue("localhost")))
        .file("ca.pem", fs::read_to_string(authority.file()).unwrap())
        .set("push.transports", "['s2s']")
        .table(&route);
    let mut pushward = Pushward::start(setup).await;
    let mut alice = pushward.login("alice", "phone").await;
    alice.enable().await;
    alice.available().await;
    let enable = "<enable xmlns='urn:xmpp:push:0' jid='push.test' node='n'/>";
    crate::support::request(&mut alice, "push-enable", enable).await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.say("alice@localhost/phone", "one").await;
    pushward.logged(&["push transport skipped", "s2s", "certificate"]).await;
    pushward.configure(|setup| installed(setup, &authority.issue("localhost")));
    assert!(pushward.reload().await);
    bob.say("alice@localhost/phone", "two").await;
    assert_eq!(service.publish(PATIENCE).await.from, "localhost");
    pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
    // A stream with the current certificate replaces the open one.
    pushward.configure(|setup| installed(setup, &authority.issue("localhost")));
    assert!(pushward.reload().await);
    bob.say("alice@localhost/phone", "three").await;
    assert_eq!(service.publish(PATIENCE).await.from, "localhost");
    let twice = || (peer.streams() == 2).then_some(());
    eventually(PATIENCE, || format!("two streams, not {}", peer.streams()), twice).await;
}

#[tokio::test]
async fn a_component_with_another_secret_is_let_in() {
    let prosody = Prosody::with_hosts("Component \"pushward.localhost\"\n  component_secret = \"shared\"").await;
    let mut service = PushService::connect(&prosody).await;
    let component = |secret: &str| {
        let address = prosody.components;
        format!("[host.component]\naddress = '{address}'\ndomain = 'pushward.localhost'\nsecret = '{secret}'")
    };
    let setup = quick(Setup::new(prosody.address)).set("push.transports", "['component']");
    let mut pushward = Pushward::start(setup.table(&component("another"))).await;
    assert!(!pushward.log().iter().any(|line| line.contains("push stream established")));
    pushward.configure(|setup| setup.without_tables().table(&component("shared")));
    assert!(pushward.reload().await);
    pushward.logged(&["push stream established"]).await;
    // A component that has not changed keeps its stream.
    assert!(pushward.reload().await);
    let mut alice = pushward.login("alice", "phone").await;
    alice.enable().await;
    alice.available().await;
    crate::support::enable_push(&mut alice, "n").await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.say("alice@localhost/phone", "one").await;
    assert_eq!(service.publish(PATIENCE).await.from, "pushward.localhost");
    assert_eq!(pushward.log().iter().filter(|line| line.contains("push stream established")).count(), 1);
    // A component that was removed is no longer used.
    pushward.configure(|setup| setup.without_tables().set("push.transports", "['session']"));
    assert!(pushward.reload().await);
    bob.say("alice@localhost/phone", "two").await;
    assert_eq!(service.publish(PATIENCE).await.from, "alice@localhost/phone");
}

#[tokio::test]
async fn changes_that_need_a_restart_are_reported_and_the_rest_is_applied() {
    let prosody = Prosody::start().await;
    let page = |setup: Setup| setup.set("admin.listen", "'127.0.0.1:0'");
    let mut pushward = Pushward::start(page(Setup::new(prosody.address))).await;
    pushward.configure(|setup| setup.set("state", "'elsewhere'").set("admin.socket", "'state/admin.sock'"));
    pushward.configure(|setup| setup.set("push.with_body", "true"));
    let (code, printed) = command(&pushward, &["reload", "--json"]).await;
    let printed: Value = serde_json::from_str(printed.trim()).unwrap();
    assert_eq!((code, &printed["done"]), (Some(0), &Value::from(true)), "{printed}");
    let notes = printed["notes"].as_array().unwrap();
    assert!(
        matches!(&notes[..], [note] if note.as_str().unwrap().starts_with("state keeps its old value")),
        "{printed}"
    );
    pushward.logged(&["WARN", "state keeps its old value", "restart Pushward"]).await;
    let (code, printed) = command(&pushward, &["reload"]).await;
    assert_eq!((code, printed.lines().last()), (Some(0), Some("reloaded")), "{printed}");
    let metrics = metrics(&pushward).await;
    assert!(metrics.contains("pushward_reloads_total{outcome=\"done\"} 2"), "{metrics}");
    assert!(!pushward.file("elsewhere").exists());
}

#[tokio::test]
async fn certificates_that_clients_refuse_or_soon_will_are_named_in_the_log_and_in_the_metrics() {
    let prosody = Prosody::start().await;
    let authority = Authority::new("an authority");
    let setup = Setup::new(prosody.address).set("admin.listen", "'127.0.0.1:0'");
    let mut pushward = Pushward::start(installed(setup, &authority.issue("elsewhere.test"))).await;
    pushward.logged(&["WARN", "certificate problem", "does not name the domain", "localhost"]).await;
    let problem =
        |name: &str, is: u8| format!("pushward_certificate_problem{{domain=\"localhost\",problem=\"{name}\"}} {is}\n");
    let printed = metrics(&pushward).await;
    assert!(printed.contains(&problem("not_for_domain", 1)) && printed.contains(&problem("expired", 0)), "{printed}");
    // 2090-01-01
    assert!(
        printed.contains("pushward_certificate_expiry_timestamp_seconds{domain=\"localhost\"} 3786912000\n"),
        "{printed}"
    );
    pushward
        .configure(|setup| installed(setup, &authority.issue_within("localhost", Duration::from_secs(13 * 86_400))));
    assert!(pushward.reload().await);
    pushward.logged(&["WARN", "certificate problem", "expires within 14 days", "localhost"]).await;
    let printed = metrics(&pushward).await;
    assert!(
        printed.contains(&problem("expires_soon", 1)) && printed.contains(&problem("not_for_domain", 0)),
        "{printed}"
    );
    let (code, printed) = command(&pushward, &["check"]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("[[host]] localhost certificate: ") && printed.contains("expires within 14 days"),
        "{printed}"
    );
    pushward.configure(|setup| installed(setup, &authority.issue("localhost")));
    assert!(pushward.reload().await);
    assert!(metrics(&pushward).await.contains(&problem("expires_soon", 0)));
}

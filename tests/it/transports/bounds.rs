//! Limits on the cost that push services, and the users who chose them, can cause: memory, connections, ports.

use std::fs;
use std::time::{Duration, Instant};

use super::{bob, quick, routed, writes};
use crate::admin::ask;
use crate::support::{
    AppServer, Authority, COMPONENT_SECRET, Client, NameServer, PATIENCE, Prosody, Pushward, Record, Setup,
    free_address, lost, request,
};

/// Returns the memory of a process, in KiB.
fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Regression test: 80 MB of requests on a stream whose answers are not read took 198 MB.
#[tokio::test]
async fn a_push_service_that_sends_requests_and_does_not_read_uses_little_memory() {
    let request = "<iq type='get' id='1' from='push.test' to='nobody@localhost'><q xmlns='x'/></iq>";
    let (grown, _) = flooded(request, |setup| setup).await;
    assert!(grown < 32 * 1024, "{grown} KiB");
}

/// Regression test: answers for a client that does not read took 59 MB.
#[tokio::test]
async fn answers_for_a_client_that_does_not_read_are_dropped_and_counted() {
    let answer = format!(
        "<iq type='result' id='1' from='push.test' to='alice@localhost/desk'><q xmlns='x'>{}</q></iq>",
        "x".repeat(3000)
    );
    let (grown, pushward) = flooded(&answer, |setup| setup.set("stream_management.write_timeout", "'60s'")).await;
    assert!(grown < 32 * 1024, "{grown} KiB");
    let dropped = pushward.metric("pushward_push_service_stanzas_total{fate=\"dropped\"}").await;
    assert!(dropped > 1000, "{dropped}");
}

/// Sends 80 MB from a push service that does not read, while alice's desk does not read either. Returns the growth of
/// memory in KiB.
async fn flooded(stanza: &str, settings: impl FnOnce(Setup) -> Setup) -> (u64, Pushward) {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let mut app = AppServer::start("push.test", &authority).await;
    let setup = quick(routed(&prosody, &authority, &app.route())).set("push.transports", "['s2s']").with_metrics();
    let pushward = Pushward::start(settings(setup)).await;
    let mut bob = bob(&prosody).await;
    let mut desk = pushward.login("alice", "desk").await;
    desk.enable().await;
    desk.available().await;
    let (alice, _) = super::phone(&pushward, "push.test").await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    writes(&mut bob, "one").await;
    let mut stream = app.stream().await;
    stream.publish().await;
    pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
    let before = memory(pushward.process());
    let written = stream.flood(stanza, 80_000_000, Duration::from_secs(3)).await;
    let grown = memory(pushward.process()).saturating_sub(before);
    eprintln!("{written} bytes of the flood were taken, {grown} KiB");
    (grown, pushward)
}

/// Stanzas to a component come through the server, which reads no answers.
#[tokio::test]
async fn a_server_that_sends_a_component_requests_and_does_not_read_uses_little_memory() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let prosody = Prosody::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let table = format!(
        "[host.component]\naddress = '{address}'\ndomain = 'pushward.localhost'\nsecret = '{COMPONENT_SECRET}'\nfrom = 'component'"
    );
    let pushward = Pushward::start(Setup::new(prosody.address).table(&table)).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let header =
        "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1'>";
    server.write_all(header.as_bytes()).await.unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while !seen.windows(12).any(|window| window == b"</handshake>") {
        let length = server.read(&mut buffer).await.unwrap();
        seen.extend_from_slice(&buffer[..length]);
    }
    server.write_all(b"<handshake/>").await.unwrap();
    pushward.logged(&["push stream established"]).await;
    let before = memory(pushward.process());
    let chunk = "<iq type='get' id='1' from='a@localhost/x' to='pushward.localhost'><q xmlns='x'/></iq>".repeat(1000);
    let (mut written, until) = (0, Instant::now() + 4 * PATIENCE);
    while written < 80_000_000 && Instant::now() < until {
        match tokio::time::timeout(Duration::from_secs(3), server.write_all(chunk.as_bytes())).await {
            Ok(Ok(())) => written += chunk.len(),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let grown = memory(pushward.process()).saturating_sub(before);
    eprintln!("{written} bytes, {grown} KiB");
    assert!(grown < 32 * 1024 && written < 80_000_000, "{grown} KiB, {written} bytes");
}

async fn enables(client: &mut Client, service: &str) {
    let payload = format!("<enable xmlns='urn:xmpp:push:0' jid='{service}' node='{service}'/>");
    let answer = request(client, service, &payload).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
}

/// Sends a message to the account. Each of its dark devices is notified.
async fn writes_to(bob: &mut Client, account: &str) {
    bob.send(format!("<message type='chat' to='{account}@localhost/phone' id='x'><body>{account}</body></message>"))
        .await;
}

async fn dark_phone(pushward: &Pushward, account: &str, services: &[&str]) {
    let mut phone = pushward.login(account, "phone").await;
    phone.enable().await;
    phone.available().await;
    for service in services {
        enables(&mut phone, service).await;
    }
    lost(pushward, phone, &format!("{account}@localhost/phone")).await;
}

#[tokio::test]
async fn an_account_can_use_at_most_a_tenth_of_the_streams() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let mut apps = [AppServer::start("one.test", &authority).await, AppServer::start("two.test", &authority).await];
    let routes = format!("{}\n[[push.route]]\n{}", apps[0].route(), apps[1].route());
    let setup = quick(routed(&prosody, &authority, &routes)).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup.set("push.s2s_connections", "19")).await;
    let mut bob = bob(&prosody).await;
    dark_phone(&pushward, "alice", &["one.test", "two.test"]).await;
    writes_to(&mut bob, "alice").await;
    pushward.logged(&["push transport skipped", "a tenth of s2s_connections"]).await;
    let list = ask(&pushward, &["push", "list"]).await.out;
    assert!(list.contains("skipped: the account uses a tenth of s2s_connections, its limit"), "{list}");
    let [one, two] = &mut apps;
    let (mut held, taken) = tokio::select! {
        stream = one.stream() => (stream, 0),
        stream = two.stream() => (stream, 1),
    };
    held.publish().await;
    // Another account has its own share.
    let other = ["two.test", "one.test"][taken];
    dark_phone(&pushward, "carol", &[other]).await;
    writes_to(&mut bob, "carol").await;
    let mut stream = apps[1 - taken].stream().await;
    stream.publish().await;
}

#[tokio::test]
async fn a_stream_in_backoff_does_not_count_against_the_limit() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let mut app = AppServer::start("push.test", &authority).await;
    let dead = format!("domain = 'dead.test'\naddress = '{}'", free_address());
    let routes = format!("{}\n[[push.route]]\n{dead}", app.route());
    let setup = quick(routed(&prosody, &authority, &routes)).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup.set("push.s2s_connections", "1")).await;
    let mut bob = bob(&prosody).await;
    dark_phone(&pushward, "alice", &["dead.test"]).await;
    writes_to(&mut bob, "alice").await;
    pushward.logged(&["push transport skipped", "Connection refused"]).await;
    dark_phone(&pushward, "carol", &["push.test"]).await;
    writes_to(&mut bob, "carol").await;
    app.stream().await.publish().await;
}

#[tokio::test]
async fn the_ports_of_other_services_are_not_connected_to() {
    const STARTTLS: &str = "_xmpp-server._tcp.push.test";
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let dns = NameServer::knowing([
        Record::Srv(STARTTLS, 1, 25, "mail.test"),
        Record::Address("mail.test", [1, 1, 1, 1].into()),
    ])
    .await;
    let elsewhere = "domain = 'other.test'\naddress = '127.0.0.1:1'\nca = 'ca.pem'";
    let setup = routed(&prosody, &authority, elsewhere).set("dns.servers", &format!("['{}']", dns.address));
    let pushward = Pushward::start(setup.set("push.transports", "['s2s']")).await;
    let mut bob = bob(&prosody).await;
    super::goes_dark(&pushward, "push.test", &mut bob).await;
    pushward.logged(&["push transport skipped", "port 25"]).await;
    assert!(!dns.asked().iter().any(|name| name == "mail.test"), "the address is not even looked up");
    let list = ask(&pushward, &["push", "list"]).await.out;
    assert!(list.contains("port 25") && list.contains("[[push.route]]"), "{list}");
}

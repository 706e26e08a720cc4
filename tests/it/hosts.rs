//! Several domains behind one proxy: each has its own certificate and its own server.

use std::net::SocketAddr;

use crate::support::{Client, HEADER, PATIENCE, Prosody, Pushward, Setup, Tls, binary};

const HOSTS: [&str; 3] = ["localhost", "two.test", "three.test"];

/// Starts a proxy for [`HOSTS`]. The last of them is on a second server.
async fn three_hosts() -> (Prosody, Prosody, Pushward) {
    let first = Prosody::with_hosts("VirtualHost \"two.test\"").await;
    let second = Prosody::with_hosts("VirtualHost \"three.test\"").await;
    let host = |domain: &str, server: SocketAddr| format!("[[host]]\ndomain = '{domain}'\nupstream = '{server}'");
    let setup = Setup::new(first.address)
        .table(&host("two.test", first.address))
        .table(&host("three.test", second.address))
        .table("[[listen]]\naddress = '127.0.0.1:0'\ntls = 'direct'");
    let pushward = Pushward::start(setup).await;
    (first, second, pushward)
}

/// Trusts the certificate of this domain and no other.
fn only(pushward: &Pushward, domain: &str) -> Tls {
    Tls::trusting(&pushward.file(&format!("certs/{domain}.pem")))
}

/// Logs in and sends a message to itself through the server.
async fn is_served(client: Client, domain: &'static str) {
    let mut client = client.towards(domain);
    assert_eq!(client.login("alice", "phone").await, format!("alice@{domain}/phone"));
    client.ping(domain).await;
}

#[tokio::test]
async fn the_certificate_matches_the_name_in_the_clients_sni() {
    let (_first, _second, pushward) = three_hosts().await;
    for domain in HOSTS {
        let tls = only(&pushward, domain).named(domain);
        is_served(Client::direct(pushward.direct, &tls).await, domain).await;
        let client = Client::plain(pushward.starttls).await.towards(domain);
        is_served(client.upgrade(&tls).await, domain).await;
    }
}

#[tokio::test]
async fn without_sni_the_certificate_is_that_of_the_stream_or_of_the_first_host() {
    let (_first, _second, pushward) = three_hosts().await;
    for domain in HOSTS {
        let client = Client::plain(pushward.starttls).await.towards(domain);
        is_served(client.upgrade(&only(&pushward, domain).nameless()).await, domain).await;
        is_served(Client::direct(pushward.direct, &only(&pushward, "localhost").nameless()).await, domain).await;
    }
}

#[tokio::test]
async fn the_stream_selects_the_upstream_server_whatever_the_sni_was() {
    let (_first, _second, pushward) = three_hosts().await;
    let tls = only(&pushward, "two.test").named("two.test");
    is_served(Client::direct(pushward.direct, &tls).await, "three.test").await;
    let mut stranger = Client::direct(pushward.direct, &tls).await.towards("four.test");
    stranger.send(HEADER.replace("localhost", "four.test")).await;
    let last = stranger.closed(PATIENCE).await;
    assert!(last.iter().any(|element| element.contains("host-unknown")), "{last:?}");
}

/// Nobody needs to log in for that, so it is logged at intervals.
#[tokio::test]
async fn a_domain_that_no_host_has_is_named_in_the_log() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let refused = async |pushward: &Pushward, mut client: Client, domain: &str, condition: &str| {
        client.send(HEADER.replace("localhost", domain)).await;
        let last = client.closed(PATIENCE).await;
        assert!(last.iter().any(|element| element.contains(condition)), "{last:?}");
        let needles = ["connection refused: no [[host]] has this domain", "\"level\":\"WARN\"", "add a [[host]]"];
        pushward.logged(&needles).await
    };
    let pushward = Pushward::start(Setup::new(nobody)).await;
    let client = Client::direct(pushward.direct, &only(&pushward, "localhost").named("localhost")).await;
    let line = refused(&pushward, client, "four.test", "host-unknown").await;
    assert!(line.contains("\"domain\":\"four.test\"") && line.contains("\"peer\":\"127.0.0.1:"), "{line}");

    let pushward = Pushward::start(Setup::new(nobody)).await;
    let long = format!("&quot;{}.test", "x".repeat(2000));
    for _ in 0..3 {
        let line = refused(&pushward, Client::plain(pushward.starttls).await, &long, "improper-addressing").await;
        assert!(line.contains(&format!("\"domain\":\"\\\"{}…\"", "x".repeat(199))), "{line}");
    }
    let lines = pushward.log().iter().filter(|line| line.contains("no [[host]] has this domain")).count();
    assert_eq!(lines, 1, "{:?}", pushward.log());
}

#[tokio::test]
async fn check_tests_every_host() {
    let (_first, second, pushward) = three_hosts().await;
    let check = || {
        let mut check = binary();
        check.arg("check").current_dir(pushward.file(""));
        let output = check.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, printed) = check();
    assert_eq!(code, Some(0), "{printed}");
    for domain in HOSTS {
        assert!(printed.contains(&format!("certs/{domain}.pem is valid")), "{printed}");
        assert!(printed.lines().any(|line| line.starts_with(&format!("{domain}: the server at "))), "{printed}");
    }
    // One host has the certificate of another, and the server of a third is down.
    std::fs::copy(pushward.file("certs/localhost.pem"), pushward.file("certs/two.test.pem")).unwrap();
    std::fs::copy(pushward.file("certs/localhost.key"), pushward.file("certs/two.test.key")).unwrap();
    drop(second);
    let (code, printed) = check();
    assert_eq!(code, Some(78), "{printed}");
    assert!(
        printed.contains("[[host]] two.test certificate: ") && printed.contains("does not name the domain"),
        "{printed}"
    );
    assert!(printed.contains("[[host]] three.test upstream: ") && printed.contains("cannot connect"), "{printed}");
    assert!(printed.contains("certs/localhost.pem is valid"), "{printed}");
}

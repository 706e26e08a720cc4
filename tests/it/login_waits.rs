//! The waits of a login, and the events that end them early.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::support::{Client, HEADER, PATIENCE, Pushward, Setup, StubOptions, StubUpstream};

/// Opens a port in place of the server that accepts connections and sends nothing, so that TLS with it never completes.
async fn before_a_silent_server(adjust: impl FnOnce(Setup) -> Setup) -> (TcpListener, Pushward) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let setup = Setup::new(listener.local_addr().unwrap())
        .with_metrics()
        .set("host.upstream_tls", "'starttls'")
        .set("limits.connect_timeout", "'5m'");
    let pushward = Pushward::start(adjust(setup)).await;
    (listener, pushward)
}

/// Returns a login that waits for the connection to its server.
async fn waiting(pushward: &Pushward, listener: &TcpListener) -> Client {
    let mut client = pushward.connect().await;
    client.send(HEADER).await;
    tokio::spawn({
        let (tcp, _) = listener.accept().await.unwrap();
        async move {
            std::future::pending::<()>().await;
            drop(tcp);
        }
    });
    client
}

async fn gone(pushward: &Pushward, deadline: Duration) {
    let until = Instant::now() + deadline;
    while pushward.metric("pushward_connections").await > 0 {
        assert!(Instant::now() < until, "the connection is still there");
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_the_server_is_connected_ends_its_login() {
    let (listener, pushward) = before_a_silent_server(|setup| setup).await;
    waiting(&pushward, &listener).await.reset();
    gone(&pushward, PATIENCE).await;
}

#[tokio::test]
async fn a_login_ends_in_its_time_while_the_server_is_connected() {
    let quick = |setup: Setup| setup.set("limits.authentication_timeout", "'300ms'");
    let (listener, pushward) = before_a_silent_server(quick).await;
    let mut client = waiting(&pushward, &listener).await;
    let received = client.closed(PATIENCE).await.concat();
    assert!(received.contains("<connection-timeout "), "{received}");
    gone(&pushward, PATIENCE).await;
}

#[tokio::test]
async fn a_drain_ends_a_login_while_the_server_is_connected() {
    let (listener, mut pushward) = before_a_silent_server(|setup| setup).await;
    let mut client = waiting(&pushward, &listener).await;
    let received = async { client.closed(PATIENCE).await.concat() };
    let (received, (status, took)) = tokio::join!(received, pushward.terminate(PATIENCE));
    assert!(received.contains("<system-shutdown "), "{received}");
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}

/// The session that has the resource may take eight seconds to end. A login whose client leaves meanwhile ends at once.
#[tokio::test]
async fn a_client_that_leaves_while_its_resource_is_released_ends_its_login() {
    let options = StubOptions { footers: false, ..StubOptions::managed() };
    let mut stub = StubUpstream::start(options).await;
    let setup = Setup::new(stub.address).with_metrics().set("push.linger", "false");
    let pushward = Pushward::start(setup).await;
    let mut held = pushward.login("alice", "phone").await;
    let server = stub.session().await;
    held.enable().await;
    held.reset();
    let dark = "pushward_sessions{host=\"localhost\",state=\"dark\"}";
    let until = Instant::now() + PATIENCE;
    while pushward.metric(dark).await == 0 {
        assert!(Instant::now() < until, "the session is not held");
    }
    let mut client = pushward.authenticated("alice").await;
    client
        .send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>phone</resource></bind></iq>")
        .await;
    server.footer(PATIENCE).await;
    client.reset();
    gone(&pushward, Duration::from_millis(1500)).await;
}

/// Regression test: such a server kept its session without limit, because nothing was acknowledged to it and its
/// stanzas were held.
#[tokio::test]
async fn if_the_server_does_not_answer_enable_the_client_is_closed_after_server_timeout() {
    let options = StubOptions { ignores: &["<enable"], ..StubOptions::managed() };
    let mut stub = StubUpstream::start(options).await;
    let setup = Setup::new(stub.address).with_metrics().set("limits.server_timeout", "'1s'");
    let pushward = Pushward::start(setup).await;
    let mut client = pushward.login("alice", "phone").await;
    let server = stub.session().await;
    let received = client.closed(PATIENCE).await.concat();
    assert!(received.contains("<remote-connection-failed "), "{received}");
    server.closed(PATIENCE).await;
    assert_eq!(pushward.reached("server_timeout").await, 1);
}

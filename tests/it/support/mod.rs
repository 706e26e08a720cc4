//! The tools of the tests: real peers, scripted peers, and the proxy itself.

mod app_server;
mod authority;
mod browser;
mod client;
mod cluster;
mod descriptors;
mod disk;
mod dns;
mod ejabberd;
mod fast;
mod front;
mod jabberd2;
mod peer;
#[allow(dead_code, reason = "the tests of the library use the rest")]
#[path = "../../support/postgres.rs"]
pub(crate) mod postgres;
mod process;
mod prosody;
mod push_server;
mod push_service;
mod pushward;
mod sasl2;
mod sasl2_client;
mod scene;
mod server;
mod stub;
mod terminal;
mod tls;
mod wire;
mod world;
mod xml;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) use app_server::{AppClient, AppServer, AppStream};
pub(crate) use authority::{Authority, Issued};
pub(crate) use browser::Browser;
pub(crate) use client::{Client, Enabled, HEADER, STARTTLS, plain};
pub(crate) use cluster::{Cluster, nodes};
pub(crate) use descriptors::raise_descriptors;
pub(crate) use disk::Fault;
pub(crate) use dns::{NameServer, Record};
pub(crate) use ejabberd::Ejabberd;
pub(crate) use fast::{Device, EXPR, FAST, NONE, Token, asks, fast, wish};
pub(crate) use front::{Front, documented};
pub(crate) use jabberd2::Jabberd2;
pub(crate) use peer::{Library, Peer, Security};
pub(crate) use process::Process;
pub(crate) use prosody::{COMPONENT_SECRET, PASSWORD, Prosody};
pub(crate) use push_server::{PushServer, PushServerOptions};
pub(crate) use push_service::{Answer, Publish, PushService};
pub(crate) use pushward::{Pushward, Setup, binary};
pub(crate) use sasl2::{hashed_token, token};
pub(crate) use sasl2_client::{
    CARBONS, SM, Scram, Success, authenticate, header_from, logged_in, opened, resume, with_password,
};
pub(crate) use scene::{Scene, another, enable_push, failed, fresh, lost, request, resumed};
pub(crate) use server::Server;
pub(crate) use stub::{StubConnection, StubOptions, StubUpstream};
pub(crate) use terminal::Terminal;
pub(crate) use tls::Tls;
pub(crate) use wire::Wire;
pub(crate) use world::{PUSH_OPTIONS, QUIET, World, push_enable, quick};
pub(crate) use xml::{Element, Framer, Item};

/// Maximum wait for something that should happen at once, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Calls `probe` every few milliseconds until it finds something. Fails the test at the deadline.
pub(crate) async fn eventually<T>(
    deadline: Duration,
    what: impl Fn() -> String,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < until, "waited {deadline:?} in vain for {}", what());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns a loopback address whose port was free a moment ago, for peers that cannot bind port 0 themselves.
///
/// The port is below those that Linux assigns by itself (32768 and up), so no listener or connection of another test
/// gets it in the meantime. Two concurrent test runs start at different places.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(7919);
    loop {
        let port = 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Returns the bodies of messages, in order.
pub(crate) fn bodies(elements: &[String]) -> Vec<String> {
    let messages = elements.iter().filter(|element| element.starts_with("<message")).map(|xml| Element::parse(xml));
    messages.filter_map(|message| message.child("body").map(|body| body.text.clone())).collect()
}

/// Returns a chat message for `alice@localhost/phone`.
pub(crate) fn message(body: &str) -> String {
    format!(
        "<message type='chat' from='bob@localhost/desk' to='alice@localhost/phone' id='{body}'><body>{body}</body></message>"
    )
}

/// Returns the bodies without repetitions, in order of first appearance.
pub(crate) fn distinct(mut bodies: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    bodies.retain(|body| seen.insert(body.clone()));
    bodies
}

/// Returns numbered bodies: `numbered("dark", 1..=3)` is `dark 1` to `dark 3`.
pub(crate) fn numbered(name: &str, numbers: RangeInclusive<usize>) -> Vec<String> {
    numbers.map(|number| format!("{name} {number}")).collect()
}

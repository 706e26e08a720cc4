use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::publish::Interrupted;
use crate::publish::stand_in::{ComponentServer, Conduct};
use crate::push::notification::Summary;
use crate::push::registration::Registration;
use crate::push::settings::PushSettings;
use crate::registry::Registry;

const SECOND: Duration = Duration::from_secs(1);

fn settings(server: &ComponentServer) -> Arc<TransportSettings> {
    let config = format!(
        "[[host]]\ndomain = 'localhost'\ncertificate = 'c'\nkey = 'k'\nupstream = '127.0.0.1:1'\n\
         component = {{ domain = 'push.localhost', secret = 's', address = '{}' }}\n\
         [push]\ntransports = ['component']",
        server.address
    );
    let config = Config::parse(&config, Path::new("c")).unwrap();
    Arc::new(TransportSettings::load(Arc::new(config), Default::default()).unwrap())
}

fn publisher(server: &ComponentServer) -> Arc<Publisher> {
    let sessions = Arc::new(Registry::<()>::default());
    let fates = Metrics::default().fates();
    Arc::new(Publisher::new(settings(server), sessions, fates, &CancellationToken::new()))
}

fn notification() -> Publish {
    let registration = r#"{"target":{"service":"push.example","node":"n"},"device":1,"last_seen":0}"#;
    let registration: Registration = serde_json::from_str(registration).unwrap();
    Publish::new(&registration, Summary::wake(&PushSettings::default()), 1)
}

/// Begins a publish. The permit is dropped with the result.
fn begin(publisher: &Arc<Publisher>) -> tokio::task::JoinHandle<Result<Published, Interrupted>> {
    let (publisher, permit) = (Arc::clone(publisher), publisher.permit().unwrap());
    tokio::spawn(async move {
        let account = BareJid::new("juliet@localhost").unwrap();
        publisher.publish(&permit, &account, notification()).await
    })
}

fn unwritten() -> Result<Published, Interrupted> {
    Err(Interrupted(Box::new(notification())))
}

fn by_component(outcome: Outcome) -> Result<Published, Interrupted> {
    Ok(Published { transport: Some(Transport::Component), outcome })
}

#[tokio::test]
async fn at_an_interruption_each_publish_gets_a_definite_result() {
    let mut server = ComponentServer::start(Conduct::Serves).await;
    let publisher = publisher(&server);
    let (answered, silent) = (begin(&publisher), begin(&publisher));
    let first = server.next().await;
    server.next().await;
    let answer = async {
        tokio::time::sleep(SECOND / 10).await;
        assert!(publisher.is_interrupted() && publisher.permit().is_none());
        first.accept();
    };
    let began = Instant::now();
    let (in_time, ()) = tokio::join!(publisher.interrupt(began + SECOND / 2), answer);
    assert!(in_time && began.elapsed() >= SECOND / 2);
    let mut outcomes = [answered.await.unwrap(), silent.await.unwrap()];
    outcomes.sort_by_key(|result| result == &by_component(Outcome::Unknown));
    assert_eq!(outcomes, [by_component(Outcome::Accepted), by_component(Outcome::Unknown)]);
    assert!(server.is_quiet());
}

#[tokio::test]
async fn an_interruption_without_unanswered_publishes_ends_at_once() {
    let mut server = ComponentServer::start(Conduct::Serves).await;
    let publisher = publisher(&server);
    let answered = begin(&publisher);
    server.next().await.accept();
    assert_eq!(answered.await.unwrap(), by_component(Outcome::Accepted));
    let began = Instant::now();
    assert!(publisher.interrupt(began + 30 * SECOND).await);
    assert!(began.elapsed() < 20 * SECOND);
}

#[tokio::test]
async fn an_interruption_does_not_wait_for_a_peer_that_keeps_its_stream_open() {
    let mut server = ComponentServer::start(Conduct::StaysOpen).await;
    let publisher = publisher(&server);
    let silent = begin(&publisher);
    server.next().await;
    let began = Instant::now();
    assert!(publisher.interrupt(began + SECOND / 10).await);
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    assert_eq!(silent.await.unwrap(), by_component(Outcome::Unknown));
}

#[tokio::test]
async fn a_permit_that_is_held_too_long_is_reported() {
    let server = ComponentServer::start(Conduct::Serves).await;
    let publisher = publisher(&server);
    let permit = publisher.permit();
    assert!(!publisher.interrupt(Instant::now() + SECOND / 10).await);
    drop(permit);
    assert!(publisher.interrupt(Instant::now() + SECOND / 10).await);
}

#[tokio::test]
async fn a_publish_that_waits_for_a_stream_is_given_back_and_can_be_begun_after_a_resumption() {
    let silent = ComponentServer::start(Conduct::Silent).await;
    let publisher = publisher(&silent);
    let waits = begin(&publisher);
    tokio::time::sleep(SECOND / 10).await;
    assert!(publisher.interrupt(Instant::now() + 30 * SECOND).await);
    assert_eq!(waits.await.unwrap(), unwritten());
    let target = notification().target;
    let account = BareJid::new("juliet@localhost").unwrap();
    assert_eq!(publisher.service_status(&account, &target).last, None, "it counts nowhere");

    let mut server = ComponentServer::start(Conduct::Serves).await;
    publisher.reload(settings(&server));
    assert!(publisher.permit().is_none(), "a reload does not resume");
    publisher.resume();
    let begun = begin(&publisher);
    server.next().await.accept();
    assert_eq!(begun.await.unwrap(), by_component(Outcome::Accepted));
    assert!(publisher.interrupt(Instant::now() + SECOND).await, "a second time");
}

#[tokio::test]
async fn the_refusal_of_the_last_transport_counts_during_an_interruption() {
    let mut server = ComponentServer::start(Conduct::Serves).await;
    let publisher = publisher(&server);
    let refused = begin(&publisher);
    let received = server.next().await;
    let answer = async { received.refuse("forbidden") };
    assert!(tokio::join!(publisher.interrupt(Instant::now() + SECOND), answer).0);
    let expect = Outcome::Refused("forbidden".to_owned());
    assert_eq!(refused.await.unwrap(), by_component(expect));
}

use std::sync::Arc;
use std::time::Duration;

use tempfile::tempdir;

use super::*;
use crate::clock::{Instant, UnixSecs};
use crate::jid::BareJid;
use crate::publish::Interrupted;
use crate::publish::stand_in::{ComponentServer, Conduct};
use crate::push::absent::Notice;
use crate::push::account::{Change, DeviceId, DeviceRecognition, LoginId};
use crate::push::classify::{self, Context};
use crate::push::notification::{Detail, Publish, Summary};
use crate::push::registration::{Registration, Target};
use crate::push::rooms::Rooms;
use crate::push::settings::PushSettings;
use crate::push::waiting::Facts;
use crate::registry::Mail;
use crate::relay::client::Command;
use crate::relay::{Relay, rig};
use crate::session::fronting::KnownServer;
use crate::session::mechanism_filter::Leg;
use crate::session::negotiate::HeldSession;
use crate::session::tests::element;
use crate::store::Store;
use crate::xml::{Element, Header, stream_header};

const SECOND: Duration = Duration::from_secs(1);
const PHONE: DeviceId = DeviceId(1);

fn account() -> BareJid {
    BareJid::new("juliet@localhost").unwrap()
}

fn registration() -> Registration {
    Registration {
        target: Target { service: "push.example".parse().unwrap(), node: Some("n".to_owned()) },
        options: None,
        device: PHONE,
        last_seen: UnixSecs::new(1),
        errors: 0,
        extensions: Default::default(),
        last_success: None,
        undelivered_since: None,
    }
}

fn notice(id: u64, relay: &Relay) -> Notice {
    let stanza =
        element(&format!("<message from='romeo@example.net/x' type='chat' id='{id}'><body>b</body></message>"));
    let (account, rooms) = (account(), Rooms::default());
    let reading = classify::read(&stanza, Context { account: &account, rooms: &rooms });
    let facts = Facts::of(&reading, relay.settings().seed);
    Notice { facts, detail: Detail::of(&reading), registrations: vec![registration()] }
}

/// A database with a device that has a registration and no session.
async fn store(directory: &std::path::Path) -> Store {
    let store = Store::open(directory).unwrap();
    let login = store.next_login();
    let resource = "phone".to_owned();
    let at = UnixSecs::new(1);
    let known = Change::Login { candidate: PHONE, login, resource, agent: None, presented: None, at };
    let recognition = DeviceRecognition::Certain;
    let enable = Change::Enable { registration: registration(), recognition, max_devices: 1 };
    for change in [known, enable, Change::Ended { login }] {
        store.change(&account(), change).await.unwrap();
    }
    store
}

/// A relay that publishes through this component port, with 1 s between two pushes.
fn relay(directory: &std::path::Path, store: Store, server: &ComponentServer) -> Arc<Relay> {
    let component =
        format!("component = {{ domain = 'push.localhost', secret = 's', address = '{}' }}", server.address);
    rig::relay_like(directory, store, &format!("{component}\n[push]\ntransports = ['component']\nmin_interval = '1s'"))
}

/// Returns the record as another process gets it.
async fn frozen(relay: &Relay) -> RelayRecord {
    RelayRecord::decode(&relay.freeze_rest().await.encode().unwrap()).unwrap()
}

#[tokio::test]
async fn what_is_due_for_an_absent_device_is_published_by_the_next_process() {
    let directory = tempdir().unwrap();
    let store = store(directory.path()).await;
    let (mut first, mut second) =
        (ComponentServer::start(Conduct::Serves).await, ComponentServer::start(Conduct::Serves).await);
    let old = relay(directory.path(), store.clone(), &first);
    old.absent().on_notice(&account(), notice(1, &old));
    first.next().await.accept();
    // Due in a second.
    let began = Instant::now();
    old.absent().on_notice(&account(), notice(2, &old));
    assert!(old.interrupt_publishing(began + SECOND / 2).await);
    let record = frozen(&old).await;

    let new = relay(directory.path(), store, &second);
    new.thaw_rest(record).unwrap();
    second.next().await.accept();
    assert!(began.elapsed() > SECOND / 2, "it keeps its time");
    // A copy of what the old process has pushed.
    new.absent().on_notice(&account(), notice(1, &new));
    tokio::time::sleep(3 * SECOND / 2).await;
    assert!(second.is_quiet() && first.is_quiet());
}

#[tokio::test]
async fn a_publish_for_an_absent_device_that_was_not_written_is_published_by_the_next_process() {
    let directory = tempdir().unwrap();
    let store = store(directory.path()).await;
    let (silent, mut server) =
        (ComponentServer::start(Conduct::Silent).await, ComponentServer::start(Conduct::Serves).await);
    let old = relay(directory.path(), store.clone(), &silent);
    old.absent().on_notice(&account(), notice(1, &old));
    tokio::time::sleep(SECOND / 5).await;
    assert!(old.interrupt_publishing(Instant::now() + SECOND).await);
    // Due while publishing is interrupted.
    let record = frozen(&old).await;
    assert_eq!(record.absent.len(), 1);
    let new = relay(directory.path(), store.clone(), &server);
    new.thaw_rest(record).unwrap();
    server.next().await.accept();
    tokio::time::sleep(SECOND / 5).await;
    let known = store.account(&account()).await.unwrap();
    assert_eq!(known.registrations[0].undelivered_since, None, "it does not count as a failure");
    assert!(known.registrations[0].last_success.is_some());
}

#[tokio::test]
async fn a_publish_that_was_written_is_not_repeated_by_the_next_process() {
    let directory = tempdir().unwrap();
    let store = store(directory.path()).await;
    let (mut first, mut second) =
        (ComponentServer::start(Conduct::Serves).await, ComponentServer::start(Conduct::Serves).await);
    let old = relay(directory.path(), store.clone(), &first);
    old.absent().on_notice(&account(), notice(1, &old));
    first.next().await;
    assert!(old.interrupt_publishing(Instant::now() + SECOND / 5).await);
    let new = relay(directory.path(), store, &second);
    new.thaw_rest(frozen(&old).await).unwrap();
    tokio::time::sleep(2 * SECOND).await;
    assert!(second.is_quiet());
    new.absent().on_notice(&account(), notice(2, &new));
    second.next().await;
}

#[tokio::test]
async fn after_an_abandoned_handover_the_same_process_continues() {
    let directory = tempdir().unwrap();
    let store = store(directory.path()).await;
    let mut server = ComponentServer::start(Conduct::Serves).await;
    let relay = relay(directory.path(), store, &server);
    assert!(relay.interrupt_publishing(Instant::now() + SECOND).await);
    relay.absent().on_notice(&account(), notice(1, &relay));
    let record = relay.freeze_rest().await;
    assert_eq!(record.absent.len(), 1);
    tokio::time::sleep(SECOND / 5).await;
    assert!(server.is_quiet());
    relay.resume_publishing();
    server.next().await.accept();
    tokio::time::sleep(2 * SECOND).await;
    assert!(server.is_quiet(), "once");
}

#[tokio::test]
async fn failed_logins_and_the_state_of_push_services_are_known_to_the_next_process() {
    let (directory, other) = (tempdir().unwrap(), tempdir().unwrap());
    let mut server = ComponentServer::start(Conduct::Serves).await;
    let old = relay(directory.path(), store(directory.path()).await, &server);
    let (address, now) = ("192.0.2.1".parse().unwrap(), Instant::now());
    (0..1000).for_each(|_| old.guards().logins().failed(now, address));
    old.absent().on_notice(&account(), notice(1, &old));
    server.next().await.accept();
    assert!(old.interrupt_publishing(Instant::now() + SECOND).await);
    let status = old.service_status(&account(), &registration().target);
    assert!(status.last.is_some());
    let new = relay(other.path(), Store::open(other.path()).unwrap(), &server);
    new.thaw_rest(frozen(&old).await).unwrap();
    assert!(new.guards().logins().is_locked_out(now, address));
    assert_eq!(new.service_status(&account(), &registration().target), status);
}

#[tokio::test]
async fn what_is_known_about_a_server_is_used_with_the_same_server_only() {
    let directory = tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let [old, same, other] =
        ["", "", "upstream_tls = 'starttls'"].map(|more| rig::relay_like(directory.path(), store.clone(), more));
    old.settings().fronting.on_carbons_refused("localhost");
    for (relay, carbons) in [(same, false), (other, true)] {
        relay.thaw_rest(frozen(&old).await).unwrap();
        assert_eq!(relay.settings().fronting.parts("localhost").map(|parts| parts.carbons), Some(carbons));
    }
}

#[tokio::test]
async fn damaged_bytes_and_those_of_another_version_are_refused() {
    let directory = tempdir().unwrap();
    let relay = rig::relay(directory.path());
    relay.absent().on_notice(&account(), notice(1, &relay));
    let header = Arc::new(Header::parse(stream_header("localhost", "1", None)).unwrap());
    let features = Element::parse("<stream:features/>".into(), &header).unwrap();
    relay.settings().fronting.on_features("localhost", None, KnownServer { header, features, leg: Leg::Plain });
    let bytes = relay.freeze_rest().await.encode().unwrap();
    assert!(RelayRecord::decode(&bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(RelayRecord::decode(&bytes[..length]).is_err(), "{length}");
    }
    assert!(matches!(RelayRecord::decode(&[&bytes[..], b"\0"].concat()), Err(RelayRecordError::Length)));
    let other = [&2u32.to_be_bytes(), &bytes[4..]].concat();
    assert!(matches!(RelayRecord::decode(&other), Err(RelayRecordError::Version(2))));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            if let Ok(record) = RelayRecord::decode(&changed) {
                drop(relay.thaw_rest(record));
                let known = relay.settings().fronting.known("localhost", None);
                known.iter().for_each(|known| assert_eq!(known.features.node().children().count(), 0));
            }
        }
    }
    tokio::time::sleep(SECOND / 5).await;
    let record = relay.freeze_rest().await;
    assert!(RelayRecord::decode(&record.encode().unwrap()).is_ok());
}

#[tokio::test]
async fn a_record_of_another_seed_is_refused() {
    let directory = tempdir().unwrap();
    let relay = rig::relay(directory.path());
    let mut record = relay.freeze_rest().await;
    record.seed = Secret::new(record.seed() + 1);
    assert!(matches!(relay.thaw_rest(record), Err(RelayRecordError::OtherSeed)));
}

#[tokio::test]
async fn a_session_gets_back_what_was_not_written() {
    let directory = tempdir().unwrap();
    let silent = ComponentServer::start(Conduct::Silent).await;
    let relay = relay(directory.path(), Store::open(directory.path()).unwrap(), &silent);
    let held = HeldSession { account: account(), identity: None };
    let (session, mut commands) = relay.registry().enter(LoginId(1), held, "phone".to_owned());
    let publish = Publish::new(&registration(), Summary::wake(&PushSettings::default()), 1);
    let publishing = relay.publishing();
    let permit = publishing.permit().unwrap();
    let (given_back, in_time) = tokio::join!(
        publishing.publish_for_session(permit, &session, publish.clone()),
        relay.interrupt_publishing(Instant::now() + SECOND)
    );
    assert!(given_back.is_ok() && in_time);
    let mail = commands.recv().await;
    assert!(matches!(&mail, Some(Mail::Message(Command::Unpublished(back))) if **back == publish), "{mail:?}");

    relay.resume_publishing();
    let permit = publishing.permit().unwrap();
    commands.close();
    let (given_back, _) = tokio::join!(
        publishing.publish_for_session(permit, &session, publish.clone()),
        relay.interrupt_publishing(Instant::now() + SECOND)
    );
    assert_eq!(given_back, Err(Interrupted(Box::new(publish))), "the session has ended");
}

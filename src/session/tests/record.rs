//! The record of a session. [`Rig`] and the model let every session continue from its record; these tests are about the
//! record itself.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Instant as Stopwatch;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::*;
use crate::session::{RECORD_VERSION, RECORD_VERSIONS_READ, ThawError};

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const PUSH: &str = "<enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'>\
    <ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/></enable>";

fn thaw(record: &[u8]) -> Result<Session, ThawError> {
    Session::thaw(record, Arc::default(), random)
}

/// Sessions in which together every part of the record has content, by the name of their golden record.
fn sessions() -> [(&'static str, Rig); 5] {
    [("live", live()), ("waiting", waiting()), ("dark", dark()), ("careful", careful()), ("ending", ending())]
}

/// A stanza that an earlier session has left.
fn left() -> Spooled {
    Spooled {
        seq: Seq::new(1),
        received: UnixMillis::new(1000),
        shared: false,
        archived: false,
        bytes: Bytes::from(message(1)),
    }
}

/// A client that is connected, with a backlog, and requests that nobody has answered.
fn live() -> Rig {
    let mut rig = Rig::start_with_server_sm(Settings { session_queue: 1 << 20, ..Settings::default() }, vec![left()]);
    rig.server_confirms = false;
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.client(ENABLE);
    rig.client("<presence><priority>1</priority></presence>");
    rig.client(&format!("<iq type='set' id='p'>{PUSH}</iq>"));
    rig.upstream(
        "<iq type='result' id='r' to='juliet@example.org/phone'><query xmlns='jabber:iq:roster'>\
        <item jid='romeo@example.net' subscription='both'/></query></iq>",
    );
    rig.client("<presence to='coven@chat.example/juliet'><x xmlns='http://jabber.org/protocol/muc'/></presence>");
    rig.client("<iq type='get' id='q'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>");
    rig.client("<iq type='set' id='w'><query xmlns='jabber:iq:register'><password>x</password></query></iq>");
    rig.client("<iq type='set' id='x'><query xmlns='jabber:iq:register'><remove/></query></iq>");
    rig.client("<iq type='set' id='mam'><query xmlns='urn:xmpp:mam:2'/></iq>");
    rig.upstream("<presence from='romeo@example.net/x'/>");
    rig.upstream(
        "<message from='romeo@example.net/x' id='c'><propose xmlns='urn:xmpp:jingle-message:0' id='a'>\
        <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose></message>",
    );
    rig.upstream(&message(2));
    rig.store_is_late = true;
    rig.client("<iq type='set' id='p2'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='m'/></iq>");
    rig.input(Input::Account(Box::new(rig.account.clone())));
    rig.client("<r xmlns='urn:xmpp:sm:3'/>");
    rig.input(Input::Successor(Some(crate::session::Successor { same_address: false })));
    rig.input(Input::Paused(Peer::Server));
    rig
}

/// A client whose presence waits for its backlog.
fn waiting() -> Rig {
    let mut rig = Rig::start(Settings { session_queue: 1 << 20, ..Settings::default() }, vec![left()]);
    rig.reads_are_slow = true;
    rig.client("<presence/>");
    rig.client("<message to='romeo@example.net'><body>x</body></message>");
    rig
}

/// A client that is away, with stanzas in memory, on disk and on their way there, and pushes.
fn dark() -> Rig {
    let mut rig = Rig::with(Settings { session_queue: 4000, ..Settings::default() });
    rig.client(ENABLE);
    rig.client(&format!("<iq type='set' id='p'>{PUSH}</iq>"));
    rig.account.devices.push(Device { id: DeviceId(8), ..rig.account.devices[0].clone() });
    rig.input(Input::Account(Box::new(rig.account.clone())));
    rig.client("<presence/>");
    rig.upstream(
        "<iq type='result' id='r' to='juliet@example.org/phone'><query xmlns='jabber:iq:roster'>\
        <item jid='romeo@example.net' subscription='both'/></query></iq>",
    );
    rig.lose_client();
    (1..=5).for_each(|n| rig.upstream(&message(n)));
    rig.upstream("<presence from='romeo@example.net/x'/>");
    rig.seconds(2);
    rig.upstream(
        "<message from='romeo@example.net/x' id='c'><propose xmlns='urn:xmpp:jingle-message:0' id='a'>\
        <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose></message>",
    );
    let publish = rig.publishes[0].clone();
    let result = |outcome| PublishResult { id: publish.id, target: publish.target.clone(), outcome };
    rig.input(Input::Published(Box::new(result(crate::push::outcome::Outcome::NotSent))));
    rig.input(Input::PublishOnStream { number: 1, publish: Box::new(publish.clone()) });
    rig.disk_is_slow = true;
    (6..=40).for_each(|n| rig.upstream(&message(n)));
    rig.upstream("<iq type='get' from='romeo@example.net/x' id='v'><query xmlns='jabber:iq:version'/></iq>");
    rig
}

/// A client in the background for which a stanza is set aside.
fn careful() -> Rig {
    let settings = Settings { session_queue: 1 << 20, ..Settings::default() };
    let mut rig = Rig::begin(settings, Vec::new(), |bound| bound.server = ServerFeatures { csi: false, sm: false });
    rig.client(ENABLE);
    rig.upstream(&message(1));
    for _ in 0..3 {
        rig.seconds(1);
        rig.input(Input::ClientBroke(rig.session.attachment()));
        rig.input(Input::Quiet);
        rig.resume(0);
    }
    rig.upstream(&message(2));
    rig.client("<inactive xmlns='urn:xmpp:csi:0'/>");
    rig.upstream(
        "<message from='romeo@example.net/x' type='chat'>\
        <composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
    );
    rig
}

/// A session whose last stanzas are left to the server.
fn ending() -> Rig {
    let mut rig = Rig::start_with_server_sm(Settings { session_queue: 1 << 20, ..Settings::default() }, Vec::new());
    rig.upstream("<enabled xmlns='urn:xmpp:sm:3'/>");
    rig.client("<enable xmlns='urn:xmpp:sm:3'/>");
    rig.server_confirms = false;
    rig.upstream(&message(1));
    rig.input(Input::Client { attachment: rig.session.attachment(), frame: Frame::Close });
    rig.input(Input::Quiet);
    rig.upstream(&message(2));
    rig
}

/// The paths of all maps in a record. Elements of lists and keys that are no names are `*`.
#[derive(Debug, Default, PartialEq, Eq)]
struct RecordShape(BTreeSet<String>);

impl RecordShape {
    fn of(record: &[u8]) -> BTreeSet<String> {
        rmp_serde::from_slice::<Self>(&record[4..]).unwrap().0
    }

    fn add(&mut self, key: &str, inner: Self) {
        self.0.insert(key.to_owned());
        self.0.extend(inner.0.into_iter().map(|path| format!("{key}.{path}")));
    }
}

impl<'de> Deserialize<'de> for RecordShape {
    fn deserialize<D: Deserializer<'de>>(any: D) -> Result<Self, D::Error> {
        any.deserialize_any(ShapeReader)
    }
}

struct ShapeReader;

impl<'de> Visitor<'de> for ShapeReader {
    type Value = RecordShape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RecordShape, A::Error> {
        let mut shape = RecordShape::default();
        while let Some((key, inner)) = map.next_entry::<MapKey, RecordShape>()? {
            shape.add(&key.0, inner);
        }
        Ok(shape)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RecordShape, A::Error> {
        let mut shape = RecordShape::default();
        while let Some(inner) = list.next_element::<RecordShape>()? {
            shape.0.extend(inner.0.into_iter().map(|path| format!("*.{path}")));
        }
        Ok(shape)
    }

    fn visit_unit<E>(self) -> Result<RecordShape, E> {
        Ok(RecordShape::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<RecordShape, E> {
        Ok(RecordShape::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<RecordShape, E> {
        Ok(RecordShape::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<RecordShape, E> {
        Ok(RecordShape::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<RecordShape, E> {
        Ok(RecordShape::default())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<RecordShape, E> {
        Ok(RecordShape::default())
    }
}

/// A key of a map: a name, or `*`.
struct MapKey(String);

impl<'de> Deserialize<'de> for MapKey {
    fn deserialize<D: Deserializer<'de>>(any: D) -> Result<Self, D::Error> {
        struct KeyReader;
        impl Visitor<'_> for KeyReader {
            type Value = MapKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a number")
            }

            fn visit_u64<E>(self, _: u64) -> Result<MapKey, E> {
                Ok(MapKey("*".to_owned()))
            }

            fn visit_str<E>(self, name: &str) -> Result<MapKey, E> {
                Ok(MapKey(name.to_owned()))
            }
        }
        any.deserialize_any(KeyReader)
    }
}

fn golden(version: u32, name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/session/tests/record");
    folder.join(format!("v{version}")).join(format!("{name}.bin"))
}

#[test]
fn records_of_every_version_that_is_read_continue() {
    for version in RECORD_VERSIONS_READ {
        for (name, _) in sessions() {
            let record = std::fs::read(golden(version, name)).unwrap();
            let session = thaw(&record).unwrap_or_else(|error| panic!("version {version}, {name}: {error}"));
            assert_eq!(session.identity.jid().as_str(), "juliet@example.org/phone");
        }
    }
}

#[test]
fn a_change_of_the_record_changes_its_version() {
    let advice = "The record of a session has changed. Increase RECORD_VERSION, keep RECORD_VERSIONS_READ at the versions that can be \
        read (a new field needs `#[serde(default)]`), and run `cargo test --lib write_golden_records -- --ignored`.";
    for (name, rig) in sessions() {
        let record = std::fs::read(golden(RECORD_VERSION, name)).unwrap();
        assert!(thaw(&record).unwrap().freeze() == record, "{name}: {advice}");
        assert_eq!(RecordShape::of(&rig.session.freeze()), RecordShape::of(&record), "{name}: {advice}");
    }
}

#[test]
#[ignore = "it writes files"]
fn write_golden_records() {
    for (name, rig) in sessions() {
        let path = golden(RECORD_VERSION, name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, rig.session.freeze()).unwrap();
    }
}

#[test]
fn the_golden_records_have_content_in_every_part() {
    let mut paths = BTreeSet::new();
    for (_, rig) in sessions() {
        paths.extend(RecordShape::of(&rig.session.freeze()));
    }
    for part in [
        "device.account.deferred_replies.open.*.enabled.service",
        "device.account.newest.registrations",
        "device.account.account.registrations.*.target",
        "device.account.account.devices.*.guard.aside",
        "device.backlog.behind.frames.*.Element.bytes",
        "device.backlog.state.Sending.bytes",
        "device.client.acknowledgements.tracking.Sm",
        "device.client.liveness.link.Dark",
        "device.delivery.given_back.messages.*.element",
        "device.delivery.held.newest.*",
        "device.delivery.presence.by_sender.*",
        "device.delivery.queue.aside.items.*.mark",
        "device.delivery.queue.earlier.origins.*.place",
        "device.delivery.queue.flight.waiting.*.Stanza.element.header.context",
        "device.delivery.queue.segments.items.*.element.header.own.bytes",
        "device.delivery.queue.spill.places.*.added",
        "device.delivery.queue.tail.notes.requests",
        "device.notifier.pusher.schedule.again.pushed",
        "device.notifier.pusher.schedule.retries.*.backoff",
        "device.notifier.pusher.waiting.entries.*.audience",
        "device.notifier.ringing.until",
        "device.notifier.rooms.occupants.coven@chat.example.nick",
        "device.orphans.at",
        "device.succession.Asked",
        "identity.client_header.own.bytes",
        "lifecycle.phase.Closing.reason",
        "server.confirmation.due.target",
        "server.confirmation.question.since",
        "server.pending.publishes.*.number",
        "server.pending.registration.removal.since",
    ] {
        assert!(paths.contains(part), "{part} is not among {paths:#?}");
    }
}

#[test]
fn every_component_gets_the_identity_of_the_session() {
    for (_, rig) in sessions() {
        let thawed = thaw(&rig.session.freeze()).unwrap();
        let fresh = Rig::new().session;
        assert_eq!(Arc::strong_count(&thawed.identity), Arc::strong_count(&fresh.identity));
    }
    let (mut rig, settings) = (Rig::with_push(), Arc::new(Settings { session_queue: 9999, ..Settings::default() }));
    rig.session = Session::thaw(&rig.session.freeze(), Arc::clone(&settings), random).unwrap();
    let holders = Arc::strong_count(&settings);
    rig.session.handle(rig.now, Input::Settings(Arc::default()));
    assert_eq!((holders, Arc::strong_count(&settings)), (5, 1), "every component gets the settings");
}

#[test]
fn the_stanzas_of_a_session_that_continues_share_the_headers_of_their_streams() {
    let rig = dark();
    let thawed = thaw(&rig.session.freeze()).unwrap();
    let queue = thawed.device.delivery().queue();
    let stanzas: Vec<_> = queue.iter().chain(queue.in_flight()).collect();
    assert!(stanzas.len() > 10);
    let distinct = |stanzas: &[&crate::session::queue::Queued]| {
        stanzas.iter().map(|item| Arc::as_ptr(item.element.header())).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(distinct(&stanzas), 1);
}

#[test]
fn a_session_that_continues_takes_its_memory_from_the_budget_and_gives_it_back() {
    for (name, rig) in sessions() {
        let record = rig.session.freeze();
        let (before, after) = (Arc::new(Budget::default()), Arc::new(Budget::default()));
        let mut session = rig.session;
        session.share_memory(Arc::clone(&before));
        let mut thawed = thaw(&record).unwrap();
        thawed.share_memory(Arc::clone(&after));
        assert_eq!(after.used(), before.used(), "{name}");
        assert!(after.used() >= thawed.queued().1, "{name}");
        drop((session, thawed));
        assert_eq!((before.used(), after.used()), (0, 0), "{name}");
    }
}

#[test]
fn a_record_of_another_version_or_length_is_refused() {
    let record = Rig::with_push().session.freeze();
    assert_eq!(record[..4], RECORD_VERSION.to_be_bytes());
    let with_version = |version: u32| [&version.to_be_bytes(), &record[4..]].concat();
    for version in [0, RECORD_VERSION + 1, u32::MAX] {
        assert!(matches!(thaw(&with_version(version)), Err(ThawError::Version(other)) if other == version));
    }
    assert!(matches!(thaw(&record[..3]), Err(ThawError::CutOff)));
    assert!(matches!(thaw(&[&record[..], &[0]].concat()), Err(ThawError::Trailing)));
}

#[test]
fn a_damaged_record_is_refused_or_is_another_session_and_never_a_panic() {
    for (_, rig) in sessions() {
        let record = rig.session.freeze();
        // All places would take minutes.
        let step = record.len() / 150 + 1;
        let mut damaged = record.clone();
        let mut harmless = 0;
        for at in (4..record.len()).step_by(step) {
            assert!(thaw(&record[..at]).is_err());
            // A flipped bit, a number, a list and a map that are too long, and a large number.
            for byte in [record[at] ^ 1 << (at % 8), 0x00, 0xdd, 0xdf, 0xcf] {
                damaged[at] = byte;
                if let Ok(session) = thaw(&damaged) {
                    harmless += 1;
                    assert!(thaw(&session.freeze()).is_ok());
                }
            }
            damaged[at] = record[at];
        }
        assert!(harmless > 0);
    }
    // The lengths of the lists are lies.
    for marker in [0xdd, 0xdf, 0xc6, 0xdb] {
        assert!(thaw(&[&RECORD_VERSION.to_be_bytes()[..], &[marker, 0xff, 0xff, 0xff, 0xff]].concat()).is_err());
    }
}

/// Prints the size of records, and the time that they take.
#[test]
fn the_record_of_a_dark_session_is_small() {
    for (name, rig) in sessions() {
        const TIMES: u32 = 200;
        let (record, began) = (rig.session.freeze(), Stopwatch::now());
        for _ in 0..TIMES {
            drop(thaw(&rig.session.freeze()).unwrap());
        }
        println!("{name}: {} bytes, {:?} to write and read", record.len(), began.elapsed() / TIMES);
    }
    let mut rig = Rig::with_push();
    rig.client("<presence/>");
    rig.lose_client();
    (1..=10).for_each(|n| rig.upstream(&message(n)));
    rig.seconds(60);
    let (record, began) = (rig.session.freeze(), Stopwatch::now());
    (0..200).for_each(|_| drop(thaw(&rig.session.freeze()).unwrap()));
    println!("dark with 10 messages: {} bytes, {:?} to write and read", record.len(), began.elapsed() / 200);
    assert!(record.len() < 8 << 10, "{} bytes", record.len());
}

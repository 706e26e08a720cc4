//! docs/operating.md shows the answers of the commands as they are printed, and explains every verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use pushward::admin::protocol::{
    HandoverStatus, LastPublish, LastVerdict, Ping, PingOutcome, RegistrationEntry, SessionEntry, SessionState,
    shortened,
};
use pushward::clock::{self, Instant, UnixSecs};
use pushward::push::classify::Noise;
use pushward::push::filter::Blocked;
use pushward::push::pusher::{Skip, Verdict};
use pushward::session::EndReason;

use crate::page::Page;
use crate::repository;

/// The time at which the device in the examples of the page became dark.
const SINCE: u64 = 1_777_928_311;
/// The age of the last notification; half a minute more than is shown, so that the clock may move on.
const AGO: Duration = Duration::from_secs(3 * 3600 + 5 * 60 + 30);

fn page() -> String {
    fs::read_to_string(repository().join("docs/operating.md")).unwrap()
}

fn last() -> Option<LastPublish> {
    let at = UnixSecs::from(clock::now() - AGO);
    Some(LastPublish { transport: Some("s2s".to_owned()), outcome: PingOutcome::Accepted, condition: None, at })
}

fn registration() -> RegistrationEntry {
    RegistrationEntry {
        account: "romeo@example.org".parse().unwrap(),
        resource: Some("phone".to_owned()),
        service: "push.example.net".parse().unwrap(),
        node: Some(shortened("BLA1b2c3d4e5f6a7b8c9d0e1")),
        state: SessionState::Dark,
        errors: 0,
        last_success: Some(UnixSecs::new(SINCE + 869)),
        undelivered_since: None,
        last_seen: UnixSecs::new(SINCE),
        transport: Some("s2s".to_owned()),
        last: last(),
        passed_over: Vec::new(),
        bidi_off_until: None,
    }
}

fn session() -> SessionEntry {
    SessionEntry {
        jid: "romeo@example.org/phone".to_owned(),
        state: SessionState::Dark,
        since: UnixSecs::new(SINCE),
        client: Some("192.0.2.7:51034".parse().unwrap()),
        login: Some("SASL2".to_owned()),
        queued: 3,
        queue_bytes: 1830,
        spooled: 3,
        spool_bytes: 1830,
        set_aside: 0,
        services: vec!["push.example.net".parse().unwrap()],
        push: last(),
        verdict: Some(LastVerdict { verdict: Verdict::Push.name().to_owned(), at: UnixSecs::new(SINCE + 871) }),
    }
}

fn ping() -> Ping {
    let RegistrationEntry { service, node, transport, .. } = registration();
    Ping { service, node, transport, outcome: PingOutcome::Accepted, condition: None, millis: 212 }
}

fn handover() -> HandoverStatus {
    let ended = BTreeMap::from([("not resumable".to_owned(), 3)]);
    let at = UnixSecs::from(clock::now() - AGO);
    HandoverStatus { began: Instant::now(), kept: 1042, ended, millis: 310, at, failed: None }
}

#[test]
fn the_examples_are_what_the_commands_print() {
    let page = Page::parse(&page());
    let shown: Vec<_> = page.blocks.iter().filter(|block| block.info == "text").map(|block| &block.code).collect();
    let handover = format!("last handover: {}\n", handover());
    assert_eq!(
        shown,
        [&format!("{}\n", registration()), &format!("{}\n", session()), &format!("{}\n", ping()), &handover]
    );
}

/// Returns the names in the first column of the table behind a mark.
fn explained<'a>(page: &'a str, mark: &str) -> BTreeSet<&'a str> {
    let table = page.split_once(mark).unwrap().1;
    let rows = table.split("\n\n").next().unwrap().lines().skip(3).filter_map(|row| row.split('|').nth(1));
    rows.flat_map(|names| names.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_reason_for_the_end_of_a_session_is_explained() {
    let page = page();
    let explained = explained(&page, "<!-- reasons: a test compares them with the code -->");
    assert_eq!(explained, EndReason::ALL.map(EndReason::name).into_iter().collect());
}

#[test]
fn every_verdict_is_explained() {
    let page = page();
    let explained = explained(&page, "<!-- verdicts: a test compares them with the code -->");
    let skips = Noise::ALL.map(Skip::Noise).into_iter().chain(Blocked::ALL.map(Skip::Blocked));
    let skips = skips.chain([Skip::Duplicate, Skip::ReadElsewhere, Skip::CallEnd]).map(Verdict::Skip);
    let verdicts: BTreeSet<_> = skips.chain([Verdict::Push, Verdict::Ring]).map(Verdict::name).collect();
    assert_eq!(explained, verdicts);
}

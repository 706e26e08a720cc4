//! Random actions.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestCaseError, TestError, TestRunner};

use super::*;

const CASES: u32 = 450;

fn action() -> impl Strategy<Value = Action> {
    use Action::*;
    let few = 1..5u8;
    let hello = select(vec![Hello::EnableThenPresence, Hello::PresenceThenEnable, Hello::Enable, Hello::Burst]);
    let end = || select(vec![End::Footer, End::Error, End::Killed, End::Broken]);
    let beside = (any::<bool>(), hello.clone()).prop_map(|(same_address, hello)| BindBeside { same_address, hello });
    let server = prop_oneof![
        8 => (1..4u8).prop_map(Messages),
        2 => Just(BigMessage),
        2 => Just(Noise),
        2 => Just(Subscribe),
        1 => Just(Version),
        1 => Just(PeerPing),
        3 => (0..3u8, any::<bool>()).prop_map(|(who, here)| Presence(who, here)),
        1 => Just(Orphan),
        10 => few.clone().prop_map(ServerReads),
        2 => Just(ServerAsks),
    ];
    let client = prop_oneof![
        6 => Just(Say),
        1 => Just(Ask),
        10 => (few, any::<bool>()).prop_map(|(count, answers)| ClientReads { count, answers }),
        4 => Just(ClientAnswers),
        2 => Just(ClientAsks),
        2 => Just(Available),
        1 => Just(Unavailable),
        1 => Just(EnablePush),
        1 => Just(Cut),
        3 => Just(Vanish),
        3 => Just(NoticeVanished),
        1 => Just(LateEvents),
        1 => Just(ClientCloses),
        7 => (prop::bool::weighted(0.85), hello).prop_map(|(resume, hello)| Connect { resume, hello }),
    ];
    let world = prop_oneof![
        12 => (1..8u8).prop_map(Disk),
        6 => select(vec![20, 110, 300, 2100]).prop_map(Pass),
        2 => select(vec![7000, 31_000, 61_000]).prop_map(Pass),
        1 => select(vec![130, 2500]).prop_map(Stall),
        2 => Just(Settle),
        3 => Just(OlderSettles),
    ];
    let older = prop_oneof![
        4 => beside,
        4 => (1..4u8).prop_map(OlderMessages),
        2 => Just(OlderVanishes),
        4 => (1..5u8).prop_map(OlderServerReads),
        4 => (1..8u8).prop_map(OlderDisk),
        1 => end().prop_map(OlderServerEnds),
    ];
    let death = prop_oneof![
        4 => (end(), any::<bool>()).prop_map(|(how, reads)| ServerEnds { how, reads }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(reads, revives)| Crash { reads, revives }),
        1 => Just(Drain),
        4 => Just(HandOver),
        4 => (1..5u8).prop_map(DiskIsFull),
        4 => (1..6u8).prop_map(Inherit),
        1 => Just(Pass(u16::MAX)),
    ];
    prop_oneof![40 => server, 45 => client, 25 => world, 3 => death, 12 => older]
}

fn variant() -> impl Strategy<Value = Variant> {
    let clients = select(vec![(true, false), (true, true), (false, true)]);
    (any::<bool>(), clients, any::<bool>()).prop_map(|(server_sm, (client_sm, registered), roomy)| Variant {
        server_sm,
        client_sm,
        registered,
        roomy,
        replaced_every: 0,
    })
}

/// A replacement takes as long as many steps, so few cases have one after every step.
fn replaced_every() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(0), 5 => Just(8), 1 => Just(1)]
}

#[test]
fn nothing_is_lost_or_doubled_whatever_happens() {
    let coverage = Arc::new(Coverage::default());
    let config = Config {
        // More where PROPTEST_CASES says so.
        cases: CASES.max(Config::default().cases),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        // The default takes half the time in a debug build.
        rng_algorithm: RngAlgorithm::XorShift,
        max_shrink_time: 30_000,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let worlds = (variant(), prop::collection::vec(action(), 0..STEPS), replaced_every());
    let result = TestRunner::new(config).run(&worlds, |(variant, actions, replaced_every)| {
        let variant = Variant { replaced_every, ..variant };
        let (broken, _) = run(variant, &actions, &coverage, false);
        broken.map_or(Ok(()), |complaint| Err(TestCaseError::fail(complaint)))
    });
    if let Err(TestError::Fail(reason, (variant, actions, replaced_every))) = &result {
        let variant = Variant { replaced_every: *replaced_every, ..*variant };
        let (_, trace) = run(variant, actions, &Arc::default(), true);
        panic!("{reason}\n{variant:?}\n{trace}");
    }
    result.unwrap();
    let reached = coverage.all();
    println!("{reached:?}");
    assert!(reached.iter().all(|(_, times)| *times > 0), "never reached: {reached:?}");
    assert!(coverage.steps.load(Ordering::Relaxed) >= 100_000);
}

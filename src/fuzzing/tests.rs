//! The targets on stable Rust, without a fuzzer: the seed corpora, and random changes of them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::TARGETS;

/// The fewest seeds that a target has.
const SEEDS: usize = 3;

/// Reads the seed corpus of a target, in the order of its files.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    // Files without an extension are the fuzzer's, and not in the repository.
    paths.retain(|path| path.extension().is_some());
    assert!(paths.len() >= SEEDS, "{} has {} seeds", folder.display(), paths.len());
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.is_empty(), "{} is empty", path.display());
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// Runs the seeds, then this number of changed ones.
fn check(name: &str, cases: u32) {
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let seeds = seeds(name);
    for (path, bytes) in &seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(bytes))) {
            eprintln!("the seed {} fails", path.display());
            resume_unwind(panic);
        }
    }
    let inputs: Vec<Vec<u8>> = seeds.into_iter().map(|(_, bytes)| bytes).collect();
    // More where PROPTEST_CASES says so. Without it the default is 256.
    let asked = Config::default().cases;
    let cases = if asked > 256 { cases.max(asked) } else { cases };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let run = |bytes: Vec<u8>| {
        let failed = |_| TestCaseError::fail(format!("an input of {name} fails: b\"{}\"", bytes.escape_ascii()));
        catch_unwind(AssertUnwindSafe(|| target(&bytes))).map_err(failed)
    };
    TestRunner::new(config).run(&changed(inputs), run).unwrap();
}

/// A change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Replace(Index, u8),
    Insert(Index, u8),
    /// Bytes are removed from here on, so many.
    Remove(Index, usize),
    /// Bytes are written twice.
    Repeat(Index, usize),
    /// The rest is that of another seed.
    Splice(Index, Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let byte = || prop_oneof![any::<u8>(), select(&b"<>/&;'\"= :]\n0123456789[]{}.#!S"[..])];
    prop_oneof![
        3 => (any::<Index>(), byte()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        3 => (any::<Index>(), byte()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        2 => (any::<Index>(), 1..20usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        2 => (any::<Index>(), 1..200usize).prop_map(|(at, count)| Edit::Repeat(at, count)),
        2 => any::<[Index; 3]>().prop_map(|[at, other, from]| Edit::Splice(at, other, from)),
    ]
}

/// Seeds with some changes.
fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (any::<Index>(), prop::collection::vec(edit(), 1..8)).prop_map(move |(seed, edits)| {
        let mut bytes = seed.get(&seeds).clone();
        for edit in edits {
            let place = |at: Index| at.index(bytes.len() + 1);
            match edit {
                Edit::Replace(at, byte) => {
                    let at = place(at);
                    bytes.splice(at..(at + 1).min(bytes.len()), [byte]);
                }
                Edit::Insert(at, byte) => bytes.insert(place(at), byte),
                Edit::Remove(at, count) => {
                    let at = place(at);
                    bytes.drain(at..(at + count).min(bytes.len()));
                }
                Edit::Repeat(at, count) => {
                    let at = place(at);
                    let again = bytes[at..(at + count).min(bytes.len())].to_vec();
                    bytes.splice(at..at, again);
                }
                Edit::Splice(at, other, from) => {
                    bytes.truncate(place(at));
                    let other = other.get(&seeds);
                    bytes.extend_from_slice(&other[from.index(other.len())..]);
                }
            }
        }
        bytes
    })
}

#[test]
fn the_framer_agrees_with_the_exact_reader() {
    check("framer", 1000);
}

#[test]
fn a_login_ends_whatever_is_sent() {
    check("negotiation", 1000);
}

#[test]
fn a_session_keeps_its_invariants() {
    check("session", 100);
}

#[test]
fn a_proxy_header_is_read_or_refused() {
    check("proxy_header", 3000);
}

#[test]
fn a_record_is_decoded_or_refused() {
    check("records", 3000);
}

#[test]
fn a_configuration_is_read_or_has_errors_with_a_place() {
    check("config", 200);
}

/// A target without a binary, or a binary without a target, would not be run.
#[test]
fn each_target_has_a_binary_and_a_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| {
        let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder)).unwrap();
        let stem = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<String> = entries.map(|entry| stem(entry.unwrap())).collect();
        names.sort();
        names
    };
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    targets.sort();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for name in targets {
        let (binary, source) = (format!("name = \"{name}\""), format!("fuzzing::{name}(data)"));
        assert!(manifest.contains(&binary), "{name} is not in fuzz/Cargo.toml");
        let path = folder.join("fuzz_targets").join(format!("{name}.rs"));
        assert!(fs::read_to_string(path).unwrap().contains(&source), "{name} runs another target");
    }
}

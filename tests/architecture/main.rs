//! Rules for the structure of `src/`: dependencies point down, the core does no input or output, and types stay small.
//! Each rule is a test that fails on a violation.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use source::{Crate, Segments};

/// The modules of the crate, from the bottom up. A module may use those of lower rows, but not those of its own row.
const FLOORS: &[(&str, &[&str])] = &[
    ("leaves", &["clock", "exit", "hash", "jid", "node_id", "paths", "secret", "seq", "stdout", "sync"]),
    ("leaves: xml", &["xml"]),
    ("core: push", &["push"]),
    ("core: session", &["session"]),
    ("config", &["config"]),
    ("metrics, log", &["log", "metrics"]),
    ("limits", &["limits"]),
    ("store", &["store"]),
    ("registry", &["registry"]),
    ("net", &["net"]),
    ("cluster", &["cluster"]),
    ("publish", &["publish"]),
    ("relay", &["relay"]),
    ("service", &["service"]),
    ("daemon", &["daemon"]),
    ("admin", &["admin"]),
    ("check", &["check"]),
    ("setup, demo", &["setup", "demo"]),
    ("cli", &["cli"]),
];

/// The modules of the pure core, and the leaves that they use.
const CORE: &[&str] = &["jid", "xml", "push", "session"];

/// Paths that the core must not use: input and output, tasks, clocks and randomness.
const FOREIGN: &[&[&str]] = &[
    &["tokio"],
    &["tokio_util"],
    &["futures_channel"],
    &["rand"],
    &["socket2"],
    &["nix"],
    &["redb"],
    &["tracing"],
    &["std", "net"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "SystemTime"],
    &["SystemTime"],
    &["Instant", "now"],
    &["aws_lc_rs", "rand"],
    &["crate", "clock", "now"],
    &["crate", "clock", "unix_secs"],
    &["crate", "clock", "unix_millis"],
];

/// Types that turn a `static` into process-wide state.
const SHARED_STATE: &[&str] = &["Mutex", "RwLock", "OnceLock", "Cell", "RefCell", "DashMap"];

fn source() -> Crate {
    let source = Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(source.modules.len() > 100, "only {} modules were found", source.modules.len());
    source
}

/// Fails with all findings, one per line.
fn check(rule: &str, findings: impl IntoIterator<Item = String>) {
    let findings: BTreeSet<_> = findings.into_iter().collect();
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.into_iter().collect::<Vec<_>>().join("\n  "));
}

fn show(name: &Segments) -> String {
    name.join("::")
}

#[test]
fn dependencies_point_down() {
    let source = source();
    let floor = |name: &str| FLOORS.iter().position(|(_, modules)| modules.contains(&name));
    let mut findings = Vec::new();
    for (from, named) in source.arrows() {
        let Some(above) = from.first() else { continue };
        let Some(from_floor) = floor(above) else {
            findings.push(format!("{above} has no floor"));
            continue;
        };
        for to in named {
            let Some(below) = to.first().filter(|below| *below != above) else { continue };
            if floor(below).is_none_or(|to_floor| to_floor >= from_floor) {
                findings.push(format!("{} uses {}", show(&from), show(&to)));
            }
        }
    }
    check("a module uses only modules of lower layers", findings);
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let arrows = source().arrows();
    let circles = circles(&arrows).into_iter().map(|circle| {
        let within = |from: &Segments| {
            let to: Vec<_> =
                arrows.get(from).into_iter().flatten().filter(|to| circle.contains(*to)).map(show).collect();
            format!("{} -> {}", show(from), to.join(", "))
        };
        format!("{} files:\n    {}", circle.len(), circle.iter().map(within).collect::<Vec<_>>().join("\n    "))
    });
    check("files do not use each other in a circle", circles);
}

/// Returns the groups of modules that reach each other.
fn circles(arrows: &BTreeMap<Segments, BTreeSet<Segments>>) -> Vec<BTreeSet<Segments>> {
    let reached = |from: &Segments| {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(next) = open.pop() {
            open.extend(arrows.get(next).into_iter().flatten().filter(|to| reached.insert((*to).clone())));
        }
        reached
    };
    let reaches: BTreeMap<_, _> = arrows.keys().map(|from| (from.clone(), reached(from))).collect();
    let mut found: Vec<BTreeSet<Segments>> = Vec::new();
    for (from, to) in &reaches {
        if to.contains(from) && !found.iter().any(|circle| circle.contains(from)) {
            let reaches_back = |other: &&Segments| reaches.get(*other).is_some_and(|reached| reached.contains(from));
            found.push(to.iter().filter(reaches_back).cloned().collect());
        }
    }
    found
}

#[test]
fn the_core_names_no_input_output_clock_task_or_randomness() {
    let source = source();
    let mut findings = Vec::new();
    for (name, module) in
        source.modules.iter().filter(|(name, _)| name.first().is_some_and(|top| CORE.contains(&top.as_str())))
    {
        for path in &module.paths {
            let is_foreign =
                |foreign: &&[&str]| path.len() >= foreign.len() && path.iter().zip(*foreign).all(|(a, b)| a == b);
            if FOREIGN.iter().any(is_foreign) {
                findings.push(format!("{} names {}", show(name), path.join("::")));
            }
        }
    }
    check("the core knows no input, output, clock, task or randomness", findings);
}

#[test]
fn the_core_has_no_state_of_the_process() {
    let source = source();
    let mut findings = Vec::new();
    for (name, module) in
        source.modules.iter().filter(|(name, _)| name.first().is_some_and(|top| CORE.contains(&top.as_str())))
    {
        for (item, words) in &module.statics {
            let changes = words.split(' ').any(|word| SHARED_STATE.contains(&word) || word.starts_with("Atomic"));
            findings.extend(changes.then(|| format!("static {item} in {}", show(name))));
        }
        let local = module.paths.iter().any(|path| path.last().is_some_and(|last| last == "thread_local"));
        findings.extend(local.then(|| format!("thread_local! in {}", show(name))));
    }
    check("sessions share only what is passed to them", findings);
}

#[test]
fn a_type_stands_in_three_files_at_most_and_a_struct_has_fifteen_fields_at_most() {
    let source = source();
    let mut files: BTreeMap<(Segments, String), BTreeSet<&Path>> = BTreeMap::new();
    let mut findings = Vec::new();
    for (name, module) in &source.modules {
        for (item, fields) in &module.structs {
            findings.extend((*fields > 15).then(|| format!("{}::{item} has {fields} fields", show(name))));
        }
        for of in &module.impls {
            let Some(home) = source.resolve(name, of) else { continue };
            let item = of.last().cloned().unwrap_or_default();
            files.entry((home, item)).or_default().insert(&module.file);
        }
    }
    for ((home, item), files) in files {
        findings.extend(
            (files.len() > 3).then(|| format!("{}::{item} has impl blocks in {} files", show(&home), files.len())),
        );
    }
    check("a type owns its state, and its fields and methods stand together", findings);
}

#[test]
fn a_file_has_four_hundred_lines_at_most_without_its_tests() {
    let source = source();
    let long = source.modules.values().filter(|module| module.lines > 400);
    check(
        "a file can be read in one sitting",
        long.map(|module| format!("{}: {} lines", module.file.display(), module.lines)),
    );
}

#[test]
fn no_function_takes_a_tuple() {
    let source = source();
    let tuples = source
        .modules
        .iter()
        .flat_map(|(name, module)| module.tuples.iter().map(|function| format!("{}::{function}", show(name))));
    check("a parameter has a name, and so have its parts", tuples);
}

#[test]
fn a_name_stands_for_one_type() {
    let source = source();
    let mut declared: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (module, name) in source.modules.iter().flat_map(|(at, module)| module.types.iter().map(move |name| (at, name)))
    {
        declared.entry(name).or_default().push(show(module));
    }
    declared.retain(|_, modules| modules.len() > 1);
    check(
        "a type's name says what it is without its module",
        declared.into_iter().map(|(name, modules)| format!("{name}: {}", modules.join(", "))),
    );
}

//! Parts of pages that repeat the code: names of tests, and the publish in docs/protocol.md.

use std::fs;

use pushward::push::account::DeviceId;
use pushward::push::notification::{Publish, Summary};
use pushward::push::registration::{Field, Registration, Target};
use pushward::push::settings::PushSettings;
use pushward::push::waiting::WaitingCounts;
use pushward::secret::Secret;

use crate::page::Page;
use crate::repository;

fn page(name: &str) -> String {
    fs::read_to_string(repository().join("docs").join(name)).unwrap()
}

/// Returns the source of a test module and of the files in its directory, or `None` if there is no such module.
fn test_source(module: &str) -> Option<String> {
    let mut source = fs::read_to_string(repository().join(format!("tests/it/{module}.rs"))).ok()?;
    for file in fs::read_dir(repository().join("tests/it").join(module)).into_iter().flatten() {
        let path = file.unwrap().path();
        source += &format!("\nmod {};\n", path.file_stem().unwrap().display());
        source += &fs::read_to_string(path).unwrap_or_default();
    }
    Some(source)
}

/// Returns whether a name such as `module::name_*` is the name of tests.
fn names_tests(name: &str) -> bool {
    let (module, rest) = name.split_once("::").unwrap_or((name, ""));
    let parts = rest.split("::").flat_map(|segment| segment.split('*')).filter(|part| !part.is_empty());
    test_source(module).is_some_and(|source| parts.into_iter().all(|part| source.contains(part)))
}

#[test]
fn the_tests_that_the_page_on_compatibility_names_exist() {
    let page = page("compatibility.md");
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let is_test = |code: &&str| code.contains("::") || matches!(*code, "losses" | "clients" | "upstream_tls");
    let names: Vec<_> = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(is_test).collect();
    assert!(names.len() > 25, "{names:?}");
    let wrong: Vec<_> = names.into_iter().filter(|name| !names_tests(name)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_test_that_does_not_exist_is_found() {
    for name in ["losses", "crash::prosody", "ejabberd::*_on_prosody_*", "recorded::monal", "clients::slixmpp"] {
        assert!(names_tests(name), "{name}");
    }
    for name in ["lossess", "crash::prosodie", "ejabberd::*_on_prosodie_*", "recorded::gajim"] {
        assert!(!names_tests(name), "{name}");
    }
}

/// A registration with an option, as in XEP-0357.
fn registration() -> Registration {
    let secret =
        Field { var: "secret".to_owned(), kind: None, values: vec![Secret::new("eruio234vzxc2kla-91".to_owned())] };
    Registration {
        target: Target { service: "push.example.net".parse().unwrap(), node: Some("yxs32uqsflafdk3iuqo".to_owned()) },
        options: Some(vec![secret]),
        extensions: Box::default(),
        device: DeviceId::default(),
        last_seen: pushward::clock::UnixSecs::default(),
        errors: 0,
        last_success: None,
        undelivered_since: None,
    }
}

#[test]
fn the_publish_is_the_one_that_is_sent() {
    let settings = PushSettings::default();
    let mut summary = Summary::new(&settings, WaitingCounts { important: 3, subscriptions: 0 }, None);
    summary.sender = Some("romeo@example.net/orchard".to_owned());
    let sent = Publish::new(&registration(), summary, 0).iq("…", Some("example.org"));
    let page = Page::parse(&page("protocol.md"));
    let shown = page.blocks.iter().find(|block| block.info == "xml").unwrap();
    let shown: String = shown.code.lines().map(str::trim).collect();
    assert_eq!(shown.replace('"', "'"), String::from_utf8(sent.to_vec()).unwrap().replace('"', "'"));
}

//! Fuzz target: any text is a configuration or has errors with a place.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Config, host_line};

/// Parses a text, and checks what is reported about it.
pub(crate) fn config(data: &[u8]) {
    // A file that is not UTF-8 is refused before it is parsed.
    let text = String::from_utf8_lossy(data);
    let path = Path::new("/etc/pushward/config.toml");
    let parsed = Config::parse(&text, path);
    assert_eq!(Config::parse(&text, path), parsed, "the same text has the same meaning");
    let lines = 1 + text.matches('\n').count();
    match parsed {
        Ok(config) => {
            assert!(!config.listen.is_empty() && !config.hosts.is_empty());
            let domains: BTreeSet<_> = config.hosts.iter().map(|host| &host.domain).collect();
            assert_eq!(domains.len(), config.hosts.len(), "a domain is served once");
            for index in 0..config.hosts.len() {
                assert!((1..=lines).contains(&host_line(&text, index, "domain")));
            }
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            assert!(errors.problems().is_sorted_by_key(|problem| problem.line));
            for problem in errors.problems() {
                assert!((1..=lines).contains(&problem.line), "{problem}");
                assert!(problem.file == path && !problem.what.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
            }
        }
    }
}

//! What the file may say, and what is refused.

use super::*;

const SHIPPED: &str = include_str!("../../config.toml");

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("config.toml"))
}

fn with_host(text: &str) -> String {
    format!("{text}\n[[host]]\ndomain = \"localhost\"\n")
}

/// The one problem of a text, as it is printed.
fn check(text: &str, expect: &str) {
    let errors = parse(&with_host(text)).expect_err("a problem was expected");
    assert_eq!(errors.to_string(), expect, "\nin\n{text}");
}

/// The shipped file with every key that it shows as a default taken at its word.
fn shipped_in_full() -> String {
    SHIPPED
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.is_empty() && !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_shipped_file_runs_as_it_is() {
    let config = parse(SHIPPED).unwrap();
    let direct = Listen {
        address: "[::]:5223".parse().unwrap(),
        tls: ListenTls::Direct,
    };
    assert_eq!(config.listen, [Listen::default(), direct]);
    assert_eq!(config.hosts.len(), 1);
    assert_eq!(config.hosts[0].domain, "localhost");
    assert_eq!(config.hosts[0].upstream, Upstream::default());
    assert_eq!(config.stream_management, StreamManagement::default());
    assert_eq!(config.push, Push::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.log, Log::default());
}

#[test]
fn the_shipped_file_shows_every_key_with_its_default() {
    let full = shipped_in_full();
    assert_eq!(parse(&full).unwrap(), parse(SHIPPED).unwrap());

    let report = problem::Report::new(Path::new("config.toml"), &full);
    read::config(&report, &full, Path::new("config.toml"));
    let known = report.known();
    assert!(known.len() > 40, "only {} keys were read", known.len());
    let mut section = "";
    let mut shown = std::collections::BTreeSet::new();
    for line in full.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            section = line;
            shown.insert(("", section.trim_matches(['[', ']'])));
        } else if let Some((key, _)) = line.split_once(" = ") {
            assert!(
                line.contains("  # ") || key == "address",
                "{key} has no comment"
            );
            shown.insert((section, key));
        }
    }
    assert_eq!(known, shown);
}

#[test]
fn a_host_is_all_that_a_file_must_say() {
    let config = Config::parse(
        "[[host]]\ndomain = 'Example.ORG'",
        Path::new("/etc/pushward/config.toml"),
    )
    .unwrap();
    assert_eq!(config.listen, [Listen::default()]);
    assert_eq!(config.state, Path::new("/etc/pushward/state"));
    let [host] = config.hosts.as_slice() else {
        panic!("one host was expected")
    };
    assert_eq!(host.domain, "example.org");
    assert_eq!(
        host.certificate,
        Path::new("/etc/pushward/certs/example.org.pem")
    );
    assert_eq!(host.key, Path::new("/etc/pushward/certs/example.org.key"));
}

//! Compares the pages for operators, the dashboard and the log with the program's actual behaviour.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::admin::{http, page, with_page};
use crate::support::{
    PATIENCE, Pushward, Scene, Setup, StubOptions, StubUpstream, binary, enable_push, lost, message, resumed,
};

/// If this variable is set, the generated parts of docs/ are written instead of compared.
const WRITE: &str = "PUSHWARD_WRITE_DOCS";
const CONFIGURATION: &str = "docs/configuration.md";
const METRICS: &str = "docs/metrics.md";
const OPERATING: &str = "docs/operating.md";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns README.md and all pages of docs/, concatenated.
fn documentation() -> String {
    let pages = fs::read_dir(file("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|page| page.extension().is_some_and(|extension| extension == "md"));
    [read("README.md")].into_iter().chain(pages.map(|page| fs::read_to_string(page).unwrap())).collect()
}

/// Compares the text after a mark in a page with the expected text, or writes it there.
fn compare(page: &str, mark: &str, expect: &str) {
    let text = read(page);
    let (before, rest) = text.split_once(mark).unwrap_or_else(|| panic!("{mark} in {page}"));
    let (is, after) = rest.split_once("<!-- end -->").unwrap();
    if std::env::var_os(WRITE).is_some() {
        fs::write(file(page), format!("{before}{mark}\n{expect}<!-- end -->{after}")).unwrap();
        return;
    }
    let (is, should): (BTreeSet<_>, BTreeSet<_>) = (is.trim().lines().collect(), expect.trim().lines().collect());
    let missing: Vec<_> = should.difference(&is).collect();
    let stale: Vec<_> = is.difference(&should).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "{page} behind {mark}\nlacks {missing:#?}\nhas, and should not, {stale:#?}\n\
         This writes it: {WRITE}=1 cargo test --test it operator::the_docs"
    );
    assert_eq!(text, format!("{before}{mark}\n{expect}<!-- end -->{after}"), "only the order differs");
}

/// Returns the table of all keys, from the annotated default configuration.
fn keys() -> String {
    let config = read("config.toml");
    let (mut section, mut seen) = (String::new(), BTreeSet::new());
    let mut table = "| key | default | what it is |\n|---|---|---|\n".to_owned();
    for line in config.lines() {
        let is_default = line.starts_with('#');
        let line = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
        if line.starts_with('[') {
            section = line.split_once(']').unwrap().0.trim_start_matches('[').to_owned();
            continue;
        }
        let Some((setting, comment)) = line.split_once(" # ") else { continue };
        let Some((key, value)) = setting.split_once(" = ") else { continue };
        if !seen.insert((section.clone(), key.to_owned())) {
            continue;
        }
        let (default, comment) = match comment.strip_prefix("not set: ") {
            Some(comment) => (format!("not set, as `{}`", value.trim()), comment),
            // The only key that has no default.
            None if section == "host" && !is_default => ("none".to_owned(), comment),
            None => (format!("`{}`", value.trim()), comment),
        };
        let name = if section.is_empty() { key.to_owned() } else { format!("[{section}] {key}") };
        table.push_str(&format!("| `{name}` | {default} | {} |\n", comment.replace('|', "\\|").replace('<', "&lt;")));
    }
    assert!(seen.len() > 50, "{table}");
    table
}

/// A metric as `/metrics` describes it.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    /// Each label with its values.
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn families(metrics: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in metrics.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        if let ["#", "HELP", name, help] = words.as_slice() {
            families.entry((*name).to_owned()).or_default().help = (*help).to_owned();
        } else if let ["#", "TYPE", name, kind] = words.as_slice() {
            families.entry((*name).to_owned()).or_default().kind = (*kind).to_owned();
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = families.iter_mut().rfind(|(family, _)| name.starts_with(family.as_str())).unwrap();
            let labels =
                line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (key, value) = label.split_once('=').unwrap();
                let words = family.1.labels.entry(key.to_owned()).or_default();
                words.insert(value.trim_matches('"').to_owned());
            }
        }
    }
    families
}

/// Returns the table of all metrics.
fn metrics_table(metrics: &str) -> String {
    let mut table = "| metric | kind | what it counts |\n|---|---|---|\n".to_owned();
    for (name, Family { kind, help, labels }) in families(metrics) {
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let label = |(key, words): (&String, &BTreeSet<String>)| match key.as_str() {
            "le" => None,
            "host" | "version" => Some(key.clone()),
            _ => Some(format!("{key}={}", words.iter().cloned().collect::<Vec<_>>().join("\\|"))),
        };
        let labels: Vec<_> = labels.iter().filter_map(label).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(", ")) };
        table.push_str(&format!("| `{name}{suffix}{labels}` | {kind} | {help} |\n"));
    }
    table
}

#[tokio::test]
async fn the_docs_list_every_key_with_its_default_and_every_metric() {
    let scene = Scene::with(StubOptions::default(), with_page).await;
    let (_, _, metrics) = http(page(&scene.pushward).await, "GET", "/metrics").await;
    compare(CONFIGURATION, "<!-- keys: written by a test from config.toml -->", &keys());
    compare(METRICS, "<!-- metrics: written by a test from /metrics -->", &metrics_table(&metrics));
}

#[tokio::test]
async fn the_docs_name_every_command_and_every_path() {
    let (operating, documentation) = (read(OPERATING), documentation());
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(with_page(Setup::new(stub.address))).await;
    let (status, _, paths) = http(page(&pushward).await, "GET", "/what-is-there").await;
    assert_eq!(status, 404);
    let paths: Vec<_> = paths.split([' ', ',', '\n']).filter(|word| word.starts_with('/')).collect();
    assert!(paths.len() >= 6, "{paths:?}");
    for path in paths {
        assert!(operating.contains(&format!("| `{path}` |")), "{OPERATING} has no line for {path}");
    }
    let help = String::from_utf8(binary().arg("help").output().unwrap().stdout).unwrap();
    let commands = help.split_once("Commands:").unwrap().1.split("\n\n").next().unwrap();
    let commands: Vec<_> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() >= 6, "{help}");
    for command in commands.into_iter().filter(|command| !matches!(*command, "run" | "help")) {
        let named = ["pushward", "--"].iter().any(|before| documentation.contains(&format!("{before} {command}")));
        assert!(named, "no page names `pushward {command}`");
    }
}

fn sources(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_log_lines_that_the_docs_name_are_logged() {
    let page = read(OPERATING);
    let table =
        page.split_once("<!-- log lines: each stands in the source -->").unwrap().1.split("\n\n").next().unwrap();
    let lines: Vec<_> =
        table.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('`').map(|(line, _)| line)).collect();
    assert!(lines.len() > 5, "{table}");
    let mut text = String::new();
    sources(&file("src"), &mut text);
    for line in lines {
        assert!(text.contains(line), "nothing logs {line:?}");
    }
}

#[tokio::test]
async fn the_dashboard_uses_only_metrics_that_exist() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(with_page(Setup::new(stub.address))).await;
    let address = page(&pushward).await;
    let (_, header, dashboard) = http(address, "GET", "/grafana.json").await;
    assert!(header.contains("content-type: application/json"), "{header}");
    let (_, _, metrics) = http(address, "GET", "/metrics").await;
    let series: BTreeSet<_> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        assert!(panel["gridPos"]["x"].as_u64().unwrap() + panel["gridPos"]["w"].as_u64().unwrap() <= 24, "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: Vec<_> = words.filter(|w| w.starts_with("pushward_") || w.starts_with("process_")).collect();
            assert!(!names.is_empty(), "{expression}");
            asked.extend(names.into_iter().map(str::to_owned));
        }
    }
    for name in &asked {
        assert!(series.contains(name.as_str()), "{name} is not in /metrics");
    }
    // Every metric must be shown, except those that a query derives from another.
    let unseen = series.iter().filter(|name| {
        let base = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        !asked.contains(**name) && !asked.contains(&format!("{base}_bucket"))
    });
    let unseen: Vec<_> = unseen.filter(|name| name.starts_with("pushward_") && !name.ends_with("_info")).collect();
    assert_eq!(unseen, [&"pushward_accounts"]);
}

#[tokio::test]
async fn what_happens_to_a_session_is_counted() {
    let quick = |setup: Setup| with_page(setup).set("push.batch_delay", "'0s'");
    let mut scene = Scene::with(StubOptions::default(), quick).await;
    enable_push(&mut scene.client, "n").await;
    scene.server.send(message("read"));
    scene.client.messages(1).await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.server.send(message("one"));
    scene.server.expect("<publish").await;
    let (_client, _) = resumed(&scene.pushward, &scene.enabled, 1).await;
    let _nobody = tokio::net::TcpStream::connect(scene.pushward.direct).await.unwrap();
    let address = page(&scene.pushward).await;
    let (_, _, metrics) = http(address, "GET", "/metrics").await;
    for line in [
        "pushward_logins_total{outcome=\"bound\",profile=\"sasl1\",fronted=\"false\"} 1",
        "pushward_logins_total{outcome=\"resumed\",profile=\"sasl1\",fronted=\"false\"} 1",
        "pushward_logins_total{outcome=\"resumed\",profile=\"sasl2\",fronted=\"true\"} 0",
        "pushward_resumptions_total{outcome=\"resumed\"} 1",
        "pushward_resumptions_total{outcome=\"not_proven\"} 0",
        "pushward_handshakes_total{outcome=\"established\"} 2",
        "pushward_handshake_seconds_count 2",
        "pushward_upstream_connects_total{host=\"localhost\",outcome=\"connected\"} 2",
        "pushward_stanzas_total{leg=\"upstream\",direction=\"in\",kind=\"message\"} 2",
        "pushward_notification_delay_seconds_count 1",
        "pushward_sessions{host=\"localhost\",state=\"live\"} 1",
        "pushward_accounts 1",
    ] {
        assert!(metrics.lines().any(|is| is == line), "{line} in\n{metrics}");
    }
    let number = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("{name} in\n{metrics}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert!(number("pushward_store_commit_seconds_count") >= 1.0);
    assert!(number("pushward_store_bytes") > 1000.0);
    assert!(number("process_resident_memory_bytes") > 1e6);
    assert!(number("process_open_fds") > 5.0);
    // The message was read, and written again after the loss.
    assert!(number("pushward_stanzas_total{leg=\"client\",direction=\"out\",kind=\"message\"}") >= 2.0);
    assert!(number("pushward_stanza_bytes_total{leg=\"client\",direction=\"out\"}") > 200.0);
}

#[tokio::test]
async fn it_is_ready_while_at_least_one_server_accepts_connections() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(with_page(Setup::new(stub.address))).await;
    assert_eq!(http(page(&pushward).await, "GET", "/readyz").await.0, 200);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = nobody.local_addr().unwrap();
    drop(nobody);
    let alone = Pushward::start(with_page(Setup::new(gone))).await;
    let (status, _, body) = http(page(&alone).await, "GET", "/readyz").await;
    assert_eq!((status, body.as_str()), (503, "no upstream server reachable\n"));
    assert_eq!(http(page(&alone).await, "GET", "/healthz").await.0, 200);
}

#[tokio::test]
async fn each_line_of_a_json_log_is_an_object_with_session_and_source() {
    let debug = |setup: Setup| setup.set("log.level", "'debug'");
    let mut scene = Scene::with(StubOptions::default(), debug).await;
    enable_push(&mut scene.client, "a \"quoted\"\nnode").await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.pushward.terminate(PATIENCE).await;
    let log = scene.pushward.log();
    assert!(log.len() > 5, "{log:?}");
    let lines: Vec<Value> =
        log.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    for line in &lines {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {line}");
        }
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{line}");
    }
    let dark = lines.iter().find(|line| line["message"].as_str().unwrap().ends_with("(dark)")).unwrap();
    assert_eq!(dark["span"]["name"], "session", "{dark}");
    assert_eq!(dark["span"]["jid"], "alice@localhost/phone", "{dark}");
    let peer: std::net::SocketAddr = dark["span"]["peer"].as_str().unwrap().parse().unwrap();
    assert!(peer.ip().is_loopback());
    assert!(dark["queued"].is_u64() && dark["registrations"] == 1, "{dark}");
}

/// Regression test: `pushward check | head -1` ended with a panic.
#[test]
fn a_reader_that_closes_the_pipe_early_is_no_error() {
    for (arguments, code) in [(["print", "man"], 0), (["--config=Cargo.toml", "check"], 78)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = binary();
        let ended = command.args(arguments).current_dir(file("")).stdout(writer).output().unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(!errors.contains("panicked") && !errors.contains("ipe"), "{errors}");
        assert_eq!(ended.status.code(), Some(code), "{errors}");
    }
}

//! Commands and output for people: check, demo, signals, and a log without secrets.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::support::{
    Client, PASSWORD, PATIENCE, Process, Prosody, PushService, Pushward, Setup, StubOptions, StubUpstream, binary,
    eventually, free_address,
};

/// Runs the program in `directory` to its end. Returns the exit code and all its output.
pub(crate) async fn run(directory: &Path, arguments: &[&str], deadline: Duration) -> (Option<i32>, String) {
    let mut command = binary();
    command.args(arguments).current_dir(directory);
    let mut process = Process::spawn("pushward", "cargo build", &mut command);
    let log = process.log().clone();
    let what = || format!("the end of {arguments:?}:\n{}", log.lines().join("\n"));
    let status = eventually(deadline, what, || process.exited()).await;
    process.drained().await;
    (status.code(), log.lines().join("\n"))
}

#[tokio::test]
async fn check_reports_every_mistake_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[[listen]]\n\
        address = '127.0.0.1:0'\n\
        tls = 'sometimes'\n\
        [[host]]\n\
        domain = 'localhost'\n\
        upstream = '127.0.0.1:5322'\n\
        [push]\n\
        batch_delay = 'soon'\n\
        max_deviecs = 3\n";
    fs::write(directory.path().join("wrong.toml"), config).unwrap();
    let (code, output) = run(directory.path(), &["--config", "wrong.toml", "check"], PATIENCE).await;
    assert_eq!(code, Some(78), "{output}");
    for (line, words) in [(3, ["tls", "sometimes"]), (8, ["batch_delay", "soon"]), (9, ["max_deviecs", "max_devices"])]
    {
        let place = format!("wrong.toml:{line}");
        let printed = output
            .lines()
            .find(|printed| printed.contains(&place))
            .unwrap_or_else(|| panic!("no {place} in\n{output}"));
        assert!(words.iter().all(|word| printed.contains(word)), "{printed}");
    }
}

#[tokio::test]
async fn a_bad_configuration_stops_the_daemon_with_the_same_messages() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.toml"), "[[host]]\ndomain = 'localhost'\n[limits]\ndepth = 'deep'\n")
        .unwrap();
    let (code, output) = run(directory.path(), &["run"], PATIENCE).await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("config.toml:4"), "{output}");
}

#[tokio::test]
async fn the_error_about_a_missing_configuration_has_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let (code, output) = run(directory.path(), &["--config", "missing.toml", "check"], PATIENCE).await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("missing.toml"), "{output}");
}

#[tokio::test]
async fn check_accepts_the_shipped_configuration_and_reports_that_no_server_runs() {
    let directory = tempfile::tempdir().unwrap();
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml")).unwrap();
    // The configured port may be in use on this machine, so the test replaces it by one that was just free.
    let upstream = free_address();
    let configured = shipped.replace("#upstream = \"127.0.0.1:5322\"", &format!("upstream = \"{upstream}\""));
    assert_ne!(configured, shipped, "the shipped configuration names its upstream");
    fs::write(directory.path().join("config.toml"), configured).unwrap();
    let (code, output) = run(directory.path(), &["check"], PATIENCE).await;
    assert!(output.contains("config.toml: valid"), "{output}");
    let printed = output.lines().find(|line| line.contains(&upstream.to_string()));
    assert!(printed.is_some_and(|line| line.contains("cannot connect")), "{output}");
    assert_ne!(code, Some(0), "a server that is down is nothing to be content with: {output}");
}

#[tokio::test]
async fn check_succeeds_while_the_server_runs() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let (code, output) = run(&pushward.file(""), &["check"], PATIENCE).await;
    assert_eq!(code, Some(0), "{output}");
}

#[tokio::test]
async fn the_demo_shows_a_push_within_two_seconds_and_every_message_once() {
    let directory = tempfile::tempdir().unwrap();
    let (code, output) = run(directory.path(), &["demo"], Duration::from_secs(30)).await;
    assert_eq!(code, Some(0), "{output}");
    let result = output.lines().last().unwrap_or_default();
    let after =
        result.strip_prefix("every message delivered once; push after ").and_then(|rest| rest.strip_suffix(" s"));
    assert!(after.and_then(|after| after.parse::<f64>().ok()).is_some_and(|after| after <= 2.0), "{output}");
    let line = |who: &str, what: &str| output.lines().filter(|line| line.contains(who) && line.contains(what)).count();
    assert_eq!(line("push service", "one notification: message-count 3"), 1, "{output}");
    assert_eq!(line("juliet", "waited since"), 3, "{output}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the demo leaves nothing behind");
}

#[tokio::test]
async fn sigterm_drains_and_exits_with_success() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let mut pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut live = pushward.login("alice", "phone").await;
    let first = stub.session().await;
    let mut dark = pushward.login("alice", "desk").await;
    let second = stub.session().await;
    dark.enable().await;
    dark.reset();
    let ((status, took), last) = tokio::join!(pushward.terminate(Duration::from_secs(10)), live.closed(PATIENCE));
    assert_eq!(status.code(), Some(0), "{:?}", pushward.log());
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(last.last().map(String::as_str), Some("</stream:stream>"), "{last:?}");
    for server in [first, second] {
        server.footer(PATIENCE).await;
    }
}

#[tokio::test]
async fn the_log_contains_no_secret_at_any_level() {
    let prosody = Prosody::start().await;
    let mut service = PushService::connect(&prosody).await;
    let setup = Setup::new(prosody.address).set("push.with_body", "true").set("push.batch_delay", "'50ms'");
    let mut pushward = Pushward::start(setup.env("RUST_LOG", "trace")).await;
    let mut alice = Client::starttls(pushward.starttls, &pushward.tls()).await;
    alice.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    alice
        .send(
            "<iq type='set' id='e'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'>\
             <x xmlns='jabber:x:data' type='submit'><field var='secret'><value>option-secret</value></field></x>\
             </enable></iq>",
        )
        .await;
    alice.expect("id='e'").await;
    alice.say("bob@localhost", "outgoing-body").await;
    let handled = alice.handled;
    alice.reset();
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.say("alice@localhost", "incoming-body").await;
    assert_eq!(service.publish(PATIENCE).await.body(), Some("incoming-body"));
    let mut alice = pushward.authenticated("alice").await;
    alice.resume(&enabled.id, handled).await;
    alice.messages(1).await;
    // A refused stanza is not logged either.
    alice.send("<message><body>refused-body</wrong></message>").await;
    alice.closed(PATIENCE).await;
    pushward.terminate(PATIENCE).await;
    assert!(
        pushward.log().iter().any(|line| line.contains("\"TRACE\"") || line.contains("\"DEBUG\"")),
        "RUST_LOG is heeded"
    );
    let initial = BASE64.encode(format!("\0alice\0{PASSWORD}"));
    for secret in [PASSWORD, &initial, "option-secret", "outgoing-body", "incoming-body", "refused-body"] {
        pushward.assert_log_never_contains(secret);
    }
}

#[tokio::test]
async fn only_its_owner_can_read_the_state() {
    use std::os::unix::fs::PermissionsExt as _;
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&pushward.file("state")), 0o700);
    let files: Vec<_> = fs::read_dir(pushward.file("state")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(&pushward.file("certs/localhost.key")), 0o600);
}

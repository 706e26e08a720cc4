//! Requests of an operator to a running daemon: the commands, and the page for metrics and probes.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Client, Element, PATIENCE, Pushward, Scene, Setup, StubConnection, StubOptions, StubUpstream, another, binary,
    bodies, enable_push, eventually, fresh, lost, message, request,
};

/// The output of a command.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Returns the objects that a successful command printed with `--json`.
    pub(crate) fn objects(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs a command with the configuration in `directory`.
pub(crate) async fn command(directory: &Path, arguments: &[&str]) -> Said {
    let mut command = binary();
    command.args(arguments).current_dir(directory);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs a command with the configuration of a proxy.
pub(crate) async fn ask(pushward: &Pushward, arguments: &[&str]) -> Said {
    command(&pushward.file(""), arguments).await
}

pub(crate) fn with_page(setup: Setup) -> Setup {
    setup.set("admin.listen", "'127.0.0.1:0'")
}

pub(crate) async fn page(pushward: &Pushward) -> SocketAddr {
    let line: Value = serde_json::from_str(&pushward.logged(&["admin page and metrics served"]).await).unwrap();
    line["address"].as_str().unwrap().parse().unwrap()
}

/// Sends a request and returns the status, the header and the body of the answer.
pub(crate) async fn http(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    http_as(address, method, path, "localhost").await
}

/// The same with this host name.
pub(crate) async fn http_as(address: SocketAddr, method: &str, path: &str, host: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut response = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut response)).await.unwrap().unwrap();
    let (header, body) = response.split_once("\r\n\r\n").unwrap();
    let status = header.split(' ').nth(1).unwrap().parse().unwrap();
    (status, header.to_lowercase(), body.to_owned())
}

/// Registers for push with a node and a publish option that are secrets.
async fn enable_secretly(client: &mut Client) {
    let payload = "<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='node-is-a-token'>\
        <x xmlns='jabber:x:data' type='submit'><field var='secret'><value>option-secret</value></field></x></enable>";
    let answer = request(client, "secret-enable", payload).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
}

#[tokio::test]
async fn registrations_are_listed_without_their_secrets_and_removed() {
    let mut scene = Scene::new().await;
    enable_secretly(&mut scene.client).await;
    let reply = ask(&scene.pushward, &["push", "list", "--json"]).await;
    assert!(!reply.out.contains("node-is-a-token") && !reply.out.contains("option-secret"), "{}", reply.out);
    let objects = reply.objects();
    let [registration] = objects.as_slice() else { panic!("{}", reply.out) };
    for (key, value) in [
        ("account", "alice@localhost"),
        ("resource", "phone"),
        ("service", "push.localhost"),
        ("node", "nod…(15)"),
        ("state", "live"),
    ] {
        assert_eq!(registration[key], value, "{registration}");
    }
    assert_eq!((&registration["errors"], &registration["last_success"]), (&Value::from(0), &Value::Null));
    assert!(registration["last_seen"].as_u64().is_some_and(|at| at > 1_600_000_000), "{registration}");

    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    let reply = ask(&scene.pushward, &["push", "list", "alice@localhost"]).await;
    assert!(
        reply.out.starts_with("alice@localhost/phone  push.localhost nod…(15)  session dark  errors 0"),
        "{}",
        reply.out
    );
    assert_eq!(ask(&scene.pushward, &["push", "list", "bob@localhost", "--json"]).await.objects(), [] as [Value; 0]);

    let reply = ask(&scene.pushward, &["push", "remove", "alice@localhost", "push.localhost", "another"]).await;
    assert_eq!((reply.code, reply.err.trim()), (Some(1), "no such registration"));
    let arguments = ["push", "remove", "alice@localhost", "push.localhost", "nod…(15)", "--json"];
    let reply = ask(&scene.pushward, &arguments).await;
    assert_eq!(reply.objects()[0]["registrations"], 1);
    assert_eq!(ask(&scene.pushward, &["push", "list", "--json"]).await.objects(), [] as [Value; 0]);
    for secret in ["node-is-a-token", "option-secret"] {
        scene.pushward.assert_log_never_contains(secret);
    }
}

#[tokio::test]
async fn a_removed_registration_is_not_pushed_for_by_the_held_session() {
    let eager = |setup: Setup| setup.set("push.batch_delay", "'0s'").set("push.min_interval", "'0s'");
    let mut scene = Scene::with(StubOptions::default(), eager).await;
    enable_push(&mut scene.client, "n").await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    assert!(is_pushed_for(&mut scene.server, "before").await);
    let reply = ask(&scene.pushward, &["push", "remove", "alice@localhost", "push.localhost"]).await;
    assert_eq!((reply.code, reply.out.trim()), (Some(0), "registrations removed: 1"));
    // The session was informed before the command ended, and processes that before the stanzas of its server.
    for n in 0..20 {
        assert!(!is_pushed_for(&mut scene.server, &format!("after {n}")).await, "it is still pushed for");
    }
}

/// Returns whether a message to the held session is published. Nothing may delay the publish.
async fn is_pushed_for(server: &mut StubConnection, body: &str) -> bool {
    server.send(message(body));
    server.send("<iq type='get' id='behind' from='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    let mut pushed = false;
    loop {
        let sent = server.next().await;
        if sent.contains("id='behind'") {
            return pushed;
        }
        pushed |= sent.contains("<publish");
    }
}

#[tokio::test]
async fn the_last_success_of_a_registration_is_known() {
    let setup = |setup: Setup| setup.set("push.batch_delay", "'0s'");
    let mut scene = Scene::with(StubOptions::default(), setup).await;
    enable_push(&mut scene.client, "n").await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.server.send(message("one"));
    let publish = scene.server.expect("<publish").await;
    let id = Element::parse(&publish).attribute("id").unwrap().to_owned();
    scene.server.send(format!("<iq type='result' from='push.localhost' to='alice@localhost/phone' id='{id}'/>"));
    scene.pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = ask(&scene.pushward, &["push", "list", "--json"]).await;
        if reply.objects()[0]["last_success"].is_u64() {
            return;
        }
        assert!(Instant::now() < deadline, "{}", reply.out);
    }
}

#[tokio::test]
async fn a_ping_says_what_the_push_service_answered() {
    let mut scene = Scene::new().await;
    enable_push(&mut scene.client, "n").await;
    let refusal = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for (kind, child, code, outcome, condition) in
        [("result", "", 0, "accepted", Value::Null), ("error", refusal, 1, "refused", "item-not-found".into())]
    {
        let arguments = ["push", "ping", "alice@localhost", "push.localhost", "--json"];
        let answer = async {
            let publish = Element::parse(&scene.server.expect("<publish").await);
            let id = publish.attribute("id").unwrap();
            scene.server.send(format!("<iq type='{kind}' from='push.localhost' id='{id}'>{child}</iq>"));
        };
        let (reply, ()) = tokio::join!(ask(&scene.pushward, &arguments), answer);
        assert_eq!(reply.code, Some(code), "{}{}", reply.out, reply.err);
        let ping: Value = serde_json::from_str(&reply.out).unwrap();
        assert_eq!((&ping["service"], &ping["transport"]), (&"push.localhost".into(), &"session".into()));
        assert_eq!((&ping["outcome"], &ping["condition"]), (&outcome.into(), &condition));
    }
    let reply = ask(&scene.pushward, &["push", "ping", "bob@localhost"]).await;
    assert_eq!((reply.code, reply.err.trim()), (Some(1), "no such registration"));
}

#[tokio::test]
async fn forgetting_an_account_deletes_its_data_and_keeps_its_live_sessions() {
    let mut scene = Scene::new().await;
    enable_push(&mut scene.client, "n").await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.server.send(message("for the phone"));
    let (mut desk, desk_server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    let reply = ask(&scene.pushward, &["forget", "alice@localhost", "--json"]).await;
    let forgotten = &reply.objects()[0];
    for (key, value) in [("devices", 2), ("registrations", 1), ("held", 1), ("live", 1)] {
        assert_eq!(forgotten[key], value, "{forgotten}");
    }
    scene.server.footer(PATIENCE).await;
    assert_eq!(ask(&scene.pushward, &["push", "list", "--json"]).await.objects(), [] as [Value; 0]);
    let status = ask(&scene.pushward, &["status", "--json"]).await.objects();
    assert_eq!((&status[0]["spool_bytes"], &status[0]["wakes_waiting"]), (&0.into(), &0.into()), "{status:?}");

    // A device that is online becomes a known device again: messages for it are kept across a restart.
    desk_server.send(message("to desk").replace("/phone", "/desk"));
    assert_eq!(bodies(&desk.messages(1).await), ["to desk"]);
    desk.reset();
    scene.pushward.logged(&["dark", "alice@localhost/desk"]).await;
    desk_server.send(message("while away").replace("/phone", "/desk"));
    scene.pushward.stored("while away").await;
    scene.pushward.restart().await;
    let mut desk = scene.pushward.authenticated("alice").await;
    fresh(&mut desk, "desk").await;
    assert!(bodies(&desk.messages(2).await).contains(&"while away".to_owned()));

    let reply = ask(&scene.pushward, &["forget", "nobody@localhost"]).await;
    assert_eq!(reply.code, Some(0), "{}", reply.err);
}

#[tokio::test]
async fn status_and_sessions_list_the_current_sessions() {
    let mut scene = Scene::new().await;
    let (desk, _desk_server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    lost(&scene.pushward, desk, "alice@localhost/desk").await;
    let _unknown = scene.pushward.connect().await;
    // The account counts once it is on disk, and no login waits for that.
    let committed = async {
        loop {
            let status = ask(&scene.pushward, &["status", "--json"]).await.objects().remove(0);
            if status["accounts"] != 0 {
                break status;
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, committed).await.unwrap();
    for (key, value) in [("live", 1), ("dark", 1), ("connections", 2), ("accounts", 1), ("wakes_waiting", 0)] {
        assert_eq!(status[key], value, "{status}");
    }
    assert_eq!((&status["draining"], &status["version"]), (&false.into(), &env!("CARGO_PKG_VERSION").into()));
    let sessions = ask(&scene.pushward, &["sessions", "--json"]).await.objects();
    let listed: Vec<_> = sessions.iter().map(|s| (s["jid"].as_str().unwrap(), s["state"].as_str().unwrap())).collect();
    assert_eq!(listed, [("alice@localhost/desk", "dark"), ("alice@localhost/phone", "live")]);
    let client: SocketAddr = sessions[1]["client"].as_str().unwrap().parse().unwrap();
    assert!(client.ip().is_loopback() && client.port() > 0, "{client}");
    let reply = ask(&scene.pushward, &["status"]).await;
    assert!(reply.out.contains("sessions       1 live, 0 suspect, 1 dark"), "{}", reply.out);
    scene.client.roundtrip().await;
}

#[tokio::test]
async fn only_its_owner_can_open_the_socket_and_it_is_removed_with_the_daemon() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let mut pushward = Pushward::start(Setup::new(stub.address)).await;
    let socket = pushward.file("state/admin.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    pushward.kill();
    assert!(socket.exists(), "a killed process leaves it");
    let reply = ask(&pushward, &["status"]).await;
    assert_eq!(reply.code, Some(69));
    assert!(
        reply.err.starts_with("no daemon listens at ") && reply.err.contains("is pushward running"),
        "{}",
        reply.err
    );
    pushward.start_again().await;
    assert_eq!(ask(&pushward, &["status"]).await.code, Some(0));
    pushward.terminate(PATIENCE).await;
    assert!(!socket.exists());
    assert_eq!(ask(&pushward, &["push", "list"]).await.code, Some(69));
}

#[tokio::test]
async fn a_command_with_a_bad_configuration_names_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.toml"), "[[host]]\ndomain = 'localhost'\n[admin]\nlisten = 'here'\n")
        .unwrap();
    let reply = command(directory.path(), &["status"]).await;
    assert_eq!(reply.code, Some(78));
    assert!(reply.err.starts_with("warning: config.toml:4: [admin] listen"), "{}", reply.err);
}

/// Regression test: one unknown key disabled every command, although the daemon ran.
#[tokio::test]
async fn commands_reach_the_daemon_while_its_configuration_is_broken() {
    let Scene { stub: _stub, mut pushward, mut client, server, enabled: _ } =
        Scene::with(StubOptions::default(), Setup::copied).await;
    pushward.configure(|setup| setup.set("push.max_deviecs", "3").set("log.levle", "'info'"));
    for arguments in [&["status"][..], &["sessions"], &["push", "list"]] {
        let reply = ask(&pushward, arguments).await;
        assert_eq!(reply.code, Some(0), "{}", reply.err);
        let [warning] = reply.err.lines().collect::<Vec<_>>()[..] else { panic!("{}", reply.err) };
        for words in ["warning: config.toml:", "unknown key", "1 more: see `pushward check`"] {
            assert!(warning.contains(words), "{words} in {warning}");
        }
    }
    let reply = ask(&pushward, &["upgrade"]).await;
    assert_eq!((reply.code, reply.out.as_str()), (Some(1), ""), "{}", reply.err);
    assert!(reply.err.lines().count() > 1 && reply.err.contains("max_deviecs"), "{}", reply.err);
    client.roundtrip().await;
    server.assert_open();
    let reply = ask(&pushward, &["stop"]).await;
    assert_eq!(reply.code, Some(0), "{}", reply.err);
    assert!(pushward.ended(PATIENCE).await.success());
    let reply = ask(&pushward, &["status"]).await;
    assert_eq!(reply.code, Some(78), "{}", reply.err);
    assert!(reply.err.contains("warning: ") && reply.err.contains("no daemon listens at "), "{}", reply.err);
}

#[tokio::test]
async fn an_upgrade_is_one_object_and_keeps_the_last_push_and_verdict_of_a_session() {
    let quick = |setup: Setup| setup.copied().set("push.batch_delay", "'0s'");
    let mut scene = Scene::with(StubOptions::default(), quick).await;
    enable_push(&mut scene.client, "n").await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.server.send(message("one"));
    let publish = Element::parse(&scene.server.expect("<publish").await);
    scene.server.send(format!("<iq type='result' from='push.localhost' id='{}'/>", publish.attribute("id").unwrap()));
    scene.pushward.logged(&["push notification outcome", "accepted"]).await;
    scene.server.send("<presence from='bob@localhost/desk' to='alice@localhost/phone'/>");
    scene.server.send("<iq type='get' id='behind' from='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    scene.server.expect("id='behind'").await;
    let notes = async || {
        let objects = ask(&scene.pushward, &["sessions", "--json"]).await.objects();
        (objects[0]["verdict"].clone(), objects[0]["push"].clone(), objects[0]["login"].clone())
    };
    let before = notes().await;
    let words = [&before.0["verdict"], &before.1["outcome"], &before.2];
    assert_eq!(words, ["presence", "accepted", "SASL1"].map(Value::from).each_ref());
    let objects = ask(&scene.pushward, &["upgrade", "--json"]).await.objects();
    let [upgraded] = objects.as_slice() else { panic!("{objects:?}") };
    assert_eq!(upgraded["from"], upgraded["version"], "{upgraded}");
    assert_eq!(upgraded["handover"]["kept"], 1, "{upgraded}");
    assert_eq!(notes().await, before);
    let reply = ask(&scene.pushward, &["sessions"]).await;
    assert!(reply.out.contains("  login SASL  ") && reply.out.contains("  last verdict presence "), "{}", reply.out);
}

#[tokio::test]
async fn a_second_upgrade_at_the_same_time_is_refused_with_the_reason() {
    let Scene { stub: _stub, pushward, .. } = Scene::with(StubOptions::default(), Setup::copied).await;
    let (program, asked, goes_on) = (pushward.program(), pushward.file("asked"), pushward.file("goes-on"));
    let (is_asked, may_go_on) = (asked.display(), goes_on.display());
    let script = format!("#!/bin/sh\ntouch '{is_asked}'\nuntil test -e '{may_go_on}'; do sleep 0.05; done\nexit 1\n");
    fs::remove_file(&program).unwrap();
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let second = async {
        eventually(PATIENCE, || "a preflight".to_owned(), || asked.exists().then_some(())).await;
        let second = ask(&pushward, &["upgrade"]).await;
        fs::write(&goes_on, "").unwrap();
        second
    };
    let (first, second) = tokio::join!(ask(&pushward, &["upgrade"]), second);
    assert_eq!((first.code, second.code), (Some(1), Some(1)), "{} {}", first.err, second.err);
    assert!(second.err.contains("another upgrade is in progress"), "{}", second.err);
    assert!(!first.err.contains("another upgrade"), "{}", first.err);
}

#[tokio::test]
async fn a_port_in_use_stops_the_start_and_is_named() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let config = fs::read_to_string(pushward.file("config.toml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = config.replace("listen = ''", &format!("listen = '{address}'"));
    fs::write(directory.path().join("config.toml"), config).unwrap();
    let reply = command(directory.path(), &["run"]).await;
    assert_eq!(reply.code, Some(1), "{}", reply.err);
    for words in [address.to_string().as_str(), "in use", "[admin] listen"] {
        assert!(reply.err.contains(words), "{words} in {}", reply.err);
    }
    assert!(!directory.path().join("state/admin.sock").exists());
}

#[tokio::test]
async fn the_page_shows_counts_and_no_names() {
    let mut scene = Scene::with(StubOptions::default(), with_page).await;
    enable_secretly(&mut scene.client).await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.server.send("<presence from='bob@localhost/desk' to='alice@localhost/phone'/>");
    scene.server.send("<iq type='get' id='behind' from='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    scene.server.expect("id='behind'").await;
    let address = page(&scene.pushward).await;
    let (status, header, metrics) = http(address, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(header.contains("content-type: application/openmetrics-text; version=1.0.0"), "{header}");
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let is_ours = name.starts_with("pushward_") || name.starts_with("process_");
        assert!(is_ours && value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    let dark = "pushward_sessions{host=\"localhost\",state=\"dark\"} 1";
    for line in [dark, "pushward_verdicts_total{verdict=\"presence\"} 1"] {
        assert!(metrics.lines().any(|is| is == line), "{line} in {metrics}");
    }
    let (status, _, json) = http(address, "GET", "/status.json").await;
    assert_eq!(status, 200);
    assert!(json.contains("\"host\":\"localhost\",\"live\":0,\"suspect\":0,\"dark\":1"), "{json}");
    // The operator's own domains may appear. Push services may not, because users choose them.
    for secret in ["alice", "bob", "push.localhost", "node-is-a-token"] {
        assert!(!metrics.contains(secret), "{secret} in {metrics}");
        assert!(!json.contains(secret), "{secret} in {json}");
    }
    assert_eq!(http(address, "GET", "/healthz").await.0, 200);
    assert_eq!(http(address, "GET", "/readyz").await.0, 200);
    assert_eq!(http(address, "GET", "/nothing").await.0, 404);
    let (status, header, _) = http(address, "POST", "/metrics").await;
    assert_eq!(status, 405);
    assert!(header.contains("allow: get, head"), "{header}");
    let (status, _, body) = http(address, "HEAD", "/metrics").await;
    assert_eq!((status, body.as_str()), (200, ""));
}

#[tokio::test]
async fn status_reports_draining_until_the_daemon_has_ended() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let mut pushward = Pushward::start(with_page(Setup::new(stub.address)).set("drain_timeout", "'2s'")).await;
    let address = page(&pushward).await;
    // A client that has sent nothing yet keeps the drain waiting.
    let _silent = TcpStream::connect(pushward.starttls).await.unwrap();
    let _client = pushward.login("alice", "phone").await;
    let ((), (status, _)) = tokio::join!(draining(address), pushward.terminate(PATIENCE));
    assert_eq!(status.code(), Some(0));
    assert!(TcpStream::connect(address).await.is_err());
}

/// Waits until the probe reports the drain.
async fn draining(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while http(address, "GET", "/readyz").await.0 != 503 {
        assert!(Instant::now() < deadline, "it never drained");
    }
}

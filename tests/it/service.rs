//! Pushward as a service: units, readiness, watchdog and socket activation, with systemd's own programs or a test in
//! place of systemd.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::{
    Client, PATIENCE, Process, Prosody, Pushward, Setup, StubOptions, StubUpstream, Tls, binary, eventually,
    free_address,
};

const INSTALL: &str = "apt-get install --no-install-recommends systemd";

/// Runs one of systemd's programs to its end. Returns its whole output, and whether it succeeded.
fn systemd(program: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install it with: {INSTALL}"));
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

/// Writes the units as Pushward prints them, with the program under test as the executable.
fn units() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (what, name) in [("unit", "pushward.service"), ("socket", "pushward.socket")] {
        let printed = binary().args(["print", what]).output().unwrap();
        let text = String::from_utf8(printed.stdout).unwrap();
        let text = text.replace("/usr/bin/pushward", env!("CARGO_BIN_EXE_pushward"));
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn systemd_accepts_the_units_and_rates_their_exposure_low() {
    let directory = units();
    let unit = |name: &str| directory.path().join(name).display().to_string();
    let (service, socket) = (unit("pushward.service"), unit("pushward.socket"));
    let (text, fine) = systemd("systemd-analyze", &["verify", "--man=no", &service, &socket]);
    assert!(fine, "{text}");
    let complaint = text.lines().find(|line| line.contains("pushward"));
    assert_eq!(complaint, None, "{text}");
    // The score is from 0, perfect, to 100. A unit without any hardening has 96.
    let (text, fine) = systemd("systemd-analyze", &["security", "--offline=true", "--threshold=16", &service]);
    assert!(fine, "{text}");
}

/// The socket on which the service manager receives messages, each with a deadline.
struct Manager(mpsc::Receiver<Vec<String>>);

impl Manager {
    /// Reads all the time, as a service manager does: the system keeps only a few messages.
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let (messages, received) = mpsc::channel();
        thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                let lines = String::from_utf8(message[..length].to_vec()).unwrap().lines().map(str::to_owned).collect();
                if messages.send(lines).is_err() {
                    break;
                }
            }
        });
        Self(received)
    }

    fn notifications(&self) -> Vec<String> {
        self.0.recv_timeout(PATIENCE).expect("a message to the service manager")
    }

    /// Returns the next message that contains this line.
    fn hears_of(&self, line: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no {line}");
            let message = self.notifications();
            if message.iter().any(|text| text == line) {
                return message;
            }
        }
    }
}

#[tokio::test]
async fn the_service_manager_gets_ready_watchdog_and_stopping_notifications() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = Manager::at(&path);
    let setup = Setup::new(stub.address)
        .env("NOTIFY_SOCKET", Box::leak(path.display().to_string().into_boxed_str()))
        .env("WATCHDOG_USEC", "300000")
        .set("drain_timeout", "'20s'");
    let mut pushward = Pushward::start(setup).await;
    assert_eq!(manager.notifications(), ["READY=1"]);
    for _ in 0..3 {
        let message = manager.hears_of("WATCHDOG=1");
        assert!(message.iter().any(|line| line == "STATUS=0 connections, 0 sessions (0 dark)"), "{message:?}");
    }
    let (status, _) = pushward.terminate(PATIENCE).await;
    assert!(status.success(), "{status}");
    let message = manager.hears_of("STOPPING=1");
    // More than drain_timeout.
    assert!(message.iter().any(|line| line == "EXTEND_TIMEOUT_USEC=50000000"), "{message:?}");
}

#[tokio::test]
async fn a_stopped_process_sends_no_watchdog_notification() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = Manager::at(&path);
    let (mut process, config) = configured(&directory, stub.address, &[free_address()], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "150000");
    });
    assert!(config.exists());
    manager.hears_of("WATCHDOG=1");
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &process.id().to_string()]).status().unwrap().success());
    };
    signal("-STOP");
    let stat = format!("/proc/{}/stat", process.id());
    let stopped = || fs::read_to_string(&stat).unwrap().contains(") T ").then_some(());
    eventually(PATIENCE, || "the process to stop".to_owned(), stopped).await;
    // All earlier messages have been read once nothing came for a while.
    while manager.0.recv_timeout(Duration::from_millis(300)).is_ok() {}
    assert!(manager.0.recv_timeout(Duration::from_millis(600)).is_err(), "it said something while it was stopped");
    signal("-CONT");
    manager.hears_of("WATCHDOG=1");
    process.terminate(PATIENCE).await;
}

/// Writes a configuration with these listeners, the first with STARTTLS and the others with direct TLS, and starts
/// Pushward.
fn configured(
    directory: &TempDir,
    upstream: SocketAddr,
    listen: &[SocketAddr],
    change: impl FnOnce(&mut Command),
) -> (Process, std::path::PathBuf) {
    let config = write(directory.path(), upstream, listen);
    let mut command = binary();
    command.arg("--config").arg(&config);
    change(&mut command);
    (Process::spawn("pushward", "cargo build", &mut command), config)
}

fn write(directory: &Path, upstream: SocketAddr, listen: &[SocketAddr]) -> std::path::PathBuf {
    let mut text = String::new();
    for (index, address) in listen.iter().enumerate() {
        let tls = if index == 0 { "starttls" } else { "direct" };
        text.push_str(&format!("[[listen]]\naddress = '{address}'\ntls = '{tls}'\n"));
    }
    text.push_str(&format!("[[host]]\ndomain = 'localhost'\nupstream = '{upstream}'\n[admin]\nlisten = ''\n"));
    let config = directory.join("config.toml");
    fs::write(&config, text).unwrap();
    config
}

/// Lets systemd open `sockets` and start Pushward, with a configuration that has `listen`, at the first connection.
async fn activated(
    directory: &TempDir,
    upstream: SocketAddr,
    sockets: &[SocketAddr],
    listen: &[SocketAddr],
) -> Process {
    let config = write(directory.path(), upstream, listen);
    let mut command = Command::new("systemd-socket-activate");
    for socket in sockets {
        command.arg("--listen").arg(socket.to_string());
    }
    command.arg(env!("CARGO_BIN_EXE_pushward")).arg("--config").arg(&config);
    let process = Process::spawn("systemd-socket-activate", INSTALL, &mut command);
    let log = process.log().clone();
    let what = || format!("{} sockets in\n{}", sockets.len(), log.lines().join("\n"));
    let opened = || log.lines().iter().filter(|line| line.contains("Listening on")).count() == sockets.len();
    eventually(PATIENCE, what, || opened().then_some(())).await;
    process
}

#[tokio::test]
async fn clients_log_in_through_sockets_that_systemd_opened() {
    let prosody = Prosody::start().await;
    let directory = tempfile::tempdir().unwrap();
    let [starttls, direct] = [free_address(), free_address()];
    // The order is systemd's, not that of the configuration.
    let process = activated(&directory, prosody.address, &[direct, starttls], &[starttls, direct]).await;
    let first = TcpStream::connect(starttls).await.unwrap();
    let certificate = directory.path().join("certs/localhost.pem");
    let log = process.log().clone();
    let what = || format!("both listeners in\n{}", log.lines().join("\n"));
    let listening = || log.lines().iter().filter(|line| line.contains(" listening ")).count() == 2;
    eventually(PATIENCE, what, || listening().then_some(())).await;
    drop(first);
    let tls = Tls::trusting(&certificate);
    let mut alice = Client::starttls(starttls, &tls).await;
    assert_eq!(alice.login("alice", "phone").await, "alice@localhost/phone");
    let mut bob = Client::direct(direct, &tls).await;
    assert_eq!(bob.login("bob", "phone").await, "bob@localhost/phone");
}

#[tokio::test]
async fn a_passed_socket_without_a_configured_listener_is_refused_with_its_address() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let [listed, other] = [free_address(), free_address()];
    let mut process = activated(&directory, stub.address, &[listed, other], &[listed]).await;
    drop(TcpStream::connect(listed).await.unwrap());
    let status = eventually(PATIENCE, || "its end".to_owned(), || process.exited()).await;
    process.drained().await;
    let log = process.log().lines().join("\n");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("passed a socket at {other}, which is no [[listen]] address")), "{log}");
}

/// systemd does not start a service again that ends with this code.
#[test]
fn a_certificate_that_cannot_be_loaded_is_an_error_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let start = |host: &str| {
        let config = directory.path().join("config.toml");
        fs::write(&config, format!("[admin]\nlisten = ''\n[[listen]]\naddress = '192.0.2.1:5222'\n[[host]]\n{host}\n"))
            .unwrap();
        let ended = binary().arg("--config").arg(&config).output().unwrap();
        (ended.status.code(), String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap())
    };
    fs::write(directory.path().join("text.pem"), "no certificate").unwrap();
    for (host, wrong) in [
        ("domain = 'jabber.org'", "cannot read"),
        ("domain = 'jabber.org'\ncertificate = 'text.pem'", "contains no certificate"),
        ("domain = 'localhost'\nupstream_tls = 'direct'\nupstream_ca = 'none.pem'", "cannot read"),
    ] {
        let (code, log) = start(host);
        assert!(log.contains("cannot start") && log.contains(wrong), "{log}");
        assert_eq!(code, Some(78), "{log}");
    }
    // A development certificate is created as before. The address is of another machine.
    let (code, log) = start("domain = 'one.test'");
    assert!(
        log.contains("development certificate created") && log.contains("cannot listen on 192.0.2.1:5222"),
        "{log}"
    );
    assert_eq!(code, Some(1), "{log}");
}

#[tokio::test]
async fn the_descriptor_limit_is_raised_and_a_low_one_is_reported() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), stub.address, &[SocketAddr::from(([127, 0, 0, 1], 0))]);
    let limited = |command: &str| {
        let mut shell = Command::new("bash");
        let script = format!("ulimit -Sn 256; ulimit -Hn 1000; exec \"$0\" --config \"$1\" {command}");
        shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_pushward")).arg(&config);
        shell
    };
    let mut process = Process::spawn("pushward", "cargo build", &mut limited("run"));
    let log = process.log().clone();
    let what = || format!("a listener in\n{}", log.lines().join("\n"));
    eventually(PATIENCE, what, || log.contains(" listening ").then_some(())).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let limit: Vec<_> = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split(' ').collect();
    let limit: Vec<_> = limit.into_iter().filter_map(|word| word.parse::<u32>().ok()).collect();
    assert_eq!(limit, [1000, 1000]);
    let warning = log
        .lines()
        .into_iter()
        .find(|line| line.contains("needs more file descriptors than the limit allows"))
        .unwrap();
    assert!(warning.contains("hard=1000") && warning.contains("LimitNOFILE=2002"), "{warning}");
    process.terminate(PATIENCE).await;
    let text = String::from_utf8(limited("check").output().unwrap().stdout).unwrap();
    let warning = text.lines().find(|line| line.contains("[limits] connections")).unwrap_or_else(|| panic!("{text}"));
    assert!(warning.contains("may open 1000") && warning.contains("LimitNOFILE=2002"), "{warning}");
}

//! The proxy process. It keeps one address for the whole run.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The maximum duration of a start or an orderly stop.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
    launch: Launch,
    child: Child,
    starts: u32,
}

/// The way in which the proxy is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Launch {
    /// The program of this build, on a slow disk.
    SlowDisk,
    /// A copy of this program in the directory of the run, which may be replaced.
    Copied(PathBuf),
    /// The same, under a service manager that stores this many descriptors.
    Managed(PathBuf, usize),
}

/// The way in which a proxy process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It drains.
    InOrder,
    /// It executes the same program, which goes on with its sessions.
    HandedOver,
    /// It is killed.
    Killed,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InOrder => "in order",
            Self::HandedOver => "handed over",
            Self::Killed => "killed",
        }
    }
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).unwrap()
}

/// Builds the library that makes the disk slow.
fn build_disk(directory: &Path) {
    let library = directory.join("disk.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/disk.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", source, "-ldl", "-o"]).arg(&library).status();
    assert!(built.expect("a C compiler: apt-get install gcc").success());
}

/// Copies a program into the directory, in place of the one that is there and may be running.
fn install(directory: &Path, program: &Path) {
    let copy = directory.join("pushward.new");
    fs::copy(program, &copy).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    fs::rename(copy, directory.join("pushward")).unwrap();
}

fn spawn(launch: &Launch, directory: &Path, starts: u32) -> Child {
    let log = File::create(directory.join(format!("log-{starts}"))).unwrap();
    let copy = directory.join("pushward");
    let mut command = match launch {
        Launch::SlowDisk => {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pushward"));
            command.env("LD_PRELOAD", directory.join("disk.so"));
            command.env("DISK_SYNC_MILLISECONDS", "120").env("DISK_STALL", directory.join("stall"));
            command
        }
        Launch::Copied(_) => Command::new(copy),
        Launch::Managed(_, limit) => {
            let mut command = Command::new("python3");
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/manager.py"));
            command.arg(directory).arg(limit.to_string()).arg(copy);
            command
        }
    };
    let is_managed = matches!(launch, Launch::Managed(..));
    command.args(["--config", "config.toml", "run"]).current_dir(directory);
    command.stdin(if is_managed { Stdio::piped() } else { Stdio::null() });
    command.stderr(log.try_clone().unwrap()).stdout(log).spawn().unwrap()
}

impl Proxy {
    /// Starts it on a slow disk.
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let settings = "[stream_management]\nresume_timeout = '15s'\norphan_grace = '1s'\n\
             [push]\ntransports = ['session']\nmax_hibernation_timeout = '20s'\nbatch_delay = '100ms'\nmin_interval = '1s'\n\
             [limits]\nsession_queue = '1 MiB'\nheld_per_account = 64\nconnections_per_address = 20000\n";
        Self::launch(Launch::SlowDisk, upstream, settings).await
    }

    /// Starts it with sections of the configuration other than its addresses.
    pub(crate) async fn launch(launch: Launch, upstream: SocketAddr, settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (address, admin) = (free(), free());
        let config = format!(
            "state = 'state'\ndrain_timeout = '30s'\n\
             [[listen]]\naddress = '{address}'\ntls = 'direct'\n\
             [[host]]\ndomain = 'localhost'\ncertificate = 'certs/localhost.pem'\nkey = 'certs/localhost.key'\n\
             upstream = '{upstream}'\n{settings}\
             [admin]\nlisten = '{admin}'\n[log]\nlevel = 'info'\nformat = 'json'\n"
        );
        fs::write(directory.path().join("config.toml"), config).unwrap();
        match &launch {
            Launch::SlowDisk => build_disk(directory.path()),
            Launch::Copied(program) | Launch::Managed(program, _) => install(directory.path(), program),
        }
        let child = spawn(&launch, directory.path(), 0);
        let mut proxy = Self { address, admin, directory, launch, child, starts: 0 };
        proxy.listens().await;
        proxy
    }

    /// Keeps the directory after the run. Returns its path.
    pub(crate) fn keep(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }

    pub(crate) fn certificate(&self) -> std::path::PathBuf {
        self.directory.path().join("certs/localhost.pem")
    }

    async fn listens(&mut self) {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).await.is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "the proxy has ended: {}", self.log());
            assert!(Instant::now() < until, "the proxy does not listen");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.process().to_string()]).status().unwrap().success());
    }

    /// Returns the process id.
    fn process(&self) -> u32 {
        let child = self.child.id();
        let Launch::Managed(..) = self.launch else { return child };
        let children = fs::read_to_string(format!("/proc/{child}/task/{child}/children")).unwrap_or_default();
        children.split_whitespace().next().and_then(|process| process.parse().ok()).unwrap_or(child)
    }

    /// Sends an order to the service manager.
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    /// Replaces the copied program. A running process keeps its own.
    pub(crate) fn install(&self, program: &Path) {
        install(self.directory.path(), program);
    }

    /// Runs a command of the copied program for the daemon.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(self.directory.path().join("pushward"));
        command.args(["--config", "config.toml"]).args(arguments).current_dir(self.directory.path());
        timeout(PATIENCE, command.kill_on_drop(true).output()).await.expect("an answer of the command").unwrap()
    }

    /// Returns the names of the files in the state directory, in order.
    pub(crate) fn state(&self) -> Vec<String> {
        let files = fs::read_dir(self.directory.path().join("state")).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Replaces the process by the same program.
    async fn hand_over(&mut self) {
        let handovers = |proxy: &Self| proxy.log().matches("sessions of the previous process go on").count();
        let before = handovers(self);
        self.signal("-USR2");
        let until = Instant::now() + PATIENCE;
        while handovers(self) == before {
            assert!(self.child.try_wait().unwrap().is_none(), "the proxy has ended: {}", self.last_lines());
            assert!(Instant::now() < until, "no handover; the last lines:\n{}", self.last_lines());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the process, and starts it again.
    pub(crate) async fn restart(&mut self, end: End) {
        if end == End::HandedOver {
            return self.hand_over().await;
        }
        if end == End::InOrder {
            self.signal("-TERM");
            let until = Instant::now() + PATIENCE;
            while self.child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < until, "the proxy does not end; its last lines:\n{}", self.last_lines());
                sleep(Duration::from_millis(20)).await;
            }
        } else {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        self.starts += 1;
        self.child = spawn(&self.launch, self.directory.path(), self.starts);
        self.listens().await;
    }

    /// Blocks every sync of the disk until this returns.
    pub(crate) async fn stall(&self, period: Duration) {
        let file = self.directory.path().join("stall");
        File::create(&file).unwrap();
        sleep(period).await;
        fs::remove_file(file).unwrap();
    }

    /// Returns the metrics page of the admin listener.
    async fn metrics(&self) -> Option<String> {
        let page = async {
            let mut socket = TcpStream::connect(self.admin).await.ok()?;
            socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.ok()?;
            let mut page = String::new();
            socket.read_to_string(&mut page).await.ok()?;
            Some(page)
        };
        timeout(PATIENCE, page).await.ok()?
    }

    /// Returns the sum of a metric over its labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<u64> {
        let page = self.metrics().await?;
        let values = page.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']));
        values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).map(|value| Some(value as u64)).sum()
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process())).map_or(0, |entries| entries.count())
    }

    /// Returns the resident memory, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    }

    /// Returns the warnings and errors of all starts, by message, with their counts.
    pub(crate) fn complaints(&self) -> Vec<(String, usize)> {
        let mut complaints = std::collections::BTreeMap::new();
        for start in 0..=self.starts {
            let log = fs::read_to_string(self.directory.path().join(format!("log-{start}"))).unwrap_or_default();
            for line in log.lines() {
                let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
                    *complaints.entry(format!("not a log line: {line}")).or_default() += 1;
                    continue;
                };
                let (level, message) = (line["level"].as_str(), line["message"].as_str());
                if let (Some(level @ ("WARN" | "ERROR")), Some(message)) = (level, message) {
                    *complaints.entry(format!("{level} {message}")).or_default() += 1;
                }
            }
        }
        complaints.into_iter().collect()
    }

    pub(crate) fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join(format!("log-{}", self.starts))).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

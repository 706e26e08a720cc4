//! The proxy process with a slow disk. It keeps one address for the whole run.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
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
    child: Child,
    starts: u32,
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

impl Proxy {
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (address, admin) = (free(), free());
        let config = format!(
            "state = 'state'\ndrain_timeout = '30s'\n\
             [[listen]]\naddress = '{address}'\ntls = 'direct'\n\
             [[host]]\ndomain = 'localhost'\ncertificate = 'certs/localhost.pem'\nkey = 'certs/localhost.key'\n\
             upstream = '{upstream}'\n\
             [stream_management]\nresume_timeout = '15s'\norphan_grace = '1s'\n\
             [push]\ntransports = ['session']\nmax_hibernation_timeout = '20s'\nbatch_delay = '100ms'\nmin_interval = '1s'\n\
             [limits]\nsession_queue = '1 MiB'\nheld_per_account = 64\nconnections_per_address = 20000\n\
             [admin]\nlisten = '{admin}'\n[log]\nlevel = 'info'\nformat = 'json'\n"
        );
        fs::write(directory.path().join("config.toml"), config).unwrap();
        let library = directory.path().join("disk.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/disk.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", source, "-ldl", "-o"]).arg(&library).status();
        assert!(built.expect("a C compiler: apt-get install gcc").success());
        let child = Self::spawn(directory.path(), 0);
        let mut proxy = Self { address, admin, directory, child, starts: 0 };
        proxy.listens().await;
        proxy
    }

    fn spawn(directory: &Path, starts: u32) -> Child {
        let log = File::create(directory.join(format!("log-{starts}"))).unwrap();
        Command::new(env!("CARGO_BIN_EXE_pushward"))
            .args(["--config", "config.toml", "run"])
            .current_dir(directory)
            .env("LD_PRELOAD", directory.join("disk.so"))
            .env("DISK_SYNC_MILLISECONDS", "120")
            .env("DISK_STALL", directory.join("stall"))
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .unwrap()
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

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
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
        self.child = Self::spawn(self.directory.path(), self.starts);
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
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, |entries| entries.count())
    }

    /// Returns the resident memory, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
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

    fn last_lines(&self) -> String {
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

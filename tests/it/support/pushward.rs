//! The proxy itself, as a process. [`Setup`] is its configuration, [`Pushward`] the running process.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::postgres;
use super::{Authority, Client, Issued, PATIENCE, Process, Tls, eventually};

const INSTALL: &str = "cargo build";
/// The name of a copy of the program.
const PROGRAM: &str = "pushward";

/// The program under test.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushward"));
    command.env_remove("RUST_LOG");
    command
}

/// A configuration: two listeners on free ports and the host `localhost`, plus the keys that a test sets.
#[derive(Clone)]
pub(crate) struct Setup {
    sections: BTreeMap<String, BTreeMap<String, String>>,
    environment: Vec<(&'static str, &'static str)>,
    largest_file: Option<u32>,
    /// True if the process runs a copy of the program in its own directory, which the test may replace.
    copied: bool,
    /// The size of the store for descriptors, if a service manager runs the process.
    stored: Option<usize>,
    files: Vec<(String, String)>,
    /// The name of its database, if that is on PostgreSQL.
    database: Option<String>,
    /// Array tables, which may occur several times.
    tables: String,
    /// The whole configuration, instead of the fields above.
    written: Option<String>,
}

impl Setup {
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        Self {
            sections: BTreeMap::new(),
            environment: Vec::new(),
            largest_file: None,
            copied: false,
            stored: None,
            files: Vec::new(),
            database: None,
            tables: String::new(),
            written: None,
        }
        .set("state", "'state'")
        .set("host.domain", "'localhost'")
        .set("host.certificate", "'certs/localhost.pem'")
        .set("host.key", "'certs/localhost.key'")
        .set("host.upstream", &format!("'{upstream}'"))
        .set("admin.listen", "''")
        .set("log.format", "'json'")
    }

    /// A configuration that something else wrote. It has a listener of each kind.
    pub(crate) fn written(text: String) -> Self {
        Self { written: Some(text), ..Self::new(SocketAddr::from(([127, 0, 0, 1], 1))) }
    }

    /// Sets a key: `.set("push.batch_delay", "'50ms'")`. The value is TOML.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        let (section, key) = key.rsplit_once('.').unwrap_or(("", key));
        self.sections.entry(section.into()).or_default().insert(key.into(), value.into());
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Keeps the state in a database of its own on PostgreSQL.
    pub(crate) fn on_postgres(mut self) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("pushward_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let url = postgres::shared().database(&name);
        self.database = Some(name);
        self.at_database(&url)
    }

    /// Keeps the state in the database with this URL, which has standbys.
    #[allow(dead_code, reason = "the campaign of failures in a cluster uses it")]
    pub(crate) fn on_replicated(self, url: &str) -> Self {
        self.at_database(url).set("store.single", "false")
    }

    /// Keeps the state in the database with this URL.
    fn at_database(self, url: &str) -> Self {
        self.set("store.engine", "'postgres'").set("store.url", &format!("'{url}'")).set("store.single", "true")
    }

    /// Lets the process be a node of a cluster: the number, the address of the listener for other nodes, the authority and the
    /// certificate that it has issued.
    pub(crate) fn in_cluster(self, node: u8, listen: SocketAddr, authority: &Authority, issued: &Issued) -> Self {
        let file = |path: &Path| format!("'{}'", path.display());
        self.set("cluster.node", &node.to_string())
            .set("cluster.listen", &format!("'{listen}'"))
            .set("cluster.certificate", &file(&issued.certificate))
            .set("cluster.key", &file(&issued.key))
            .set("cluster.ca", &authority.toml())
            .set("cluster.lease", "'3s'")
    }

    /// Adds a file that is written into its directory before it starts.
    pub(crate) fn file(mut self, name: &str, content: impl Into<String>) -> Self {
        self.files.push((name.to_owned(), content.into()));
        self
    }

    /// Adds a table: `[[push.route]]` and its keys.
    pub(crate) fn table(mut self, toml: &str) -> Self {
        self.tables.push_str(toml);
        self.tables.push('\n');
        self
    }

    /// Removes all added tables.
    pub(crate) fn without_tables(mut self) -> Self {
        self.tables.clear();
        self
    }

    /// Limits files to this many KiB. A write beyond that fails, as on a full disk.
    pub(crate) fn largest_file(mut self, kib: u32) -> Self {
        self.largest_file = Some(kib);
        self
    }

    /// Returns the command that runs `program` under the limit.
    fn command(&self, program: Command) -> Command {
        let Some(kib) = self.largest_file else { return program };
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"")).arg(program.get_program());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
    }

    /// Runs a copy of the program, [`Pushward::program`].
    pub(crate) fn copied(mut self) -> Self {
        self.copied = true;
        self
    }

    /// Runs under a service manager that stores this many descriptors ([`Pushward::order`]).
    pub(crate) fn stored(mut self, limit: usize) -> Self {
        self.stored = Some(limit);
        self
    }

    /// Enables the metrics page.
    pub(crate) fn with_metrics(self) -> Self {
        self.set("admin.listen", "'127.0.0.1:0'")
    }

    fn toml(&self) -> String {
        if let Some(text) = &self.written {
            return text.clone();
        }
        let mut text = String::new();
        for (section, keys) in &self.sections {
            match section.as_str() {
                "" => {}
                "host" => text.push_str("[[host]]\n"),
                section => text.push_str(&format!("[{section}]\n")),
            }
            for (key, value) in keys {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        for tls in ["starttls", "direct"] {
            text.push_str(&format!("[[listen]]\naddress = '127.0.0.1:0'\ntls = '{tls}'\n"));
        }
        text + &self.tables
    }
}

/// A running proxy with its own directory. Dropping it removes both.
pub(crate) struct Pushward {
    /// The address with STARTTLS.
    pub(crate) starttls: SocketAddr,
    /// The address with direct TLS.
    pub(crate) direct: SocketAddr,
    process: Process,
    setup: Setup,
    directory: TempDir,
    /// The log of earlier processes of a restarted proxy.
    history: Vec<String>,
}

impl Pushward {
    pub(crate) async fn start(setup: Setup) -> Self {
        let has_engine = setup.written.is_some() || setup.sections.contains_key("store");
        // All tests can be run on the other engine.
        let setup = match std::env::var("PUSHWARD_TEST_ENGINE").as_deref() {
            Ok("postgres") if !has_engine => setup.on_postgres(),
            _ => setup,
        };
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.toml"), setup.toml()).unwrap();
        for (name, content) in &setup.files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mut process = Self::spawn(directory.path(), &setup);
        let (starttls, direct) = listening(&mut process).await;
        Self { starttls, direct, process, setup, directory, history: Vec::new() }
    }

    fn spawn(directory: &Path, setup: &Setup) -> Process {
        let mut program = binary();
        if setup.copied {
            let copy = directory.join(PROGRAM);
            if !copy.exists() {
                fs::hard_link(program.get_program(), &copy)
                    .or_else(|_| fs::copy(program.get_program(), &copy).map(drop))
                    .unwrap();
            }
            program = Command::new(copy);
            program.env_remove("RUST_LOG");
        }
        let mut command = setup.command(program);
        if let Some(limit) = setup.stored {
            let program = command;
            command = Command::new("python3");
            command.env_remove("RUST_LOG").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/manager.py"));
            command.arg(directory).arg(limit.to_string()).arg(program.get_program());
        }
        command.arg("--config").arg(directory.join("config.toml")).arg("run").current_dir(directory);
        for (name, value) in &setup.environment {
            command.env(name, value);
        }
        Process::spawn("pushward", INSTALL, &mut command)
    }

    /// Sends SIGTERM. Returns the exit status and the duration.
    pub(crate) async fn terminate(&mut self, deadline: Duration) -> (ExitStatus, Duration) {
        self.process.terminate(deadline).await
    }

    /// Returns the path of the program that it runs, with [`Setup::copied`].
    pub(crate) fn program(&self) -> PathBuf {
        self.file(PROGRAM)
    }

    /// Gives an order to its service manager.
    pub(crate) fn order(&mut self, order: &str) {
        self.process.write_line(order);
    }

    /// Restarts it by its service manager, and waits until the next process goes on with its sessions.
    pub(crate) async fn restarted(&mut self) {
        let before = self.handovers();
        self.order("restart");
        let what = || format!("a handover in\n{}", self.log().join("\n"));
        eventually(PATIENCE, what, || (self.handovers() > before).then_some(())).await;
    }

    /// Waits until its service manager has started it this many times, and takes the addresses of the last process.
    pub(crate) async fn listens_again(&mut self, times: usize) {
        let what = || format!("{times} starts in\n{}", self.log().join("\n"));
        let found = eventually(PATIENCE, what, || {
            let mut lines = self.process.log().lines();
            let starts = lines.iter().filter(|line| line.contains("\"message\":\"listening\"")).count() / 2;
            lines.reverse();
            (starts == times).then(|| (listener(&lines, "starttls"), listener(&lines, "direct")))
        });
        let (starttls, direct) = found.await;
        (self.starttls, self.direct) = (starttls.unwrap(), direct.unwrap());
    }

    /// Returns the names of the stored descriptors at the last end of a process.
    pub(crate) fn stored_names(&self) -> Vec<String> {
        let lines = self.process.log().lines();
        let line =
            lines.iter().rev().find(|line| line.contains("\"event\": \"store\"")).expect("a line about the store");
        let line: Value = serde_json::from_str(line).unwrap();
        line["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Returns the number of lines in the log of this process, and of its service manager, that contain `needle`.
    pub(crate) fn count(&self, needle: &str) -> usize {
        self.process.log().lines().iter().filter(|line| line.contains(needle)).count()
    }

    /// Returns the number of handovers from a previous process that it has logged.
    pub(crate) fn handovers(&self) -> usize {
        self.count("sessions of the previous process go on")
    }

    /// Sends SIGUSR2, and waits until the process has been replaced.
    pub(crate) async fn replaced(&self) {
        let before = self.handovers();
        self.signal("-USR2");
        let what = || format!("a handover in\n{}", self.log().join("\n"));
        eventually(PATIENCE, what, || (self.handovers() > before).then_some(())).await;
    }

    /// Runs a command for the daemon. Returns its exit code and its output.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = tokio::process::Command::from(binary());
        command.arg("--config").arg(self.file("config.toml")).args(arguments).current_dir(self.directory.path());
        let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Writes another configuration, and files that it names. The process uses the old one until it reloads.
    pub(crate) fn configure(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(self.setup.clone());
        fs::write(self.file("config.toml"), self.setup.toml()).unwrap();
        for (name, content) in &self.setup.files {
            fs::write(self.file(name), content).unwrap();
        }
    }

    /// Sends SIGHUP and waits for the outcome. Returns true if the new configuration is in use.
    pub(crate) async fn reload(&self) -> bool {
        let outcomes = || {
            let lines = self.process.log().lines();
            let outcome = |line: &String| {
                let refused = line.contains("\"message\":\"reload failed");
                (refused || line.contains("\"message\":\"configuration reloaded\"")).then_some(!refused)
            };
            lines.iter().filter_map(outcome).collect::<Vec<_>>()
        };
        let before = outcomes().len();
        self.process.hang_up();
        eventually(PATIENCE, || "the outcome of a reload".to_owned(), || outcomes().get(before).copied()).await
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        eventually(deadline, || "the end of pushward".to_owned(), || self.process.exited()).await
    }

    /// Returns the exit status, if the process has ended.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the ended proxy again with the same files, on other ports.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.process.exited().is_some(), "it is still running");
        self.history.extend(self.process.log().lines());
        self.process = Self::spawn(self.directory.path(), &self.setup);
        (self.starttls, self.direct) = listening(&mut self.process).await;
    }

    /// Starts another process with the same files, and does not wait until it listens.
    pub(crate) fn starting(&self) -> Process {
        Self::spawn(self.directory.path(), &self.setup)
    }

    /// Sends SIGTERM, then starts it again.
    pub(crate) async fn restart(&mut self) {
        self.terminate(PATIENCE).await;
        self.start_again().await;
    }

    /// Returns all lines of its log.
    pub(crate) fn log(&self) -> Vec<String> {
        let mut lines = self.history.clone();
        lines.extend(self.process.log().lines());
        lines
    }

    /// Fails if any line of the log contains `secret`.
    pub(crate) fn assert_log_never_contains(&self, secret: &str) {
        for line in self.log() {
            assert!(!line.contains(secret), "the log holds {secret:?}: {line}");
        }
    }

    /// Returns the path of a file in its directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Waits until `needle` has been written to its state and nothing more is being written.
    ///
    /// This does not prove that the disk has it, but a process that is killed loses none of it.
    pub(crate) async fn stored(&self, needle: &str) {
        if let Some(database) = &self.setup.database {
            let sql = format!(
                "SELECT count(*) FROM spool WHERE position(convert_to($needle${needle}$needle$, 'UTF8') IN stanza) > 0"
            );
            let holds = || (postgres::shared().psql(database, &sql).trim() != "0").then_some(());
            return eventually(PATIENCE, || format!("{needle} in the database"), holds).await;
        }
        let needle = needle.as_bytes();
        let holds = |path: &PathBuf| fs::read(path).is_ok_and(|file| file.windows(needle.len()).any(|at| at == needle));
        let what = || format!("{} in the state directory", String::from_utf8_lossy(needle));
        eventually(PATIENCE, what, || {
            let mut files = files(&self.file("state"));
            let quiet = files.iter().all(|file| {
                let modified = fs::metadata(file).and_then(|file| file.modified());
                modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > Duration::from_millis(150)))
            });
            files.retain(holds);
            (quiet && !files.is_empty()).then_some(())
        })
        .await;
    }

    /// Executes SQL in its database on PostgreSQL and returns the rows as text.
    pub(crate) fn psql(&self, sql: &str) -> String {
        postgres::shared().psql(self.setup.database.as_deref().unwrap(), sql)
    }

    /// Makes its database on PostgreSQL unreachable, or reachable again.
    pub(crate) fn set_reachable(&self, is_reachable: bool) {
        let name = self.setup.database.as_deref().unwrap();
        let server = postgres::shared();
        server.psql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {is_reachable}"));
        if !is_reachable {
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname";
            server.psql("postgres", &format!("{end} = '{name}'"));
        }
    }

    /// Waits for a log line that contains all of `needles`.
    pub(crate) async fn logged(&self, needles: &[&str]) -> String {
        let found = || self.log().into_iter().find(|line| needles.iter().all(|needle| line.contains(needle)));
        eventually(PATIENCE, || format!("{needles:?} in\n{}", self.log().join("\n")), found).await
    }

    /// Returns its process id.
    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    /// Returns a metric, by its name and labels: `pushward_sessions{state="live"}`. Needs a setup with
    /// [`Setup::with_metrics`].
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        // The line of the current process: after a restart it has another address.
        let served =
            || self.process.log().lines().into_iter().find(|line| line.contains("admin page and metrics served"));
        let line = eventually(PATIENCE, || "the address of the metrics".to_owned(), served).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let mut socket = TcpStream::connect(line["address"].as_str().unwrap()).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut page = String::new();
        tokio::time::timeout(PATIENCE, socket.read_to_string(&mut page)).await.unwrap().unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
    }

    /// Waits until a metric satisfies `wanted`. Returns it.
    pub(crate) async fn metric_is(&self, name: &str, wanted: impl Fn(u64) -> bool) -> u64 {
        let until = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(name).await;
            if wanted(value) {
                return value;
            }
            assert!(Instant::now() < until, "{name} stays {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns how often a limit was reached.
    pub(crate) async fn reached(&self, limit: &str) -> u64 {
        self.metric(&format!("pushward_limit_reached_total{{limit=\"{limit}\"}}")).await
    }

    /// Returns the client side of TLS for this proxy.
    pub(crate) fn tls(&self) -> Tls {
        Tls::trusting(&self.file("certs/localhost.pem"))
    }

    /// Opens a connection with direct TLS. No byte of XMPP has been sent.
    pub(crate) async fn connect(&self) -> Client {
        Client::direct(self.direct, &self.tls()).await
    }

    /// Opens a connection that is logged in.
    pub(crate) async fn login(&self, user: &str, resource: &str) -> Client {
        let mut client = self.connect().await;
        client.login(user, resource).await;
        client
    }

    /// Opens a connection that may send `<resume/>`.
    pub(crate) async fn authenticated(&self, user: &str) -> Client {
        let mut client = self.connect().await;
        client.authenticated(user).await;
        client
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.filter(|entry| entry.file_type().unwrap().is_file()).map(|entry| entry.path()).collect()
}

/// Waits for the line that each listener logs: `message: "listening"`, `address`, `tls`.
async fn listening(process: &mut Process) -> (SocketAddr, SocketAddr) {
    let log = process.log().clone();
    let what = || format!("both listeners in\n{}", log.lines().join("\n"));
    eventually(PATIENCE, what, || {
        if let Some(status) = process.exited() {
            panic!("pushward ended with {status} before it listened");
        }
        let lines = log.lines();
        Some((listener(&lines, "starttls")?, listener(&lines, "direct")?))
    })
    .await
}

fn listener(lines: &[String], tls: &str) -> Option<SocketAddr> {
    lines.iter().find_map(|line| {
        let fields: Value = serde_json::from_str(line).ok()?;
        let field = |name| fields.get(name).and_then(Value::as_str);
        (field("message") == Some("listening") && field("tls") == Some(tls)).then(|| field("address")?.parse().ok())?
    })
}

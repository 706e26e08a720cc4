//! PostgreSQL servers for tests. They run as the user `postgres`, because the server refuses root, on free loopback ports and in
//! directories of their own.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const INSTALL: &str = "apt-get install --yes --no-install-recommends postgresql-15";
/// The longest time until a server accepts connections.
const START: Duration = Duration::from_secs(30);

/// Ends the server whose number comes on standard input when that is closed, and deletes its directory. So nothing is left of
/// a test process that ends without dropping the server.
const GUARD: &str = "read -r server; cat >/dev/null; kill -CONT \"$server\"; kill -QUIT \"$server\"; \
    while kill -0 \"$server\" 2>/dev/null; do sleep 0.1; done; rm -rf \"$0\"";

/// A running server.
pub(crate) struct Postgres {
    port: u16,
    process: u32,
    directory: PathBuf,
    /// Its end stops the server.
    guard: (Child, Option<ChildStdin>),
}

/// Returns the server that all tests of a process share. It does not sync to disk.
pub(crate) fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(&["fsync=off", "full_page_writes=off"]))
}

impl Postgres {
    /// Starts a server with these settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let directory = fresh_directory();
        let mut create = program("initdb");
        create.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        run(create.arg(directory.join("data")));
        Self::launch(directory, settings)
    }

    /// Starts a standby of another server, with this name.
    fn standby(of: &Self, name: &str) -> Self {
        let directory = fresh_directory();
        let data = directory.join("data");
        let mut copy = program("pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-p"]);
        run(copy.arg(of.port.to_string()).arg("-D").arg(&data));
        let settings = data.join("postgresql.auto.conf");
        fs::write(settings, format!("primary_conninfo = '{}'\n", of.connection(name))).unwrap();
        Self::launch(directory, &[])
    }

    /// Returns how a standby with this name connects to it.
    fn connection(&self, name: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres application_name={name}", self.port)
    }

    fn launch(directory: PathBuf, settings: &[&str]) -> Self {
        let data = directory.join("data");
        let port = free_port();
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut server = program("postgres");
        server.arg("-D").arg(&data).args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300"]);
        server
            .arg("-c")
            .arg(format!("port={port}"))
            .arg("-c")
            .arg(format!("unix_socket_directories={}", directory.display()));
        for setting in settings {
            server.args(["-c", setting]);
        }
        let server = server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut guard = Command::new("sh").args(["-c", GUARD]).arg(&directory).stdin(Stdio::piped()).spawn().unwrap();
        let mut lifeline = guard.stdin.take().unwrap();
        writeln!(lifeline, "{}", server.id()).unwrap();
        let running = Self { port, process: server.id(), directory, guard: (guard, Some(lifeline)) };
        running.wait(server);
        running
    }

    fn wait(&self, mut server: Child) {
        let deadline = Instant::now() + START;
        loop {
            let ready = program("pg_isready")
                .args(["-q", "-h", "127.0.0.1", "-U", "postgres", "-p"])
                .arg(self.port.to_string())
                .status();
            if ready.is_ok_and(|ready| ready.success()) {
                break;
            }
            let log = || fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            assert!(server.try_wait().unwrap().is_none() && Instant::now() < deadline, "no PostgreSQL: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        // The guard ends it; this thread takes its exit status.
        std::thread::spawn(move || server.wait());
    }

    /// Creates a database and returns its URL.
    pub(crate) fn database(&self, name: &str) -> String {
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        format!("postgresql://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// Loads changed settings, and waits until they are in force.
    fn reload(&self) {
        let loaded = "SELECT pg_conf_load_time()";
        let before = self.psql("postgres", loaded);
        self.psql("postgres", "SELECT pg_reload_conf()");
        let deadline = Instant::now() + START;
        while self.psql("postgres", loaded) == before {
            assert!(Instant::now() < deadline, "settings not loaded");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal to all its processes.
    pub(crate) fn signal(&self, name: &str) {
        let mut processes = vec![self.process.to_string()];
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let number = entry.file_name().to_string_lossy().into_owned();
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name may contain spaces; the parent is the second field behind it.
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1).map(str::to_owned));
            if parent == Some(self.process.to_string()) {
                processes.push(number);
            }
        }
        run(Command::new("kill").arg(format!("-{name}")).args(processes));
    }

    /// Executes SQL and returns the rows as text.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let mut psql = program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres", "-d", database, "-c", sql, "-p"]);
        let done = psql.arg(self.port.to_string()).output().unwrap();
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }
}

/// A primary with two standbys, of which one has to confirm each commit.
pub(crate) struct Replicated {
    /// The primary first.
    pub(crate) servers: [Postgres; 3],
}

impl Replicated {
    pub(crate) fn start() -> Self {
        let primary = Postgres::start(&["wal_level=replica", "hot_standby=on"]);
        let standbys = [Postgres::standby(&primary, "s1"), Postgres::standby(&primary, "s2")];
        primary.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (s1, s2)'");
        primary.reload();
        let [first, second] = standbys;
        Self { servers: [primary, first, second] }
    }

    /// Creates a database and returns a URL that names all servers.
    pub(crate) fn database(&self, name: &str) -> String {
        self.servers[0].database(name);
        let hosts: Vec<String> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("postgresql://postgres@{}/{name}", hosts.join(","))
    }

    /// Kills the primary, and makes the standby that has received more the new one. Returns its number.
    pub(crate) fn fail_over(&self) -> usize {
        self.servers[0].signal("KILL");
        let received = |number: usize| -> u64 {
            let lsn = self.servers[number].psql("postgres", "SELECT pg_last_wal_receive_lsn() - '0/0'::pg_lsn");
            lsn.trim().parse().unwrap()
        };
        let (new, other) = if received(1) >= received(2) { (1, 2) } else { (2, 1) };
        let new_primary = &self.servers[new];
        new_primary.psql("postgres", "SELECT pg_promote()");
        let follow = format!("ALTER SYSTEM SET primary_conninfo = '{}'", new_primary.connection("follower"));
        self.servers[other].psql("postgres", &follow);
        self.servers[other].reload();
        new_primary.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (follower)'");
        new_primary.reload();
        new
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.guard.1.take());
        drop(self.guard.0.wait());
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}; {INSTALL}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Creates a directory for a server, with an empty one for its data in it.
fn fresh_directory() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("postgres-{}-{number}", std::process::id()));
    let data = directory.join("data");
    fs::create_dir_all(&data).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    if let Some((user, group)) = other_user() {
        chown(&directory, Some(user), Some(group)).unwrap();
        chown(&data, Some(user), Some(group)).unwrap();
    }
    directory
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Returns a command that runs a program of the server as its user.
fn program(name: &str) -> Command {
    let path = Path::new(PROGRAMS).join(name);
    assert!(path.exists(), "{} is missing: {INSTALL}", path.display());
    let mut command = Command::new(path);
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    // A directory that the user can enter.
    command.current_dir("/");
    command
}

/// Returns the ids of the user `postgres` and its group, if this process is root.
fn other_user() -> Option<(u32, u32)> {
    let own = fs::metadata("/proc/self").ok()?;
    if std::os::unix::fs::MetadataExt::uid(&own) != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let entry = users.lines().find(|line| line.starts_with("postgres:"));
    let entry = entry.unwrap_or_else(|| panic!("no user postgres: {INSTALL}"));
    let mut fields = entry.split(':').skip(2).map_while(|field| field.parse().ok());
    Some((fields.next()?, fields.next()?))
}

//! Debian's ejabberd as the unmodified server: no push, no archive; stream management if a test needs it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::prosody::{COMPONENT_SECRET, answers};
use super::{Authority, Issued, PASSWORD, PATIENCE, Process, eventually, free_address};

const INSTALL: &str = "apt-get install ejabberd";
/// ejabberd compiles its configuration at every start.
const STARTS_WITHIN: Duration = Duration::from_secs(90);
/// The directories of Debian's Erlang libraries. One of them exists.
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// A running server. Dropping it ends the server.
pub(crate) struct Ejabberd {
    /// The address for clients, without TLS.
    pub(crate) address: SocketAddr,
    /// The address for components.
    pub(crate) components: SocketAddr,
    /// The address for servers, with STARTTLS. Nothing listens there, unless it is a [`Ejabberd::push_server`].
    pub(crate) servers: SocketAddr,
    process: Process,
    directory: TempDir,
}

const MANAGED: &str = "  mod_stream_mgmt:\n    resend_on_timeout: true\n";

fn list(certificate: &Issued) -> String {
    format!("[\"{}\"]", certificate.together.display())
}

impl Ejabberd {
    /// Starts a server for `localhost` with the accounts alice, bob and carol, and the component `push.localhost`.
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// The same with TLS at [`Ejabberd::address`]. Logins without TLS are still allowed.
    pub(crate) async fn over_tls(certificate: &Issued) -> Self {
        Self::having("", &list(certificate)).await
    }

    /// The same with its own stream management as well.
    pub(crate) async fn managed_over_tls(certificate: &Issued) -> Self {
        Self::having(MANAGED, &list(certificate)).await
    }

    /// The same with its own stream management.
    ///
    /// Unacknowledged stanzas of a lost client go to the account's other sessions or into offline storage, as on
    /// Prosody. Without that option ejabberd returns them to the sender as an error.
    pub(crate) async fn managed() -> Self {
        Self::with(MANAGED).await
    }

    /// The same as [`Ejabberd::start`], with more `listen`, in YAML, and a log of each login and its address.
    pub(crate) async fn listening(listen: &str) -> Self {
        Self::configured(|[clients, components, _]| {
            let common = configuration("", "[]", (clients, components));
            let common = common.replacen("loglevel: warning", "loglevel: info", 1);
            common.replacen("listen:\n", &format!("listen:\n{listen}"), 1)
        })
        .await
    }

    /// Starts a server that hosts the push service `push.test` and connects to servers whose certificates are of this
    /// authority.
    pub(crate) async fn push_server(authority: &Authority) -> Self {
        let certificate = authority.issue("push.test");
        Self::configured(|[clients, components, servers]| {
            let common = configuration("", &list(&certificate), (clients, components));
            let common = common.replace("hosts: [localhost]", "hosts: [unused.invalid]");
            let listener = format!(
                "listen:\n  - port: {port}\n    ip: \"127.0.0.1\"\n    module: ejabberd_s2s_in\n",
                port = servers.port()
            );
            let common = common.replace("listen:\n", &listener).replace("push.localhost", "push.test");
            let common = common.replace("rooms.localhost", "rooms.unused.invalid");
            format!("{common}s2s_use_starttls: required\nca_file: {:?}\n", authority.file())
        })
        .await
    }

    /// Waits for a log line that contains all of `needles`.
    pub(crate) async fn logged(&self, needles: &[&str]) {
        let read = || fs::read_to_string(self.directory.path().join("ejabberd.log")).unwrap_or_default();
        let found = || read().lines().any(|line| needles.iter().all(|needle| line.contains(needle))).then_some(());
        eventually(PATIENCE, || format!("{needles:?} in\n{}", read()), found).await;
    }

    async fn with(modules: &str) -> Self {
        Self::having(modules, "[]").await
    }

    /// Starts a server with `certificates`, a list in YAML. If it is not empty, the server offers STARTTLS.
    async fn having(modules: &str, certificates: &str) -> Self {
        Self::configured(|[clients, components, _]| configuration(modules, certificates, (clients, components))).await
    }

    /// Starts a server. `configuration` gets the addresses for clients, components and servers.
    async fn configured(configuration: impl Fn([SocketAddr; 3]) -> String) -> Self {
        // As with Prosody, another process may take the ports first.
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let [address, components, servers] = [free_address(), free_address(), free_address()];
            let file = directory.path().join("ejabberd.yml");
            fs::write(&file, configuration([address, components, servers])).unwrap();
            let mut process = spawn(directory.path());
            if ready(&mut process, address).await {
                return Self { address, components, servers, process, directory };
            }
        }
        panic!("no free ports for ejabberd");
    }

    /// Starts the server configured in `directory`, with the usual accounts for `localhost`, at these addresses.
    pub(crate) async fn installed(directory: TempDir, (address, components): (SocketAddr, SocketAddr)) -> Self {
        let mut process = spawn(directory.path());
        assert!(ready(&mut process, address).await, "the ports have been taken");
        Self { address, components, servers: address, process, directory }
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the killed server again with the same files and ports.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.process.exited().is_some(), "it is still running");
        self.process = spawn(self.directory.path());
        assert!(ready(&mut self.process, self.address).await, "its ports have been taken");
    }
}

/// Starts the Erlang machine without distribution. It needs neither a node name nor the port mapper, so any number can
/// run.
fn spawn(directory: &Path) -> Process {
    let accounts = format!(
        "application:ensure_started(ejabberd), [ejabberd_auth:try_register(User, <<\"localhost\">>, <<\"{PASSWORD}\">>) \
         || User <- [<<\"alice\">>, <<\"bob\">>, <<\"carol\">>]], io:format(\"has its accounts~n\")."
    );
    let mut command = Command::new("erl");
    command
        .args(["-noinput", "-mnesia", "dir"])
        .arg(format!("\"{}/spool\"", directory.display()))
        .args(["-s", "ejabberd", "-eval", &accounts])
        .env("EJABBERD_CONFIG_PATH", directory.join("ejabberd.yml"))
        .env("EJABBERD_LOG_PATH", directory.join("ejabberd.log"))
        .env("ERL_CRASH_DUMP", "/dev/null")
        .env("ERL_LIBS", LIBRARIES.join(":"))
        .env("HOME", directory)
        .current_dir(directory);
    Process::spawn("ejabberd", INSTALL, &mut command)
}

/// Waits until the server is ready. Returns `false` if a port was taken.
async fn ready(process: &mut Process, address: SocketAddr) -> bool {
    let until = Instant::now() + STARTS_WITHIN;
    while !(process.log().contains("has its accounts") && answers(address).await) {
        if process.log().contains("eaddrinuse") {
            return false;
        }
        assert!(process.exited().is_none() && Instant::now() < until, "ejabberd does not answer at {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

fn configuration(modules: &str, certificates: &str, (clients, components): (SocketAddr, SocketAddr)) -> String {
    let starttls = certificates != "[]";
    format!(
        r#"loglevel: warning
hosts: [localhost]
certfiles: {certificates}
auth_method: internal
auth_password_format: plain
listen:
  - port: {clients}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    starttls: {starttls}
    max_stanza_size: 1048576
  - port: {components}
    ip: "127.0.0.1"
    module: ejabberd_service
    hosts:
      push.localhost:
        password: "{COMPONENT_SECRET}"
modules:
  mod_carboncopy: {{}}
  mod_disco: {{}}
  mod_muc:
    host: rooms.localhost
  mod_offline: {{}}
  mod_ping: {{}}
  mod_roster: {{}}
{modules}"#,
        clients = clients.port(),
        components = components.port(),
    )
}

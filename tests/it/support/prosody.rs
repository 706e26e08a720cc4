//! Debian's Prosody as the unmodified server: no push, no archive; stream management if a test needs it.
//!
//! [`Prosody::seed`] is the server with its own stream management and push (mod_cloud_notify), with which the proxy is
//! compared.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Issued, PATIENCE, Process, eventually, free_address};

/// The password of every account.
pub(crate) const PASSWORD: &str = "correct horse";
/// The secret of components in their handshake.
pub(crate) const COMPONENT_SECRET: &str = "component-secret";

const INSTALL: &str = "apt-get install prosody prosody-modules";
const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
                      to='localhost' version='1.0'>";

/// Additions to the usual configuration.
#[derive(Clone, Copy, Default)]
struct Extras<'a> {
    modules: &'a [&'a str],
    accounts: &'a [String],
    /// Lines of the configuration.
    settings: &'a str,
    /// Additional hosts and components, with their settings.
    hosts: &'a str,
}

/// A running server. Dropping it ends the server.
pub(crate) struct Prosody {
    /// The address for clients, without TLS.
    pub(crate) address: SocketAddr,
    /// The address for components.
    pub(crate) components: SocketAddr,
    // Declared before the directory, so that it ends before its data is removed.
    process: Process,
    directory: TempDir,
}

impl Prosody {
    /// Returns whether it has SASL2.
    pub(crate) fn has_sasl2(&self) -> bool {
        fs::read_to_string(self.directory.path().join("prosody.cfg.lua")).unwrap().contains("\"sasl2\"")
    }

    /// Starts a server for `localhost` with the accounts alice, bob and carol, and the component `push.localhost`.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same with some of its own modules that the proxy otherwise replaces.
    pub(crate) async fn with(modules: &[&str]) -> Self {
        Self::having(Extras { modules, ..Extras::default() }).await
    }

    /// The same with more accounts.
    pub(crate) async fn for_accounts(accounts: &[String]) -> Self {
        Self::having(Extras { accounts, ..Extras::default() }).await
    }

    /// The same with more accounts, stream management and offline storage: it loses nothing itself.
    #[allow(dead_code, reason = "the campaign of failures in a cluster uses it")]
    pub(crate) async fn keeping(accounts: &[String]) -> Self {
        Self::having(Extras { modules: &["smacks", "offline"], accounts, ..Extras::default() }).await
    }

    /// The same with open registration of accounts.
    pub(crate) async fn open() -> Self {
        Self::having(Extras { modules: &["register"], settings: "allow_registration = true", ..Extras::default() })
            .await
    }

    /// The same with its own stream management and with mod_cloud_notify, which includes the sender.
    pub(crate) async fn seed(accounts: &[String]) -> Self {
        let settings = "push_notification_with_sender = true";
        Self::having(Extras { modules: &["smacks", "cloud_notify"], accounts, settings, ..Extras::default() }).await
    }

    /// The same as [`Prosody::start`], with more hosts, which have the same accounts, and more components. `hosts` are
    /// lines of its configuration.
    pub(crate) async fn with_hosts(hosts: &str) -> Self {
        Self::having(Extras { hosts, ..Extras::default() }).await
    }

    /// The same with the community modules for SASL2, Bind 2 and FAST, and more modules.
    pub(crate) async fn sasl2(more: &[&str]) -> Self {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers");
        let modules = [&["as_later", "sasl2", "sasl2_bind2", "sasl2_fast"], more].concat();
        let settings = &format!("plugin_paths = {{ {:?} }}", peers.display().to_string());
        Self::having(Extras { modules: &modules, settings, ..Extras::default() }).await
    }

    /// The same with TLS at [`Prosody::address`]. Passwords without TLS are still allowed. `settings` are more lines.
    pub(crate) async fn over_tls(certificate: &Issued, settings: &str) -> Self {
        Self::tls_with(&["tls"], certificate, settings).await
    }

    /// The same with its own stream management as well.
    pub(crate) async fn managed_over_tls(certificate: &Issued) -> Self {
        Self::tls_with(&["tls", "smacks"], certificate, "").await
    }

    /// The same with offline storage and block lists. It authenticates servers of the authority in `trusts` by their
    /// certificates, at the returned address, with direct TLS.
    pub(crate) async fn between_servers(certificate: &Issued, trusts: &Path) -> (Self, SocketAddr) {
        let address = free_address();
        let (file, key) = (certificate.certificate.display(), certificate.key.display());
        let tls = format!("{{ certificate = \"{file}\"; key = \"{key}\"; cafile = {trusts:?} }}");
        let settings = format!(
            "ssl = {tls}\ns2s_ssl = {tls}\ns2s_direct_tls_ssl = {tls}\ns2s_secure_auth = true\ns2s_interfaces = {{ \"127.0.0.1\" }}\n\
             s2s_ports = {{}}\ns2s_direct_tls_interfaces = {{ \"127.0.0.1\" }}\ns2s_direct_tls_ports = {{ {} }}",
            address.port()
        );
        let modules = &["tls", "s2s", "s2s_auth_certs", "offline", "blocklist"];
        let started = Self::having(Extras { modules, settings: &settings, ..Extras::default() }).await;
        (started, address)
    }

    async fn tls_with(modules: &[&str], certificate: &Issued, settings: &str) -> Self {
        let (file, key) = (certificate.certificate.display(), certificate.key.display());
        let settings = format!("ssl = {{ certificate = \"{file}\"; key = \"{key}\" }}\n{settings}");
        Self::having(Extras { modules, settings: &settings, ..Extras::default() }).await
    }

    /// Starts the server configured in `directory`, with the usual accounts for `localhost`, at these addresses.
    pub(crate) async fn configured(directory: TempDir, (address, components): (SocketAddr, SocketAddr)) -> Self {
        give_accounts(directory.path(), &Extras::default());
        let started = Self { address, components, process: spawn(directory.path()), directory };
        assert!(started.ready().await, "the ports have been taken");
        started
    }

    async fn having(extras: Extras<'_>) -> Self {
        // Prosody cannot report which port 0 became, so the test picks a port. If another process takes that one
        // meanwhile, the test tries others.
        for _ in 0..5 {
            if let Some(prosody) = Self::try_start(extras).await {
                return prosody;
            }
        }
        panic!("no free ports for Prosody");
    }

    async fn try_start(extras: Extras<'_>) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (address, components) = (free_address(), free_address());
        let file = directory.path().join("prosody.cfg.lua");
        fs::write(&file, configuration(directory.path(), extras, (address, components))).unwrap();
        give_accounts(directory.path(), &extras);
        let process = spawn(directory.path());
        let started = Self { address, components, process, directory };
        started.ready().await.then_some(started)
    }

    /// Waits until the server is ready. Returns `false` if a port was taken.
    async fn ready(&self) -> bool {
        // An answer alone is not enough: it must come from this server.
        let activated = |service: &str, address: SocketAddr| {
            self.process.log().contains(&format!("Activated service '{service}' on [127.0.0.1]:{}", address.port()))
        };
        let until = Instant::now() + PATIENCE;
        while !(activated("c2s", self.address)
            && activated("component", self.components)
            && answers(self.address).await)
        {
            if self.process.log().contains("Failed to open server port") {
                return false;
            }
            assert!(Instant::now() < until, "prosody does not answer at {}", self.address);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(
            !self.process.log().contains("Unable to load module"),
            "a module is missing; install it with: {INSTALL}"
        );
        true
    }

    /// Returns the number of client connections that the server has seen end.
    pub(crate) fn disconnections(&self) -> usize {
        self.process.log().lines().iter().filter(|line| line.contains("Client disconnected")).count()
    }

    /// Waits until the server has seen this many end.
    pub(crate) async fn disconnected(&self, connections: usize) {
        let what = || format!("{connections} disconnections, of which {} came", self.disconnections());
        eventually(PATIENCE, what, || (self.disconnections() >= connections).then_some(())).await;
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the killed server again with the same files and ports.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.process.exited().is_some(), "it is still running");
        self.process = spawn(self.directory.path());
        assert!(self.ready().await, "its ports have been taken");
    }
}

fn give_accounts(directory: &Path, extras: &Extras<'_>) {
    let more = extras.hosts.lines().filter_map(|line| line.strip_prefix("VirtualHost \"")?.strip_suffix('"'));
    for host in ["localhost"].into_iter().chain(more) {
        let accounts = directory.join("data").join(host.replace('.', "%2e")).join("accounts");
        fs::create_dir_all(&accounts).unwrap();
        for name in ["alice", "bob", "carol"].into_iter().chain(extras.accounts.iter().map(String::as_str)) {
            let account = format!("return {{ [\"password\"] = \"{PASSWORD}\" }};\n");
            fs::write(accounts.join(format!("{name}.dat")), account).unwrap();
        }
    }
}

fn spawn(directory: &Path) -> Process {
    let mut command = Command::new("prosody");
    command.arg("--config").arg(directory.join("prosody.cfg.lua")).arg("-F").current_dir(directory);
    Process::spawn("prosody", INSTALL, &mut command)
}

/// Returns true if a server at `address` answers a stream header.
pub(super) async fn answers(address: SocketAddr) -> bool {
    let Ok(mut socket) = TcpStream::connect(address).await else {
        return false;
    };
    let mut answer = [0; 32];
    socket.write_all(HEADER.as_bytes()).await.is_ok() && matches!(socket.read(&mut answer).await, Ok(1..))
}

fn configuration(directory: &Path, extras: Extras<'_>, (clients, components): (SocketAddr, SocketAddr)) -> String {
    let Extras { modules, settings, hosts, .. } = extras;
    let enabled = ["roster", "saslauth", "disco", "ping", "carbons"].iter().chain(modules);
    let disabled = ["s2s", "smacks", "cloud_notify", "mam", "csi", "csi_simple", "tls"].iter();
    let disabled = disabled.filter(|module| !modules.contains(module));
    let quoted = |module: &&str| format!("{module:?};");
    format!(
        r#"
run_as_root = true
pidfile = "{directory}/prosody.pid"
data_path = "{directory}/data"
certificates = "{directory}"
log = {{ info = "*console" }}
authentication = "internal_plain"
modules_enabled = {{ {enabled} }}
modules_disabled = {{ {disabled} }}
c2s_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {clients} }}
c2s_direct_tls_ports = {{}}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
component_interfaces = {{ "127.0.0.1" }}
component_ports = {{ {components} }}
{settings}
VirtualHost "localhost"
Component "rooms.localhost" "muc"
Component "push.localhost"
  component_secret = "{COMPONENT_SECRET}"
{hosts}
"#,
        directory = directory.display(),
        enabled = enabled.map(quoted).collect::<String>(),
        disabled = disabled.map(quoted).collect::<String>(),
        clients = clients.port(),
        components = components.port(),
    )
}

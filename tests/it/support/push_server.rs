//! A second Prosody that hosts a push service, and connects to servers only.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::prosody::COMPONENT_SECRET;
use super::{Authority, Issued, PATIENCE, Process, PushService, free_address};

/// The options of the other server.
pub(crate) struct PushServerOptions {
    /// The push service's domain.
    pub(crate) domain: &'static str,
    /// True if it offers XEP-0288.
    pub(crate) bidi: bool,
    /// Its own certificate.
    pub(crate) identity: Issued,
    /// The authority that it trusts.
    pub(crate) trusts: PathBuf,
}

impl PushServerOptions {
    /// Options for a server of `domain`, with a certificate of the authority.
    pub(crate) fn new(domain: &'static str, authority: &Authority) -> Self {
        Self { domain, bidi: true, identity: authority.issue(domain), trusts: authority.file() }
    }
}

/// The other server. Dropping it ends the server.
pub(crate) struct PushServer {
    /// The address for servers, with STARTTLS.
    pub(crate) starttls: SocketAddr,
    /// The address for servers, with direct TLS.
    pub(crate) direct: SocketAddr,
    components: SocketAddr,
    pub(crate) domain: &'static str,
    process: Process,
    directory: TempDir,
}

impl PushServer {
    pub(crate) async fn start(options: PushServerOptions) -> Self {
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let (starttls, direct, components) = (free_address(), free_address(), free_address());
            let write = |name: &str, content: &str| fs::write(directory.path().join(name), content).unwrap();
            write("prosody.cfg.lua", &configuration(directory.path(), &options, [starttls, direct, components]));
            let process = spawn(directory.path());
            let peer = Self { starttls, direct, components, domain: options.domain, process, directory };
            if peer.ready().await {
                return peer;
            }
        }
        panic!("no free ports for the other Prosody");
    }

    /// Waits until the server is ready. Returns `false` if a port was taken.
    async fn ready(&self) -> bool {
        let ports =
            [self.starttls, self.direct, self.components].map(|address| format!("[127.0.0.1]:{}", address.port()));
        let until = Instant::now() + PATIENCE;
        while !ports.iter().all(|port| self.process.log().contains(port)) {
            if self.process.log().contains("Failed to open server port") {
                return false;
            }
            assert!(
                Instant::now() < until,
                "the other prosody does not start:\n{}",
                self.process.log().lines().join("\n")
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Connects the push service.
    pub(crate) async fn push_service(&self) -> PushService {
        PushService::named(self.components, self.domain).await
    }

    /// Returns the number of servers that it has authenticated.
    pub(crate) fn streams(&self) -> usize {
        let accepted = |line: &&String| line.contains("Accepting SASL EXTERNAL identity");
        self.process.log().lines().iter().filter(accepted).count()
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the killed server again at the same addresses.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(self.directory.path());
        assert!(self.ready().await, "its ports have been taken");
    }
}

fn spawn(directory: &Path) -> Process {
    let mut command = Command::new("prosody");
    command.arg("--config").arg(directory.join("prosody.cfg.lua")).arg("-F").current_dir(directory);
    Process::spawn("peer", "apt-get install prosody prosody-modules", &mut command)
}

fn configuration(
    directory: &Path,
    options: &PushServerOptions,
    [starttls, direct, components]: [SocketAddr; 3],
) -> String {
    let tls = format!(
        "{{ certificate = {:?}; key = {:?}; cafile = {:?} }}",
        options.identity.certificate, options.identity.key, options.trusts
    );
    format!(
        r#"
run_as_root = true
pidfile = "{directory}/prosody.pid"
data_path = "{directory}/data"
log = {{ info = "*console" }}
modules_enabled = {{ "s2s"; "s2s_auth_certs"; "saslauth"; "tls"; "disco"; {bidi} }}
modules_disabled = {{ "c2s"; "dialback"; "smacks" }}
ssl = {tls}
s2s_ssl = {tls}
s2s_direct_tls_ssl = {tls}
s2s_secure_auth = true
s2s_require_encryption = true
s2s_interfaces = {{ "127.0.0.1" }}
s2s_ports = {{ {starttls} }}
s2s_direct_tls_interfaces = {{ "127.0.0.1" }}
s2s_direct_tls_ports = {{ {direct} }}
component_interfaces = {{ "127.0.0.1" }}
component_ports = {{ {components} }}
VirtualHost "unused.invalid"
Component "{domain}"
  component_secret = "{COMPONENT_SECRET}"
"#,
        directory = directory.display(),
        bidi = if options.bidi { "\"s2s_bidi\";" } else { "" },
        starttls = starttls.port(),
        direct = direct.port(),
        components = components.port(),
        domain = options.domain,
    )
}

//! Prosody with its own stream management and notifications, and a push service that is a component of it.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::link::{PASSWORD, Target, attribute};
use super::proxy::{Common, Running, free_address, one_ticket, write};
use super::published::Published;
use super::stub::{Peer, element};

const SECRET: &str = "secret";

/// A running Prosody, and the component.
pub(crate) struct Prosody {
    pub(crate) running: Running,
    pub(crate) component: Component,
}

impl Prosody {
    /// Starts Prosody with accounts `d0` and so on.
    pub(crate) async fn start(common: &Common, accounts: usize, published: &Arc<Published>) -> Self {
        let directory = TempDir::new_in(common.directory.path()).unwrap();
        let (clients, components) = (free_address(), free_address());
        let configuration = configuration(directory.path(), common, clients, components);
        let file = write(directory.path(), "prosody.cfg.lua", &configuration);
        let data = directory.path().join("data/localhost/accounts");
        fs::create_dir_all(&data).unwrap();
        for number in 0..accounts {
            write(&data, &format!("d{number}.dat"), &format!("return {{ [\"password\"] = \"{PASSWORD}\" }};\n"));
        }
        let mut command = Command::new("prosody");
        command.arg("--config").arg(file).arg("-F").env("OPENSSL_CONF", one_ticket(directory.path()));
        let target = Target { address: clients, tls: Some(Arc::clone(&common.client)), managed: true };
        let running = Running::start(&mut command, target, directory).await;
        let component = Component::connect(components, Arc::clone(published)).await;
        Self { running, component }
    }
}

fn configuration(directory: &Path, common: &Common, clients: SocketAddr, components: SocketAddr) -> String {
    format!(
        r#"
run_as_root = true
pidfile = "{directory}/prosody.pid"
data_path = "{directory}/data"
log = {{ warn = "*console" }}
authentication = "internal_plain"
modules_enabled = {{ "roster"; "saslauth"; "disco"; "ping"; "smacks"; "cloud_notify"; }}
modules_disabled = {{ "s2s"; "offline" }}
c2s_ports = {{}}
c2s_direct_tls_interfaces = {{ "127.0.0.1" }}
c2s_direct_tls_ports = {{ {clients} }}
c2s_direct_tls_ssl = {{ key = "{key}"; certificate = "{certificate}"; protocol = "tlsv1_3" }}
ssl = c2s_direct_tls_ssl
smacks_max_unacked_stanzas = 5
component_interfaces = {{ "127.0.0.1" }}
component_ports = {{ {components} }}
VirtualHost "localhost"
Component "push.localhost"
  component_secret = "{SECRET}"
"#,
        directory = directory.display(),
        key = common.files.key.display(),
        certificate = common.files.certificate.display(),
        clients = clients.port(),
        components = components.port(),
    )
}

/// The push service (XEP-0114), which also sends the messages.
pub(crate) struct Component {
    peer: Arc<Peer>,
}

impl Component {
    async fn connect(address: SocketAddr, published: Arc<Published>) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let peer = Peer::new(tcp);
        peer.write(
            b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' \
              to='push.localhost'>",
        )
        .await
        .unwrap();
        let mut inbox = Vec::new();
        let id = loop {
            peer.read(&mut inbox).await.unwrap();
            if let Some(id) = attribute(&String::from_utf8_lossy(&inbox), "id") {
                break id;
            }
        };
        let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{id}{SECRET}").as_bytes());
        let mut hex = String::new();
        for byte in proof.as_ref() {
            write!(hex, "{byte:02x}").unwrap();
        }
        peer.write(format!("<handshake>{hex}</handshake>").as_bytes()).await.unwrap();
        while memchr::memmem::find(&inbox, b"<handshake/>").is_none() {
            peer.read(&mut inbox).await.unwrap();
        }
        tokio::spawn(serve(Arc::clone(&peer), published));
        Self { peer }
    }

    /// Sends a stanza.
    pub(crate) async fn send(&self, stanza: &str) {
        self.peer.write(stanza.as_bytes()).await.unwrap();
    }
}

/// Records and answers publishes until the server closes the connection.
async fn serve(peer: Arc<Peer>, published: Arc<Published>) {
    let mut inbox = Vec::new();
    while peer.read(&mut inbox).await.is_ok() {
        let mut at = 0;
        while let Some(len) = element(&inbox[at..]) {
            let stanza = std::str::from_utf8(&inbox[at..at + len]).unwrap();
            at += len;
            if stanza.contains("<publish ") {
                published.arrived(stanza);
            }
            let name = |name| attribute(stanza, name).unwrap_or_default();
            if stanza.starts_with("<iq") && matches!(name("type").as_str(), "get" | "set") {
                let (id, from, to) = (name("id"), name("to"), name("from"));
                let answer = format!("<iq type='result' id='{id}' from='{from}' to='{to}'/>");
                peer.write(answer.as_bytes()).await.ok();
            }
        }
        inbox.drain(..at);
    }
}

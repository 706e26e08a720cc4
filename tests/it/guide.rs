//! The guide in docs/getting-started.md, from an existing server to push. The tests run the guide's own commands on the
//! configurations of Debian's packages.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use pushward::net::certificate::self_signed;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    COMPONENT_SECRET, Client, Ejabberd, Library, PATIENCE, Peer, Prosody, PushService, Pushward, Security, Setup,
    free_address,
};

/// Returns the commands of the guide, in order.
fn commands() -> [String; 5] {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/getting-started.md")).unwrap();
    let (guide, _) = page.split_once("\n## Check that it works\n").expect("the end of the guide");
    let blocks: Vec<_> = guide.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0).collect();
    let blocks: Vec<_> = blocks.into_iter().map(str::to_owned).collect();
    blocks.try_into().expect("package, certificate, Prosody, ejabberd, together")
}

/// The machine on which the guide is followed. `/etc` is a directory, `example.org` is `localhost`, ports are free
/// ones, and a script in place of the service manager records its arguments.
struct Machine {
    directory: TempDir,
    /// The address to which the guide moves the server.
    server: SocketAddr,
    components: SocketAddr,
    unused: SocketAddr,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (server, components, unused) = (free_address(), free_address(), free_address());
        let machine = Self { directory, server, components, unused };
        let acme = "letsencrypt/live/localhost";
        for place in ["bin", "prosody/certs", "prosody/conf.d", "ejabberd", "pushward", acme] {
            fs::create_dir_all(machine.path(place)).unwrap();
        }
        fs::create_dir_all(machine.path("letsencrypt/renewal-hooks/deploy")).unwrap();
        let (certificate, key) = self_signed("localhost").unwrap();
        machine.write(&format!("{acme}/fullchain.pem"), &certificate);
        machine.write(&format!("{acme}/privkey.pem"), &key);
        machine.write("pushward/config.toml", "# as the package brings it\n");
        machine.write("bin/systemctl", &format!("#!/bin/sh\necho \"$@\" >> {}\n", machine.path("told").display()));
        let executable = Command::new("chmod").arg("755").arg(machine.path("bin/systemctl")).status().unwrap();
        assert!(executable.success());
        symlink(env!("CARGO_BIN_EXE_pushward"), machine.path("bin/pushward")).unwrap();
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Runs a block of the guide, as root would.
    fn runs(&self, block: &str) {
        let mut block = block.replace("example.org", "localhost").replace("-g pushward ", "");
        for (there, here) in [("5322", self.server), ("5323", self.unused)] {
            block = block.replace(there, &here.port().to_string());
        }
        for package in ["prosody", "ejabberd", "letsencrypt", "pushward"] {
            block = block.replace(&format!("/etc/{package}"), &self.path(package).display().to_string());
        }
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash");
        bash.args(["-euc", &block]).env("PATH", path).current_dir(self.directory.path());
        let output = bash.output().unwrap();
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{printed}\n{block}");
    }

    /// Starts Pushward with the configuration that the guide has written.
    async fn pushward(&self) -> Pushward {
        let config = self.read("pushward/config.toml");
        assert!(config.contains("\"[::]:5222\"") && config.contains("\"[::]:5223\""), "{config}");
        let config = config.replace("[::]:5222", "127.0.0.1:0").replace("[::]:5223", "127.0.0.1:0");
        let setup = Setup::written(format!("{config}\n[admin]\nlisten = ''\n[log]\nformat = 'json'\n"))
            .file("certs/localhost.pem", self.read("pushward/certs/localhost.pem"))
            .file("certs/localhost.key", self.read("pushward/certs/localhost.key"));
        Pushward::start(setup).await
    }

    /// Returns the package's directory for use by another process. Existing files stay.
    fn moved(&self, package: &str) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-r").arg(self.path(package).join(".")).arg(directory.path()).status();
        assert!(copied.unwrap().success());
        directory
    }
}

/// Returns a file of Debian's package.
fn stock(path: &str, package: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{path}: {error}; install it with: apt-get install {package}"))
}

/// alice logs in with a real client, registers for push and disconnects. bob sends a message, and the push service
/// receives a publish.
async fn a_message_rings(machine: &Machine, together: &str, components: SocketAddr, server: SocketAddr) {
    // The test moves the server to another port than the guide, because that port may be in use.
    machine.runs(&together.replace("--force", &format!("--force --upstream {server}")));
    assert!(machine.read("told").contains("enable --now pushward\n"));
    let pushward = machine.pushward().await;
    let mut service = PushService::at(components).await;
    let mut bob = Client::plain(server).await;
    bob.login("bob", "desk").await;
    bob.available().await;
    let way = (Security::StartTls, pushward.starttls);
    let mut alice = Peer::trusting(&pushward, Library::Slixmpp, "alice@localhost/phone", way);
    alice.order(&json!({"do": "connect"}));
    assert_eq!(alice.event("online").await["jid"], "alice@localhost/phone");
    let enable = "<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'/>";
    assert_eq!(alice.request(("push", "set", None), enable).await["type"], "result");
    drop(alice);
    pushward.logged(&["dark", "alice@localhost/phone"]).await;
    bob.say("alice@localhost", "ring").await;
    let publish = service.publish(PATIENCE).await;
    assert_eq!((publish.node.as_deref(), publish.body()), (Some("n"), Some("New Message!")));
}

#[tokio::test]
async fn from_debians_prosody_to_push() {
    let [package, certificate, prosody, _, together] = commands();
    assert!(package.contains("cargo deb"));
    let machine = Machine::new();
    let directory = machine.path("prosody").display().to_string();
    let own = format!(
        "run_as_root = true\ndata_path = \"data\"\ncomponent_interfaces = {{ \"127.0.0.1\" }}\n\
         component_ports = {{ {} }}\ns2s_ports = {{}}\ns2s_direct_tls_ports = {{}}\nhttp_ports = {{}}\nhttps_ports = {{}}\n",
        machine.components.port()
    );
    let stock = stock("/etc/prosody/prosody.cfg.lua", "prosody");
    let stock = stock
        .replace("\"/run/prosody/", "\"")
        .replace("info = \"/var/log/prosody/prosody.log\"", "info = \"*console\"");
    machine.write("prosody/prosody.cfg.lua", &(own + &stock.replace("/var/log/prosody/", &format!("{directory}/"))));
    let component = format!("Component \"push.localhost\"\n  component_secret = \"{COMPONENT_SECRET}\"\n");
    machine.write("prosody/conf.d/push.cfg.lua", &component);

    machine.runs(&certificate);
    machine.runs(&prosody);
    assert!(machine.read("told").contains("restart prosody\n"));
    let addresses = (machine.server, machine.components);
    let _server = Prosody::configured(machine.moved("prosody"), addresses).await;
    a_message_rings(&machine, &together, machine.components, machine.server).await;
}

#[tokio::test]
async fn from_debians_ejabberd_to_push() {
    let [_, certificate, _, ejabberd, together] = commands();
    let machine = Machine::new();
    let component = format!(
        "\nlisten:\n  -\n    port: {}\n    ip: \"127.0.0.1\"\n    module: ejabberd_service\n    hosts:\n      push.localhost:\n        \
         password: \"{COMPONENT_SECRET}\"\n",
        machine.components.port()
    );
    let mut stock = stock("/etc/ejabberd/ejabberd.yml", "ejabberd").replace("\nlisten:\n", &component);
    for port in ["5269", "5443", "5280", "3478", "1883"] {
        let (public, own) = (format!("    port: {port}\n    ip: \"::\"\n"), free_address().port());
        assert!(stock.contains(&public), "{port}");
        stock = stock.replace(&public, &format!("    port: {own}\n    ip: \"127.0.0.1\"\n"));
    }
    machine.write("ejabberd/ejabberd.yml", &stock);

    machine.runs(&certificate);
    machine.runs(&ejabberd);
    assert!(machine.read("told").contains("restart ejabberd\n"));
    let addresses = (machine.server, machine.components);
    let _server = Ejabberd::installed(machine.moved("ejabberd"), addresses).await;
    a_message_rings(&machine, &together, machine.components, machine.server).await;
}

//! Debian's jabberd2 as the unmodified server: no stream management, no carbons, no push. It addresses every message to
//! the full JID of the session that gets it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::prosody::COMPONENT_SECRET;
use super::{Client, HEADER, Issued, PASSWORD, PATIENCE, Process, eventually, free_address};

const INSTALL: &str = "apt-get install jabberd2";
/// The directories of Debian's modules. One of them exists.
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/jabberd2", "/usr/lib/aarch64-linux-gnu/jabberd2"];
/// The modules of its session manager that the tests need, by the chain that calls them.
const CHAINS: [(&str, &[&str]); 9] = [
    ("in-sess", &["validate", "privacy", "roster", "iq-ping", "disco", "offline", "presence", "deliver"]),
    ("in-router", &["session", "validate", "presence", "privacy"]),
    ("out-router", &["privacy"]),
    ("pkt-sm", &["iq-ping", "disco", "presence"]),
    ("pkt-user", &["roster", "presence", "disco", "deliver", "offline"]),
    ("pkt-router", &["session", "disco"]),
    ("user-load", &["active", "roster", "privacy"]),
    ("user-create", &["active"]),
    ("user-delete", &["active", "offline", "privacy", "roster"]),
];

/// A running server. Dropping it ends the server.
pub(crate) struct Jabberd2 {
    /// The address for clients, without TLS or with STARTTLS.
    pub(crate) address: SocketAddr,
    /// The address for clients with direct TLS. The port is closed unless the server was started
    /// [`Jabberd2::over_tls`].
    pub(crate) direct: SocketAddr,
    /// The address for components.
    pub(crate) components: SocketAddr,
    // Declared in the order in which they end: the directory is the last.
    _clients: Process,
    sessions: Process,
    _router: Process,
    _directory: TempDir,
}

/// The ports of a server.
#[derive(Clone, Copy)]
struct Ports {
    clients: SocketAddr,
    direct: SocketAddr,
    router: SocketAddr,
}

impl Jabberd2 {
    /// Starts a server for `localhost` with the accounts alice, bob and carol, which accepts components.
    pub(crate) async fn start() -> Self {
        Self::having(None).await
    }

    /// The same with direct TLS and STARTTLS. Logins without TLS are still allowed.
    pub(crate) async fn over_tls(certificate: &Issued) -> Self {
        Self::having(Some(&certificate.together)).await
    }

    async fn having(certificate: Option<&Path>) -> Self {
        for _ in 0..5 {
            if let Some(started) = Self::try_start(certificate).await {
                started.register().await;
                return started;
            }
        }
        panic!("no free ports for jabberd2");
    }

    /// Starts the server. Returns `None` if a port was taken.
    async fn try_start(certificate: Option<&Path>) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let ports = Ports { clients: free_address(), direct: free_address(), router: free_address() };
        configure(directory.path(), certificate, ports);
        // A program that does not find the router waits a second before it tries again.
        let router = started("router", directory.path(), "listening for incoming connections").await?;
        let sessions = started("sm", directory.path(), "ready for sessions").await?;
        // The session manager reports this before the router knows its domain.
        online(&router, "localhost").await;
        let clients = started("c2s", directory.path(), "ready for connections").await?;
        online(&router, "c2s").await;
        Some(Self {
            address: ports.clients,
            direct: ports.direct,
            components: ports.router,
            _clients: clients,
            sessions,
            _router: router,
            _directory: directory,
        })
    }

    /// Registers the accounts in-band, because jabberd2 creates its databases itself.
    async fn register(&self) {
        for name in ["alice", "bob", "carol"] {
            let mut client = Client::plain(self.address).await;
            client.open().await;
            let account = format!("<username>{name}</username><password>{PASSWORD}</password>");
            let query = format!("<query xmlns='jabber:iq:register'>{account}</query>");
            client.send(format!("<iq type='set' id='register'>{query}</iq>")).await;
            let answer = client.expect("id='register'").await;
            assert!(answer.contains("type='result'"), "{answer}");
        }
    }

    /// Waits until the session of that full JID has ended.
    pub(crate) async fn ended(&self, jid: &str) {
        let log = self.sessions.log();
        let line = format!("session ended: jid={jid}");
        eventually(PATIENCE, || format!("{line} in\n{}", log.lines().join("\n")), || log.contains(&line).then_some(()))
            .await;
    }

    /// Returns the features that the server itself offers to an authenticated client.
    pub(crate) async fn features(&self) -> String {
        let mut client = Client::plain(self.address).await;
        client.open().await;
        client.authenticate("carol").await;
        client.send(HEADER).await;
        client.expect("<stream:features").await
    }
}

/// Starts one of its programs and waits until it has logged that it is ready. Returns `None` if a port was taken.
async fn started(program: &str, directory: &Path, ready: &str) -> Option<Process> {
    let mut command = Command::new(format!("/usr/sbin/jabberd2-{program}"));
    command.arg("-c").arg(directory.join(format!("{program}.xml"))).current_dir(directory);
    let mut process = Process::spawn("jabberd2", INSTALL, &mut command);
    let log = process.log().clone();
    let what = || format!("jabberd2-{program} is ready:\n{}", log.lines().join("\n"));
    let is_ready =
        eventually(PATIENCE, what, || if log.contains(ready) { Some(true) } else { process.exited().map(|_| false) })
            .await;
    let taken = || log.contains("unable to listen") || log.contains("failed to listen");
    assert!(is_ready || taken(), "jabberd2-{program} has ended:\n{}", log.lines().join("\n"));
    is_ready.then_some(process)
}

/// Waits until the router delivers to that name.
async fn online(router: &Process, name: &str) {
    let log = router.log();
    let line = format!("[{name}] online");
    eventually(PATIENCE, || format!("{line} in\n{}", log.lines().join("\n")), || log.contains(&line).then_some(()))
        .await;
}

fn configure(directory: &Path, certificate: Option<&Path>, ports: Ports) {
    let libraries = LIBRARIES.iter().find(|path| Path::new(path).exists());
    let libraries = libraries.unwrap_or_else(|| panic!("no jabberd2 in {LIBRARIES:?}; install it with: {INSTALL}"));
    let place = directory.display();
    let common = |id: &str| format!("<id>{id}</id><pidfile>{place}/{id}.pid</pidfile><log type='stdout'/>");
    let router = format!(
        "<router><ip>127.0.0.1</ip><port>{}</port><user>jabberd</user><pass>{COMPONENT_SECRET}</pass></router>",
        ports.router.port()
    );
    // Each program has a database of its own: a shared environment breaks if both open it at the same time.
    let database = |id: &str| {
        fs::create_dir(directory.join(id)).unwrap();
        format!("<db><path>{place}/{id}</path></db>")
    };
    let write = |id: &str, content: &str| {
        fs::write(directory.join(format!("{id}.xml")), format!("<{id}>{}{content}</{id}>", common(id))).unwrap();
    };
    let user = format!("<user><name>jabberd</name><secret>{COMPONENT_SECRET}</secret></user>");
    fs::write(directory.join("users.xml"), format!("<users>{user}</users>")).unwrap();
    let local = format!(
        "<local><ip>127.0.0.1</ip><port>{}</port><users>{place}/users.xml</users><secret>{COMPONENT_SECRET}</secret></local>",
        ports.router.port()
    );
    write("router", &format!("{local}<aci><acl type='all'><user>jabberd</user></acl></aci>"));
    let chains = CHAINS.iter().map(|(chain, modules)| {
        let modules = modules.iter().map(|module| format!("<module>{module}</module>"));
        format!("<chain id='{chain}'>{}</chain>", modules.collect::<String>())
    });
    let modules = format!("<modules><path>{libraries}</path>{}</modules>", chains.collect::<String>());
    let storage = format!("<storage><path>{libraries}</path><driver>db</driver>{}</storage>", database("sm"));
    write("sm", &format!("{router}<local><id>localhost</id></local>{storage}{modules}<user/>"));
    let (starttls, direct) = certificate.map_or_else(Default::default, |file| {
        let file = file.display();
        let port = ports.direct.port();
        (format!(" pemfile='{file}'"), format!("<ssl-port>{port}</ssl-port><pemfile>{file}</pemfile>"))
    });
    let local = format!(
        "<local><id register-enable='true'{starttls}>localhost</id><ip>127.0.0.1</ip><port>{}</port>{direct}</local>",
        ports.clients.port()
    );
    let limits = "<io><limits><stanzas>0</stanzas><stanzasize>1048576</stanzasize></limits></io>";
    let sasl = "<sasl><plain/><scram-sha-1/></sasl>";
    let mechanisms = format!("<mechanisms>{sasl}</mechanisms><ssl-mechanisms>{sasl}</ssl-mechanisms>");
    let accounts =
        format!("<authreg><path>{libraries}</path><module>db</module>{mechanisms}{}</authreg>", database("c2s"));
    write("c2s", &format!("{router}{local}{limits}{accounts}"));
}

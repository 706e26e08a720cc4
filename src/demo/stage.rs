//! [`DemoStage`]: the embedded server, and a real Pushward in front of it, on ports that the system chooses.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;
use tokio_rustls::TlsConnector;

use super::client::{CertificateFileError, ClientSecurity, ServerAddress, trusting};
use super::server::{DemoAccount, DemoServer, ServerSettings};
use super::trace::Observer;
use super::workspace::Workspace;
use crate::admin::Interface;
use crate::config::{Config, ConfigErrors, ListenTls};
use crate::daemon::{Daemon, StartError};

/// The domain of the demo.
pub(super) const DOMAIN: &str = "localhost";
/// The accounts and their passwords. Each has the other as a contact.
pub(super) const ACCOUNTS: [(&str, &str); 2] =
    [("juliet", "r0se-by-any-0ther-name"), ("romeo", "yonder-w1nd0w-breaks")];

const CERTIFICATE: &str = "localhost.pem";

/// The reason why the demo cannot start.
#[derive(Debug, Error)]
pub(super) enum StageError {
    #[error("cannot create a temporary directory: {0}")]
    Workspace(io::Error),
    #[error("cannot start the embedded server: {0}")]
    Server(io::Error),
    #[error("the configuration of the demo is invalid: {0}")]
    Config(#[from] ConfigErrors),
    #[error("cannot start Pushward: {0}")]
    Daemon(#[from] StartError),
    #[error(transparent)]
    Trust(#[from] CertificateFileError),
    #[error("Pushward has no listener for {0}")]
    Listener(Port),
}

/// A listener of Pushward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Starttls,
    Direct,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starttls => "STARTTLS",
            Self::Direct => "direct TLS",
        })
    }
}

/// A running Pushward and server.
pub(super) struct DemoStage {
    daemon: Daemon,
    server: DemoServer,
    starttls: SocketAddr,
    direct: SocketAddr,
    tls: TlsConnector,
    observer: Option<Observer>,
    // Dropped last, because the daemon keeps its database here.
    workspace: Workspace,
}

impl DemoStage {
    /// Starts everything. `settings`: the configuration except for listeners and the host, as TOML.
    pub(super) async fn build(settings: &str, observer: Option<Observer>) -> Result<Self, StageError> {
        let workspace = Workspace::new().map_err(StageError::Workspace)?;
        let accounts = ACCOUNTS.iter().map(|(name, password)| DemoAccount {
            name: (*name).to_owned(),
            password: (*password).to_owned(),
            contacts: ACCOUNTS
                .iter()
                .filter(|(other, _)| other != name)
                .map(|(other, _)| (*other).to_owned())
                .collect(),
        });
        let accounts = accounts.collect();
        let server =
            DemoServer::start(ServerSettings { domain: DOMAIN.to_owned(), accounts, observer: observer.clone() });
        let server = server.await.map_err(StageError::Server)?;
        let text = configuration(server.address(), settings);
        let config = Config::parse(&text, &workspace.path().join("config.toml"))?;
        let daemon = Daemon::start::<Interface>(config).await?;
        let tls = trusting(&workspace.path().join(CERTIFICATE))?;
        let listener = |port, wanted| {
            let found = daemon.addresses().iter().find(|(tls, _)| *tls == wanted);
            found.map(|(_, address)| *address).ok_or(StageError::Listener(port))
        };
        let (starttls, direct) =
            (listener(Port::Starttls, ListenTls::Starttls)?, listener(Port::Direct, ListenTls::Direct)?);
        Ok(Self { daemon, server, starttls, direct, tls, observer, workspace })
    }

    pub(super) fn server(&self) -> &DemoServer {
        &self.server
    }

    /// Returns the address of a listener of Pushward.
    pub(super) fn address(&self, port: Port) -> SocketAddr {
        match port {
            Port::Starttls => self.starttls,
            Port::Direct => self.direct,
        }
    }

    /// Returns the address of Pushward's admin page.
    pub(super) fn page(&self) -> Option<SocketAddr> {
        self.daemon.page()
    }

    /// Returns the path of the development certificate (PEM).
    pub(super) fn certificate(&self) -> PathBuf {
        self.workspace.path().join(CERTIFICATE)
    }

    /// Returns the server address for a client with this name.
    pub(super) fn place(&self, name: &str, port: Port) -> ServerAddress {
        let tls = self.tls.clone();
        ServerAddress {
            address: self.address(port),
            security: match port {
                Port::Starttls => ClientSecurity::Starttls(tls),
                Port::Direct => ClientSecurity::Direct(tls),
            },
            domain: DOMAIN.to_owned(),
            name: name.to_owned(),
            peer: "pushward".to_owned(),
            observer: self.observer.clone(),
        }
    }

    /// Stops everything and removes the files.
    pub(super) async fn stop(self) {
        self.daemon.stop().await;
        self.server.stop().await;
    }
}

/// Returns the configuration. Its paths are relative to its directory, so that the name of the directory needs no quoting.
fn configuration(upstream: SocketAddr, settings: &str) -> String {
    format!(
        r#"
state = "state"
[[listen]]
address = "127.0.0.1:0"
tls = "starttls"
[[listen]]
address = "127.0.0.1:0"
tls = "direct"
[[host]]
domain = "{DOMAIN}"
certificate = "{CERTIFICATE}"
key = "localhost.key"
upstream = "{upstream}"
[admin]
listen = "127.0.0.1:0"
{settings}
"#
    )
}

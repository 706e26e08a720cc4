//! Any of the real servers, for scenarios that must have the same result on all of them.

use std::net::SocketAddr;

use super::{Client, Ejabberd, Prosody, PushService};

/// A running server.
pub(crate) enum Server {
    Prosody { server: Prosody, managed: bool },
    Ejabberd { server: Ejabberd, managed: bool },
}

impl Server {
    /// Starts Prosody without stream management.
    pub(crate) async fn prosody() -> Self {
        Self::Prosody { server: Prosody::start().await, managed: false }
    }

    /// Starts Prosody with its own stream management.
    pub(crate) async fn managed_prosody() -> Self {
        Self::Prosody { server: Prosody::with(&["smacks"]).await, managed: true }
    }

    /// Starts ejabberd without stream management.
    pub(crate) async fn ejabberd() -> Self {
        Self::Ejabberd { server: Ejabberd::start().await, managed: false }
    }

    /// Starts ejabberd with its own stream management.
    pub(crate) async fn managed_ejabberd() -> Self {
        Self::Ejabberd { server: Ejabberd::managed().await, managed: true }
    }

    /// Returns true if the server has stream management of its own.
    pub(crate) fn manages_streams(&self) -> bool {
        match self {
            Self::Prosody { managed, .. } | Self::Ejabberd { managed, .. } => *managed,
        }
    }

    /// Returns true if the server may lose the first of the stanzas that it has to send again.
    pub(crate) fn may_lose_the_first(&self) -> bool {
        matches!(self, Self::Ejabberd { managed: true, .. })
    }

    /// Returns the address for clients.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Prosody { server, .. } => server.address,
            Self::Ejabberd { server, .. } => server.address,
        }
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Prosody { server, .. } => server.kill(),
            Self::Ejabberd { server, .. } => server.kill(),
        }
    }

    /// Starts the killed server again at the same address.
    pub(crate) async fn start_again(&mut self) {
        match self {
            Self::Prosody { server, .. } => server.start_again().await,
            Self::Ejabberd { server, .. } => server.start_again().await,
        }
    }

    /// Connects a push service to this server.
    pub(crate) async fn push_service(&self) -> PushService {
        match self {
            Self::Prosody { server, .. } => PushService::connect(server).await,
            Self::Ejabberd { server, .. } => PushService::at(server.components).await,
        }
    }

    /// Connects bob to the server without the proxy.
    pub(crate) async fn bob(&self) -> Client {
        let mut bob = Client::plain(self.address()).await;
        bob.login("bob", "desk").await;
        bob
    }
}

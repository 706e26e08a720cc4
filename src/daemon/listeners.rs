//! [`Listeners`]: the addresses on which clients connect. They are bound at the start and changed by a reload.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Listen, ListenTls, may_clash};
use crate::net::listener;
use crate::relay::Relay;
use crate::service::Sockets;
use crate::sync::lock;

/// The limit for connections that the kernel completes before they are accepted.
const BACKLOG: u32 = 1024;

/// The daemon cannot listen on an address.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}{}", remedy(*purpose, source, own.as_ref()))]
pub struct ListenError {
    /// The purpose of the listener.
    pub purpose: ListenPurpose,
    /// The address in the configuration.
    pub address: SocketAddr,
    /// The error of the operating system.
    pub source: io::Error,
    /// The listener of Pushward that may be the cause.
    pub own: Option<OwnListener>,
}

/// The purpose of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenPurpose {
    /// Clients connect to it: `[[listen]] address`.
    Clients,
    /// Other nodes connect to it: `[cluster] listen`.
    Nodes,
}

/// A listener of Pushward that may exclude another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnListener {
    /// It is in the same configuration.
    Configured(SocketAddr),
    /// It is open, and not in the new configuration.
    Replaced(SocketAddr),
}

fn remedy(purpose: ListenPurpose, error: &io::Error, own: Option<&OwnListener>) -> String {
    match (error.kind(), own) {
        (io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable, _) if purpose == ListenPurpose::Nodes => {
            "; set [cluster] listen to an address of this machine with a port that no other program uses".to_owned()
        }
        (io::ErrorKind::AddrInUse, Some(OwnListener::Configured(other))) => {
            format!("; {other}, of another [[listen]], takes the same connections: remove one of them")
        }
        (io::ErrorKind::AddrInUse, Some(OwnListener::Replaced(other))) => {
            format!("; Pushward listens on {other}, which a reload cannot replace by this address: restart Pushward")
        }
        (io::ErrorKind::AddrInUse, None) => {
            "; does the XMPP server still use this port? Move it to another port, or change [[listen]] address"
                .to_owned()
        }
        (io::ErrorKind::PermissionDenied, _) => "; ports below 1024 require CAP_NET_BIND_SERVICE".to_owned(),
        _ => String::new(),
    }
}

/// All listening addresses, and the state for serving their connections.
pub(super) struct Listeners {
    relay: Arc<Relay>,
    accepting: CancellationToken,
    connections: TaskTracker,
    open: Vec<OpenListener>,
    sockets: ListenerSockets,
}

/// Copies of the descriptors of the open listeners, for a handover: the next process accepts the connections that the kernel
/// completes meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct ListenerSockets(Arc<Mutex<Vec<ListenerSocket>>>);

#[derive(Debug)]
struct ListenerSocket {
    /// The address in the configuration, whose port may be 0.
    configured: SocketAddr,
    bound: SocketAddr,
    socket: OwnedFd,
}

impl ListenerSockets {
    /// Takes those at wanted addresses, and closes the others: they could exclude addresses that the next process opens. If
    /// nothing is known about what is wanted, takes all of them.
    pub(super) fn take(&self, wanted: Option<&[SocketAddr]>) -> Vec<OwnedFd> {
        let is_wanted = |open: &ListenerSocket| {
            let fits = |address: &SocketAddr| *address == open.configured || *address == open.bound;
            wanted.is_none_or(|wanted| wanted.iter().any(fits))
        };
        let all = std::mem::take(&mut *lock(&self.0));
        all.into_iter().filter(is_wanted).map(|open| open.socket).collect()
    }

    /// Closes all of them.
    pub(super) fn close(&self) {
        lock(&self.0).clear();
    }

    fn add(&self, configured: SocketAddr, bound: SocketAddr, listener: &TcpListener) {
        match listener.as_fd().try_clone_to_owned() {
            Ok(socket) => lock(&self.0).push(ListenerSocket { configured, bound, socket }),
            Err(error) => tracing::warn!(address = %bound, %error, "listener cannot be handed over"),
        }
    }

    fn remove(&self, bound: SocketAddr) {
        lock(&self.0).retain(|open| open.bound != bound);
    }
}

/// One listening address.
struct OpenListener {
    listen: Arc<ArcSwap<Listen>>,
    address: SocketAddr,
    stop: CancellationToken,
}

/// The bound listener for other nodes. It stays until the daemon stops.
pub(super) struct NodeListener {
    configured: SocketAddr,
    listener: TcpListener,
    address: SocketAddr,
}

impl NodeListener {
    /// Binds the address, unless its socket was passed.
    ///
    /// # Errors
    /// Returns the error of the operating system, with a remedy.
    pub(super) fn bind(configured: SocketAddr, passed: &mut Sockets) -> Result<Self, ListenError> {
        let (listener, address) = bind(configured, passed).map_err(|source| ListenError {
            purpose: ListenPurpose::Nodes,
            address: configured,
            source,
            own: None,
        })?;
        Ok(Self { configured, listener, address })
    }
}

/// The step for each `[[listen]]` of a new configuration.
pub(super) struct Plan(Vec<(Listen, ListenerStep)>);

enum ListenerStep {
    /// The listener with this number stays open, perhaps with other settings.
    Keep(usize),
    Open(TcpListener, SocketAddr),
}

impl Plan {
    /// Binds all addresses for which no socket was passed.
    ///
    /// # Errors
    /// Returns the error of the first address that cannot be bound.
    pub(super) fn first(wanted: &[Listen], passed: &mut Sockets) -> Result<Self, ListenError> {
        Self::new(&[], wanted, passed)
    }

    fn new(open: &[OpenListener], wanted: &[Listen], passed: &mut Sockets) -> Result<Self, ListenError> {
        let mut left: Vec<_> = open.iter().map(|open| open.listen.load_full()).enumerate().collect();
        let mut take = |fits: &dyn Fn(&Listen) -> bool| {
            let at = left.iter().position(|(_, listen)| fits(listen))?;
            Some(left.remove(at).0)
        };
        // Unchanged listeners are matched first: if two have port 0, a change to one must not move the other.
        let same: Vec<_> = wanted.iter().map(|listen| take(&|open| open == listen)).collect();
        let mut steps: Vec<_> = wanted.iter().zip(same).enumerate().collect();
        // Any port fits an address without one, so that it is served last.
        steps.sort_by_key(|(_, (listen, _))| listen.address.port() == 0);
        let mut planned = Vec::with_capacity(steps.len());
        for (position, (listen, same)) in steps {
            let step = match same.or_else(|| take(&|open| open.address == listen.address)) {
                Some(number) => ListenerStep::Keep(number),
                None => {
                    let (listener, address) = bind(listen.address, passed).map_err(|source| {
                        let (address, own) = (listen.address, clashing(listen.address, open, wanted));
                        ListenError { purpose: ListenPurpose::Clients, address, source, own }
                    })?;
                    ListenerStep::Open(listener, address)
                }
            };
            planned.push((position, (listen.clone(), step)));
        }
        planned.sort_by_key(|(position, _)| *position);
        Ok(Self(planned.into_iter().map(|(_, step)| step).collect()))
    }
}

/// Returns the listener of Pushward that may exclude this address.
fn clashing(address: SocketAddr, open: &[OpenListener], wanted: &[Listen]) -> Option<OwnListener> {
    let clashes = |other: &SocketAddr| *other != address && may_clash(*other, address);
    let configured = wanted.iter().map(|listen| listen.address).find(clashes).map(OwnListener::Configured);
    let open = || open.iter().map(|open| open.address).find(clashes).map(OwnListener::Replaced);
    configured.or_else(open)
}

impl Listeners {
    /// Creates a set without listeners. New listeners close when `accepting` is cancelled. `connections` tracks the tasks
    /// that serve their connections.
    pub(super) fn new(relay: Arc<Relay>, accepting: CancellationToken, connections: TaskTracker) -> Self {
        Self { relay, accepting, connections, open: Vec::new(), sockets: ListenerSockets::default() }
    }

    /// Returns the access to the descriptors of the open listeners.
    pub(super) fn sockets(&self) -> ListenerSockets {
        self.sockets.clone()
    }

    /// Binds the addresses that are not open yet and for which no socket was passed.
    ///
    /// # Errors
    /// Returns the error of the first address that cannot be bound. In that case nothing has changed.
    pub(super) fn plan(&self, wanted: &[Listen], passed: &mut Sockets) -> Result<Plan, ListenError> {
        Plan::new(&self.open, wanted, passed)
    }

    /// Opens, changes and closes listeners. Existing connections stay. Must be called inside a runtime.
    pub(super) fn apply(&mut self, Plan(steps): Plan) {
        let mut before: Vec<_> = std::mem::take(&mut self.open).into_iter().map(Some).collect();
        for (listen, step) in steps {
            let open = match step {
                ListenerStep::Keep(number) => before.get_mut(number).and_then(Option::take).inspect(|open| {
                    if **open.listen.load() != listen {
                        log_listening(open.address, listen.tls);
                    }
                    open.listen.store(Arc::new(listen));
                }),
                ListenerStep::Open(listener, address) => Some(self.listen(listen, listener, address)),
            };
            self.open.extend(open);
        }
        for closed in before.into_iter().flatten() {
            tracing::info!(address = %closed.address, "stopped listening");
            self.sockets.remove(closed.address);
            closed.stop.cancel();
        }
    }

    /// Accepts the clients that other nodes pass on. Must be called inside a runtime.
    pub(super) fn listen_for_nodes(&self, bound: NodeListener) {
        let NodeListener { configured, listener, address } = bound;
        tracing::info!(%address, "listening for other nodes");
        self.sockets.add(configured, address, &listener);
        let (relay, connections) = (Arc::clone(&self.relay), self.connections.clone());
        let gate = self.relay.guards().gate().clone();
        let accept = listener::accept_nodes(listener, gate, move |tcp, peer, admission| {
            connections.spawn(Arc::clone(&relay).serve_node(tcp, peer, admission));
        });
        let stopped = self.accepting.clone();
        self.connections.spawn(async move { stopped.run_until_cancelled_owned(accept).await });
    }

    /// Returns the listening addresses, in the order of the configuration. If the system chose a port, it is the real port.
    pub(super) fn addresses(&self) -> Vec<(ListenTls, SocketAddr)> {
        self.open.iter().map(|open| (open.listen.load().tls, open.address)).collect()
    }

    fn listen(&self, listen: Listen, listener: TcpListener, address: SocketAddr) -> OpenListener {
        log_listening(address, listen.tls);
        self.sockets.add(listen.address, address, &listener);
        let (listen, stop) = (Arc::new(ArcSwap::from_pointee(listen)), self.accepting.child_token());
        let (relay, connections, current) = (Arc::clone(&self.relay), self.connections.clone(), Arc::clone(&listen));
        let accept = listener::accept(
            listener,
            Arc::clone(&listen),
            self.relay.guards().gate().clone(),
            move |tcp, peer, admission| {
                connections.spawn(Arc::clone(&relay).serve(tcp, peer, current.load_full(), admission));
            },
        );
        let stopped = stop.clone();
        self.connections.spawn(async move { stopped.run_until_cancelled(accept).await });
        OpenListener { listen, address, stop }
    }
}

fn log_listening(address: SocketAddr, tls: ListenTls) {
    let tls = match tls {
        ListenTls::Starttls => "starttls",
        ListenTls::Direct => "direct",
    };
    tracing::info!(%address, tls, "listening");
}

/// Takes the listener that the service manager passed for this address, or creates one.
fn bind(address: SocketAddr, passed: &mut Sockets) -> io::Result<(TcpListener, SocketAddr)> {
    if let Some(listener) = passed.take(address)? {
        let address = listener.local_addr()?;
        return Ok((listener, address));
    }
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_for_nodes_that_cannot_be_used_is_named_with_its_key() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // 192.0.2.0/24 is reserved for documentation (RFC 5737).
        for address in [taken.local_addr().unwrap(), "192.0.2.1:5280".parse().unwrap()] {
            let error = NodeListener::bind(address, &mut Sockets::default()).err().unwrap().to_string();
            assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
            assert!(error.contains("; set [cluster] listen to "), "{error}");
        }
    }
}

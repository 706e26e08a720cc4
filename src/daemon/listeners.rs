//! Where clients connect: bound once, changed by a reload.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Listen, ListenTls};
use crate::net::listener;
use crate::relay::Relay;
use crate::service::Sockets;

/// Connections that the kernel may complete before they are accepted.
const BACKLOG: u32 = 1024;

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}{}", remedy(source))]
pub struct ListenError {
    /// `[[listen]] address`
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        "; does the XMPP server still use this port? Move it to another port, or change [[listen]] address"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "; ports below 1024 require CAP_NET_BIND_SERVICE"
    } else {
        ""
    }
}

/// All addresses, and what serves the connections that come there.
pub(super) struct Listeners {
    relay: Arc<Relay>,
    accepting: CancellationToken,
    connections: TaskTracker,
    open: Vec<OpenListener>,
}

/// One address.
struct OpenListener {
    listen: Arc<ArcSwap<Listen>>,
    address: SocketAddr,
    stop: CancellationToken,
}

/// What is to become of each `[[listen]]`.
pub(super) struct Plan(Vec<(Listen, ListenerStep)>);

enum ListenerStep {
    /// The one with this number stays open, perhaps with other settings.
    Keep(usize),
    Open(TcpListener, SocketAddr),
}

impl Listeners {
    /// None is open; those to come close when `accepting` is cancelled, and what they serve is tracked by `connections`.
    pub(super) fn new(relay: Arc<Relay>, accepting: CancellationToken, connections: TaskTracker) -> Self {
        Self { relay, accepting, connections, open: Vec::new() }
    }

    /// Binds the addresses that are neither open yet nor among the sockets that were passed.
    ///
    /// # Errors
    /// The first that cannot be bound; then nothing has changed.
    pub(super) fn plan(&self, wanted: &[Listen], passed: &mut Sockets) -> Result<Plan, ListenError> {
        let mut left: Vec<_> = self.open.iter().map(|open| open.listen.load_full()).enumerate().collect();
        let mut take = |fits: &dyn Fn(&Listen) -> bool| {
            let at = left.iter().position(|(_, listen)| fits(listen))?;
            Some(left.remove(at).0)
        };
        // What stays as it is goes first: of two with port 0, a change to one must not move the other.
        let same: Vec<_> = wanted.iter().map(|listen| take(&|open| open == listen)).collect();
        let steps = wanted.iter().zip(same).map(|(listen, same)| {
            let step = match same.or_else(|| take(&|open| open.address == listen.address)) {
                Some(number) => ListenerStep::Keep(number),
                None => {
                    let (listener, address) = bind(listen.address, passed)?;
                    ListenerStep::Open(listener, address)
                }
            };
            Ok((listen.clone(), step))
        });
        steps.collect::<Result<_, _>>().map(Plan)
    }

    /// Opens, changes and closes; connections that have come stay. Inside a runtime.
    pub(super) fn apply(&mut self, Plan(steps): Plan) {
        let mut before: Vec<_> = std::mem::take(&mut self.open).into_iter().map(Some).collect();
        for (listen, step) in steps {
            let open = match step {
                ListenerStep::Keep(number) => before.get_mut(number).and_then(Option::take).inspect(|open| {
                    if **open.listen.load() != listen {
                        tell(open.address, listen.tls);
                    }
                    open.listen.store(Arc::new(listen));
                }),
                ListenerStep::Open(listener, address) => Some(self.listen(listen, listener, address)),
            };
            self.open.extend(open);
        }
        for closed in before.into_iter().flatten() {
            tracing::info!(address = %closed.address, "stopped listening");
            closed.stop.cancel();
        }
    }

    /// Where it listens, in the order of the configuration; ports that the system chose are real here.
    pub(super) fn addresses(&self) -> Vec<(ListenTls, SocketAddr)> {
        self.open.iter().map(|open| (open.listen.load().tls, open.address)).collect()
    }

    fn listen(&self, listen: Listen, listener: TcpListener, address: SocketAddr) -> OpenListener {
        tell(address, listen.tls);
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

fn tell(address: SocketAddr, tls: ListenTls) {
    let tls = match tls {
        ListenTls::Starttls => "starttls",
        ListenTls::Direct => "direct",
    };
    tracing::info!(%address, tls, "listening");
}

/// Takes the listener that the service manager passed for this address, or makes one.
fn bind(address: SocketAddr, passed: &mut Sockets) -> Result<(TcpListener, SocketAddr), ListenError> {
    let mut bind = || {
        if let Some(listener) = passed.take(address)? {
            return Ok((listener, address));
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(|source| ListenError { address, source })
}

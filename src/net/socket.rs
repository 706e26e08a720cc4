//! [`Socket`], a connection to the upstream server: TCP, from one of several local addresses, or a unix socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::forward::forward_io;
use super::proxy_protocol::Addresses;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// To an address with a port.
    Tcp(TcpStream),
    /// To a process of this machine.
    Unix(UnixStream),
}

impl Socket {
    /// Returns both ends of the connection, with Pushward as the client. The ends of a unix socket are loopback
    /// addresses.
    ///
    /// # Errors
    /// Returns an error if the connection is closed already.
    pub fn addresses(&self) -> io::Result<Addresses> {
        match self {
            Self::Tcp(tcp) => Ok(Addresses { client: tcp.local_addr()?, server: tcp.peer_addr()? }),
            Self::Unix(_) => {
                let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
                Ok(Addresses { client: loopback, server: loopback })
            }
        }
    }
}

forward_io!(Socket { Tcp, Unix });

/// The local addresses for connections to a server, used in turn. One local address and one port of the server allow
/// only as many connections as there are ephemeral ports.
#[derive(Debug)]
pub struct Sources {
    /// If empty, the system chooses.
    addresses: Vec<IpAddr>,
    next: AtomicUsize,
}

impl Sources {
    /// Uses these addresses, or the system's choice if there are none.
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, next: AtomicUsize::new(0) }
    }

    /// Connects to the first of a server's addresses that answers, from the next local address. If that address has no
    /// free port, tries the following ones.
    ///
    /// # Errors
    /// Returns the error of the last attempt. There is no attempt if no address has the server's family.
    pub async fn connect(&self, servers: &[SocketAddr]) -> io::Result<TcpStream> {
        if self.addresses.is_empty() {
            return TcpStream::connect(servers).await;
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.addresses.len();
        let mut last = io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "no upstream_source address is of the same kind (IPv4 or IPv6) as the server's address",
        );
        for server in servers {
            let in_turn = self.addresses.iter().cycle().skip(first).take(self.addresses.len());
            for source in in_turn.filter(|source| source.is_ipv4() == server.is_ipv4()) {
                match connect_from(*source, *server).await {
                    Ok(tcp) => return Ok(tcp),
                    Err(error) => {
                        tracing::debug!(%source, %server, %error, "cannot connect from this upstream_source");
                        let exhausted = error.kind() == io::ErrorKind::AddrNotAvailable;
                        last = error;
                        if !exhausted {
                            break;
                        }
                    }
                }
            }
        }
        Err(last)
    }
}

async fn connect_from(source: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The kernel then chooses the port when the server is known, so connections to other servers can share it. A kernel
    // without the option (before 4.2) reserves the port now, and has fewer.
    if let Err(error) = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true) {
        tracing::debug!(%error, "IP_BIND_ADDRESS_NO_PORT not available");
    }
    // An address that this machine does not have also gives AddrNotAvailable.
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(server).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn server() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn sources(addresses: &[&str]) -> Sources {
        Sources::new(addresses.iter().map(|address| address.parse().unwrap()).collect())
    }

    async fn check_sources(addresses: &[&str], expect: &[&str]) {
        let (listener, address) = server().await;
        let sources = sources(addresses);
        for expected in expect {
            let tcp = sources.connect(&[address]).await.unwrap();
            assert_eq!(tcp.local_addr().unwrap().ip().to_string(), *expected);
            assert_eq!(listener.accept().await.unwrap().1, tcp.local_addr().unwrap());
        }
    }

    #[tokio::test]
    async fn local_addresses_are_used_in_turn() {
        check_sources(&[], &["127.0.0.1", "127.0.0.1"]).await;
        check_sources(&["127.0.0.2", "127.0.0.3"], &["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"]).await;
    }

    #[tokio::test]
    async fn an_unavailable_local_address_is_skipped() {
        // 192.0.2.0/24 is reserved for documentation (RFC 5737). Binding to it fails with the same error as an address
        // without free ports.
        check_sources(&["192.0.2.1", "127.0.0.3"], &["127.0.0.3", "127.0.0.3"]).await;
        check_sources(&["::1", "127.0.0.3"], &["127.0.0.3", "127.0.0.3"]).await;
        let (_listener, address) = server().await;
        let kind = |error: io::Error| error.kind();
        assert_eq!(
            sources(&["192.0.2.1"]).connect(&[address]).await.map_err(kind).unwrap_err(),
            io::ErrorKind::AddrNotAvailable
        );
        assert_eq!(
            sources(&["::1"]).connect(&[address]).await.map_err(kind).unwrap_err(),
            io::ErrorKind::AddrNotAvailable
        );
    }

    #[tokio::test]
    async fn a_server_that_refuses_is_not_tried_from_another_address() {
        let (gone, closed) = server().await;
        drop(gone);
        let (_listener, open) = server().await;
        let sources = sources(&["127.0.0.2", "127.0.0.3"]);
        let error = sources.connect(&[closed]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(sources.connect(&[closed, open]).await.unwrap().peer_addr().unwrap(), open);
    }
}

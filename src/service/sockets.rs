//! [`Sockets`]: listeners that the service manager opened, as in sd_listen_fds(3).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::SockRef;
use thiserror::Error;
use tokio::net::TcpListener;

/// The reason why sockets that were passed to this process cannot be used. The operator can fix it.
#[derive(Debug, Error)]
pub enum PassedError {
    /// The socket is not a TCP socket.
    #[error(
        "the service manager passed something other than a TCP socket ({0}); use ListenStream= with [[listen]] addresses only"
    )]
    NotTcp(io::Error),
    /// The socket does not listen, so nobody can connect to it.
    #[error("the service manager passed a socket at {0} that is not listening; use ListenStream= with Accept=no")]
    NotListening(SocketAddr),
    /// The address of the socket is not in the configuration.
    #[error(
        "the service manager passed a socket at {0}, which is no [[listen]] address; add it there, or remove it from the socket unit"
    )]
    Unasked(SocketAddr),
}

/// The listeners that were passed and are not taken yet.
#[derive(Debug, Default)]
pub struct Sockets(Vec<PassedSocket>);

#[derive(Debug)]
struct PassedSocket {
    bound: SocketAddr,
    listener: std::net::TcpListener,
    /// True if a previous process of this service opened it. The configuration may have changed since.
    is_own: bool,
}

impl Sockets {
    /// Adds a socket that was passed by a service manager. `is_own`: a previous process has stored it there.
    ///
    /// # Errors
    /// Returns [`PassedError::NotTcp`] or [`PassedError::NotListening`].
    pub(super) fn add(&mut self, passed: &mut ListenFd, index: usize, is_own: bool) -> Result<(), PassedError> {
        let Some(listener) = passed.take_tcp_listener(index).map_err(PassedError::NotTcp)? else { return Ok(()) };
        let bound = listener.local_addr().map_err(PassedError::NotTcp)?;
        if !SockRef::from(&listener).is_listener().map_err(PassedError::NotTcp)? {
            return Err(PassedError::NotListening(bound));
        }
        self.0.push(PassedSocket { bound, listener, is_own });
        Ok(())
    }

    /// Returns copies of all of them.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let copy = |socket: &PassedSocket| {
            let PassedSocket { bound, ref listener, is_own } = *socket;
            Ok(PassedSocket { bound, listener: listener.try_clone()?, is_own })
        };
        self.0.iter().map(copy).collect::<io::Result<_>>().map(Self)
    }

    /// Adds the listeners of the previous process.
    pub(super) fn add_own(&mut self, listeners: Vec<OwnedFd>) {
        for listener in listeners.into_iter().map(std::net::TcpListener::from) {
            match listener.local_addr() {
                Ok(bound) => self.0.push(PassedSocket { bound, listener, is_own: true }),
                Err(error) => tracing::warn!(%error, "listener of the previous process cannot be used"),
            }
        }
    }

    /// Returns the passed listener that is bound to exactly this address, if there is one. With port 0, any port of the
    /// previous process fits.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn take(&mut self, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let is_any = |socket: &PassedSocket| address.port() == 0 && socket.is_own && socket.bound.ip() == address.ip();
        let fits = |socket: &PassedSocket| socket.bound == address || is_any(socket);
        // If both are there, that of the service manager must not be left over.
        let given = self.0.iter().position(|socket| fits(socket) && !socket.is_own);
        let Some(index) = given.or_else(|| self.0.iter().position(fits)) else { return Ok(None) };
        let PassedSocket { listener, .. } = self.0.remove(index);
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Some)
    }

    /// Closes the sockets of the previous process that the configuration no longer has, and checks that all others were taken.
    ///
    /// # Errors
    /// Returns [`PassedError::Unasked`]: connections to a remaining socket would never be accepted.
    pub fn finish(&mut self) -> Result<(), PassedError> {
        match std::mem::take(&mut self.0).into_iter().find(|socket| !socket.is_own) {
            Some(PassedSocket { bound, .. }) => Err(PassedError::Unasked(bound)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> (SocketAddr, std::net::TcpListener) {
        let listener = std::net::TcpListener::bind(address).unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[tokio::test]
    async fn a_socket_is_taken_once_and_by_its_address_alone() {
        let (one, other) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
        let (first, second) = (one.0, other.0);
        let mut sockets = Sockets::default();
        for (bound, listener) in [one, other] {
            sockets.0.push(PassedSocket { bound, listener, is_own: false });
        }
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], first.port()));
        assert!(sockets.take(elsewhere).unwrap().is_none());
        assert_eq!(sockets.take(second).unwrap().unwrap().local_addr().unwrap(), second);
        assert!(sockets.take(second).unwrap().is_none());
        assert!(sockets.finish().unwrap_err().to_string().contains(&first.to_string()));
    }
    #[tokio::test]
    async fn a_socket_of_the_previous_process_may_have_any_port_and_may_be_left() {
        let (one, other) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
        let mut sockets = Sockets::default();
        sockets.add_own(vec![one.1.into(), other.1.try_clone().unwrap().into()]);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        assert_eq!(sockets.take(any).unwrap().unwrap().local_addr().unwrap(), one.0);
        let copy = other.1.try_clone().unwrap();
        sockets.0.push(PassedSocket { bound: other.0, listener: copy, is_own: false });
        assert!(sockets.take(other.0).unwrap().is_some());
        assert!(sockets.finish().is_ok());
        assert!(sockets.take(any).unwrap().is_none());
    }
}

//! [`Sockets`]: listeners that the service manager opened, as in sd_listen_fds(3).

use std::io;
use std::net::SocketAddr;

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
pub struct Sockets(Vec<(SocketAddr, std::net::TcpListener)>);

impl Sockets {
    /// Takes the sockets that were passed to this process. A second call returns none.
    ///
    /// # Errors
    /// Returns [`PassedError::NotTcp`] or [`PassedError::NotListening`].
    pub fn passed() -> Result<Self, PassedError> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let Some(listener) = passed.take_tcp_listener(index).map_err(PassedError::NotTcp)? else { continue };
            let address = listener.local_addr().map_err(PassedError::NotTcp)?;
            if !SockRef::from(&listener).is_listener().map_err(PassedError::NotTcp)? {
                return Err(PassedError::NotListening(address));
            }
            sockets.push((address, listener));
        }
        Ok(Self(sockets))
    }

    /// Returns the passed listener that is bound to exactly this address, if there is one.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn take(&mut self, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let Some(index) = self.0.iter().position(|(bound, _)| *bound == address) else { return Ok(None) };
        let (_, listener) = self.0.swap_remove(index);
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Some)
    }

    /// Checks that all sockets were taken.
    ///
    /// # Errors
    /// Returns [`PassedError::Unasked`]: connections to a remaining socket would never be accepted.
    pub fn finish(self) -> Result<(), PassedError> {
        match self.0.first() {
            Some((address, _)) => Err(PassedError::Unasked(*address)),
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
        let mut sockets = Sockets(vec![one, other]);
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], first.port()));
        assert!(sockets.take(elsewhere).unwrap().is_none());
        assert_eq!(sockets.take(second).unwrap().unwrap().local_addr().unwrap(), second);
        assert!(sockets.take(second).unwrap().is_none());
        assert!(sockets.finish().unwrap_err().to_string().contains(&first.to_string()));
    }
}

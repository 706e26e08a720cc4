//! Sockets: listeners, TLS, framed connections, the way to the server.

mod backlog;
pub mod certificate;
pub mod conn;
mod forward;
pub mod listener;
pub mod proxy_protocol;
pub mod roots;
pub mod socket;
pub mod tls;
pub mod tls_stream;
pub mod trust;
pub mod upstream;
pub mod wire;

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// The time for which a TCP connection may be idle before the kernel asks whether the peer still exists.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// Bytes that the kernel may hold of a connection: those that it has not sent, and in all. What it holds counts as sent, so it
/// is to be little: the clock for an answer starts when the question has left (`session::liveness`). The kernel doubles the
/// second for its own bookkeeping; what is on its way may be about that much, 1 MB/s where the round trip takes 200 ms.
const UNSENT: u32 = 16 * 1024;
const SEND_BUFFER: usize = 128 * 1024;

/// The time for which the kernel may hold bytes that a peer does not acknowledge. Long, because a peer that reads slowly, whose
/// window is closed most of the time, counts as one that acknowledges nothing; `Conn::write_deadline` knows whether bytes move.
const UNACKNOWLEDGED: Duration = Duration::from_secs(300);

/// Sets what every connection needs: no delay, small buffers, keepalive, and an end for data that nobody acknowledges.
///
/// # Errors
/// The socket is gone already.
pub fn tune(tcp: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
    socket.set_tcp_user_timeout(Some(write_timeout.max(UNACKNOWLEDGED)))
}

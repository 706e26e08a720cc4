//! Sockets: listeners, TLS, framed connections, and connections to the upstream server. The relay drives
//! [`conn::Conn`], and [`upstream::Way`] connects to the server.

mod backlog;
pub mod certificate;
pub mod client_tls;
pub mod conn;
mod exporter;
mod forward;
pub mod frozen;
pub mod lines;
pub mod listener;
pub mod lookup;
pub mod passed_client;
pub mod proxy_protocol;
pub mod roots;
pub mod socket;
pub mod tls;
pub mod tls_stream;
pub mod trust;
pub mod upstream;
pub mod wire;
pub mod wire_io;

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// The time for which a TCP connection may be idle before the kernel probes the peer.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// The same for a connection to another node: its network is near, and the clients of a node that is gone have to connect again.
const NODE_KEEPALIVE: Duration = Duration::from_secs(15);

/// The bytes that the kernel may hold for a connection: those not sent yet, and in total. Bytes that the kernel holds
/// count as sent, so they must be few: the timeout of an answer starts when the request has left (`session::liveness`).
/// The kernel doubles the second value for its own bookkeeping. The bytes in flight may reach about that value, which
/// allows 1 MB/s at a round trip of 200 ms.
const UNSENT: u32 = 16 * 1024;
const SEND_BUFFER: usize = 128 * 1024;

/// The time for which the kernel may hold bytes that a peer does not acknowledge. It is long, because a slow reader,
/// whose window is closed most of the time, counts as acknowledging nothing. `Conn::write_deadline` tracks whether
/// bytes move.
const UNACKNOWLEDGED: Duration = Duration::from_secs(300);

/// Sets the options that every connection needs: no delay, small buffers, keepalive, and a timeout for unacknowledged
/// data.
///
/// # Errors
/// Returns an error if the socket is closed already.
pub fn tune(tcp: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    set_options(tcp, KEEPALIVE, write_timeout.max(UNACKNOWLEDGED))
}

/// Sets the options of a connection to another node, which is given up sooner.
///
/// # Errors
/// Returns an error if the socket is closed already.
pub fn tune_for_node(tcp: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    set_options(tcp, NODE_KEEPALIVE, write_timeout)
}

fn set_options(tcp: &TcpStream, keepalive: Duration, unacknowledged: Duration) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / 4))?;
    socket.set_tcp_user_timeout(Some(unacknowledged))
}

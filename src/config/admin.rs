//! `[admin]`: the operator's access to the daemon.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::listen::Listen;
use super::overlap::may_clash;
use super::section::Section;
use super::value::{Wrong, file_name};

/// `[admin]`: the operator's access to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `listen`: the address of metrics and probes over HTTP; `None` turns them off. Port 0 lets the system choose. Default:
    /// `127.0.0.1:9522`.
    pub listen: Option<SocketAddr>,
    /// `hosts`: names that a browser or Prometheus may use for this address, in addition to IP addresses and `localhost`. In
    /// lower case. Default: none.
    pub hosts: Vec<String>,
    /// `socket`: the unix socket for commands to the daemon. At most [`Admin::SOCKET_BYTES`] long. Default: `admin.sock` in
    /// the state directory.
    pub socket: PathBuf,
}

impl Admin {
    /// The longest path of a unix socket, in bytes: `sun_path` of unix(7) without its terminating zero.
    pub const SOCKET_BYTES: usize = 107;
    /// The default of [`Admin::listen`].
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9522);
}

pub(super) fn read(mut s: Section<'_>, directory: &Path, state: &Path, clients: &[Listen]) -> Admin {
    let [listen_line, socket_line] = ["listen", "socket"].map(|key| s.line_of(key));
    let listen = s.parsed("listen", admin_address).map_or(Some(Admin::LISTEN), |at| at.value);
    let given = s.parsed("socket", file_name);
    let socket = given.map_or_else(|| state.join("admin.sock"), |at| directory.join(at.value));
    let clash = |address: SocketAddr| clients.iter().find(|other| may_clash(address, other.address));
    if let Some((address, other)) = listen.and_then(|address| Some((address, clash(address)?))) {
        let what = format!("{address} is also the address of a [[listen]] section ({})", other.address);
        s.problem(listen_line, "listen", what, "choose another port");
    }
    if socket.as_os_str().len() > Admin::SOCKET_BYTES {
        let what = format!(
            "{} is longer than {} bytes, the limit for the path of a socket",
            socket.display(),
            Admin::SOCKET_BYTES
        );
        s.problem(socket_line, "socket", what, "write a shorter path, such as \"/run/pushward/admin.sock\"");
    }
    let hosts = s.list("hosts", host_name).unwrap_or_default();
    s.finish();
    Admin { listen, hosts, socket }
}

fn admin_address(text: &str) -> Result<Option<SocketAddr>, Wrong> {
    if text.is_empty() {
        return Ok(None);
    }
    let remedy = "write an IP address and a port, such as \"127.0.0.1:9522\", or \"\" for none";
    text.parse().map(Some).map_err(|_| Wrong::new(format!("\"{text}\" is not an address"), remedy))
}

fn host_name(text: &str) -> Result<String, Wrong> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || !text.chars().all(fits) {
        let remedy = "write a host name without a port, such as \"pushward.internal\"";
        return Err(Wrong::new(format!("\"{text}\" is not a host name"), remedy));
    }
    Ok(text.trim_end_matches('.').to_ascii_lowercase())
}

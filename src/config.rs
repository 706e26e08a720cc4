//! The configuration: from a file as written to a [`Config`] that cannot be wrong.
//!
//! Paths in the file are relative to the directory of the file. Durations are written `"30s"`, sizes `"16 KiB"`. Every
//! key but `[[host]]` has a default; unknown keys, and designed keys that do not act yet, are errors.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::jid::Jid;

mod place;
mod problem;
mod read;
mod section;
#[cfg(test)]
mod tests;
mod transport;
mod unsupported;

pub use problem::{ConfigErrors, Problem};
pub use transport::{Component, Route, Speaker, Transport};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that it was read from, as it was named.
    pub path: PathBuf,
    /// The directory of the database: `state`.
    pub state: PathBuf,
    /// How long a drain may take before sessions are cut off: 10 s.
    pub drain_timeout: Duration,
    /// Where clients connect: `[::]:5222` with STARTTLS if the file names none. Never empty.
    pub listen: Vec<Listen>,
    /// The domains served. Never empty, no domain twice.
    pub hosts: Vec<Host>,
    /// Stream management and liveness (XEP-0198).
    pub stream_management: StreamManagement,
    /// Notifications (XEP-0357).
    pub push: Push,
    /// Bounds on what a peer may ask of this process.
    pub limits: Limits,
    /// The name servers that are asked for push services: the system's if there are none.
    pub dns: Vec<SocketAddr>,
    /// How the operator asks the daemon.
    pub admin: Admin,
    /// What is logged, and how.
    pub log: Log,
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// When TLS starts.
    pub tls: ListenTls,
}

/// When TLS starts on a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenTls {
    /// After `<starttls/>` (RFC 6120 §5).
    Starttls,
    /// At once (XEP-0368).
    Direct,
}

/// A domain that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The domain, normalised (RFC 7622 §3.2): lower case.
    pub domain: String,
    /// The certificate chain, PEM: `certs/DOMAIN.pem`.
    pub certificate: PathBuf,
    /// The private key, PEM: `certs/DOMAIN.key`.
    pub key: PathBuf,
    /// The XMPP server behind: `127.0.0.1:5322`.
    pub upstream: Upstream,
    /// How notifications leave through the server as a component's: not, if there is none.
    pub component: Option<Component>,
    /// When TLS starts on the connection to it: never.
    pub upstream_tls: UpstreamTls,
    /// The authorities that may have issued its certificate, PEM: those of the system.
    pub upstream_ca: Option<PathBuf>,
    /// Whether passwords may cross a network unencrypted, where `upstream_tls` is off: no.
    pub upstream_insecure: bool,
    /// What becomes of channel binding, which ends where TLS ends: it is stripped.
    pub channel_binding: ChannelBinding,
}

/// When TLS starts on the connection to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Never.
    #[default]
    Off,
    /// After `<starttls/>` (RFC 6120 §5).
    Starttls,
    /// At once (XEP-0368).
    Direct,
}

/// What becomes of the channel binding that a server offers on a connection of its own with Pushward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Clients see none of it.
    #[default]
    Strip,
    /// `tls-server-end-point` (RFC 5929 §4) passes: Pushward and the server show the same certificate.
    ServerEndPoint,
}

/// The address of an XMPP server, resolved whenever it is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port of its client connections.
    pub port: u16,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `[stream_management]`: how long things are waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamManagement {
    /// How long a session without a registration is held for its client: 10 min. XEP-0198 §5 `max`.
    pub resume_timeout: Duration,
    /// How late an `<a/>` for an important stanza may be before it is pushed: 30 s.
    pub max_ack_delay: Duration,
    /// How much later, after `max_ack_delay`, the connection is given up: 30 s.
    pub ack_timeout: Duration,
    /// How long a client may be silent before it is asked with `<r/>`: 5 min.
    pub idle_probe: Duration,
    /// How long a write to a client may stall: 30 s.
    pub write_timeout: Duration,
    /// How long the connection to the server may be silent before whitespace is sent on it: 5 min.
    pub upstream_keepalive: Duration,
    /// How long a stanza may be unacknowledged by a live client before it is spooled, where the server has no stream
    /// management: 100 ms.
    pub spool_after: Duration,
    /// How long after its first presence a device gets what another device of the account does not fetch: 5 s.
    pub orphan_grace: Duration,
    /// How long stanzas wait for their device on disk: 14 d.
    pub orphan_ttl: Duration,
    /// How long before the end of its hold a dark device is woken: 2 min.
    pub wake_before_expiry: Duration,
    /// How many wake pushes may be sent in a second: 50.
    pub wake_rate: u32,
}

impl Default for StreamManagement {
    fn default() -> Self {
        Self {
            resume_timeout: 10 * MINUTE,
            max_ack_delay: 30 * SECOND,
            ack_timeout: 30 * SECOND,
            idle_probe: 5 * MINUTE,
            write_timeout: 30 * SECOND,
            upstream_keepalive: 5 * MINUTE,
            spool_after: Duration::from_millis(100),
            orphan_grace: 5 * SECOND,
            orphan_ttl: 14 * 24 * HOUR,
            wake_before_expiry: 2 * MINUTE,
            wake_rate: 50,
        }
    }
}

/// `[push]`: what a notification says and when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// `last-message-body` of a notification of something important, when `with_body` is off: `New Message!`. May be
    /// empty: no such field then.
    pub important_body: String,
    /// Whether notifications carry the message's own body: no.
    pub with_body: bool,
    /// Whether notifications carry the sender's JID: no.
    pub with_sender: bool,
    /// How many publish errors in a row end a registration: 16.
    pub max_errors: u32,
    /// How many registrations an account may have: 5.
    pub max_devices: usize,
    /// How long a session with a registration is held for its client, from the last contact: 72 h.
    pub max_hibernation_timeout: Duration,
    /// How long a device must have been dark before its first notification: 1 s.
    pub batch_delay: Duration,
    /// The least time between two notifications to one device: 20 s.
    pub min_interval: Duration,
    /// How long a push service may take to answer: 60 s.
    pub publish_timeout: Duration,
    /// Whether the session of a client with a registration goes on when it closes its stream: yes.
    pub linger: bool,
    /// How long a dark session is held at most once an important push went out; by default as long as before.
    pub hibernation_after_push: Option<Duration>,
    /// Whether stanzas that nobody waits for are notified too, without a text, as mod_cloud_notify does: no.
    pub unimportant: bool,
    /// Notifications wait until no other client of the account was active for this long; calls do not: 0 s.
    pub grace: Duration,
    /// How long after a notification, that nothing new follows, a device that does not come is notified again: 60 s, 5 min,
    /// 30 min. May be empty.
    pub repush: Vec<Duration>,
    /// How long a registration is kept whose device is not seen: 90 d.
    pub registration_ttl: Duration,
    /// Whether clients may ask for filters, priority and encrypted notifications (`tigase:push`): yes.
    pub extensions: bool,
    /// Whether clients may ask that calls ring by notification alone (`tigase:push:jingle:0`): no. Never without
    /// [`Push::extensions`].
    pub jingle: bool,
    /// How notifications travel, in the order in which it is tried: `s2s`, `component`, `session`. Never empty.
    pub transports: Vec<Transport>,
    /// The domains of the push services that may be used; any, if there are none.
    pub services: Vec<String>,
    /// Whether push services may answer over the stream on which they were asked (XEP-0288): yes.
    pub s2s_bidi: bool,
    /// How many streams to push services there may be at once: 200.
    pub s2s_connections: usize,
    /// Where push services are that are not to be looked up.
    pub routes: Vec<Route>,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            important_body: "New Message!".to_owned(),
            with_body: false,
            with_sender: false,
            max_errors: 16,
            max_devices: 5,
            max_hibernation_timeout: 72 * HOUR,
            batch_delay: SECOND,
            min_interval: 20 * SECOND,
            publish_timeout: MINUTE,
            linger: true,
            hibernation_after_push: None,
            unimportant: false,
            grace: Duration::ZERO,
            repush: vec![MINUTE, 5 * MINUTE, 30 * MINUTE],
            registration_ttl: 90 * 24 * HOUR,
            extensions: true,
            jingle: false,
            transports: vec![Transport::S2s, Transport::Component, Transport::Session],
            services: Vec::new(),
            s2s_bidi: true,
            s2s_connections: 200,
            routes: Vec::new(),
        }
    }
}

impl Push {
    /// Whether the operator lets users be notified through this push service.
    pub fn allows(&self, service: &Jid) -> bool {
        self.services.is_empty() || self.services.iter().any(|domain| domain == service.domain().as_str())
    }
}

/// `[limits]`: bounds on what a peer may ask of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once: 100,000.
    pub connections: usize,
    /// Client connections at once from one address: 1,000.
    pub connections_per_address: usize,
    /// Bytes of a stanza before authentication: 16 KiB. RFC 6120 §13.12 wants 10,000 at least.
    pub unauthenticated_stanza: usize,
    /// Bytes of a stanza after authentication: 1 MiB.
    pub stanza: usize,
    /// Nested elements in a stanza: 128.
    pub depth: usize,
    /// Bytes that may wait for the client of one session: 4 MiB.
    pub session_queue: usize,
    /// Bytes that may wait on disk for one device: 64 MiB.
    pub spool_per_session: usize,
    /// Bytes that may wait on disk in all: 10 GiB.
    pub spool: usize,
    /// How long TLS may take to be established: 30 s.
    pub handshake_timeout: Duration,
    /// How long a client may take to log in: 5 min (RFC 6120 §6.4 leaves room for a user who types a password).
    pub authentication_timeout: Duration,
    /// How long connecting to the server may take: 10 s.
    pub connect_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_address: 1_000,
            unauthenticated_stanza: 16 << 10,
            stanza: 1 << 20,
            depth: 128,
            session_queue: 4 << 20,
            spool_per_session: 64 << 20,
            spool: 10 << 30,
            handshake_timeout: 30 * SECOND,
            authentication_timeout: 5 * MINUTE,
            connect_timeout: 10 * SECOND,
        }
    }
}

/// `[admin]`: how the operator asks the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where metrics and probes are served over HTTP: `127.0.0.1:9522`; `None` if nowhere. Port 0 lets the system choose.
    pub listen: Option<SocketAddr>,
    /// The unix socket of the commands that ask the daemon: `admin.sock` in the state directory. At most
    /// [`Admin::SOCKET_BYTES`] long.
    pub socket: PathBuf,
}

impl Admin {
    /// How long the path of a unix socket may be, in bytes: `sun_path` of unix(7), less its end.
    pub const SOCKET_BYTES: usize = 107;
    /// The default of [`Admin::listen`].
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9522);
}

/// `[log]`: what is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level, or directives of tracing's `EnvFilter`: `info`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Everything that is wrong with the file, or that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigErrors::unreadable(path, &error))?;
        Self::parse(&text, path)
    }

    /// Checks the text of a file; `path` names it in errors, and its directory is where relative paths start.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        let report = problem::Report::new(path, text);
        let config = read::config(&report, text, path);
        report.finish()?;
        Ok(config)
    }
}

/// The line, from 1, of a key of a host, or of its `[[host]]`, in a text that [`Config::parse`] took; `index` is the
/// host's in [`Config::hosts`].
pub(crate) fn host_line(text: &str, index: usize, key: &str) -> usize {
    read::host_line(text, index, key)
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5222)), tls: ListenTls::Starttls }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: 5322 }
    }
}

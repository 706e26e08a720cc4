//! The sections and keys of the file, their bounds, and the settings that contradict each other.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jid::DomainPart;
use toml::de::DeTable;
use tracing_subscriber::EnvFilter;

use super::place::{leads_to, overlaps};
use super::problem::Report;
use super::section::{At, Section};
use super::transport;
use super::{
    Admin, ChannelBinding, Config, HOUR, Host, Limits, Listen, ListenTls, Log, LogFormat, MINUTE, Push, SECOND,
    StreamManagement, Upstream, UpstreamTls,
};

/// RFC 6120 §13.12: an implementation must not limit stanzas to less.
const SMALLEST_STANZA: usize = 10_000;
const MOMENT: Duration = Duration::from_millis(50);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const UPSTREAM_TLS: [(&str, UpstreamTls); 3] =
    [("off", UpstreamTls::Off), ("starttls", UpstreamTls::Starttls), ("direct", UpstreamTls::Direct)];
const CHANNEL_BINDING: [(&str, ChannelBinding); 2] =
    [("strip", ChannelBinding::Strip), ("server-end-point", ChannelBinding::ServerEndPoint)];

/// Reads the whole file. What it returns counts only if nothing was added to the report.
pub(super) fn config<'t>(report: &'t Report<'t>, text: &'t str, path: &Path) -> Config {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        report.add_syntax(error);
    }
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut root = Section::new(report, "", 1, table.into_inner());
    let state = root.parsed("state", file_name).map_or_else(|| "state".to_owned(), |at| at.value);
    let drain_timeout = root.duration("drain_timeout", 10 * SECOND, Duration::ZERO..=HOUR);
    let mut listen = listeners(root.tables("listen", "[[listen]]"));
    if listen.is_empty() {
        listen.push(Listen::default());
    }
    let hosts = hosts(root.tables("host", "[[host]]"), &directory, &listen);
    if hosts.is_empty() && !report.is_broken() {
        root.problem(1, "[[host]]", "no host is served", "add [[host]] and domain = \"example.org\"");
    }
    let stream_management = stream_management(root.table("stream_management", "[stream_management]"));
    let push = push(root.table("push", "[push]"), &stream_management, &directory);
    let limits = limits(root.table("limits", "[limits]"));
    let state = directory.join(state);
    let admin = admin(root.table("admin", "[admin]"), &directory, &state, &listen);
    let dns = transport::dns(root.table("dns", "[dns]"));
    let log = log(root.table("log", "[log]"));
    root.finish();
    Config {
        path: path.to_owned(),
        state,
        drain_timeout,
        listen,
        hosts,
        stream_management,
        push,
        limits,
        dns,
        admin,
        log,
    }
}

/// The line of a key of a host, or of its `[[host]]`.
pub(super) fn host_line(text: &str, index: usize, key: &str) -> usize {
    let report = Report::new(Path::new(""), text);
    let (table, _) = DeTable::parse_recoverable(text);
    let mut root = Section::new(&report, "", 1, table.into_inner());
    root.tables("host", "[[host]]").get(index).map_or(1, |host| host.line_of(key))
}

fn listeners(sections: Vec<Section<'_>>) -> Vec<Listen> {
    let mut listeners: Vec<Listen> = Vec::new();
    for mut section in sections {
        let default = Listen::default();
        let line = section.line_of("address");
        let address = section.parsed("address", address).map_or(default.address, |at| at.value);
        let tls =
            section.choice("tls", default.tls, &[("starttls", ListenTls::Starttls), ("direct", ListenTls::Direct)]);
        if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
            section.problem(line, "address", format!("{address} is listened on twice"), "remove one [[listen]]");
        }
        section.finish();
        listeners.push(Listen { address, tls });
    }
    listeners
}

fn hosts(sections: Vec<Section<'_>>, directory: &Path, listen: &[Listen]) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    for mut section in sections {
        let has_domain = section.has("domain");
        let domain = section.parsed("domain", domain);
        if !has_domain {
            section.problem(section.line_of("domain"), "domain", "missing", "write domain = \"example.org\"");
        }
        let domain = domain.unwrap_or_else(|| At { value: String::new(), line: section.line_of("domain") });
        let lines = ["upstream", "upstream_ca", "upstream_insecure", "channel_binding"].map(|key| section.line_of(key));
        if !domain.value.is_empty() && hosts.iter().any(|other| other.domain == domain.value) {
            let what = format!("{} is served twice", domain.value);
            section.problem(domain.line, "domain", what, "remove one [[host]]");
        }
        let host = Host {
            certificate: file(&mut section, "certificate", directory, format!("certs/{}.pem", domain.value)),
            key: file(&mut section, "key", directory, format!("certs/{}.key", domain.value)),
            upstream: upstream(&mut section, listen),
            component: transport::component(&mut section, &domain.value),
            upstream_tls: section.choice("upstream_tls", UpstreamTls::Off, &UPSTREAM_TLS),
            upstream_ca: section.parsed("upstream_ca", file_name).map(|at| directory.join(at.value)),
            upstream_insecure: section.boolean("upstream_insecure", false),
            channel_binding: section.choice("channel_binding", ChannelBinding::Strip, &CHANNEL_BINDING),
            domain: domain.value,
        };
        encryption(&section, &host, lines);
        section.finish();
        hosts.push(host);
    }
    hosts
}

fn file(section: &mut Section<'_>, key: &'static str, directory: &Path, default: String) -> PathBuf {
    directory.join(section.parsed(key, file_name).map_or(default, |at| at.value))
}

fn upstream(section: &mut Section<'_>, listen: &[Listen]) -> Upstream {
    let line = section.line_of("upstream");
    let address = section.parsed("upstream", upstream_address).map(|at| at.value).unwrap_or_default();
    if listen.iter().any(|listener| leads_to(&address, listener)) {
        let what = format!("{address} is an address that this process listens on");
        section.problem(line, "upstream", what, "move the server to another port, such as 127.0.0.1:5322");
    }
    address
}

/// What only holds together: TLS, its settings, and where the server may be without it. A name is judged by what it
/// resolves to, whenever it is connected to.
fn encryption(section: &Section<'_>, host: &Host, lines: [usize; 4]) {
    let [upstream, ca, insecure, binding] = lines;
    let exposed = host.upstream.host.parse::<IpAddr>().is_ok_and(|ip| !ip.to_canonical().is_loopback());
    if host.upstream_tls != UpstreamTls::Off {
        if host.upstream_insecure {
            let what = "acts only without TLS: a server that shows a wrong certificate is never connected to";
            section.problem(insecure, "upstream_insecure", what, "remove it, and name the authority in upstream_ca");
        }
        return;
    }
    if exposed && !host.upstream_insecure {
        let what = format!("passwords would cross the network to {} unencrypted", host.upstream);
        let remedy = "write upstream_tls = \"starttls\" or connect over loopback; upstream_insecure = true if the \
            network between is trusted";
        section.problem(upstream, "upstream", what, remedy);
    }
    let remedy = "write upstream_tls = \"starttls\" or \"direct\", or remove it";
    if host.upstream_ca.is_some() {
        section.problem(ca, "upstream_ca", "acts only with TLS to the server", remedy);
    }
    if host.channel_binding != ChannelBinding::Strip {
        section.problem(binding, "channel_binding", "acts only with TLS to the server", remedy);
    }
}

fn stream_management(mut s: Section<'_>) -> StreamManagement {
    let d = StreamManagement::default();
    let read = StreamManagement {
        resume_timeout: s.duration("resume_timeout", d.resume_timeout, MOMENT..=30 * DAY),
        max_ack_delay: s.duration("max_ack_delay", d.max_ack_delay, MOMENT..=HOUR),
        ack_timeout: s.duration("ack_timeout", d.ack_timeout, MOMENT..=HOUR),
        idle_probe: s.duration("idle_probe", d.idle_probe, MOMENT..=DAY),
        write_timeout: s.duration("write_timeout", d.write_timeout, MOMENT..=HOUR),
        upstream_keepalive: s.duration("upstream_keepalive", d.upstream_keepalive, MOMENT..=HOUR),
        spool_after: s.duration("spool_after", d.spool_after, Duration::ZERO..=MINUTE),
        orphan_grace: s.duration("orphan_grace", d.orphan_grace, Duration::ZERO..=HOUR),
        orphan_ttl: s.duration("orphan_ttl", d.orphan_ttl, MOMENT..=366 * DAY),
        wake_before_expiry: s.duration("wake_before_expiry", d.wake_before_expiry, Duration::ZERO..=DAY),
        wake_rate: s.number("wake_rate", d.wake_rate, 1..=100_000),
    };
    s.finish();
    read
}

fn push(mut s: Section<'_>, stream_management: &StreamManagement, directory: &Path) -> Push {
    let d = Push::default();
    let [hold_line, jingle_line] = ["max_hibernation_timeout", "jingle"].map(|key| s.line_of(key));
    let read = Push {
        important_body: s.parsed("important_body", body).map_or(d.important_body, |at| at.value),
        with_body: s.boolean("with_body", d.with_body),
        with_sender: s.boolean("with_sender", d.with_sender),
        max_errors: s.number("max_errors", d.max_errors, 1..=1_000),
        max_devices: s.number("max_devices", d.max_devices, 1..=100),
        max_hibernation_timeout: s.duration("max_hibernation_timeout", d.max_hibernation_timeout, MOMENT..=30 * DAY),
        batch_delay: s.duration("batch_delay", d.batch_delay, Duration::ZERO..=10 * MINUTE),
        min_interval: s.duration("min_interval", d.min_interval, Duration::ZERO..=DAY),
        publish_timeout: s.duration("publish_timeout", d.publish_timeout, MOMENT..=HOUR),
        linger: s.boolean("linger", d.linger),
        hibernation_after_push: hibernation_after_push(&mut s),
        unimportant: s.boolean("unimportant", d.unimportant),
        grace: s.duration("grace", d.grace, Duration::ZERO..=DAY),
        repush: s.durations("repush", d.repush, MOMENT..=DAY),
        registration_ttl: s.duration("registration_ttl", d.registration_ttl, MOMENT..=3660 * DAY),
        extensions: s.boolean("extensions", d.extensions),
        jingle: s.boolean("jingle", d.jingle),
        transports: transport::order(&mut s, d.transports),
        services: transport::services(&mut s),
        s2s_bidi: s.boolean("s2s_bidi", d.s2s_bidi),
        s2s_connections: s.number("s2s_connections", d.s2s_connections, 1..=100_000),
        routes: transport::routes(&mut s, directory),
    };
    if read.jingle && !read.extensions {
        s.problem(jingle_line, "jingle", "it is one of the extensions, which are off", "set extensions = true as well");
    }
    if read.max_hibernation_timeout < stream_management.resume_timeout {
        let what = "shorter than resume_timeout of [stream_management]: a registration would shorten the hold";
        s.problem(hold_line, "max_hibernation_timeout", what, "make it as long as resume_timeout, or longer");
    }
    s.finish();
    read
}

/// There is no default: without the key the hold does not change.
fn hibernation_after_push(s: &mut Section<'_>) -> Option<Duration> {
    let given = s.has("hibernation_after_push");
    let read = s.duration("hibernation_after_push", 10 * MINUTE, MOMENT..=30 * DAY);
    given.then_some(read)
}

fn limits(mut s: Section<'_>) -> Limits {
    let d = Limits::default();
    let [per_address, unauthenticated, queue] =
        ["connections_per_address", "unauthenticated_stanza", "session_queue"].map(|key| (key, s.line_of(key)));
    let stanzas = SMALLEST_STANZA..=64 << 20;
    let read = Limits {
        connections: s.number("connections", d.connections, 1..=10_000_000),
        connections_per_address: s.number("connections_per_address", d.connections_per_address, 1..=10_000_000),
        unauthenticated_stanza: s.size("unauthenticated_stanza", d.unauthenticated_stanza, stanzas.clone()),
        stanza: s.size("stanza", d.stanza, stanzas),
        depth: s.number("depth", d.depth, 16..=10_000),
        session_queue: s.size("session_queue", d.session_queue, SMALLEST_STANZA..=1 << 30),
        spool_per_session: s.size("spool_per_session", d.spool_per_session, SMALLEST_STANZA..=1 << 40),
        spool: s.size("spool", d.spool, SMALLEST_STANZA..=1 << 50),
        handshake_timeout: s.duration("handshake_timeout", d.handshake_timeout, MOMENT..=HOUR),
        authentication_timeout: s.duration("authentication_timeout", d.authentication_timeout, MOMENT..=HOUR),
        connect_timeout: s.duration("connect_timeout", d.connect_timeout, MOMENT..=10 * MINUTE),
    };
    let contradiction = |(key, line): (&str, usize), wrong: bool, what: &str, remedy: &str| {
        if wrong {
            s.problem(line, key, what, remedy);
        }
    };
    contradiction(
        per_address,
        read.connections_per_address > read.connections,
        "more than connections",
        "make it as large as connections, or smaller",
    );
    contradiction(
        unauthenticated,
        read.unauthenticated_stanza > read.stanza,
        "more than stanza",
        "make it as large as stanza, or smaller",
    );
    contradiction(
        queue,
        read.session_queue < read.stanza,
        "less than stanza: the largest stanza could not wait",
        "make it as large as stanza, or larger",
    );
    s.finish();
    read
}

fn admin(mut s: Section<'_>, directory: &Path, state: &Path, clients: &[Listen]) -> Admin {
    let [listen_line, socket_line] = ["listen", "socket"].map(|key| s.line_of(key));
    let listen = s.parsed("listen", admin_address).map_or(Some(Admin::LISTEN), |at| at.value);
    let given = s.parsed("socket", file_name);
    let socket = given.map_or_else(|| state.join("admin.sock"), |at| directory.join(at.value));
    if let Some(address) = listen.filter(|address| clients.iter().any(|other| overlaps(*address, other.address))) {
        s.problem(listen_line, "listen", format!("{address} is where clients connect"), "choose another port");
    }
    if socket.as_os_str().len() > Admin::SOCKET_BYTES {
        let what = format!("{} is longer than the {} bytes of a socket's path", socket.display(), Admin::SOCKET_BYTES);
        s.problem(socket_line, "socket", what, "write a shorter one, such as \"/run/pushward/admin.sock\"");
    }
    s.finish();
    Admin { listen, socket }
}

fn log(mut s: Section<'_>) -> Log {
    let d = Log::default();
    let read = Log {
        level: s.parsed("level", level).map_or(d.level, |at| at.value),
        format: s.choice("format", d.format, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    };
    s.finish();
    read
}

/// What is wrong with a value, and the remedy.
pub(super) type Wrong = (String, String);

pub(super) fn wrong(what: impl Into<String>, remedy: &str) -> Wrong {
    (what.into(), remedy.to_owned())
}

pub(super) fn file_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() { Err(wrong("empty", "write a path")) } else { Ok(text.to_owned()) }
}

fn address(text: &str) -> Result<SocketAddr, Wrong> {
    let remedy = "write an IP address and a port, such as \"[::]:5222\" or \"192.0.2.1:5222\"";
    text.parse().map_err(|_| wrong(format!("\"{text}\" is not an address"), remedy))
}

fn admin_address(text: &str) -> Result<Option<SocketAddr>, Wrong> {
    if text.is_empty() {
        return Ok(None);
    }
    let remedy = "write an IP address and a port, such as \"127.0.0.1:9522\", or \"\" for none";
    text.parse().map(Some).map_err(|_| wrong(format!("\"{text}\" is not an address"), remedy))
}

pub(super) fn domain(text: &str) -> Result<String, Wrong> {
    let remedy = "write the part of the users' addresses after the @, such as \"example.org\"";
    match DomainPart::new(text) {
        Ok(domain) if !domain.as_str().contains(['/', '\\', '@', '*']) => Ok(domain.as_str().to_owned()),
        Ok(_) => Err(wrong(format!("\"{text}\" is not a domain"), remedy)),
        Err(error) => Err(wrong(format!("\"{text}\" is not a domain: {error}"), remedy)),
    }
}

pub(super) fn upstream_address(text: &str) -> Result<Upstream, Wrong> {
    let remedy = "write the server's address and port for client connections, such as \"127.0.0.1:5322\"";
    if text.starts_with("unix:") {
        return Err(wrong("unix sockets are not yet supported", remedy));
    }
    if let Ok(address) = text.parse::<SocketAddr>()
        && address.port() != 0
    {
        return Ok(Upstream { host: address.ip().to_string(), port: address.port() });
    }
    let named = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match named {
        Some((host, port)) if port != 0 && !host.is_empty() && !host.contains([':', '[', ']', '/', ' ', '@']) => {
            Ok(Upstream { host: host.to_owned(), port })
        }
        _ => Err(wrong(format!("\"{text}\" is not an address with a port"), remedy)),
    }
}

fn body(text: &str) -> Result<String, Wrong> {
    if text.len() > 1_000 {
        return Err(wrong("longer than 1,000 bytes", "shorten it: it is sent with every notification"));
    }
    // XML 1.0 §2.2: these cannot be written in a stanza.
    if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n')) {
        return Err(wrong("contains a control character", "write text only"));
    }
    Ok(text.to_owned())
}

fn level(text: &str) -> Result<String, Wrong> {
    let remedy =
        "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\", or directives such as \"pushward=debug\"";
    // `EnvFilter` takes a lone word that is no level for the name of a module, and then logs everything of it.
    let is_word = !text.contains(['=', ',', '[']);
    if text.is_empty() || is_word && text.parse::<tracing::level_filters::LevelFilter>().is_err() {
        return Err(wrong(format!("unknown level \"{text}\""), remedy));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(wrong(format!("\"{text}\" is not a filter: {error}"), remedy)),
    }
}

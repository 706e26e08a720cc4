//! The remaining steps after the configuration is written.

use std::path::Path;

use super::find::{FoundServer, Software};
use crate::config::{Config, ListenTls, UpstreamTls};
use crate::paths::PACKAGED_CONFIG;

/// The commands that move Debian's Prosody to loopback, as in docs/getting-started.md.
const PROSODY: &str = include_str!("prosody.sh");
/// The commands that move Debian's ejabberd to loopback, as in docs/getting-started.md.
const EJABBERD: &str = include_str!("ejabberd.sh");

/// The directory of the package, which the service may read.
const PACKAGED: &str = "/etc/pushward";

/// Returns the steps at the server and the following ones.
pub(super) fn next(config: &Config, found: &FoundServer) -> String {
    let mut text = String::new();
    let tls = config.hosts.first().map_or(UpstreamTls::Off, |host| host.upstream_tls);
    if found.ready {
        let who = found.software.map_or_else(|| "The server".to_owned(), |software| software.to_string());
        text += &format!("{who} is ready at {}; its configuration needs no change.\n", found.upstream);
    } else if tls == UpstreamTls::Off {
        move_server(&mut text, found);
    } else {
        text += &format!("{found} It must accept connections from this machine, over TLS.\n");
    }
    if !found.ready {
        text.push_str("\nUntil then, the problem of the server in the report above is expected.\n");
        text += &format!("Afterwards run `pushward check --config {}` again.\n", config.path.display());
    }
    readable(&mut text, config);
    start(&mut text, config);
    text
}

/// Adds the steps to move the server to loopback.
fn move_server(text: &mut String, found: &FoundServer) {
    let upstream = &found.upstream;
    *text += &format!(
        "{found}\nConfigure it to listen on {upstream} only, without TLS, so that only Pushward connects to it.\n"
    );
    let unknown = if found.software.is_none() { " (run only the commands of your server)" } else { "" };
    for (software, commands) in [(Software::Prosody, PROSODY), (Software::Ejabberd, EJABBERD)] {
        if found.software.is_none_or(|found| found == software) {
            let commands = moved(commands, upstream);
            *text +=
                &format!("\nFor {software} with Debian's default configuration, run as root{unknown}:\n\n{commands}");
        }
    }
    text.push_str("\nIf the configuration is not Debian's, make the same changes by hand.");
    if found.answers.is_none() {
        text.push_str(" If your server has another address, run setup again with --upstream HOST:PORT --force.");
    }
    text.push('\n');
}

/// Adds a warning if the user of the service may not be able to read the certificate.
fn readable(text: &mut String, config: &Config) {
    let Some(host) = config.hosts.first().filter(|_| config.path == Path::new(PACKAGED_CONFIG)) else { return };
    if !host.certificate.starts_with(PACKAGED) || !host.key.starts_with(PACKAGED) {
        let (certificate, key) = (host.certificate.display(), host.key.display());
        *text += &format!(
            "\nThe service runs as the user pushward. It must be able to read {certificate} and {key}; those of certbot are for \
             root only. \"Install the certificate\" in docs/getting-started.md has a hook that copies them to {PACKAGED}/certs.\n"
        );
    }
}

/// Adds the steps to start Pushward, and for clients to find it.
fn start(text: &mut String, config: &Config) {
    let command = if config.path == Path::new(PACKAGED_CONFIG) {
        "systemctl enable --now pushward".to_owned()
    } else {
        format!("pushward --config {}", config.path.display())
    };
    *text += &format!("\nStart Pushward: {command}\n");
    for listen in &config.listen {
        let (port, how, record) = match listen.tls {
            ListenTls::Starttls => (listen.address.port(), "STARTTLS", "_xmpp-client"),
            ListenTls::Direct => (listen.address.port(), "direct TLS", "_xmpps-client"),
        };
        for host in &config.hosts {
            let domain = &host.domain;
            *text += &format!(
                "Clients of {domain} connect to port {port} with {how} (SRV record {record}._tcp.{domain}).\n"
            );
        }
    }
}

/// Returns the commands for a server at this address. Changes the port in them if the server is on this machine and has
/// another port than the default.
fn moved(commands: &str, upstream: &str) -> String {
    match upstream.rsplit_once(':') {
        Some(("127.0.0.1", port)) => commands.replace("5322", port),
        _ => commands.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(path: &str, host: &str, answers: Option<&str>) -> String {
        let text = format!("[[host]]\ndomain = \"example.org\"\n{host}\n");
        let config = Config::parse(&text, Path::new(path)).unwrap();
        let host = &config.hosts[0];
        let (upstream, answers) = (host.upstream.to_string(), answers.map(str::to_owned));
        let software = answers.as_ref().map(|_| Software::Prosody);
        next(&config, &FoundServer { upstream, tls: host.upstream_tls, ready: false, answers, software })
    }

    fn has(text: &str, parts: &[&str]) {
        parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in\n{text}"));
    }

    #[test]
    fn a_server_at_the_public_port_has_to_move() {
        let text = advice("/x/config.toml", "", Some("127.0.0.1:5222"));
        has(
            &text,
            &["Prosody answers at 127.0.0.1:5222, a port that Pushward takes: it has to move to 127.0.0.1:5322"],
        );
        has(
            &text,
            &["c2s_ports = { 5322 }", "pushward check --config /x/config.toml", "pushward --config /x/config.toml"],
        );
        has(&text, &["port 5222 with STARTTLS (SRV record _xmpp-client._tcp.example.org)"]);
        assert!(!text.contains("ejabberd") && !text.contains("certbot") && !text.contains("--upstream"), "{text}");
    }

    #[test]
    fn a_server_that_does_not_answer_may_have_another_address() {
        let text = advice("/x/config.toml", "", None);
        has(&text, &["No XMPP server answers at 127.0.0.1:5322 or 127.0.0.1:5222.", "--upstream HOST:PORT --force"]);
        has(
            &text,
            &["For Prosody with Debian's", "For ejabberd with Debian's", "(run only the commands of your server)"],
        );
    }

    #[test]
    fn a_server_on_another_machine_gets_no_commands_for_this_one() {
        let host = "upstream = \"xmpp.internal:5222\"\nupstream_tls = \"starttls\"";
        let text = advice("/x/config.toml", host, None);
        has(
            &text,
            &["No XMPP server answers at xmpp.internal:5222. It must accept connections from this machine, over TLS."],
        );
        assert!(!text.contains("Debian"), "{text}");
    }

    #[test]
    fn the_service_must_be_able_to_read_the_certificate() {
        let host = "certificate = \"/etc/letsencrypt/live/example.org/fullchain.pem\"\nkey = \"/etc/pushward/key.pem\"";
        has(&advice(PACKAGED_CONFIG, host, None), &["The service runs as the user pushward", "systemctl enable --now"]);
        assert!(!advice(PACKAGED_CONFIG, "", None).contains("runs as the user pushward"));
    }

    #[test]
    fn the_guide_has_the_same_commands() {
        let guide = include_str!("../../docs/getting-started.md");
        for commands in [PROSODY, EJABBERD] {
            assert!(guide.contains(commands), "not in docs/getting-started.md:\n{commands}");
        }
    }
}

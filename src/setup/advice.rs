//! The remaining steps after the configuration is written.

use std::path::Path;

use super::find::{FoundServer, Software};
use crate::config::{Config, ListenTls};
use crate::paths::PACKAGED_CONFIG;

/// The commands that move Debian's Prosody to loopback, as in docs/getting-started.md.
const PROSODY: &str = include_str!("prosody.sh");
/// The commands that move Debian's ejabberd to loopback, as in docs/getting-started.md.
const EJABBERD: &str = include_str!("ejabberd.sh");

/// Returns the steps at the server and the following ones.
pub(super) fn next(config: &Config, found: &FoundServer) -> String {
    let mut text = String::new();
    if found.ready {
        let who = found.software.map_or_else(|| "The server".to_owned(), |software| software.to_string());
        text += &format!("{who} is ready at {}; its configuration needs no change.\n", found.upstream);
    } else {
        text += &format!("{found} Configure it so that only Pushward connects to it, over loopback and without TLS.\n");
        for (software, commands) in [(Software::Prosody, PROSODY), (Software::Ejabberd, EJABBERD)] {
            if found.software.is_none_or(|found| found == software) {
                let commands = moved(commands, &found.upstream);
                text += &format!("\nFor {software} with Debian's default configuration, run as root:\n\n{commands}");
            }
        }
        text.push_str("\nThen run `pushward check`; it reports anything that is still wrong.\n");
    }
    start(&mut text, config);
    text
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
            ListenTls::Direct => (listen.address.port(), "TLS", "_xmpps-client"),
        };
        let domains = config.hosts.iter().map(|host| host.domain.as_str()).collect::<Vec<_>>().join(", ");
        *text += &format!("Clients of {domains} connect to port {port} with {how} (DNS: SRV {record}._tcp).\n");
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

    #[test]
    fn the_guide_has_the_same_commands() {
        let guide = include_str!("../../docs/getting-started.md");
        for commands in [PROSODY, EJABBERD] {
            assert!(guide.contains(commands), "not in docs/getting-started.md:\n{commands}");
        }
    }
}

//! Detects the server and the certificate.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::draft::Draft;
use crate::check::{leg, probe};
use crate::config::UpstreamTls;
use crate::net::trust::Trusts;
use crate::net::upstream::Way;

/// The address of the server after it has moved to make room for Pushward.
const MOVED: &str = "127.0.0.1:5322";
/// The address of the server before that.
const PUBLIC: &str = "127.0.0.1:5222";

/// The server software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Software {
    Prosody,
    Ejabberd,
}

impl Software {
    /// Recognises the software by the form of its stream ids: UUIDs for Prosody, 64-bit numbers for ejabberd.
    fn of(id: &str) -> Option<Self> {
        let groups: Vec<_> = id.split('-').map(str::len).collect();
        let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if groups == [8, 4, 4, 4, 12] && hex(id) {
            Some(Self::Prosody)
        } else if id.len() >= 12 && id.parse::<u64>().is_ok() {
            Some(Self::Ejabberd)
        } else {
            None
        }
    }
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prosody => "Prosody",
            Self::Ejabberd => "ejabberd",
        })
    }
}

/// The detected server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundServer {
    /// The value of `upstream` to write.
    pub(super) upstream: String,
    /// The value of `upstream_tls` to write.
    pub(super) tls: UpstreamTls,
    /// True if clients can log in there.
    pub(super) ready: bool,
    /// The address at which a server answers, if there is one.
    pub(super) answers: Option<String>,
    pub(super) software: Option<Software>,
}

impl fmt::Display for FoundServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let upstream = &self.upstream;
        let Some(address) = &self.answers else {
            let or_public = if upstream == MOVED { format!(" or {PUBLIC}") } else { String::new() };
            return write!(f, "No XMPP server answers at {upstream}{or_public}.");
        };
        match self.software {
            Some(software) => write!(f, "{software} answers at {address}")?,
            None => write!(f, "A server answers at {address}")?,
        }
        if self.ready {
            f.write_str(".")
        } else if address == upstream {
            f.write_str("; it is not ready for Pushward yet.")
        } else {
            write!(f, ", a port that Pushward takes: it has to move to {upstream}.")
        }
    }
}

/// Connects to the `given` server, or to the usual address. Tries without TLS first if passwords may be sent without it.
/// `tls` fixes the mode.
pub(super) async fn server(draft: &Draft, given: Option<&str>, tls: Option<UpstreamTls>) -> FoundServer {
    let upstream = given.unwrap_or(MOVED);
    let mut found = FoundServer {
        upstream: upstream.to_owned(),
        tls: fallback(draft, upstream, tls),
        ready: false,
        answers: None,
        software: None,
    };
    let ways = match tls {
        Some(tls) => vec![tls],
        None => vec![UpstreamTls::Off, UpstreamTls::Starttls, UpstreamTls::Direct],
    };
    for tls in ways {
        if can_log_in(draft, upstream, tls, &mut found).await {
            found.tls = tls;
            found.ready = true;
            return found;
        }
    }
    if given.is_none() && found.answers.is_none() {
        // The server still uses the port that Pushward needs. Only its software is detected here.
        can_log_in(draft, PUBLIC, UpstreamTls::Off, &mut found).await;
    }
    found
}

/// Returns the mode to write if no connection works yet: no TLS, if the configuration allows it.
fn fallback(draft: &Draft, upstream: &str, tls: Option<UpstreamTls>) -> UpstreamTls {
    let plain = Draft { upstream: upstream.to_owned(), upstream_tls: UpstreamTls::Off, ..draft.clone() };
    tls.unwrap_or(if plain.parse().is_ok() { UpstreamTls::Off } else { UpstreamTls::Starttls })
}

/// Returns whether clients can log in over such a connection. Records the server that answers.
async fn can_log_in(draft: &Draft, upstream: &str, tls: UpstreamTls, found: &mut FoundServer) -> bool {
    // The daemon does not listen yet, so the server may still use Pushward's future address.
    let listen = vec![(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "starttls")];
    let draft = Draft { upstream: upstream.to_owned(), upstream_tls: tls, listen, ..draft.clone() };
    let Ok(config) = draft.parse() else { return false };
    let Some(host) = config.hosts.first() else { return false };
    let Ok(way) = Way::new(host, &mut Trusts::default()) else { return false };
    let mut id = None;
    let offer = probe::probe(&way, &host.domain, &leg::terms(&config), &mut id).await;
    if let Some(id) = id {
        found.software = found.software.or_else(|| Software::of(&id));
        found.answers = Some(upstream.to_owned());
    }
    offer.is_ok()
}

/// Looks for a certificate and its key for the domain in the usual directories.
pub(super) fn certificate(domain: &str) -> Option<(PathBuf, PathBuf)> {
    let acme = Path::new("/etc/letsencrypt/live").join(domain);
    let prosody = Path::new("/etc/prosody/certs");
    let places = [
        (acme.join("fullchain.pem"), acme.join("privkey.pem")),
        (prosody.join(format!("{domain}.crt")), prosody.join(format!("{domain}.key"))),
    ];
    places.into_iter().find(|(certificate, key)| certificate.exists() && key.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_software_is_recognised_by_its_stream_ids() {
        let cases = [
            ("4ee6a10c-2ac2-4f20-a8ae-5e0b2a4eb9a5", Some(Software::Prosody)),
            ("13846312365125143011", Some(Software::Ejabberd)),
            ("42", None),
            ("4ee6a10c-2ac2-4f20-a8ae-5e0b2a4eb9xx", None),
            ("6fa09d30c63a0d4e", None),
            ("8z1rf4h3pp", None),
        ];
        for (id, expect) in cases {
            assert_eq!(Software::of(id), expect, "{id}");
        }
    }
}

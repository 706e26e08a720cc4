//! Looks for the server and for the certificate.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::draft::Draft;
use crate::check::{leg, probe};
use crate::config::UpstreamTls;
use crate::net::trust::Trusts;
use crate::net::upstream::Way;

/// Where the server is once it has made room for Pushward.
const MOVED: &str = "127.0.0.1:5322";
/// Where it is before.
const PUBLIC: &str = "127.0.0.1:5222";

/// Which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Software {
    Prosody,
    Ejabberd,
}

impl Software {
    /// Each server has its own way of naming streams: Prosody by UUIDs, ejabberd by 64-bit numbers.
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

/// The server, as far as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundServer {
    /// What to write.
    pub(super) upstream: String,
    /// What to write.
    pub(super) tls: UpstreamTls,
    /// Whether it lets clients log in there.
    pub(super) ready: bool,
    /// Where somebody answers, if anybody does.
    pub(super) answers: Option<String>,
    pub(super) software: Option<Software>,
}

impl fmt::Display for FoundServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(address) = &self.answers else { return write!(f, "No XMPP server answers at {}.", self.upstream) };
        match self.software {
            Some(software) => write!(f, "{software} answers at {address}")?,
            None => write!(f, "A server answers at {address}")?,
        }
        f.write_str(if self.ready { "." } else { "; it is not ready for Pushward yet." })
    }
}

/// Connects to the server that was `given`, or to where one usually is, without TLS first where passwords may go without
/// it; `tls` settles that.
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
        if greet(draft, upstream, tls, &mut found).await {
            found.tls = tls;
            found.ready = true;
            return found;
        }
    }
    if given.is_none() && found.answers.is_none() {
        // Still at the port that is to be Pushward's: only its name is wanted.
        greet(draft, PUBLIC, UpstreamTls::Off, &mut found).await;
    }
    found
}

/// What to write where nothing works yet: no TLS where the file may say so.
fn fallback(draft: &Draft, upstream: &str, tls: Option<UpstreamTls>) -> UpstreamTls {
    let plain = Draft { upstream: upstream.to_owned(), upstream_tls: UpstreamTls::Off, ..draft.clone() };
    tls.unwrap_or(if plain.parse().is_ok() { UpstreamTls::Off } else { UpstreamTls::Starttls })
}

/// Whether clients can log in through such a connection; notes who answers.
async fn greet(draft: &Draft, upstream: &str, tls: UpstreamTls, found: &mut FoundServer) -> bool {
    // Nobody listens yet, so the server may still be where Pushward will.
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

/// A certificate and its key for the domain, where others have theirs.
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
    fn servers_are_known_by_how_they_name_their_streams() {
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

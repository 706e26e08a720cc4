//! The options of `pushward setup`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::UpstreamTls;

/// The options of `pushward setup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct SetupOptions {
    /// Domain: the part of the users' addresses after the @
    #[arg(long)]
    pub domain: Option<String>,
    /// Address and port of the XMPP server for client connections; default: 127.0.0.1:5322
    #[arg(long, value_name = "HOST:PORT")]
    pub upstream: Option<String>,
    /// TLS to the server: off, starttls or direct; default: the first that works, in this order
    #[arg(long, value_name = "WHEN", value_parser = upstream_tls)]
    pub upstream_tls: Option<UpstreamTls>,
    /// Certificate of the authority that issued the server's certificate, PEM; default: the system's authorities
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
    /// Certificate chain of the domain, PEM; default: searched in the usual places
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Address and port for clients with STARTTLS, repeatable; default: port 5222 on all addresses
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Address and port for clients with direct TLS, repeatable; default: port 5223 on all addresses
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_tls: Vec<SocketAddr>,
    /// Directory of the database; default: state, or /var/lib/pushward for /etc/pushward/config.toml
    #[arg(long, value_name = "DIRECTORY")]
    pub state: Option<PathBuf>,
    /// Configuration file to write; default: the file that --config names
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing configuration
    #[arg(long)]
    pub force: bool,
    /// Do not ask; use the options and defaults
    #[arg(long, short)]
    pub yes: bool,
}

fn upstream_tls(text: &str) -> Result<UpstreamTls, String> {
    match text {
        "off" => Ok(UpstreamTls::Off),
        "starttls" => Ok(UpstreamTls::Starttls),
        "direct" => Ok(UpstreamTls::Direct),
        _ => Err("write off, starttls or direct".to_owned()),
    }
}

//! The options of `pushward setup`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::UpstreamTls;

/// The options of `pushward setup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct SetupOptions {
    /// The domain: what stands behind the @ of the users' addresses
    #[arg(long)]
    pub domain: Option<String>,
    /// The server's address and port for client connections; by default 127.0.0.1:5322
    #[arg(long, value_name = "HOST:PORT")]
    pub upstream: Option<String>,
    /// When TLS starts on the connection to it; by default what works, without TLS first
    #[arg(long, value_name = "WHEN", value_parser = upstream_tls)]
    pub upstream_tls: Option<UpstreamTls>,
    /// The authority that issued its certificate, PEM; by default the system's
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
    /// The domain's certificate chain, PEM; by default it is looked for
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Where clients connect with STARTTLS, any number of times; by default port 5222 of every address
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Where clients connect with TLS at once, any number of times; by default port 5223 of every address
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_tls: Vec<SocketAddr>,
    /// The directory of the database; by default state, or /var/lib/pushward for /etc/pushward/config.toml
    #[arg(long, value_name = "DIRECTORY")]
    pub state: Option<PathBuf>,
    /// Where the configuration is written; by default the file that --config names
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a configuration that is there
    #[arg(long)]
    pub force: bool,
    /// Ask nothing
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

//! [`Draft`]: a configuration that is being written.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::Value;

use super::options::SetupOptions;
use crate::config::{Config, ConfigErrors, UpstreamTls};
use crate::paths::PACKAGED_CONFIG;

/// The contents of the file. Values that are `None` or empty keep their default.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// The path of the file.
    pub(super) path: PathBuf,
    pub(super) domain: String,
    pub(super) upstream: String,
    pub(super) upstream_tls: UpstreamTls,
    pub(super) upstream_ca: Option<PathBuf>,
    /// The certificate chain and its key.
    pub(super) certificate: Option<(PathBuf, PathBuf)>,
    pub(super) listen: Vec<(SocketAddr, &'static str)>,
    pub(super) state: Option<PathBuf>,
    pub(super) socket: Option<PathBuf>,
}

impl Draft {
    /// Creates a draft from the options and defaults. A packaged configuration has its state in another directory.
    pub(super) fn new(options: &SetupOptions, path: &Path) -> Self {
        let packaged = path == Path::new(PACKAGED_CONFIG);
        let usual = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let mut listen: Vec<_> = options.listen.iter().map(|address| (*address, "starttls")).collect();
        listen.extend(options.listen_tls.iter().map(|address| (*address, "direct")));
        if listen.is_empty() {
            listen = vec![(usual(5222), "starttls"), (usual(5223), "direct")];
        }
        let given = options.certificate.as_deref().zip(options.key.as_deref());
        let state = options.state.as_deref().map(absolute);
        Self {
            path: path.to_owned(),
            domain: options.domain.clone().unwrap_or_else(|| "localhost".to_owned()),
            upstream: options.upstream.clone().unwrap_or_default(),
            upstream_tls: options.upstream_tls.unwrap_or_default(),
            upstream_ca: options.upstream_ca.as_deref().map(absolute),
            certificate: given.map(|(certificate, key)| (absolute(certificate), absolute(key))),
            listen,
            socket: (packaged && state.is_none()).then(|| PathBuf::from("/run/pushward/admin.sock")),
            state: state.or_else(|| packaged.then(|| PathBuf::from("/var/lib/pushward"))),
        }
    }

    /// Returns the configuration that a daemon would read from the file.
    ///
    /// # Errors
    /// Returns all errors in it.
    pub(super) fn parse(&self) -> Result<Config, ConfigErrors> {
        Config::parse(&self.to_string(), &self.path)
    }
}

/// Makes an option absolute. Options are relative to the working directory, keys to the directory of the file.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns a basic string of TOML.
fn quoted(text: impl fmt::Display) -> Value {
    Value::String(text.to_string())
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by `pushward setup`. `pushward print config` shows every key with its default.\n")?;
        if let Some(state) = &self.state {
            writeln!(f, "state = {}\n", quoted(state.display()))?;
        }
        for (address, tls) in &self.listen {
            writeln!(f, "[[listen]]\naddress = {}\ntls = {}\n", quoted(address), quoted(tls))?;
        }
        writeln!(f, "[[host]]\ndomain = {}", quoted(&self.domain))?;
        if let Some((certificate, key)) = &self.certificate {
            writeln!(f, "certificate = {}\nkey = {}", quoted(certificate.display()), quoted(key.display()))?;
        }
        if !self.upstream.is_empty() {
            writeln!(f, "upstream = {}", quoted(&self.upstream))?;
        }
        match self.upstream_tls {
            UpstreamTls::Off => {}
            UpstreamTls::Starttls => writeln!(f, "upstream_tls = \"starttls\"")?,
            UpstreamTls::Direct => writeln!(f, "upstream_tls = \"direct\"")?,
        }
        if let Some(ca) = self.upstream_ca.as_ref().filter(|_| self.upstream_tls != UpstreamTls::Off) {
            writeln!(f, "upstream_ca = {}", quoted(ca.display()))?;
        }
        match &self.socket {
            Some(socket) => writeln!(f, "\n[admin]\nsocket = {}", quoted(socket.display())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_draft_is_in_the_parsed_file() {
        let options = SetupOptions {
            domain: Some("example.org".to_owned()),
            upstream: Some("xmpp.internal:5222".to_owned()),
            upstream_tls: Some(UpstreamTls::Starttls),
            upstream_ca: Some("/a \"quoted\" name\\ca.pem".into()),
            certificate: Some("/c.pem".into()),
            key: Some("/k.pem".into()),
            listen: vec!["127.0.0.1:1".parse().unwrap()],
            listen_tls: vec!["[::1]:2".parse().unwrap()],
            state: Some("/s".into()),
            ..SetupOptions::default()
        };
        let config = Draft::new(&options, Path::new("/x/config.toml")).parse().unwrap();
        let host = &config.hosts[0];
        assert_eq!((host.domain.as_str(), host.upstream.to_string().as_str()), ("example.org", "xmpp.internal:5222"));
        assert_eq!(host.upstream_ca, options.upstream_ca);
        assert_eq!((Some(&host.certificate), Some(&host.key)), (options.certificate.as_ref(), options.key.as_ref()));
        assert_eq!(
            config.listen.iter().map(|listen| listen.address).collect::<Vec<_>>(),
            [options.listen[0], options.listen_tls[0]]
        );
        assert_eq!(config.state, Path::new("/s"));
    }

    #[test]
    fn a_packaged_configuration_keeps_its_state_where_the_service_may_write() {
        let config = Draft::new(&SetupOptions::default(), Path::new(PACKAGED_CONFIG)).parse().unwrap();
        assert_eq!(config.state, Path::new("/var/lib/pushward"));
        assert_eq!(config.admin.socket, Path::new("/run/pushward/admin.sock"));
    }
}

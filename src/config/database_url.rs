//! The URL of a PostgreSQL database: [`DatabaseUrl`].

use std::fmt;
use std::net::IpAddr;

use tokio_postgres::config::{Config, Host, TargetSessionAttrs};

use super::value::Wrong;

/// The URL of a PostgreSQL database. It may contain a password, which is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    config: Config,
    is_encrypted: bool,
}

impl DatabaseUrl {
    /// Returns the hosts, the user, the password and the name of the database. TLS is not set in it.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether connections use TLS and verify the server's certificate and name. If not, they stay on this machine.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }
}

impl fmt::Display for DatabaseUrl {
    /// Shows the hosts and the name of the database.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, host) in self.config.get_hosts().iter().enumerate() {
            let separator = if number > 0 { "," } else { "" };
            match host {
                Host::Tcp(name) => write!(f, "{separator}{name}")?,
                Host::Unix(path) => write!(f, "{separator}{}", path.display())?,
            }
            let ports = self.config.get_ports();
            if let Some(port) = ports.get(number).or(ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().or(self.config.get_user()).unwrap_or_default())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses a URL. `sslmode` is taken out of it, because the client library does not know `verify-full`.
pub(super) fn database_url(text: &str) -> Result<DatabaseUrl, Wrong> {
    let remedy = "write a URL such as \"postgresql://pushward@db.internal/pushward?sslmode=verify-full\"";
    if !text.starts_with("postgresql://") && !text.starts_with("postgres://") {
        return Err(Wrong::new("not a URL of PostgreSQL", remedy));
    }
    let (rest, mode) = without_mode(text);
    // The library's own message may quote the URL and with it the password.
    let mut config: Config = rest.parse().map_err(|_| Wrong::new("not a valid URL", remedy))?;
    if config.get_hosts().is_empty() {
        return Err(Wrong::new("names no host", remedy));
    }
    let is_odd = |host: &Host| matches!(host, Host::Tcp(name) if name.contains(['@', '/', ' ']));
    if config.get_hosts().iter().any(is_odd) {
        // The rest of a password with an `@`, which must not be shown.
        return Err(Wrong::new(
            "a host has a character that no host has",
            "write @ and / in a password as %40 and %2F",
        ));
    }
    if config.get_user().is_none() {
        return Err(Wrong::new("names no user", remedy));
    }
    if config.get_options().is_some() {
        let remedy = "remove options, and set what it sets in the server's configuration for this user";
        return Err(Wrong::new("options is not supported: Pushward depends on settings of its session", remedy));
    }
    let attributes = config.get_target_session_attrs();
    if ![TargetSessionAttrs::Any, TargetSessionAttrs::ReadWrite].contains(&attributes) {
        let remedy = "remove target_session_attrs: the writable server is used";
        return Err(Wrong::new("target_session_attrs must be read-write", remedy));
    }
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    let is_encrypted = match mode.as_deref() {
        None if stays_here(&config) => false,
        None | Some("verify-full") => true,
        Some("disable") if stays_here(&config) => false,
        Some("disable") => {
            let remedy = "write sslmode=verify-full, or name only loopback addresses or unix sockets";
            return Err(Wrong::new("sslmode=disable would send the content of messages over a network", remedy));
        }
        Some(_) => return Err(Wrong::new("sslmode must be verify-full or disable", "write sslmode=verify-full")),
    };
    Ok(DatabaseUrl { config, is_encrypted })
}

/// Returns the URL without `sslmode`, and its value.
fn without_mode(text: &str) -> (String, Option<String>) {
    let Some((base, query)) = text.split_once('?') else { return (text.to_owned(), None) };
    let is_mode = |pair: &&str| pair.starts_with("sslmode=");
    let mode = query.split('&').find(is_mode).and_then(|pair| pair.split_once('=')).map(|(_, mode)| mode.to_owned());
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_mode(pair) && !pair.is_empty()).collect();
    let rest = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    (rest, mode)
}

/// Returns whether all hosts are on this machine.
fn stays_here(config: &Config) -> bool {
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    let named = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(is_loopback),
    });
    named && config.get_hostaddrs().iter().all(|ip| is_loopback(*ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_whether_it_is_encrypted_and_hides_its_password() {
        for (text, encrypted, shown) in [
            ("postgresql://pushward:hunter2@db.internal/pushward", true, "db.internal:5432/pushward"),
            ("postgres://pushward@a,b:6432/x?sslmode=verify-full", true, "a:5432,b:6432/x"),
            ("postgresql://pushward@127.0.0.1:1/x?sslmode=disable&connect_timeout=3", false, "127.0.0.1:1/x"),
            ("postgresql://pushward@localhost/x?sslmode=verify-full", true, "localhost:5432/x"),
            ("postgresql://pushward@%2Frun%2Fpostgresql/x", false, "/run/postgresql:5432/x"),
        ] {
            let Ok(url) = database_url(text) else { panic!("{text}") };
            assert_eq!(url.is_encrypted(), encrypted, "{text}");
            assert!(!format!("{url} {url:?}").contains("hunter2"), "{url}");
            let without_default = |text: &str| text.replace(":5432", "");
            assert_eq!(without_default(&url.to_string()), without_default(shown));
        }
    }

    #[test]
    fn what_would_not_be_safe_is_refused() {
        for (text, what) in [
            ("mysql://x", "not a URL of PostgreSQL"),
            ("postgresql://pushward:hunter2@a:x/b", "not a valid URL"),
            ("postgresql://pushward@/x", "names no host"),
            ("postgresql://p:hunter2@hunter2@db.internal/x", "a host has a character"),
            ("postgresql://db.internal/x", "names no user"),
            ("postgresql://p@db.internal/x?sslmode=disable", "sslmode=disable would"),
            ("postgresql://p@127.0.0.1,db.internal/x?sslmode=disable", "sslmode=disable would"),
            ("postgresql://p@db.internal/x?sslmode=prefer", "sslmode must be"),
            ("postgresql://p@db.internal/x?options=-c%20synchronous_commit%3Doff", "options is not"),
            ("postgresql://p@db.internal/x?target_session_attrs=read-only", "target_session_attrs"),
        ] {
            let Err(wrong) = database_url(text) else { panic!("{text}") };
            assert!(wrong.what.starts_with(what), "{text}: {}", wrong.what);
            assert!(!wrong.what.contains("hunter2") && !wrong.remedy.contains("hunter2"));
        }
    }
}

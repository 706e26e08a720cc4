//! `pushward check`: finds problems with the configuration, the certificates, the upstream servers and the connections to
//! push services, before clients are affected.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use crate::admin::client;
use crate::config::{self, Config, Host, Problem, share_ipv4};
use crate::exit;
use crate::net::certificate::{self, CertificateError, Defect};
use crate::service::descriptors;
use crate::stdout;

mod cluster;
mod database;
pub(crate) mod leg;
pub(crate) mod probe;
mod push;
mod report;

use report::HostEntry;
pub use report::Report;

/// Prints the findings to stdout, one problem per line with file, line and remedy. The exit code is 0 if there is no problem,
/// else [`exit::CONFIG`] or [`exit::UNAVAILABLE`].
pub async fn run(path: &Path) -> ExitCode {
    let report = examine(path).await;
    stdout::print_or_fail(report.to_string(), report.exit())
}

/// Examines the configuration, then the certificate and the server of each host, then the push services.
pub async fn examine(path: &Path) -> Report {
    let mut report = Report::default();
    let config = match Config::load(path) {
        Ok(config) => Arc::new(config),
        Err(errors) => {
            errors.problems().iter().for_each(|problem| report.problem(problem, exit::CONFIG));
            return report;
        }
    };
    // The text is only needed for line numbers. The file was just read and is valid.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let listeners: Vec<_> = config.listen.iter().map(|listen| listen.address.to_string()).collect();
    let metrics = match config.admin.listen {
        Some(address) => format!("metrics: http://{address}/metrics"),
        None => "the metrics page is off".to_owned(),
    };
    report.fine(format_args!("{}: valid; clients connect to {}; {metrics}", path.display(), listeners.join(", ")));
    if let Err(shortage) = descriptors::check(&config) {
        report.warning(&Problem {
            file: path.to_owned(),
            line: 0,
            key: "[limits] connections".to_owned(),
            what: shortage.to_string(),
            remedy: shortage.remedy(),
        });
    }
    if !ipv6_only() {
        overlapping_listeners(&mut report, path, &text, &config);
    }
    // No daemon may be running.
    let ended = client::status(&config.access()).await.map(|status| status.sasl2_ended).unwrap_or_default();
    for (index, host) in config.hosts.iter().enumerate() {
        let at = HostEntry { path, text: &text, index, host };
        certificate(&mut report, &at);
        leg::server(&mut report, &at, &config, &ended).await;
    }
    push::services(&mut report, path, &config).await;
    let running = database::database(&mut report, path, &config).await;
    cluster::cluster(&mut report, path, &config, running).await;
    report
}

/// Returns whether a listener for all IPv6 addresses takes no IPv4 connections on this system.
fn ipv6_only() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|value| value.trim() == "1")
}

/// Checks that no two listeners take the same IPv4 connections. Other overlaps are errors of the configuration.
fn overlapping_listeners(report: &mut Report, path: &Path, text: &str, config: &Config) {
    for (index, listen) in config.listen.iter().enumerate() {
        let earlier = config.listen.iter().take(index).find(|other| share_ipv4(other.address, listen.address));
        let Some(other) = earlier else { continue };
        let problem = Problem {
            file: path.to_owned(),
            line: config::listen_line(text, index),
            key: "[[listen]] address".to_owned(),
            what: format!("{} and {} cannot be used at the same time: [::] is IPv4 too", listen.address, other.address),
            remedy: "remove the IPv4 address, or choose another port".to_owned(),
        };
        report.problem(&problem, exit::CONFIG);
    }
}

fn certificate(report: &mut Report, at: &HostEntry<'_>) {
    let Host { domain, certificate: file, .. } = at.host;
    if certificate::wants_development(at.host) {
        let file = file.display();
        report.fine(format_args!(
            "{domain}: {file} does not exist: a development certificate is created at the first start"
        ));
        return;
    }
    let key = match certificate::load(at.host) {
        Ok(key) => key,
        Err(error) => {
            let (key, remedy) = remedy_of(&error, at.host);
            report.problem(&at.problem(key, error, &remedy), exit::CONFIG);
            return;
        }
    };
    let defects = certificate::judge(&key, domain, SystemTime::now());
    for defect in &defects {
        let problem = at.problem("certificate", format_args!("{} {defect}", file.display()), defect.remedy());
        match defect {
            Defect::ExpiresSoon => report.warning(&problem),
            Defect::NotForDomain | Defect::Expired | Defect::NotYetValid => report.problem(&problem, exit::CONFIG),
        }
    }
    if defects.is_empty() {
        report.fine(format_args!("{domain}: certificate {} is valid", file.display()));
    }
}

/// Returns the key that names the faulty file, and the remedy.
fn remedy_of(error: &CertificateError, host: &Host) -> (&'static str, String) {
    let key_or_certificate = |path: &Path| if path == host.key { "key" } else { "certificate" };
    match error {
        CertificateError::Unreadable { path, .. } => (
            key_or_certificate(path),
            "create the file, readable by the user that runs pushward, or name another one".to_owned(),
        ),
        CertificateError::Empty { path, marker, .. } => {
            (key_or_certificate(path), format!("name a file with -----BEGIN {marker}-----"))
        }
        CertificateError::Mismatch { .. } => (
            "key",
            "name the key that belongs to the certificate; the domain's own certificate must come first in the file"
                .to_owned(),
        ),
        CertificateError::Unusable { path, .. } => {
            (key_or_certificate(path), "get an X.509 v3 certificate with an RSA, ECDSA or Ed25519 key".to_owned())
        }
        CertificateError::Unwritable { .. } | CertificateError::NotMade { .. } => {
            ("certificate", "provide your own certificate".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const READY: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
        <mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism></mechanisms></stream:features>";

    /// Starts a server that answers every stream header with the same text. Returns its address.
    async fn server_that_says(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut header = [0; 1024];
                let read = stream.read(&mut header).await.unwrap();
                assert!(header[..read].ends_with(b">"));
                let opening = crate::xml::stream_header("localhost", "1", None);
                stream.write_all(&opening).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.read(&mut header).await.unwrap_or_default();
            }
        });
        address
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    async fn check_server(answer: &'static str, exit: u8, expect: &[&str]) {
        let address = server_that_says(answer).await;
        let (_directory, path) = written(&format!(
            "[limits]\nconnect_timeout = \"200ms\"\n[[host]]\ndomain = \"localhost\"\nupstream = \"{address}\"\n"
        ));
        let report = examine(&path).await;
        let line = report.lines.iter().find(|line| line.contains("the server at")).unwrap();
        assert_eq!(report.exit(), exit, "{report}");
        for part in expect {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(exit == 0 || line.contains("config.toml:5: [[host]] localhost upstream: "), "{line}");
    }

    #[tokio::test]
    async fn a_fresh_machine_with_a_ready_server_has_no_problem() {
        check_server(
            READY,
            0,
            &["localhost: the server at 127.0.0.1:", "is ready; login mechanisms: SCRAM-SHA-1, PLAIN"],
        )
        .await;
    }

    #[tokio::test]
    async fn mechanisms_of_sasl2_alone_are_enough() {
        let features = "<stream:features><authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-256</mechanism>\
            <inline><sm xmlns='urn:xmpp:sm:3'/></inline></authentication></stream:features>";
        check_server(features, 0, &["login mechanisms: SCRAM-SHA-256"]).await;
    }

    #[tokio::test]
    async fn a_server_that_wants_tls_or_offers_no_login_comes_with_the_settings_to_change() {
        let required = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
            <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms></stream:features>";
        let settings = ["c2s_require_encryption = false", "allow_unencrypted_sasl2: true"];
        check_server(required, exit::UNAVAILABLE, &[&["requires TLS"], &settings[..]].concat()).await;
        let none = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>";
        check_server(none, exit::UNAVAILABLE, &[&["offers no login"], &settings[..]].concat()).await;
        check_server("<stream:features/>", exit::UNAVAILABLE, &["offers no login"]).await;
    }

    #[tokio::test]
    async fn a_server_that_is_no_xmpp_server_for_the_domain_is_named_as_such() {
        let unknown = "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
        check_server(unknown, exit::UNAVAILABLE, &["host-unknown", "configure the domain"]).await;
        check_server("", exit::UNAVAILABLE, &["no stream features within"]).await;
    }

    #[tokio::test]
    async fn nobody_at_the_servers_address_is_a_problem() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (_directory, path) = written(&format!("[[host]]\ndomain = \"localhost\"\nupstream = \"127.0.0.1:{port}\""));
        let report = examine(&path).await;
        assert_eq!(report.exit(), exit::UNAVAILABLE);
        assert!(report.to_string().contains(":3: [[host]] localhost upstream: the server at 127.0.0.1"), "{report}");
    }

    #[tokio::test]
    async fn a_server_that_closes_at_once_may_expect_a_proxy_header_or_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        for (protocol, hint) in [
            ("off", "or set upstream_proxy_protocol, if the server expects a PROXY header at this port"),
            ("v1", "or set upstream_proxy_protocol = \"off\", if the server expects no PROXY header at this port"),
            ("v2", "or set upstream_proxy_protocol = \"off\", if the server expects no PROXY header at this port"),
        ] {
            for tls in ["off", "starttls", "direct"] {
                let (_directory, path) = written(&format!(
                    "[[host]]\ndomain = \"localhost\"\nupstream = \"{address}\"\nupstream_tls = \"{tls}\"\n\
                     upstream_proxy_protocol = \"{protocol}\"\n"
                ));
                let report = examine(&path).await;
                assert_eq!(report.exit(), exit::UNAVAILABLE, "{report}");
                assert!(report.to_string().contains(hint), "{tls} {protocol}: {report}");
            }
        }
    }

    #[test]
    fn listeners_that_take_the_same_connections_are_a_problem() {
        let (_directory, path) = written(
            "[[listen]]\naddress = \"[::]:5222\"\n[[listen]]\naddress = \"[::]:5223\"\n\n[[listen]]\n\
             address = \"0.0.0.0:5223\"\n[[host]]\ndomain = \"localhost\"\n",
        );
        let (text, config) = (std::fs::read_to_string(&path).unwrap(), Config::load(&path).unwrap());
        let mut report = Report::default();
        overlapping_listeners(&mut report, &path, &text, &config);
        assert_eq!((report.lines.len(), report.exit()), (1, exit::CONFIG), "{report}");
        let expect = ":7: [[listen]] address: 0.0.0.0:5223 and [::]:5223 cannot be used at the same time";
        assert!(report.to_string().contains(expect), "{report}");
    }

    #[tokio::test]
    async fn a_servers_name_that_cannot_be_looked_up_is_named() {
        let (_directory, path) =
            written("[[host]]\ndomain = \"localhost\"\nupstream = \"xmpp.invalid:5222\"\nupstream_tls = \"starttls\"");
        let report = examine(&path).await;
        assert_eq!(report.exit(), exit::UNAVAILABLE);
        let expect = ["cannot look up the name xmpp.invalid: ", "; correct the name in upstream"];
        assert!(expect.iter().all(|part| report.to_string().contains(part)), "{report}");
    }

    #[tokio::test]
    async fn every_problem_of_the_file_is_listed() {
        let (_directory, path) = written("[push]\nmax_device = 3\nwith_body = 1\n");
        let report = examine(&path).await;
        assert_eq!(report.exit(), exit::CONFIG);
        assert_eq!(report.lines.len(), 3, "{report}");
    }

    #[tokio::test]
    async fn a_missing_certificate_is_a_problem_that_outranks_the_servers() {
        let (directory, path) = written("[[host]]\ndomain = \"jabber.org\"\nupstream = \"localhost:1\"\n");
        let report = examine(&path).await;
        assert_eq!(report.exit(), exit::CONFIG);
        let expect = format!(
            "{}:1: [[host]] jabber.org certificate: cannot read {}",
            path.display(),
            directory.path().join("certs/jabber.org.pem").display()
        );
        assert!(report.to_string().contains(&expect), "{report}");
    }

    #[tokio::test]
    async fn a_certificate_of_another_domain_is_a_problem() {
        let address = server_that_says(READY).await;
        let (directory, path) = written(&format!("[[host]]\ndomain = \"jabber.org\"\nupstream = \"{address}\"\n"));
        let (certificate, key) = certificate::self_signed("jabber.net").unwrap();
        std::fs::create_dir(directory.path().join("certs")).unwrap();
        std::fs::write(directory.path().join("certs/jabber.org.pem"), certificate).unwrap();
        std::fs::write(directory.path().join("certs/jabber.org.key"), key).unwrap();
        let report = examine(&path).await;
        assert_eq!(report.exit(), exit::CONFIG);
        assert!(report.to_string().contains("jabber.org.pem does not name the domain"), "{report}");
    }
}

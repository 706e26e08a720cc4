//! Real proxies in front of Pushward, with the configuration in docs/proxy-chains.md.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{PATIENCE, Process, eventually, free_address};

/// The page about chains of proxies.
const PAGE: &str = "docs/proxy-chains.md";

/// Returns the only block of the page in this language that contains `needle`.
pub(crate) fn documented(language: &str, needle: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    let start = format!("```{language}\n");
    let blocks = text.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap());
    let found: Vec<_> = blocks.filter(|block| block.contains(needle)).collect();
    assert_eq!(found.len(), 1, "blocks of {language} with {needle} in {PAGE}: {found:?}");
    found[0].to_owned()
}

/// A running proxy.
pub(crate) struct Front {
    /// The address that leads to STARTTLS.
    pub(crate) starttls: SocketAddr,
    /// The address that leads to direct TLS.
    pub(crate) direct: SocketAddr,
    // Declared before the directory, so that it ends before its files are removed.
    process: Process,
    _directory: TempDir,
}

impl Front {
    /// Starts HAProxy. `configuration` uses the ports 5222 and 5223 of all addresses and of `10.0.0.5`, which stands
    /// for `behind`.
    pub(crate) async fn haproxy(configuration: &str, behind: (SocketAddr, SocketAddr)) -> Self {
        Self::start(
            configuration,
            |port| ("bind ", format!(":::{port} v4v6")),
            behind,
            |file| {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(file);
                Process::spawn("haproxy", "apt-get install haproxy", &mut command)
            },
        )
        .await
    }

    /// Starts nginx in the same way.
    pub(crate) async fn nginx(configuration: &str, behind: (SocketAddr, SocketAddr)) -> Self {
        // In one process, so that killing it ends nginx.
        let alone = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\n\
            pid nginx.pid;\nerror_log stderr;\nevents {}\n";
        let public = |port| ("listen ", format!("[::]:{port} ipv6only=off"));
        Self::start(&format!("{alone}{configuration}"), public, behind, |file| {
            let mut command = Command::new("/usr/sbin/nginx");
            command.arg("-p").arg(file.parent().unwrap()).arg("-e").arg("stderr").arg("-c").arg(file);
            Process::spawn("nginx", "apt-get install nginx-light libnginx-mod-stream", &mut command)
        })
        .await
    }

    async fn start(
        configuration: &str,
        public: impl Fn(u16) -> (&'static str, String),
        (starttls, direct): (SocketAddr, SocketAddr),
        spawn: impl Fn(&Path) -> Process,
    ) -> Self {
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let own = [free_address(), free_address()];
            let mut text = configuration.to_owned();
            for (port, own, behind) in [(5222, own[0], starttls), (5223, own[1], direct)] {
                let (word, everywhere) = public(port);
                for (from, to) in [
                    (format!("10.0.0.5:{port}"), behind.to_string()),
                    (format!("{word}{everywhere}"), format!("{word}{own}")),
                ] {
                    assert_eq!(text.matches(&from).count(), 1, "{from} in\n{text}");
                    text = text.replace(&from, &to);
                }
            }
            let file = directory.path().join("front.conf");
            fs::write(&file, text).unwrap();
            let mut process = spawn(&file);
            let log = process.log().clone();
            let what = || format!("the proxy at {own:?}:\n{}", log.lines().join("\n"));
            let ready = || own.iter().all(|address| TcpStream::connect(address).is_ok());
            let started =
                eventually(PATIENCE, what, || if ready() { Some(true) } else { process.exited().map(|_| false) }).await;
            if started {
                return Self { starttls: own[0], direct: own[1], process, _directory: directory };
            }
            let taken = log.contains("in use") || log.contains("cannot bind");
            assert!(taken, "{}", log.lines().join("\n"));
        }
        panic!("no free ports for the proxy");
    }

    /// Fails if the proxy has ended.
    pub(crate) fn assert_running(&mut self) {
        assert!(self.process.exited().is_none(), "{}", self.process.log().lines().join("\n"));
    }
}

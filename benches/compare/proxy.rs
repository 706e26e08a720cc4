//! The compared programs. Each is started with its own configuration for the same work.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tempfile::TempDir;

use super::link::{Link, Target};
use super::process::Process;
use super::tls::{DOMAIN, Files};

/// Maximum time for a program to start.
const START: Duration = Duration::from_secs(20);

/// A program in front of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Proxy {
    /// This project.
    Pushward,
    /// HAProxy in TCP mode, with TLS.
    Haproxy,
    /// nginx with its stream module.
    Nginx,
    /// xmpp-proxy, version 1 from crates.io.
    #[value(name = "xmpp-proxy")]
    Xmpp,
    /// No proxy: the server itself with stream management and push, with which dark sessions are compared.
    Prosody,
}

impl Proxy {
    /// Returns its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pushward => "Pushward",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Xmpp => "xmpp-proxy",
            Self::Prosody => "Prosody",
        }
    }

    /// Returns the version that it prints. `None` if it is not installed.
    pub(crate) fn version(self) -> Option<String> {
        let (program, argument) = match self {
            Self::Pushward => return Some(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Haproxy => ("haproxy", "-v"),
            Self::Nginx if !Path::new(NGINX_STREAM).exists() => return None,
            Self::Nginx => ("nginx", "-v"),
            Self::Xmpp => ("xmpp-proxy", "-v"),
            Self::Prosody => ("prosodyctl", "about"),
        };
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let number = text
            .split([' ', '/', '\n'])
            .find(|word| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit()));
        Some(number.unwrap_or("of an unknown version").to_owned())
    }

    /// Returns instructions for its installation.
    pub(crate) fn install(self) -> &'static str {
        match self {
            Self::Pushward => "cargo build --release",
            Self::Haproxy | Self::Nginx => "benches/run",
            Self::Xmpp => "cargo install xmpp-proxy",
            Self::Prosody => "apt-get install prosody prosody-modules",
        }
    }
}

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The settings that all proxies of a run share.
pub(crate) struct Common {
    /// The upstream server.
    pub(crate) upstream: SocketAddr,
    /// The path of Pushward's program.
    pub(crate) pushward: PathBuf,
    /// Number of worker threads or processes.
    pub(crate) threads: usize,
    pub(crate) files: Files,
    pub(crate) client: Arc<ClientConfig>,
    /// The directory of the programs' state, configuration and logs.
    pub(crate) directory: TempDir,
}

/// A running proxy.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) target: Target,
    /// Its own directory. It is removed with the proxy.
    pub(crate) directory: TempDir,
}

impl Common {
    /// Starts a proxy. `settings` is added to Pushward's configuration.
    pub(crate) async fn start(&self, proxy: Proxy, settings: &str) -> Running {
        let directory = TempDir::new_in(self.directory.path()).unwrap();
        let address = free_address();
        let mut command = match proxy {
            Proxy::Pushward => self.pushward(directory.path(), address, settings),
            Proxy::Haproxy => self.haproxy(directory.path(), address),
            Proxy::Nginx => self.nginx(directory.path(), address),
            Proxy::Xmpp => self.xmpp_proxy(directory.path(), address),
            Proxy::Prosody => unreachable!("Prosody is no proxy"),
        };
        let target = Target { address, tls: Some(Arc::clone(&self.client)), managed: proxy == Proxy::Pushward };
        Running::start(&mut command, target, directory).await
    }

    /// Stops Pushward, and starts it again with the same state.
    pub(crate) async fn restart(&self, running: Running, settings: &str) -> Running {
        let Running { process, target, directory } = running;
        drop(process);
        let mut command = self.pushward(directory.path(), target.address, settings);
        Running::start(&mut command, target, directory).await
    }

    fn pushward(&self, directory: &Path, address: SocketAddr, settings: &str) -> Command {
        let Files { certificate, key, .. } = &self.files;
        let text = format!(
            "state = 'state'\n[[listen]]\naddress = '{address}'\ntls = 'direct'\n\
             [[host]]\ndomain = '{DOMAIN}'\nupstream = '{upstream}'\ncertificate = '{}'\nkey = '{}'\n\
             [admin]\nlisten = ''\n[log]\nlevel = 'warn'\n[limits]\nconnections_per_address = 100000\n{settings}\n",
            certificate.display(),
            key.display(),
            upstream = self.upstream,
        );
        let mut command = Command::new(&self.pushward);
        command.env("TOKIO_WORKER_THREADS", self.threads.to_string()).env_remove("RUST_LOG");
        command.arg("--config").arg(write(directory, "config.toml", &text)).arg("run");
        command
    }

    fn haproxy(&self, directory: &Path, address: SocketAddr) -> Command {
        let text = format!(
            "global\n  nbthread {threads}\n\
             defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n\
             frontend clients\n  bind {address} ssl crt {certificate} ssl-min-ver TLSv1.3 ciphersuites {CIPHER} curves X25519\n  \
             default_backend server\n\
             backend server\n  server stub {upstream}\n",
            threads = self.threads,
            certificate = self.files.both.display(),
            upstream = self.upstream,
        );
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(write(directory, "haproxy.cfg", &text));
        command.env("OPENSSL_CONF", one_ticket(directory));
        command
    }

    fn nginx(&self, directory: &Path, address: SocketAddr) -> Command {
        let Files { certificate, key, .. } = &self.files;
        let text = format!(
            "load_module {NGINX_STREAM};\ndaemon off;\nworker_processes {threads};\nworker_rlimit_nofile 100000;\n\
             pid {directory}/pid;\nerror_log stderr;\nuser root;\n\
             events {{ worker_connections 100000; }}\n\
             stream {{\n  ssl_certificate {certificate};\n  ssl_certificate_key {key};\n  ssl_protocols TLSv1.3;\n  \
             ssl_conf_command Ciphersuites {CIPHER};\n  ssl_ecdh_curve X25519;\n  proxy_timeout 1h;\n  \
             server {{ listen {address} ssl reuseport backlog=4096; proxy_pass {upstream}; }}\n}}\n",
            threads = self.threads,
            directory = directory.display(),
            certificate = certificate.display(),
            key = key.display(),
            upstream = self.upstream,
        );
        // nginx cannot raise its descriptor limit above the one that it was started with.
        let text = text.replace("100000", &descriptors().to_string());
        let mut command = Command::new("nginx");
        command.arg("-e").arg("stderr").arg("-c").arg(write(directory, "nginx.conf", &text));
        command.env("OPENSSL_CONF", one_ticket(directory));
        command
    }

    fn xmpp_proxy(&self, directory: &Path, address: SocketAddr) -> Command {
        let Files { certificate, key, .. } = &self.files;
        let text = format!(
            "listen = ['{address}']\nincoming_listen = ['{address}']\nquic_listen = []\nwebsocket_listen = []\noutgoing_listen = []\n\
             max_stanza_size_bytes = 262144\ns2s_target = '{upstream}'\nc2s_target = '{upstream}'\nproxy = false\n\
             tls_key = '{}'\ntls_cert = '{}'\nlog_level = 'error'\n",
            key.display(),
            certificate.display(),
            upstream = self.upstream,
        );
        let mut command = Command::new("xmpp-proxy");
        command.env("TOKIO_WORKER_THREADS", self.threads.to_string()).env_remove("RUST_LOG");
        command.arg(write(directory, "xmpp-proxy.toml", &text));
        command
    }
}

impl Running {
    /// Starts a program in its directory, and waits until it accepts connections.
    pub(crate) async fn start(command: &mut Command, target: Target, directory: TempDir) -> Self {
        command.current_dir(directory.path());
        let process = Process::start(command, &directory.path().join("log"));
        let mut running = Self { process, target, directory };
        running.ready().await;
        running
    }

    /// The same as [`Process::begin`].
    pub(crate) fn begin(&self) -> Duration {
        self.process.begin()
    }

    /// The same as [`Process::cpu`].
    pub(crate) fn cpu(&self) -> Duration {
        self.process.cpu()
    }

    /// Returns the target for clients.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    async fn ready(&mut self) {
        let until = Instant::now() + START;
        while let Err(error) = Link::connect(&self.target).await {
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(!self.process.has_ended() && Instant::now() < until, "{error}; it said: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const CIPHER: &str = "TLS_AES_128_GCM_SHA256";

/// Writes OpenSSL settings for programs without an option of their own: as many tickets as Pushward sends.
pub(crate) fn one_ticket(directory: &Path) -> PathBuf {
    let text = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\nNumTickets = 1\n";
    write(directory, "openssl.cnf", text)
}

pub(crate) fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Returns an address whose port was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Raises the descriptor limit as far as allowed, and returns it.
pub(crate) fn descriptors() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}

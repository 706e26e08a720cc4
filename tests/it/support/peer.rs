//! Real clients. Each is a process of its own, driven by lines of JSON.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::prosody::PASSWORD;
use super::{PATIENCE, Process, Pushward, eventually};

/// The client libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// Python.
    Slixmpp,
    /// Python, another library.
    Aioxmpp,
    /// JavaScript.
    XmppJs,
    /// Rust.
    TokioXmpp,
}

/// The security of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// No TLS.
    Plain,
    StartTls,
    DirectTls,
}

impl Library {
    /// Returns the command that starts the program, with trust in the certificate in `ca`.
    fn command(self, ca: Option<&Path>) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let peers = root.join("tests/it/peers");
        let mut command;
        match self {
            Self::Slixmpp | Self::Aioxmpp => {
                let python: PathBuf = root.join("target/test-venv/bin/python");
                let script = if self == Self::Slixmpp { "slixmpp_client.py" } else { "aioxmpp_client.py" };
                command = Command::new(python);
                command.arg(peers.join(script)).env("PYTHONUNBUFFERED", "1");
            }
            Self::XmppJs => {
                let modules = root.join("target/test-xmppjs");
                assert!(
                    modules.join("node_modules").exists(),
                    "xmpp.js is missing; install it with: {}",
                    self.install()
                );
                command = Command::new("node");
                command.arg("--dns-result-order=ipv4first").arg(peers.join("xmppjs/client.js")).arg(modules);
                if let Some(ca) = ca {
                    command.env("NODE_EXTRA_CA_CERTS", ca);
                }
            }
            Self::TokioXmpp => {
                command = Command::new(root.join("target/peers/debug/tokio-xmpp-peer"));
                if let Some(ca) = ca {
                    command.env("SSL_CERT_FILE", ca);
                }
            }
        }
        command
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Slixmpp => "slixmpp",
            Self::Aioxmpp => "aioxmpp",
            Self::XmppJs => "xmpp.js",
            Self::TokioXmpp => "tokio-xmpp",
        }
    }

    const fn install(self) -> &'static str {
        match self {
            Self::Slixmpp => "tests/run, which makes target/test-venv and installs slixmpp there",
            Self::Aioxmpp => "tests/run, which makes target/test-venv and installs aioxmpp there",
            Self::XmppJs => "tests/run, which installs nodejs, npm and, in target/test-xmppjs, xmpp.js",
            Self::TokioXmpp => "tests/run, which builds tests/it/peers/tokio-xmpp in target/peers",
        }
    }

    /// Returns true if the library reconnects a lost connection by itself.
    pub(crate) fn reconnects(self) -> bool {
        self != Self::Slixmpp
    }
}

/// A process with one client.
///
/// Its events: `online` with the `jid`, `resumed`, `message` with its `body`, `iq` with `id` and `type`,
/// `disconnected`. xmpp.js also has `success` with the `profile` of SASL, and whether it `resumed` a session.
pub(crate) struct Peer {
    library: Library,
    process: Process,
    taken: usize,
}

impl Peer {
    /// Starts the client for `jid`. It does not connect yet. `ca` is the only certificate that it trusts.
    pub(crate) fn start(
        library: Library,
        jid: &str,
        (security, address): (Security, SocketAddr),
        ca: Option<&Path>,
    ) -> Self {
        let mut process = Process::spawn(library.name(), library.install(), &mut library.command(ca));
        let start = json!({
            "jid": jid, "password": PASSWORD, "host": address.ip().to_string(), "port": address.port(), "ca": ca,
            "direct": security == Security::DirectTls,
        });
        process.write_line(&start.to_string());
        Self { library, process, taken: 0 }
    }

    /// The same at `address`, with trust in the certificate of `pushward`.
    pub(crate) fn trusting(
        pushward: &Pushward,
        library: Library,
        jid: &str,
        (security, address): (Security, SocketAddr),
    ) -> Self {
        Self::start(library, jid, (security, address), Some(&pushward.file("certs/localhost.pem")))
    }

    /// Gives an order: `connect`, or `send` with a raw stanza in `xml`.
    pub(crate) fn order(&mut self, order: &Value) {
        self.process.write_line(&order.to_string());
    }

    /// Sends a stanza, which must declare its namespace.
    pub(crate) fn send(&mut self, xml: &str) {
        self.order(&json!({"do": "send", "xml": xml}));
    }

    /// Sends an iq and returns the answer as the client reports it.
    pub(crate) async fn request(&mut self, (id, kind, to): (&str, &str, Option<&str>), payload: &str) -> Value {
        let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        self.send(&format!("<iq xmlns='jabber:client' type='{kind}' id='{id}'{to}>{payload}</iq>"));
        loop {
            let answer = self.event("iq").await;
            if answer["id"] == id {
                return answer;
            }
        }
    }

    /// Returns the next event of that name, and discards those before it.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        let (log, library) = (self.process.log().clone(), self.library);
        let what = || format!("the event {name} of {library:?} in\n{}", log.lines().join("\n"));
        let (taken, event) = eventually(PATIENCE, what, || {
            if let Some(status) = self.process.exited() {
                panic!("{library:?} ended with {status}");
            }
            let lines = log.lines();
            let mut fresh = lines.iter().enumerate().skip(self.taken);
            fresh.find_map(|(at, line)| {
                let event: Value = serde_json::from_str(line).ok()?;
                (event.get("event").and_then(Value::as_str) == Some(name)).then_some((at + 1, event))
            })
        })
        .await;
        self.taken = taken;
        event
    }

    /// Returns the bodies of all messages, up to the one that is `last`.
    ///
    /// xmpp.js reports a resumption after the messages that came with it, so this does not follow the order of events.
    pub(crate) async fn bodies_until(&self, last: &str) -> Vec<String> {
        let what = || format!("{last:?} behind {:?}", self.bodies());
        eventually(PATIENCE, what, || Some(self.bodies()).filter(|bodies| bodies.iter().any(|body| body == last))).await
    }

    /// Returns the bodies of all messages received so far.
    pub(crate) fn bodies(&self) -> Vec<String> {
        let events =
            self.process.log().lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        events
            .filter(|event| event.get("event").and_then(Value::as_str) == Some("message"))
            .filter_map(|event| event.get("body").and_then(Value::as_str).map(str::to_owned))
            .collect()
    }
}

//! slixmpp, a real client, driven by lines of JSON.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::prosody::PASSWORD;
use super::{PATIENCE, Process, eventually};

const INSTALL: &str = "tests/run, which makes target/test-venv and installs slixmpp there";

/// A Python process with one client.
pub(crate) struct Slixmpp {
    process: Process,
    taken: usize,
}

impl Slixmpp {
    /// Starts the client for `jid`; it does not connect yet. With `ca` it insists on STARTTLS and on that certificate.
    pub(crate) fn start(jid: &str, address: SocketAddr, ca: Option<&Path>) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python: PathBuf = root.join("target/test-venv/bin/python");
        let mut command = Command::new(python);
        command.arg(root.join("tests/it/peers/slixmpp_client.py")).env("PYTHONUNBUFFERED", "1");
        let mut process = Process::spawn("slixmpp", INSTALL, &mut command);
        let start = json!({
            "jid": jid, "password": PASSWORD, "host": address.ip().to_string(), "port": address.port(), "ca": ca,
        });
        process.tell(&start.to_string());
        Self { process, taken: 0 }
    }

    /// Gives an order: `connect`, `abort`, `send` (a raw stanza in `xml`).
    pub(crate) fn order(&mut self, order: &Value) {
        self.process.tell(&order.to_string());
    }

    /// The next event of that name; those before it are passed over.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        let log = self.process.log().clone();
        let what = || format!("slixmpp's event {name} in\n{}", log.lines().join("\n"));
        let (taken, event) = eventually(PATIENCE, what, || {
            if let Some(status) = self.process.exited() {
                panic!("slixmpp ended with {status}");
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

    /// The bodies of all messages received so far.
    pub(crate) fn bodies(&self) -> Vec<String> {
        let events =
            self.process.log().lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        events
            .filter(|event| event.get("event").and_then(Value::as_str) == Some("message"))
            .filter_map(|event| event.get("body").and_then(Value::as_str).map(str::to_owned))
            .collect()
    }
}

//! Reloads the configuration while sessions run, either all of it or nothing. [`Reloader`] requests a reload, [`Reloads`]
//! performs it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::listeners::Listeners;
use crate::config::{Config, StoreSettings};
use crate::log;
use crate::metrics::ReloadOutcome;
use crate::relay::Relay;
use crate::relay::snapshot::{LoadError, Snapshot};
use crate::service::{Notify, Sockets};

/// The limit for waiting reloads. Another one would repeat what the waiting ones do.
const WAITING: usize = 4;

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadReport {
    /// The new configuration is in force. Contains the changes that need a restart, as text.
    Done(Vec<String>),
    /// The previous configuration stays in force. Contains the reasons, as text. Never empty.
    Refused(Vec<String>),
}

/// A handle for requesting reloads.
#[derive(Clone, Debug)]
pub struct Reloader(mpsc::Sender<ListenersRequest>);

/// A request about the listeners.
#[derive(Debug)]
pub(super) enum ListenersRequest {
    /// Reload the configuration.
    Reload(oneshot::Sender<ReloadReport>),
    /// Close the listeners for clients, for good.
    Close(oneshot::Sender<()>),
}

impl Reloader {
    /// Reads the configuration file again and returns the result.
    pub async fn reload(&self) -> ReloadReport {
        let (reply, replied) = oneshot::channel();
        let ending = || ReloadReport::Refused(vec!["the daemon is shutting down".to_owned()]);
        if self.0.send(ListenersRequest::Reload(reply)).await.is_err() {
            return ending();
        }
        replied.await.unwrap_or_else(|_| ending())
    }

    /// Closes the listeners for clients. Reloads do not open them again.
    pub(super) async fn close(&self) {
        let (reply, replied) = oneshot::channel();
        if self.0.send(ListenersRequest::Close(reply)).await.is_ok() {
            // If the daemon ends, it closes them too.
            replied.await.ok();
        }
    }

    /// Requests a reload whose result is only logged. If the queue is full, a waiting reload has the same effect.
    pub fn ask(&self) {
        let (reply, _) = oneshot::channel();
        drop(self.0.try_send(ListenersRequest::Reload(reply)));
    }
}

/// The task that performs reloads, one at a time.
pub(super) struct Reloads {
    path: PathBuf,
    relay: Arc<Relay>,
    listeners: Listeners,
    asked: mpsc::Receiver<ListenersRequest>,
    /// True if no client is accepted any more.
    is_closed: bool,
}

impl Reloads {
    pub(super) fn new(relay: Arc<Relay>, listeners: Listeners) -> (Self, Reloader) {
        let (sender, asked) = mpsc::channel(WAITING);
        let path = relay.current().config.path.clone();
        (Self { path, relay, listeners, asked, is_closed: false }, Reloader(sender))
    }

    /// Performs reloads until all handles are dropped.
    pub(super) async fn run(mut self) {
        while let Some(request) = self.asked.recv().await {
            let reply = match request {
                ListenersRequest::Reload(reply) => reply,
                ListenersRequest::Close(reply) => {
                    self.close();
                    // The requester may have stopped waiting.
                    reply.send(()).ok();
                    continue;
                }
            };
            Notify.reloading();
            let outcome = match self.reload().await {
                Ok(notes) => ReloadReport::Done(notes),
                Err(problems) => ReloadReport::Refused(problems),
            };
            self.report(&outcome);
            Notify.ready();
            // The process may have stopped waiting.
            drop(reply.send(outcome));
        }
    }

    fn close(&mut self) {
        self.is_closed = true;
        match self.listeners.plan(&[], &mut Sockets::default()) {
            Ok(plan) => self.listeners.apply(plan),
            Err(error) => tracing::error!(%error, "cannot close listeners"),
        }
    }

    /// Loads the whole configuration before anything changes.
    async fn reload(&mut self) -> Result<Vec<String>, Vec<String>> {
        let before = self.relay.current();
        let (path, old) = (self.path.clone(), Arc::clone(&before));
        let resource_key = self.relay.store().resource_key();
        let loaded = spawn_blocking(move || {
            let mut config = Config::load(&path)
                .map_err(|errors| errors.problems().iter().map(ToString::to_string).collect::<Vec<_>>())?;
            let mut notes = keep_fixed(&mut config, &old.config);
            notes.extend(overridden_level(&config, &old.config));
            let snapshot = Snapshot::load(config, old.settings.seed, resource_key)
                .map_err(|errors| errors.iter().map(LoadError::to_string).collect::<Vec<_>>())?;
            Ok::<_, Vec<String>>((snapshot, notes))
        });
        let (snapshot, notes) = loaded.await.map_err(|error| vec![error.to_string()])??;
        let plan = self
            .listeners
            .plan(if self.is_closed { &[] } else { &snapshot.config.listen }, &mut Sockets::default())
            .map_err(|error| vec![error.to_string()])?;
        self.announce(&snapshot, &before).await?;
        if snapshot.config.log != before.config.log {
            log::change(&snapshot.config.log);
        }
        self.relay.switch(snapshot);
        self.listeners.apply(plan);
        Ok(notes)
    }

    /// Lets the other nodes know a new certificate of this one before it is shown to them.
    async fn announce(&self, snapshot: &Snapshot, before: &Snapshot) -> Result<(), Vec<String>> {
        let fingerprint = |snapshot: &Snapshot| snapshot.node_tls.as_ref().map(|tls| tls.fingerprint());
        let Some(new) = fingerprint(snapshot).filter(|new| Some(*new) != fingerprint(before)) else { return Ok(()) };
        let described = self.relay.store().cluster().describe(Some(new.as_bytes().to_vec()), None).await;
        described
            .map_err(|error| vec![format!("[cluster] certificate cannot be announced to the other nodes: {error}")])
    }

    fn report(&self, outcome: &ReloadReport) {
        match outcome {
            ReloadReport::Done(notes) => {
                self.relay.metrics().reload(ReloadOutcome::Done);
                notes.iter().for_each(|note| tracing::warn!(note, "restart required"));
                tracing::info!(path = %self.path.display(), "configuration reloaded");
            }
            ReloadReport::Refused(problems) => {
                self.relay.metrics().reload(ReloadOutcome::Refused);
                problems.iter().for_each(|problem| tracing::error!(problem, "configuration rejected"));
                tracing::error!(path = %self.path.display(), "reload failed: previous configuration stays active");
            }
        }
    }
}

/// The remedy for a setting that a reload does not change.
const RESTART: &str = "restart Pushward (`systemctl restart pushward`)";

/// Returns a note if the new log level has no effect.
fn overridden_level(config: &Config, before: &Config) -> Option<String> {
    let name = log::OVERRIDE;
    let overridden = config.log.level != before.log.level && std::env::var_os(name).is_some_and(|it| !it.is_empty());
    overridden.then(|| {
        format!("[log] level has no effect: the environment variable {name} overrides it; unset it and {RESTART}")
    })
}

/// Keeps the settings that only a start can change. Returns a note for each that differs in the file.
fn keep_fixed(config: &mut Config, before: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let mut keep = |key: &str, differs: bool| {
        if differs {
            notes.push(format!("{key} keeps its old value, because only a restart changes it: {RESTART}"));
        }
    };
    keep("state", config.state != before.state);
    keep("[store] engine", config.store.engine != before.store.engine);
    keep("[store] url", config.store.url != before.store.url);
    keep("[store] single", config.store.single != before.store.single);
    keep("[cluster]", config.cluster != before.cluster);
    keep("[admin] listen", config.admin.listen != before.admin.listen);
    keep("[admin] socket", config.admin.socket != before.admin.socket);
    keep("[log] format", config.log.format != before.log.format);
    config.state.clone_from(&before.state);
    config.store = StoreSettings { patience: config.store.patience, ..before.store.clone() };
    config.cluster.clone_from(&before.cluster);
    config.admin.listen = before.admin.listen;
    config.admin.socket.clone_from(&before.admin.socket);
    config.log.format = before.log.format;
    notes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn settings_that_need_a_restart_are_named_and_stay() {
        let parse = |text: &str| Config::parse(&format!("{text}\n[[host]]\ndomain = 'localhost'"), Path::new("c"));
        let before = parse("state = 'a'").unwrap();
        let mut after = parse(
            "state = 'b'\ndrain_timeout = '1s'\n[store]\nurl = 'postgresql://p@localhost/p'\n[admin]\nlisten = ''\nsocket = 's'\n[log]\nlevel = 'warn'\nformat = 'json'",
        )
        .unwrap();
        let notes = keep_fixed(&mut after, &before);
        let keys = ["state", "[store] url", "[admin] listen", "[admin] socket", "[log] format"];
        assert_eq!(notes.len(), keys.len(), "{notes:?}");
        assert!(
            notes.iter().zip(keys).all(|(note, key)| note.starts_with(&format!("{key} keeps its old value"))),
            "{notes:?}"
        );
        assert_eq!((&after.state, &after.admin, after.log.format), (&before.state, &before.admin, before.log.format));
        assert_ne!((after.drain_timeout, &after.log.level), (before.drain_timeout, &before.log.level));
        assert!(keep_fixed(&mut after, &before).is_empty());
    }
}

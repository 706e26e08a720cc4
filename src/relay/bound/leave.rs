//! The end of a session's task.

use super::Driver;
use crate::push::account::Change;
use crate::relay::jobs::Request;
use crate::relay::registry::{Command, Refused};

impl Driver {
    /// Finishes what the store was told, then leaves the registry: whoever takes over waits until all is on disk.
    pub(super) async fn leave(mut self: Box<Self>) {
        if let Some(reason) = self.ended {
            tracing::info!(?reason, "session ended");
        }
        if let Some(client) = self.client.take() {
            self.relay.farewell(*client);
        }
        self.jobs.ask(Request::Change(None, Change::Ended { login: self.login }));
        self.jobs.finish().await;
        self.relay.registry.leave(&self.handle, self.sm_id.as_ref());
        self.commands.close();
        while let Ok(command) = self.commands.recv().await {
            match command {
                Command::Attach(attach) => {
                    drop(attach.reply.send(Err(Refused { client: attach.client, too_high: None })));
                }
                Command::Published(published) => {
                    let (target, outcome) = *published;
                    self.relay.note_outcome(self.handle.account(), &target, &outcome).await;
                }
                Command::AccountChanged(_)
                | Command::Carry(..)
                | Command::Routed(_)
                | Command::SettingsChanged
                | Command::Drain
                | Command::GiveWay(..) => {}
            }
        }
        drop(self.heirs);
        self.relay.farewell(self.upstream);
    }
}

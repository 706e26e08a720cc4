//! The end of a session's task.

use super::Driver;
use crate::push::account::Change;
use crate::relay::jobs;
use crate::relay::registry::{Command, Mail, Refused};

impl Driver {
    /// Finishes what the store was told, then leaves the registry: whoever takes over waits until all is on disk that the session had.
    pub(super) async fn leave(mut self: Box<Self>) {
        if let Some(reason) = self.ended {
            tracing::info!(?reason, "session ended");
        }
        if let Some(client) = self.client.take() {
            self.relay.farewell(*client);
        }
        self.jobs.finish().await;
        let account = self.handle.account();
        // In order before whoever comes now logs in: it need not be on disk for that.
        let ended = self.relay.store.change_behind(account, Change::Ended { login: self.login }).await;
        let others = self.relay.registry.leave(&self.handle, self.sm_id.as_ref());
        self.commands.close();
        while let Some(mail) = self.commands.try_recv() {
            let Mail::Message(command) = mail else { continue };
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
        let ended = match ended {
            Ok(_) if others.is_empty() => return,
            Ok(ended) => ended.await,
            Err(error) => Err(error),
        };
        match ended {
            Ok((account, _)) => jobs::tell(others, &account).await,
            Err(error) => tracing::error!(%error, "the store failed as the session ended"),
        }
    }
}

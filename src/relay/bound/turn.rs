//! The order in which the sources of events of a session's task are polled.

use std::io;

use crate::net::conn::ConnEvent;
use crate::registry::handle::COMMANDS;
use crate::relay::client::Command;
use crate::relay::jobs::Done;
use crate::session::Peer;

/// How often in a row the two legs are served before the store and the clock come first.
const LEGS: usize = 16;

/// An event for a session's task.
pub(super) enum TaskEvent {
    Client(io::Result<ConnEvent>),
    Upstream(io::Result<ConnEvent>),
    Command(Command),
    /// Others have published something.
    Changed,
    /// All older sessions of the device have ended, given way or answered, or too long have not.
    OlderSettled,
    Store(Done),
    Deadline,
}

/// The sources of the last events.
#[derive(Debug, Default)]
pub(super) struct TaskTurn {
    client_was_last: bool,
    /// Commands that were taken one after the other.
    commands: usize,
    /// Events of the legs since the store and the clock had their turn.
    legs: usize,
}

impl TaskTurn {
    pub(super) fn on_event(&mut self, event: &TaskEvent) {
        self.client_was_last = matches!(event, TaskEvent::Client(_));
        let command = matches!(event, TaskEvent::Command(_) | TaskEvent::Changed);
        self.commands = if command { self.commands + 1 } else { 0 };
        let leg = matches!(event, TaskEvent::Client(_) | TaskEvent::Upstream(_));
        self.legs = if leg && self.legs < LEGS { self.legs + 1 } else { 0 };
    }

    /// The leg that is polled first. A client that has gone is noticed before anything is written to it; one that is busy does not
    /// keep the server waiting.
    pub(super) fn first_leg(&self) -> Peer {
        if self.client_was_last { Peer::Server } else { Peer::Client }
    }

    /// Whether commands are polled first. A command that came before a stanza of the server holds for it: a
    /// registration that is gone is not pushed for. After as many as the queue holds the others come first once.
    pub(super) fn commands_first(&self) -> bool {
        self.commands < COMMANDS
    }

    /// Whether the legs are polled before the store and the clock.
    pub(super) fn legs_first(&self) -> bool {
        self.legs < LEGS
    }
}

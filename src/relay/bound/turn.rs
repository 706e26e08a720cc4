//! [`TaskTurn`]: the order in which a session's task polls its event sources.

use std::io;

use crate::net::conn::ConnEvent;
use crate::registry::handle::COMMANDS;
use crate::relay::client::Command;
use crate::relay::jobs::Done;
use crate::session::Peer;
use crate::xml::Frame;

/// The number of consecutive events of the legs after which the store and the timer come first.
const LEGS: usize = 16;

/// An event for a session's task.
pub(super) enum TaskEvent {
    Client(io::Result<ConnEvent>),
    Upstream(io::Result<ConnEvent>),
    Command(Command),
    /// Other tasks have published a value.
    Changed,
    /// All older sessions of the device have ended, handed over or answered, or the deadline has passed.
    OlderSettled,
    Store(Done),
    Deadline,
}

/// The first events of a session.
#[derive(Default)]
pub(super) struct FirstEvents {
    /// Frames that the server sent during the login, after the bind.
    pub(super) frames: Vec<Frame>,
    /// Events of the connections while the store worked.
    pub(super) events: Vec<TaskEvent>,
}

/// The recent event sources of a task.
#[derive(Debug, Default)]
pub(super) struct TaskTurn {
    client_was_last: bool,
    /// The number of consecutive commands.
    commands: usize,
    /// The number of events of the legs since the store and the timer came first.
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

    /// Returns the leg that is polled first. A client that has disconnected is noticed before anything is written to it, and
    /// a busy client does not delay the server.
    pub(super) fn first_leg(&self) -> Peer {
        if self.client_was_last { Peer::Server } else { Peer::Client }
    }

    /// Returns whether commands are polled first. A command that came before a stanza of the server applies to that stanza:
    /// no push is sent for a registration that is gone. After as many commands as the queue holds, the other sources come
    /// first once.
    pub(super) fn commands_first(&self) -> bool {
        self.commands < COMMANDS
    }

    /// Returns whether the legs are polled before the store and the timer.
    pub(super) fn legs_first(&self) -> bool {
        self.legs < LEGS
    }
}

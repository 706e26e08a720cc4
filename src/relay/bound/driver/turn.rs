//! Whose turn it is to be heard by a session's task.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::Driver;
use crate::limits::Rates;
use crate::net::conn::{ConnEvent, Io};
use crate::registry::handle::COMMANDS;
use crate::registry::{Command, Mail};
use crate::relay::backpressure::{Reading, Stops, Waiting};
use crate::relay::jobs::Done;
use crate::session::{Input, Peer};

/// How often in a row the two legs are heard before the store and the clock come first.
const LEGS: usize = 16;

/// What woke the task.
pub(super) enum Wake {
    Client(std::io::Result<ConnEvent>),
    Upstream(std::io::Result<ConnEvent>),
    Command(Command),
    /// Others have published something.
    Changed,
    /// All older sessions of the device have ended, given way or answered, or too long have not.
    OlderSettled,
    Store(Done),
    Deadline,
}

/// Who was heard of late.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// A client that has gone is noticed before anything is written to it; one that is busy does not keep the server waiting.
    client_was_last: bool,
    /// Commands that were taken one after the other.
    commands: usize,
    /// Events of the legs since the store and the clock had their turn.
    legs: usize,
    /// The client, and the server, are not read, as the session knows.
    paused: (bool, bool),
}

impl Turn {
    fn heard(&mut self, wake: &Wake) {
        self.client_was_last = matches!(wake, Wake::Client(_));
        self.commands = if matches!(wake, Wake::Command(_) | Wake::Changed) { self.commands + 1 } else { 0 };
        let leg = matches!(wake, Wake::Client(_) | Wake::Upstream(_));
        self.legs = if leg && self.legs < LEGS { self.legs + 1 } else { 0 };
    }
}

impl Driver {
    /// Waits for what the session is to hear of next.
    pub(super) async fn next_wake(&mut self) -> Wake {
        let write_timeout = self.session.settings().stream_management.write_timeout;
        let held_up = self.held_up();
        let Reading { client: read_client, server: read_upstream } = self.reading();
        self.tell_pauses(read_client, read_upstream);
        // What others have told before holds for what the server sends behind it: a registration that is gone is not pushed
        // for. After as many as the queue holds the others come first once, so that nobody can keep them from their turn.
        let commands_first = self.turn.commands < COMMANDS;
        let legs_first = self.turn.legs < LEGS;
        let wake = poll_fn(|cx| {
            if commands_first && let Poll::Ready(wake) = self.poll_commands(cx) {
                return Poll::Ready(wake);
            }
            if legs_first && let Poll::Ready(wake) = self.poll_legs(cx, read_client, read_upstream) {
                return Poll::Ready(wake);
            }
            if !self.predecessors.are_settled() && pin!(self.predecessors.settled()).poll(cx).is_ready() {
                return Poll::Ready(Wake::OlderSettled);
            }
            if let Poll::Ready(done) = pin!(self.jobs.done()).poll(cx) {
                return Poll::Ready(Wake::Store(done));
            }
            // Writing may have come to a halt just now.
            let stalls = [
                held_up,
                self.client.as_ref().and_then(|client| client.write_deadline(write_timeout)),
                self.upstream.write_deadline(write_timeout),
                self.session.deadline(),
            ];
            if self.alarm.poll(cx, stalls.into_iter().flatten().min()).is_ready() {
                return Poll::Ready(Wake::Deadline);
            }
            if !legs_first && let Poll::Ready(wake) = self.poll_legs(cx, read_client, read_upstream) {
                return Poll::Ready(wake);
            }
            if commands_first { Poll::Pending } else { self.poll_commands(cx) }
        })
        .await;
        self.turn.heard(&wake);
        wake
    }

    /// Which of the two legs are read now.
    pub(super) fn reading(&self) -> Reading {
        let slowed = self.throttle.resumes_at(self.now, self.relay.guards.rates()).is_some();
        let stops = Stops {
            client: slowed || !self.session.wants_client(),
            server: !self.session.wants_upstream(),
            held: self.session.held_bytes(),
        };
        Reading::decide(self.client.as_deref().map(Waiting::of), Some(Waiting::of(&self.upstream)), stops)
    }

    /// Lets the session know of a peer that is not read, so that no clock runs for what that has to answer.
    fn tell_pauses(&mut self, read_client: bool, read_upstream: bool) {
        let paused = (self.client.is_some() && !read_client, !read_upstream);
        let before = std::mem::replace(&mut self.turn.paused, paused);
        for (peer, before, paused) in [(Peer::Client, before.0, paused.0), (Peer::Server, before.1, paused.1)] {
            if before != paused {
                self.take(if paused { Input::Paused(peer) } else { Input::Unpaused(peer) });
            }
        }
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        match pin!(self.commands.recv()).poll(cx) {
            Poll::Ready(Some(Mail::Message(command))) => Poll::Ready(Wake::Command(command)),
            Poll::Ready(Some(Mail::Changed)) => Poll::Ready(Wake::Changed),
            // The session's own handle keeps the queue open.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_legs(&mut self, cx: &mut Context<'_>, read_client: bool, read_upstream: bool) -> Poll<Wake> {
        let client_first = !self.turn.client_was_last;
        if client_first && let Poll::Ready(wake) = self.poll_client(cx, read_client) {
            return Poll::Ready(wake);
        }
        if let Poll::Ready(event) = self.upstream.poll_event(cx, Io::read_if(read_upstream)) {
            return Poll::Ready(Wake::Upstream(event));
        }
        if client_first { Poll::Pending } else { self.poll_client(cx, read_client) }
    }

    fn poll_client(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<Wake> {
        match &mut self.client {
            Some(client) => client.poll_event(cx, Io::read_if(read)).map(Wake::Client),
            None => Poll::Pending,
        }
    }

    /// When the client may go on, if it has sent too much of late.
    fn held_up(&mut self) -> Option<Instant> {
        let rates = self.relay.guards.rates();
        if rates == Rates::default() {
            return None;
        }
        let now = self.now;
        if let Some(limit) = self.throttle.newly_held(now, rates) {
            self.relay.guards.watch().reached(limit, "a client");
        }
        self.throttle.resumes_at(now, rates)
    }
}

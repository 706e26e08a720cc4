//! Whose turn it is to be heard by a session's task.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::select;
use tokio::time::sleep_until;

use super::Driver;
use crate::limits::Rates;
use crate::net::conn::{ConnEvent, HIGH_WATER};
use crate::relay::jobs::Done;
use crate::relay::registry::{COMMANDS, Command};

/// What woke the task.
pub(super) enum Wake {
    Client(std::io::Result<ConnEvent>),
    Upstream(std::io::Result<ConnEvent>),
    Command(Command),
    Store(Done),
    Deadline,
    Drain,
}

impl Driver {
    /// Waits for what the session is to hear of next.
    pub(super) async fn next_wake(&mut self) -> Wake {
        let write_timeout = self.session.settings().stream_management.write_timeout;
        let held_up = self.held_up();
        let stalls = [
            held_up,
            self.client.as_ref().and_then(|client| client.write_deadline(write_timeout)),
            self.upstream.write_deadline(write_timeout),
            self.session.deadline(),
        ];
        let deadline = stalls.into_iter().flatten().min();
        // A peer that does not read slows down only the one that writes to it.
        let read_client = self.upstream.backlog() < HIGH_WATER && self.session.wants_client() && held_up.is_none();
        let read_upstream =
            self.session.wants_upstream() && self.client.as_ref().is_none_or(|client| client.backlog() < HIGH_WATER);
        let client_first = !self.client_had_its_turn;
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let legs = poll_fn(|cx| {
            let mut poll_client = |cx: &mut Context<'_>| match client {
                Some(client) => client.poll_event(cx, read_client).map(Wake::Client),
                None => Poll::Pending,
            };
            if client_first && let Poll::Ready(wake) = poll_client(cx) {
                return Poll::Ready(wake);
            }
            if let Poll::Ready(event) = upstream.poll_event(cx, read_upstream) {
                return Poll::Ready(Wake::Upstream(event));
            }
            if client_first { Poll::Pending } else { poll_client(cx) }
        });
        let (jobs, shutdown, draining) = (&mut self.jobs, &self.relay.shutdown, self.draining);
        let mut others = pin!(async move {
            select! {
                wake = legs => wake,
                done = jobs.done() => Wake::Store(done),
                () = async { match deadline {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                } } => Wake::Deadline,
                () = shutdown.cancelled(), if !draining => Wake::Drain,
            }
        });
        // What others have told before holds for what the server sends behind it: a registration that is gone is not pushed
        // for. After as many as the queue holds the others come first once, so that nobody can keep them from their turn.
        let commands_first = self.commands_in_a_row < COMMANDS;
        let commands = &mut self.commands;
        poll_fn(|cx| {
            let mut poll_commands = |cx: &mut Context<'_>| match commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => Poll::Ready(Wake::Command(command)),
                // The session's own handle keeps the queue open.
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            };
            if commands_first && let Poll::Ready(wake) = poll_commands(cx) {
                return Poll::Ready(wake);
            }
            if let Poll::Ready(wake) = others.as_mut().poll(cx) {
                return Poll::Ready(wake);
            }
            if commands_first { Poll::Pending } else { poll_commands(cx) }
        })
        .await
    }

    /// When the client may go on, if it has sent too much of late.
    fn held_up(&mut self) -> Option<Instant> {
        let rates = self.relay.guards.rates();
        if rates == Rates::default() {
            return None;
        }
        let now = Instant::now();
        if let Some(limit) = self.throttle.newly_held(now, rates) {
            self.relay.guards.watch().reached(limit, "a client");
        }
        self.throttle.resumes_at(now, rates)
    }
}

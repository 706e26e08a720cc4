//! The effects of a session that the relay has not taken yet.

use std::collections::VecDeque;

use bytes::Bytes;

use super::cause::Cause;
use super::contract::Output;
use super::event::Event;

/// The capacity that is kept between the events of a wake-up.
const FEW: usize = 4;

/// Effects in the order in which they are to be performed.
#[derive(Debug, Default)]
pub(super) struct Effects {
    outputs: VecDeque<Output>,
    /// True if the last event ends the wake-up.
    wake_up_ends: bool,
}

/// The position of an event within its wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WakeUp {
    GoesOn,
    Ends,
}

impl Effects {
    /// Begins the effects of another event.
    pub(super) fn begin(&mut self, wake_up: WakeUp) {
        self.wake_up_ends = wake_up == WakeUp::Ends;
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Reports an event for the log and the metrics.
    pub(super) fn event(&mut self, event: Event) {
        self.push(Output::Event(Box::new(event)));
    }

    /// Writes bytes to the client that do not answer it.
    pub(super) fn write_to_client(&mut self, bytes: Bytes) {
        self.push(Output::ToClient(bytes));
    }

    /// Answers something that the client itself has sent.
    pub(super) fn reply_to_client(&mut self, bytes: Bytes) {
        self.push(Output::ReplyToClient(bytes));
    }

    /// Writes a stanza to the client, for this reason.
    pub(super) fn stanza_to_client(&mut self, bytes: Bytes, cause: Cause) {
        match cause {
            Cause::Relayed => self.write_to_client(bytes),
            Cause::Reply => self.reply_to_client(bytes),
        }
    }

    /// Takes the next effect.
    pub(super) fn poll(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && (self.outputs.capacity() > FEW || self.wake_up_ends) {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// Returns whether all effects were taken.
    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Output> {
        self.outputs.iter()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.outputs.capacity()
    }
}

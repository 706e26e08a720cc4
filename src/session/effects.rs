//! The effects of a session that the relay has not taken yet.

use std::collections::VecDeque;

use bytes::Bytes;

use super::cause::Cause;
use super::contract::Output;
use super::event::Event;

/// Room for so many effects is kept from one event of a wake-up to the next.
const FEW: usize = 4;

/// Effects in the order in which they are to be carried out.
#[derive(Debug, Default)]
pub(super) struct Effects {
    outputs: VecDeque<Output>,
    /// The last event ends the wake-up.
    wake_up_ends: bool,
}

/// Whether an event is the last one of its wake-up.
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

    /// Reports something that an operator may want to know.
    pub(super) fn event(&mut self, event: Event) {
        self.push(Output::Event(Box::new(event)));
    }

    /// Writes to the client what comes from elsewhere.
    pub(super) fn write_to_client(&mut self, bytes: Bytes) {
        self.push(Output::ToClient(bytes));
    }

    /// Answers what the client itself has sent.
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

    #[cfg(any(test, fuzzing))]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Output> {
        self.outputs.iter()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.outputs.capacity()
    }
}

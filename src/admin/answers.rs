//! [`AnswerWriter`]: writes the lines of an answer to the operator.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::time::timeout;

use super::protocol::{self, AdminAnswer};

/// The time that the operator has to read a line.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reason why a command was not carried out, as text for a person.
pub(super) type Refusal = String;

/// Writes the lines of an answer.
#[derive(Debug)]
pub(super) struct AnswerWriter(OwnedWriteHalf);

impl AnswerWriter {
    pub(super) fn new(socket: OwnedWriteHalf) -> Self {
        Self(socket)
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Returns an error if the operator has disconnected or does not read.
    pub(super) async fn send(&mut self, answer: &AdminAnswer) -> io::Result<()> {
        let line = protocol::line(answer)?;
        timeout(PATIENCE, self.0.write_all(&line)).await?
    }
}

//! [`AnswerWriter`]: writes the lines of an answer to the operator.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::protocol::{self, AdminAnswer};

/// The time that the operator has to read a line.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reason why a command was not carried out, as text for a person.
pub(super) type Refusal = String;

/// Writes the lines of an answer.
pub(super) struct AnswerWriter {
    socket: Box<dyn AsyncWrite + Send + Unpin>,
    /// The node from which the lines come, if they are labelled with it.
    label: Option<u8>,
}

impl AnswerWriter {
    pub(super) fn new(socket: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { socket: Box::new(socket), label: None }
    }

    /// Labels the following lines with the node from which they come.
    pub(super) fn label(&mut self, node: Option<u8>) {
        self.label = node;
    }

    /// Ends the connection after the last line.
    pub(super) async fn close(mut self) {
        // The other side may have gone.
        drop(timeout(PATIENCE, self.socket.shutdown()).await);
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Returns an error if the operator has disconnected or does not read.
    pub(super) async fn send(&mut self, answer: &AdminAnswer) -> io::Result<()> {
        let line = match self.label {
            Some(node) => protocol::line(&AdminAnswer::OfNode { node, answer: Box::new(answer.clone()) })?,
            None => protocol::line(answer)?,
        };
        let write = async {
            self.socket.write_all(&line).await?;
            self.socket.flush().await
        };
        timeout(PATIENCE, write).await?
    }
}

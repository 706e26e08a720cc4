//! Messages as lines of JSON.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The limit for a line, in bytes, including its end. A node of a registration has at most 8 KiB.
const LINE: u64 = 64 * 1024;

/// Returns a message as the line that is sent.
///
/// # Errors
/// None in practice: all values can be written as JSON.
pub fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a message. `None` at the end of the stream. Not cancel safe.
///
/// # Errors
/// The connection is broken, or the line is no message of this type.
pub async fn read<T: for<'de> Deserialize<'de>>(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let length = reader.take(LINE).read_until(b'\n', &mut line).await?;
    if length == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is incomplete or too long"));
    }
    // The error message of serde may quote a secret.
    serde_json::from_slice(&line).map(Some).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("cannot parse the line at byte {}", error.column()))
    })
}

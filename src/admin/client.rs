//! The client of the operator's socket. The commands and `pushward check` use it to query a running daemon.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{self, AdminAnswer, AdminRequest, DaemonStatus, RegistrationEntry};
use crate::config::DaemonAccess;

/// The time that the daemon has for one line, in addition to the time that a push service may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The reason why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    #[error("no daemon listens at {0}; is pushward running with this configuration?")]
    Nobody(String),
    #[error("no permission to use {0}; run this command as the user that runs pushward, or as root")]
    Forbidden(String),
    #[error("the daemon closed the connection before its answer was complete: {0}")]
    Broken(io::Error),
    #[error("the daemon did not answer in time")]
    Late,
    #[error("the daemon refused: {0}")]
    Refused(String),
    #[error("cannot print the answer: {0}")]
    Print(io::Error),
}

/// Requests all registrations.
///
/// # Errors
/// Returns an error if no daemon answers, or the answer is incomplete.
pub(crate) async fn registrations(daemon: &DaemonAccess) -> Result<Vec<RegistrationEntry>, AskError> {
    let mut registrations = Vec::new();
    let take = |answer| {
        if let AdminAnswer::Registration(registration) = answer {
            registrations.push(registration);
        }
        Ok(())
    };
    ask(daemon, &AdminRequest::PushList { account: None }, take).await?;
    Ok(registrations)
}

/// Requests the status.
///
/// # Errors
/// Returns an error if no daemon answers, or the answer is incomplete.
pub(crate) async fn status(daemon: &DaemonAccess) -> Result<DaemonStatus, AskError> {
    let mut status = None;
    let take = |answer| {
        if let AdminAnswer::Status(answer) = answer {
            status = Some(answer);
        }
        Ok(())
    };
    ask(daemon, &AdminRequest::Status, take).await?;
    status.ok_or_else(|| AskError::Broken(io::ErrorKind::UnexpectedEof.into()))
}

/// Sends a request, and passes each line of the answer to `take`.
pub(super) async fn ask(
    daemon: &DaemonAccess,
    request: &AdminRequest,
    mut take: impl FnMut(AdminAnswer) -> Result<(), AskError>,
) -> Result<(), AskError> {
    let place = daemon.socket.display().to_string();
    let mut stream = UnixStream::connect(&daemon.socket).await.map_err(|error| {
        let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        if forbidden { AskError::Forbidden(place) } else { AskError::Nobody(place) }
    })?;
    let patience = PATIENCE + daemon.publish_timeout;
    let line = protocol::line(request).map_err(AskError::Broken)?;
    timeout(patience, stream.write_all(&line)).await.map_err(|_| AskError::Late)?.map_err(AskError::Broken)?;
    let mut reader = BufReader::new(stream);
    loop {
        let read = timeout(patience, protocol::read::<AdminAnswer>(&mut reader)).await.map_err(|_| AskError::Late)?;
        match read.map_err(AskError::Broken)? {
            None => return Err(AskError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Some(AdminAnswer::End) => return Ok(()),
            Some(AdminAnswer::Failed { reason }) => return Err(AskError::Refused(reason)),
            Some(answer) => take(answer)?,
        }
    }
}

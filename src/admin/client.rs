//! The commands that ask a running daemon.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{self, Answer, Ping, PingOutcome, Registration, Reloaded, Request};
use super::watch;
use crate::check::{EXIT_CONFIG, EXIT_UNAVAILABLE};
use crate::cli::{Ask, Output};
use crate::config::Config;

/// How long the daemon may take for a line, beside what a push service may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    #[error("no pushward listens at {0}; is it running, with this config?")]
    Nobody(String),
    #[error("{0} is not for this user; run this as the user that runs pushward, or as root")]
    Forbidden(String),
    #[error("pushward did not answer to the end: {0}")]
    Broken(io::Error),
    #[error("pushward did not answer in time")]
    Late,
    #[error("pushward refused: {0}")]
    Refused(String),
    #[error("cannot be printed: {0}")]
    Print(io::Error),
}

/// Asks the daemon of a configuration and prints the answer to stdout. The exit code is 0, 1 if it was not done,
/// [`EXIT_UNAVAILABLE`] if the daemon cannot be asked, or [`EXIT_CONFIG`].
pub async fn run(path: &Path, ask: Ask) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let every = ask.watched_every();
    let (request, Output { json }) = ask.into_request();
    let answered = match every {
        Some(every) => watch::run(config, &request, json, every).await.map(|()| true),
        None => converse(&config, &request, json).await,
    };
    match answered {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            match error {
                AskError::Print(_) => ExitCode::FAILURE,
                AskError::Nobody(_)
                | AskError::Forbidden(_)
                | AskError::Broken(_)
                | AskError::Late
                | AskError::Refused(_) => ExitCode::from(EXIT_UNAVAILABLE),
            }
        }
    }
}

/// Whether all was done that was asked for.
async fn converse(config: &Config, request: &Request, json: bool) -> Result<bool, AskError> {
    let mut fine = true;
    let ended = ask(config, request, |answer| {
        fine &= is_fine(&answer);
        print(&answer, json).map_err(AskError::Print)
    });
    match ended.await {
        Ok(()) => Ok(fine),
        Err(AskError::Refused(reason)) => {
            eprintln!("{reason}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Asks for all registrations.
///
/// # Errors
/// There is nobody to ask, or no whole answer.
pub(crate) async fn registrations(config: &Config) -> Result<Vec<Registration>, AskError> {
    let mut registrations = Vec::new();
    let take = |answer| {
        if let Answer::Registration(registration) = answer {
            registrations.push(registration);
        }
        Ok(())
    };
    ask(config, &Request::PushList { account: None }, take).await?;
    Ok(registrations)
}

/// Asks, and has each line of the answer taken.
pub(super) async fn ask(
    config: &Config,
    request: &Request,
    mut take: impl FnMut(Answer) -> Result<(), AskError>,
) -> Result<(), AskError> {
    let place = config.admin.socket.display().to_string();
    let mut stream = UnixStream::connect(&config.admin.socket).await.map_err(|error| {
        let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        if forbidden { AskError::Forbidden(place) } else { AskError::Nobody(place) }
    })?;
    let patience = PATIENCE + config.push.publish_timeout;
    let line = protocol::line(request).map_err(AskError::Broken)?;
    timeout(patience, stream.write_all(&line)).await.map_err(|_| AskError::Late)?.map_err(AskError::Broken)?;
    let mut reader = BufReader::new(stream);
    loop {
        let read = timeout(patience, protocol::read::<Answer>(&mut reader)).await.map_err(|_| AskError::Late)?;
        match read.map_err(AskError::Broken)? {
            None => return Err(AskError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Some(Answer::End) => return Ok(()),
            Some(Answer::Failed { reason }) => return Err(AskError::Refused(reason)),
            Some(answer) => take(answer)?,
        }
    }
}

fn is_fine(answer: &Answer) -> bool {
    match answer {
        Answer::Ping(Ping { outcome, .. }) => *outcome == PingOutcome::Accepted,
        Answer::Reloaded(Reloaded { done, .. }) => *done,
        Answer::Failed { .. } => false,
        Answer::Status(_)
        | Answer::Session(_)
        | Answer::Registration(_)
        | Answer::Removed(_)
        | Answer::Released(_)
        | Answer::Forgotten(_)
        | Answer::End => true,
    }
}

fn print(answer: &Answer, json: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match answer.json()?.filter(|_| json) {
        Some(object) => writeln!(stdout, "{object}"),
        None => writeln!(stdout, "{answer}"),
    }
}

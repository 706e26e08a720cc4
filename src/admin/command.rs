//! The commands that send a request to a running daemon and print its answer.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::client::{AskError, ask};
use super::protocol::{AdminAnswer, AdminRequest, Ping, PingOutcome, Reloaded, Upgrading};
use super::replaced::replaced;
use super::watch;
use crate::config::Config;
use crate::{exit, stdout};

/// A command for a running daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The request.
    pub request: AdminRequest,
    /// True to print JSON, one object per line.
    pub json: bool,
    /// The interval at which the request is repeated. `None`: it is sent once.
    pub watched_every: Option<Duration>,
}

/// Sends the request to the daemon of a configuration and prints the answer to stdout. The exit code is 0, or 1 if the
/// request was not carried out, or [`exit::UNAVAILABLE`] if the daemon cannot be reached, or [`exit::CONFIG`].
pub async fn run(path: &Path, command: Invocation) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    let Invocation { request, json, watched_every } = command;
    let answered = match watched_every {
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
                | AskError::Refused(_) => ExitCode::from(exit::UNAVAILABLE),
            }
        }
    }
}

/// Returns whether everything that was requested was carried out.
async fn converse(config: &Config, request: &AdminRequest, json: bool) -> Result<bool, AskError> {
    let (mut fine, mut upgrading) = (true, None);
    let ended = ask(config, request, |answer| {
        fine &= is_fine(&answer);
        if let AdminAnswer::Upgrading(begun) = &answer {
            upgrading = Some(begun.clone());
        }
        print(&answer, json).map_err(AskError::Print)
    });
    match (ended.await, upgrading) {
        // The old process may end before its last line.
        (Ok(()) | Err(AskError::Broken(_)), Some(upgrading)) => follow(config, &upgrading, json).await,
        (Ok(()), None) => Ok(fine),
        (Err(AskError::Refused(reason)), _) => {
            eprintln!("{reason}");
            Ok(false)
        }
        (Err(error), _) => Err(error),
    }
}

/// Waits for the process that takes the place of the daemon, and prints its status.
async fn follow(config: &Config, upgrading: &Upgrading, json: bool) -> Result<bool, AskError> {
    match replaced(config, upgrading).await {
        Some(status) if status.handover.as_ref().is_some_and(|handover| handover.began >= upgrading.began) => {
            let failed = status.handover.as_ref().and_then(|handover| handover.failed.clone());
            print(&AdminAnswer::Status(status), json).map_err(AskError::Print)?;
            if let Some(reason) = &failed {
                eprintln!("the daemon was not replaced and goes on: {reason}");
            }
            Ok(failed.is_none())
        }
        Some(_) => {
            eprintln!("a new process answers, and has taken up no sessions; its log says why");
            Ok(false)
        }
        None => {
            eprintln!("the new process does not answer; the log says why");
            Ok(false)
        }
    }
}

fn is_fine(answer: &AdminAnswer) -> bool {
    match answer {
        AdminAnswer::Ping(Ping { outcome, .. }) => *outcome == PingOutcome::Accepted,
        AdminAnswer::Reloaded(Reloaded { done, .. }) => *done,
        AdminAnswer::Failed { .. } => false,
        AdminAnswer::Status(_)
        | AdminAnswer::Session(_)
        | AdminAnswer::Registration(_)
        | AdminAnswer::Removed(_)
        | AdminAnswer::Released(_)
        | AdminAnswer::Forgotten(_)
        | AdminAnswer::Stopping(_)
        | AdminAnswer::Upgrading(_)
        | AdminAnswer::End => true,
    }
}

fn print(answer: &AdminAnswer, json: bool) -> io::Result<()> {
    let line = match answer.json()?.filter(|_| json) {
        Some(object) => format!("{object}\n"),
        None => format!("{answer}\n"),
    };
    stdout::print(line)
}

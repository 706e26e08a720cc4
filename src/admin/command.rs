//! The commands that send a request to a running daemon and print its answer.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::client::{AskError, ask};
use super::protocol::{AdminAnswer, AdminRequest, DaemonStatus, Ping, PingOutcome, Reloaded, Upgrading};
use super::replaced::replaced;
use super::watch;
use crate::config::{Config, ConfigErrors, DaemonAccess};
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
/// request was not carried out, or [`exit::UNAVAILABLE`] if the daemon cannot be reached, or [`exit::CONFIG`] if the reason may be
/// a problem of the file.
pub async fn run(path: &Path, command: Invocation) -> ExitCode {
    let Invocation { request, json, watched_every } = command;
    let (daemon, has_problems) = match access(path, &request) {
        Ok(access) => access,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    let answered = match watched_every {
        Some(every) => watch::run(daemon, &request, json, every).await.map(|()| true),
        None => converse(&daemon, &of_all(request, daemon.in_cluster), json).await,
    };
    match answered {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            match error {
                AskError::Print(_) => ExitCode::FAILURE,
                // The daemon may use a path that could not be read.
                AskError::Nobody(_) if has_problems => ExitCode::from(exit::CONFIG),
                AskError::Nobody(_)
                | AskError::Forbidden(_)
                | AskError::Broken(_)
                | AskError::Late
                | AskError::Refused(_) => ExitCode::from(exit::UNAVAILABLE),
            }
        }
    }
}

/// Returns the request for all nodes of the cluster, if there is one and each of them has a part of the answer.
fn of_all(request: AdminRequest, in_cluster: bool) -> AdminRequest {
    let is_of_all =
        matches!(request, AdminRequest::Status | AdminRequest::Sessions | AdminRequest::PushList { account: None });
    if in_cluster && is_of_all { AdminRequest::OnAllNodes { request: Box::new(request) } } else { request }
}

/// Reads how to reach the daemon. A file with problems is enough, except for a reload, which would fail. Returns also whether
/// the file has problems, after a warning.
///
/// # Errors
/// The reason why the daemon is not asked.
fn access(path: &Path, request: &AdminRequest) -> Result<(DaemonAccess, bool), ConfigErrors> {
    let (daemon, problems) = Config::load_access(path)?;
    let Some(errors) = problems else { return Ok((daemon, false)) };
    if *request == AdminRequest::Reload {
        return Err(errors);
    }
    if let [first, rest @ ..] = errors.problems() {
        let more = if rest.is_empty() { String::new() } else { format!("; {} more: see `pushward check`", rest.len()) };
        eprintln!("warning: {first}{more}");
    }
    Ok((daemon, true))
}

/// Returns whether everything that was requested was carried out.
async fn converse(daemon: &DaemonAccess, request: &AdminRequest, json: bool) -> Result<bool, AskError> {
    let (mut fine, mut upgrading) = (true, None);
    let ended = ask(daemon, request, |answer| {
        fine &= is_fine(&answer);
        if let AdminAnswer::Upgrading(begun) = &answer {
            upgrading = Some(begun.clone());
            if json {
                // One object describes the whole upgrade.
                return Ok(());
            }
        }
        print(&answer, json).map_err(AskError::Print)
    });
    match (ended.await, upgrading) {
        // The old process may end before its last line.
        (Ok(()) | Err(AskError::Broken(_)), Some(upgrading)) => follow(daemon, &upgrading, json).await,
        (Ok(()), None) => Ok(fine),
        (Err(AskError::Refused(reason)), _) => {
            eprintln!("{reason}");
            Ok(false)
        }
        (Err(error), _) => Err(error),
    }
}

/// Waits for the process that takes the place of the daemon, and prints its status.
async fn follow(daemon: &DaemonAccess, upgrading: &Upgrading, json: bool) -> Result<bool, AskError> {
    match replaced(daemon, upgrading).await {
        Some(status) if status.handover.as_ref().is_some_and(|handover| handover.began >= upgrading.began) => {
            let failed = status.handover.as_ref().and_then(|handover| handover.failed.clone());
            print_upgraded(&upgrading.from, status, json).map_err(AskError::Print)?;
            if let Some(reason) = &failed {
                eprintln!("the daemon was not replaced and continues: {reason}");
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

/// The object that `pushward upgrade --json` prints.
#[derive(Serialize)]
struct Upgraded<'a> {
    /// The version that was replaced.
    from: &'a str,
    /// The status of the new process.
    #[serde(flatten)]
    status: &'a DaemonStatus,
}

fn print_upgraded(from: &str, status: DaemonStatus, json: bool) -> io::Result<()> {
    if json {
        let object = serde_json::to_string(&Upgraded { from, status: &status })?;
        return stdout::print(format!("{object}\n"));
    }
    print(&AdminAnswer::Status(status), json)
}

fn is_fine(answer: &AdminAnswer) -> bool {
    match answer {
        AdminAnswer::Ping(Ping { outcome, .. }) => *outcome == PingOutcome::Accepted,
        AdminAnswer::Reloaded(Reloaded { done, .. }) => *done,
        AdminAnswer::Failed { .. } | AdminAnswer::Unreached(_) => false,
        AdminAnswer::OfNode { answer, .. } => is_fine(answer),
        AdminAnswer::Status(_)
        | AdminAnswer::Session(_)
        | AdminAnswer::Registration(_)
        | AdminAnswer::Removed(_)
        | AdminAnswer::Released(_)
        | AdminAnswer::Forgotten(_)
        | AdminAnswer::Stopping(_)
        | AdminAnswer::Upgrading(_)
        | AdminAnswer::Node(_)
        | AdminAnswer::NodeDraining(_)
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

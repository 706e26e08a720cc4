//! The wait for a reason to stop: [`StopCause`]. The installed program is asked meanwhile whether it can take the place of this
//! process; nothing else waits for its answer.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::select;

use super::Daemon;
use super::preflight::{other_state, taken_address};
use super::requests::{ProcessRequest, UpgradeReply};
use super::signals::{DaemonSignals, Received};
use crate::metrics::HandoverOutcome;
use crate::relay::handover::RELAY_RECORD_VERSION;
use crate::service::handover::fd_store::{self, NotStored};
use crate::service::handover::{PreflightError, PreflightReport, Program, WrittenFormats};
use crate::session::RECORD_VERSION;
use crate::store::DATABASE_VERSIONS_READ;

/// The versions of the formats that this process writes.
const WRITTEN: WrittenFormats =
    WrittenFormats { records: RECORD_VERSION, relay: RELAY_RECORD_VERSION, database: *DATABASE_VERSIONS_READ.end() };

/// The reason why the daemon stops to serve.
pub(super) enum StopCause {
    /// It was asked to drain.
    Drain(&'static str),
    /// The service manager ends the process, and may start another one, for which it keeps the sessions.
    Leave(WantedListeners),
    /// The installed program takes its place. Whoever has asked for it waits for the answer.
    Upgrade(WantedListeners, Option<UpgradeReply>),
    /// Another node acts in the place of this one.
    Fenced,
}

/// The addresses on which the next process will listen, if they are known.
pub(super) type WantedListeners = Option<Vec<SocketAddr>>;

/// A question to the installed program.
struct ProgramQuestion {
    /// True if the service manager ends the process, false for an upgrade.
    leaves: bool,
    reply: Option<UpgradeReply>,
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
}

/// The answer of the service manager, if it ends the process, and of the program.
type Answer = Result<Result<PreflightReport, PreflightError>, NotStored>;

impl ProgramQuestion {
    fn upgrade(daemon: &Daemon, program: &Program, reply: Option<UpgradeReply>) -> Self {
        let (program, path) = (program.clone(), daemon.relay.current().config.path.clone());
        Self { leaves: false, reply, answer: Box::pin(async move { Ok(program.preflight(&path, WRITTEN).await) }) }
    }

    fn leave(daemon: &Daemon, program: &Program) -> Self {
        let (program, path) = (program.clone(), daemon.relay.current().config.path.clone());
        let answer = Box::pin(async move {
            fd_store::probe().await?;
            Ok(program.preflight(&path, WRITTEN).await)
        });
        Self { leaves: true, reply: None, answer }
    }

    /// Returns the cause that follows from the answer, if any. The refusal of an upgrade is logged and replied.
    fn cause(self, daemon: &Daemon, program: &Program, answer: Answer) -> Option<StopCause> {
        if self.leaves {
            return Some(leave_or_drain(daemon, answer));
        }
        let path = program.path().display();
        // Only a service manager that ends the process is asked for its store.
        let report = answer.ok()?.map_err(|error| error.to_string());
        let config = &daemon.relay.current().config;
        let refusal = |report: &_| other_state(report, daemon.state).or_else(|| taken_address(report, config));
        match report.and_then(|report| refusal(&report).map_or(Ok(report), Err)) {
            Ok(report) => {
                tracing::info!(version = report.version, program = %path, "upgrading");
                Some(StopCause::Upgrade(Some(report.listen), self.reply))
            }
            Err(error) => {
                daemon.relay.metrics().handover(HandoverOutcome::Refused);
                tracing::error!(%error, program = %path, "upgrade refused: running process continues");
                refuse(self.reply, format!("upgrade refused, the running daemon continues: {path}: {error}"));
                None
            }
        }
    }
}

/// Returns whether the sessions are left to the service manager. A program that refuses its configuration leaves them in the
/// store, and the operator can correct it.
fn leave_or_drain(daemon: &Daemon, answer: Answer) -> StopCause {
    match answer {
        Err(reason) => tracing::debug!(%reason, "service manager does not keep sessions"),
        Ok(Ok(report)) => match other_state(&report, daemon.state) {
            Some(error) => tracing::error!(error, "next process cannot continue with the sessions: draining"),
            None => return StopCause::Leave(Some(report.listen)),
        },
        Ok(Err(error)) if error.is_of_configuration() => {
            tracing::error!(%error, "next start will refuse its configuration: sessions wait in the store until it is corrected");
            return StopCause::Leave(None);
        }
        // A program that does not know the descriptors would fail at each start.
        Ok(Err(error)) => tracing::error!(%error, "installed program cannot take up the sessions: draining"),
    }
    StopCause::Drain("SIGTERM")
}

fn refuse(reply: Option<UpgradeReply>, reason: String) {
    if let Some(reply) = reply {
        // The operator may have stopped waiting.
        drop(reply.send(Err(reason)));
    }
}

/// Waits for a reason to stop, and reloads on SIGHUP.
pub(super) async fn stop_cause(daemon: &mut Daemon, signals: &mut DaemonSignals, program: &Program) -> StopCause {
    let mut question: Option<ProgramQuestion> = None;
    loop {
        select! {
            signal = signals.next() => match signal {
                Received::Terminate => {
                    if !question.as_ref().is_some_and(|question| question.leaves) {
                        question = Some(ProgramQuestion::leave(daemon, program));
                    }
                }
                Received::Interrupt => return StopCause::Drain("SIGINT"),
                Received::HangUp => daemon.reloader().ask(),
                Received::Upgrade => {
                    question.get_or_insert_with(|| ProgramQuestion::upgrade(daemon, program, None));
                }
            },
            Some(request) = daemon.requests.recv() => match request {
                ProcessRequest::Stop(reply) => {
                    // The operator may have stopped waiting.
                    reply.send(()).ok();
                    return StopCause::Drain("stop command");
                }
                ProcessRequest::Rejoin => return StopCause::Fenced,
                ProcessRequest::Upgrade(reply) if question.is_some() => {
                    refuse(Some(reply), "another upgrade or a stop is in progress".to_owned());
                }
                ProcessRequest::Upgrade(reply) => question = Some(ProgramQuestion::upgrade(daemon, program, Some(reply))),
            },
            (asked, answer) = answered(&mut question) => {
                if let Some(cause) = asked.cause(daemon, program, answer) {
                    return cause;
                }
            }
        }
    }
}

/// Waits for the answer to the question, if there is one, and takes it. Cancel safe.
async fn answered(question: &mut Option<ProgramQuestion>) -> (ProgramQuestion, Answer) {
    let answer = match question {
        Some(asked) => asked.answer.as_mut().await,
        None => std::future::pending().await,
    };
    match question.take() {
        Some(asked) => (asked, answer),
        None => std::future::pending().await,
    }
}

//! The `--watch` option: repeats a request. On a terminal, shows the answers as a table that stays in place.

mod observation;
mod screen;
mod table;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::client::{AskError, ask};
use super::protocol::{AdminAnswer, AdminRequest};
use crate::clock;
use crate::config::DaemonAccess;
use observation::Observation;
use screen::{KeyPress, Screen};
use table::{Scroll, render};

/// Shows the answers to a request until the user ends the command, or the reader of the output has gone.
///
/// # Errors
/// Returns an error if the terminal cannot be used. Without a terminal, also if there is no answer.
pub(super) async fn run(
    daemon: DaemonAccess,
    request: &AdminRequest,
    json: bool,
    every: Duration,
) -> Result<(), AskError> {
    let sessions = matches!(request, AdminRequest::Sessions);
    let (sender, mut observations) = mpsc::channel(1);
    tokio::spawn(async move {
        while sender.send(observation(&daemon, sessions).await).await.is_ok() {
            sleep(every).await;
        }
    });
    if !json && io::stdout().is_terminal() {
        return show(&mut observations).await.map_err(AskError::Print);
    }
    while let Some(observation) = observations.recv().await {
        match print(&observation?, json) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed.map_err(AskError::Print)?,
        }
    }
    Ok(())
}

async fn observation(daemon: &DaemonAccess, with_sessions: bool) -> Result<Observation, AskError> {
    let (mut status, mut sessions) = (None, Vec::new());
    ask(daemon, &AdminRequest::Status, |answer| {
        if let AdminAnswer::Status(it) = answer {
            status = Some(it);
        }
        Ok(())
    })
    .await?;
    let status = status.ok_or_else(|| AskError::Broken(io::ErrorKind::InvalidData.into()))?;
    if with_sessions {
        ask(daemon, &AdminRequest::Sessions, |answer| {
            if let AdminAnswer::Session(session) = answer {
                sessions.push(session);
            }
            Ok(())
        })
        .await?;
    }
    Ok(Observation { at: clock::unix_secs(), status, sessions: with_sessions.then_some(sessions) })
}

fn print(observation: &Observation, json: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if json {
        writeln!(stdout, "{}", serde_json::to_string(observation)?)?;
    } else if let Some(sessions) = &observation.sessions {
        for session in sessions {
            writeln!(stdout, "{session}")?;
        }
    } else {
        writeln!(stdout, "{}", observation.status)?;
    }
    stdout.flush()
}

/// An event for the table.
enum TableEvent {
    Key(Option<KeyPress>),
    Observation(Option<Result<Observation, AskError>>),
    Signal,
}

/// Draws the table until the user or a signal ends it. If the daemon does not answer, it is asked again.
async fn show(observations: &mut mpsc::Receiver<Result<Observation, AskError>>) -> io::Result<()> {
    let mut signals =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let (mut screen, mut keys) = Screen::open()?;
    let (mut last, mut trouble, mut scroll) = (None, None, Scroll::default());
    loop {
        screen.draw(|size| render(last.as_ref(), trouble.as_deref(), size, &mut scroll))?;
        let event = select! {
            key = keys.recv() => TableEvent::Key(key),
            observation = observations.recv() => TableEvent::Observation(observation),
            _ = signals.0.recv() => TableEvent::Signal,
            _ = signals.1.recv() => TableEvent::Signal,
            _ = signals.2.recv() => TableEvent::Signal,
        };
        match event {
            TableEvent::Signal | TableEvent::Key(None | Some(KeyPress::End)) | TableEvent::Observation(None) => {
                return Ok(());
            }
            TableEvent::Key(Some(KeyPress::Resized)) => {}
            TableEvent::Key(Some(KeyPress::Scroll(by))) => scroll.by(by),
            TableEvent::Observation(Some(Ok(observation))) => (last, trouble) = (Some(observation), None),
            TableEvent::Observation(Some(Err(error))) => trouble = Some(error.to_string()),
        }
    }
}

//! `--watch`: the state of things, again and again; on a terminal as a table that stays in place.

mod screen;
mod table;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::client::{AskError, ask};
use super::protocol::{Answer, Request, Session, Status};
use crate::config::Config;
use screen::{Key, Screen};
use table::{Scroll, render};

/// What the daemon said at one moment.
#[derive(Clone, Debug, Serialize)]
struct Snapshot {
    /// Unix seconds.
    at: u64,
    status: Status,
    /// Unless only the status was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<Vec<Session>>,
}

/// Shows the answers to a request until the user ends it, or whoever reads them goes.
///
/// # Errors
/// The terminal cannot be used; without one, also that there is no answer.
pub(super) async fn run(config: Config, request: &Request, json: bool, every: Duration) -> Result<(), AskError> {
    let sessions = matches!(request, Request::Sessions);
    let (sender, mut snapshots) = mpsc::channel(1);
    tokio::spawn(async move {
        while sender.send(snapshot(&config, sessions).await).await.is_ok() {
            sleep(every).await;
        }
    });
    if !json && io::stdout().is_terminal() {
        return show(&mut snapshots).await.map_err(AskError::Print);
    }
    while let Some(snapshot) = snapshots.recv().await {
        match print(&snapshot?, json) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed.map_err(AskError::Print)?,
        }
    }
    Ok(())
}

async fn snapshot(config: &Config, with_sessions: bool) -> Result<Snapshot, AskError> {
    let (mut status, mut sessions) = (None, Vec::new());
    ask(config, &Request::Status, |answer| {
        if let Answer::Status(it) = answer {
            status = Some(it);
        }
        Ok(())
    })
    .await?;
    let status = status.ok_or_else(|| AskError::Broken(io::ErrorKind::InvalidData.into()))?;
    if with_sessions {
        ask(config, &Request::Sessions, |answer| {
            if let Answer::Session(session) = answer {
                sessions.push(session);
            }
            Ok(())
        })
        .await?;
    }
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(Snapshot { at, status, sessions: with_sessions.then_some(sessions) })
}

fn print(snapshot: &Snapshot, json: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if json {
        writeln!(stdout, "{}", serde_json::to_string(snapshot)?)?;
    } else if let Some(sessions) = &snapshot.sessions {
        for session in sessions {
            writeln!(stdout, "{session}")?;
        }
    } else {
        writeln!(stdout, "{}", snapshot.status)?;
    }
    stdout.flush()
}

/// What wakes the table.
enum Wake {
    Key(Option<Key>),
    Snapshot(Option<Result<Snapshot, AskError>>),
    Signal,
}

/// Draws until the user, or a signal, ends it. A daemon that does not answer may come back.
async fn show(snapshots: &mut mpsc::Receiver<Result<Snapshot, AskError>>) -> io::Result<()> {
    let mut signals =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let (mut screen, mut keys) = Screen::open()?;
    let (mut last, mut trouble, mut scroll) = (None, None, Scroll::default());
    loop {
        screen.draw(|size| render(last.as_ref(), trouble.as_deref(), size, &mut scroll))?;
        let wake = select! {
            key = keys.recv() => Wake::Key(key),
            snapshot = snapshots.recv() => Wake::Snapshot(snapshot),
            _ = signals.0.recv() => Wake::Signal,
            _ = signals.1.recv() => Wake::Signal,
            _ = signals.2.recv() => Wake::Signal,
        };
        match wake {
            Wake::Signal | Wake::Key(None | Some(Key::End)) | Wake::Snapshot(None) => return Ok(()),
            Wake::Key(Some(Key::Resized)) => {}
            Wake::Key(Some(Key::Scroll(by))) => scroll.by(by),
            Wake::Snapshot(Some(Ok(snapshot))) => (last, trouble) = (Some(snapshot), None),
            Wake::Snapshot(Some(Err(error))) => trouble = Some(error.to_string()),
        }
    }
}

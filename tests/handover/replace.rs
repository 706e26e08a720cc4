//! The ways in which the process is replaced, and what `pushward status` says about it afterwards.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::Value;
use tokio::time::sleep;

use crate::findings::Findings;
use crate::proxy::{End, Proxy};

/// The maximum time of a handover.
const HANDOVER: Duration = Duration::from_secs(60);
/// The pause between two looks at the status.
const PAUSE: Duration = Duration::from_millis(20);

/// The way in which the process is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// SIGUSR2 and `pushward upgrade`, in turn: the process executes the installed program.
    InPlace,
    /// A restart by a service manager that stores descriptors.
    Manager,
    /// No handover: the process is ended and started again. The checks must report this.
    Restart,
}

/// The programs that take turns.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The program of this build.
    pub(crate) current: PathBuf,
    /// The program at the start.
    pub(crate) first: PathBuf,
}

impl Programs {
    /// Returns the program after this number of handovers.
    fn after(&self, handovers: u32) -> &PathBuf {
        if handovers.is_multiple_of(2) { &self.first } else { &self.current }
    }
}

/// A handover that has taken place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    /// The time from the signal until the sessions went on, by the status.
    pub(crate) reported: Duration,
    /// The time until the new process answered a command.
    pub(crate) answered: Duration,
}

/// Replaces the process for the `number`th time, from 1 on, and checks the status.
pub(crate) async fn replace(
    proxy: &mut Proxy,
    (mode, programs): (Mode, &Programs),
    (number, sessions): (u32, u64),
    findings: &Findings,
) -> Option<Handover> {
    let before = last(proxy).await;
    if programs.current != programs.first {
        proxy.install(programs.after(number));
    }
    let began = Instant::now();
    match mode {
        Mode::InPlace if number.is_multiple_of(2) => {
            let output = proxy.ask(&["upgrade"]).await;
            if !output.status.success() {
                findings.add("`pushward upgrade` succeeds", format!("handover {number}: {output:?}"));
            }
        }
        Mode::InPlace => proxy.signal("-USR2"),
        Mode::Manager => proxy.order("restart"),
        Mode::Restart => proxy.restart(End::InOrder).await,
    }
    let after = loop {
        let after = last(proxy).await;
        if after.is_some() && after != before {
            break after;
        }
        if mode == Mode::Restart || began.elapsed() > HANDOVER {
            findings.add("each handover takes place", format!("handover {number}\n{}", proxy.last_lines()));
            return None;
        }
        sleep(PAUSE).await;
    };
    let (after, answered) = (after?, began.elapsed());
    let (kept, ended) = (after["kept"].as_u64(), after["ended"].as_object().map_or(0, serde_json::Map::len));
    if kept != Some(sessions) || ended != 0 {
        findings.add("`pushward status` says that all sessions were kept", format!("handover {number}: {after}"));
    }
    Some(Handover { reported: Duration::from_millis(after["millis"].as_u64().unwrap_or_default()), answered })
}

/// Returns the last handover by the status, if a process answers.
async fn last(proxy: &Proxy) -> Option<Value> {
    let output = proxy.ask(&["status", "--json"]).await;
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    status.get("handover").cloned().map(|mut handover| {
        // The rest of the fields stay the same as long as the process runs.
        drop(handover.as_object_mut().and_then(|fields| fields.remove("at")));
        handover
    })
}

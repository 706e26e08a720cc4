//! A program under load: its processor time and memory, as the kernel reports them for all its processes together.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use super::profile::Recording;

/// Maximum time for a program to end before it is killed.
const END: Duration = Duration::from_secs(10);
/// A program that used less processor time than [`IDLE_CPU`] in this time is idle.
const IDLE: Duration = Duration::from_millis(250);
const IDLE_CPU: Duration = Duration::from_millis(2);
/// Maximum wait for that.
const SETTLE: Duration = Duration::from_secs(30);

/// A running program. Dropping it ends the program.
pub(crate) struct Process {
    child: Child,
    /// The file for a profile of the measurement, if one is wanted.
    profile: Option<PathBuf>,
    recording: RefCell<Option<Recording>>,
}

impl Process {
    /// Starts the program. Its output goes to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let output = fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, profile: None, recording: RefCell::default() }
    }

    /// Lets the next measurement be recorded into this file.
    pub(crate) fn record(&mut self, profile: PathBuf) {
        self.profile = Some(profile);
    }

    /// Returns the recording since [`Process::begin`].
    pub(crate) fn recording(&self) -> Option<Recording> {
        self.recording.take()
    }

    /// Begins a measurement. Returns the same as [`Process::cpu`].
    pub(crate) fn begin(&self) -> Duration {
        if let Some(profile) = &self.profile {
            self.recording.replace(Some(Recording::start(profile, self.id())));
        }
        self.cpu()
    }

    /// Returns true if the program has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the processor time of the program and its children, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        self.all().into_iter().map(cpu).sum()
    }

    /// Returns the proportional set size of the program and its children, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.all().into_iter().map(pss).sum()
    }

    /// Waits until the program is idle, so that the next reading is final.
    pub(crate) async fn settle(&self) {
        let until = Instant::now() + SETTLE;
        let mut last = self.cpu();
        while Instant::now() < until {
            tokio::time::sleep(IDLE).await;
            let now = self.cpu();
            if now - last < IDLE_CPU {
                return;
            }
            last = now;
        }
        eprintln!("process {} is still busy after {SETTLE:?}", self.id());
    }

    fn all(&self) -> Vec<i32> {
        let mut all = vec![self.child.id() as i32];
        let mut at = 0;
        while let Some(id) = all.get(at) {
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().map(|id| id.parse::<i32>().unwrap()));
            at += 1;
        }
        all
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The program may have ended already.
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).ok();
        let until = Instant::now() + END;
        while Instant::now() < until {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for id in self.all().into_iter().rev() {
            kill(Pid::from_raw(id), Signal::SIGKILL).ok();
        }
        self.child.wait().ok();
    }
}

/// Returns the processor time of this process, load and server together.
pub(crate) fn own_cpu() -> Duration {
    Duration::from(ClockId::CLOCK_PROCESS_CPUTIME_ID.now().unwrap())
}

fn cpu(id: i32) -> Duration {
    // A process that has ended meanwhile is not counted.
    let clock = clock_getcpuclockid(Pid::from_raw(id)).and_then(ClockId::now);
    clock.map(Duration::from).unwrap_or_default()
}

fn pss(id: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024)
}

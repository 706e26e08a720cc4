//! Child processes. Their output is kept, and shown if the test fails. They end with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{PATIENCE, eventually};

/// The lines that a process has written so far to both outputs.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Returns all lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Returns true if some line contains `needle`.
    pub(crate) fn contains(&self, needle: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(needle))
    }

    fn follow(&self, output: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { return };
                log.0.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        })
    }
}

/// A process that is killed when dropped.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    log: Log,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`. `name` heads its log, and `install` is the command that installs a missing program.
    pub(crate) fn spawn(name: &'static str, install: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({error}); install it with: {install}"));
        let log = Log::default();
        let readers = vec![log.follow(child.stdout.take().unwrap()), log.follow(child.stderr.take().unwrap())];
        let stdin = child.stdin.take();
        Self { name, child, stdin, log, readers }
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to the standard input.
    pub(crate) fn write_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    /// Returns the exit status, if the process has ended.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until everything that an ended process wrote is in its log.
    pub(crate) async fn drained(&self) {
        let name = self.name;
        let drained = || self.readers.iter().all(JoinHandle::is_finished).then_some(());
        eventually(PATIENCE, || format!("the rest of the output of {name}"), drained).await;
    }

    /// Sends SIGTERM. Returns the exit status and the duration.
    pub(crate) async fn terminate(&mut self, deadline: Duration) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let name = self.name;
        let status = eventually(deadline, || format!("the exit of {name} after SIGTERM"), || self.exited()).await;
        let took = asked.elapsed();
        self.drained().await;
        (status, took)
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal("-HUP");
    }

    /// Sends a signal: `-USR2`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- log of {} ----\n{}", self.name, self.log.lines().join("\n"));
        }
        // The process may have ended by itself, which is no error.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

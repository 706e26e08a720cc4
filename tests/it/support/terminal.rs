//! A terminal for a program under test. It presses keys and keeps the output.

use std::process::Command;

use serde_json::{Value, json};

use super::{PATIENCE, Process, eventually};

/// A program in a terminal of its own.
pub(crate) struct Terminal(Process);

impl Terminal {
    /// Runs `command` in a terminal of this many columns and lines.
    pub(crate) fn start(command: &Command, (columns, lines): (u16, u16)) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/terminal.py");
        let mut terminal = Command::new("/usr/bin/python3");
        terminal.arg(script).args([columns, lines].map(|size| size.to_string()));
        terminal.arg(command.get_program()).args(command.get_args()).env("TERM", "xterm-256color");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => terminal.env(name, value),
                None => terminal.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            terminal.current_dir(directory);
        }
        Self(Process::spawn("terminal", "apt-get install --yes python3", &mut terminal))
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.0.write_line(&json!({ "keys": keys }).to_string());
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&mut self, number: i32) {
        self.0.write_line(&json!({ "signal": number }).to_string());
    }

    /// Returns the output so far, with its control sequences.
    pub(crate) fn drawn(&self) -> String {
        self.lines().iter().filter_map(|line| line["drawn"].as_str()).collect()
    }

    /// Waits until `needle` appears in the output after the first `behind` bytes.
    pub(crate) async fn draws(&self, needle: &str, behind: usize) {
        let found = || self.drawn().get(behind..).is_some_and(|drawn| drawn.contains(needle)).then_some(());
        eventually(PATIENCE, || format!("{needle:?} in {:?}", self.drawn()), found).await;
    }

    /// Waits for the end of the program. Returns its exit code, and whether the terminal is in its original state.
    pub(crate) async fn ended(&self) -> (i64, bool) {
        let ended = || {
            let lines = self.lines();
            let end = lines.iter().find(|line| line.get("code").is_some())?;
            Some((end["code"].as_i64()?, end["restored"].as_bool()?))
        };
        eventually(PATIENCE, || format!("the end of it; it drew {:?}", self.drawn()), ended).await
    }

    fn lines(&self) -> Vec<Value> {
        self.0.log().lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

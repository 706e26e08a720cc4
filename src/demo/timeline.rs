//! [`Timeline`]: the output of the demo. Each line has a time, an actor and an action.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Instant;

use super::trace::StreamItem;
use crate::sync::lock;

/// The maximum width of the name of an actor.
const WHO: usize = 12;
/// The maximum width of the route of a stanza.
const ROUTE: usize = 28;

/// The use of colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// No colours.
    Off,
    /// With ANSI escape sequences.
    On,
}

impl Colours {
    /// Returns the mode for standard output: colours on a terminal, unless the environment has `NO_COLOR` (no-color.org).
    pub(super) fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stdout().is_terminal() && !refused { Self::On } else { Self::Off }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Off => text.to_owned(),
            Self::On => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Prints lines with the time since it was created.
pub(super) struct Timeline<W> {
    start: Instant,
    colours: Colours,
    out: Mutex<W>,
}

impl<W: Write> Timeline<W> {
    pub(super) fn new(colours: Colours, out: W) -> Self {
        Self { start: Instant::now(), colours, out: Mutex::new(out) }
    }

    /// Prints an action of an actor.
    pub(super) fn print_act(&self, who: &str, what: &str) {
        let who = self.colours.paint("1;36", &format!("{who:<WHO$}"));
        self.line(|time| format!("{time}  {who}  {what}"));
    }

    /// Prints a stanza that was sent over a stream.
    pub(super) fn show(&self, item: &StreamItem<'_>) {
        let session = item.session.map(|session| format!(" ({session})")).unwrap_or_default();
        let route = format!("{} → {}{session}", item.from, item.to);
        let line = self.colours.paint("2", &format!("{route:<ROUTE$}  {}", item.xml.trim()));
        self.line(|time| format!("{time}    {line}"));
    }

    /// Prints a text without a time.
    pub(super) fn note(&self, text: &str) {
        self.write(|_| text.to_owned());
    }

    fn line(&self, line: impl FnOnce(&str) -> String) {
        self.write(|seconds| line(&self.colours.paint("2", &format!("{seconds:>8.3} s"))));
    }

    /// Writes a line. The time is taken under the lock, so that lines are in the order of their times.
    fn write(&self, line: impl FnOnce(f64) -> String) {
        let mut out = lock(&self.out);
        let line = line(self.start.elapsed().as_secs_f64());
        // If the reader has closed our output, it does not want more lines. The exit code still has the result.
        drop(writeln!(out, "{line}").and_then(|()| out.flush()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(colours: Colours, print: impl FnOnce(&Timeline<Vec<u8>>)) -> String {
        let timeline = Timeline::new(colours, Vec::new());
        print(&timeline);
        String::from_utf8(timeline.out.into_inner().unwrap()).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_plain() {
        let xml = "<r/>".into();
        let out = printed(Colours::Off, |timeline| {
            timeline.print_act("romeo", "writes");
            timeline.print_act("push service", "hears");
            timeline.show(&StreamItem { from: "pushward", to: "server", session: Some("juliet"), xml });
            timeline.note("the end");
        });
        let lines: Vec<_> = out.lines().map(|line| line.split_once(" s  ").map_or(line, |(_, rest)| rest)).collect();
        let stanza = "  pushward → server (juliet)    <r/>";
        assert_eq!(lines, ["romeo         writes", "push service  hears", stanza, "the end"]);
        assert!(!out.contains('\x1b'));
    }

    #[test]
    fn colours_are_only_there_when_wanted() {
        assert!(printed(Colours::On, |timeline| timeline.print_act("romeo", "writes")).contains("\x1b[1;36mromeo"));
    }
}

//! [`Screen`]: the alternate screen of the terminal, and the keys that are pressed.

use std::io::{self, Stdout, Write};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use tokio::sync::mpsc;

/// The time in which the thread that reads keys notices that it must end.
const NOTICE: Duration = Duration::from_millis(100);
/// The columns and lines of a terminal that does not report its size.
const USUAL: (u16, u16) = (80, 24);

/// A key that has a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyPress {
    /// Ends the command.
    End,
    /// Scrolls up or down.
    Scroll(ScrollBy),
    /// The size of the terminal has changed.
    Resized,
}

/// The distance to scroll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScrollBy {
    /// A number of lines, up if it is negative.
    Lines(isize),
    /// A number of pages, up if it is negative.
    Pages(isize),
    /// To the first line.
    Start,
    /// To the last line.
    End,
}

/// The columns and lines of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: usize,
    pub(super) height: usize,
}

/// The terminal. Its previous state is restored when this is dropped.
#[derive(Debug)]
pub(super) struct Screen(Stdout);

impl Screen {
    /// Opens the alternate screen. Keys arrive on the channel, which closes once reading them fails.
    ///
    /// # Errors
    /// Returns an error if the terminal cannot be used.
    pub(super) fn open() -> io::Result<(Self, mpsc::Receiver<KeyPress>)> {
        enable_raw_mode()?;
        let mut screen = Self(io::stdout());
        execute!(screen.0, EnterAlternateScreen, Hide, DisableLineWrap)?;
        let (sender, keys) = mpsc::channel(16);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            while !sender.is_closed() {
                match event::poll(NOTICE).and_then(|any| if any { event::read().map(Some) } else { Ok(None) }) {
                    Ok(Some(event)) => {
                        if let Some(key) = key(&event)
                            && sender.blocking_send(key).is_err()
                        {
                            return;
                        }
                    }
                    Ok(None) => {}
                    Err(_) => return,
                }
            }
        })?;
        Ok((screen, keys))
    }

    /// Draws the lines that `render` returns for the current size.
    ///
    /// # Errors
    /// Returns an error if the terminal has gone.
    pub(super) fn draw(&mut self, render: impl FnOnce(Size) -> Vec<String>) -> io::Result<()> {
        let (columns, lines) = terminal::size().ok().filter(|size| size.0 > 0 && size.1 > 0).unwrap_or(USUAL);
        queue!(self.0, BeginSynchronizedUpdate)?;
        for (at, line) in (0..lines).zip(render(Size { width: columns.into(), height: lines.into() })) {
            queue!(self.0, MoveTo(0, at), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        queue!(self.0, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal has gone, there is nothing to restore.
        drop(execute!(self.0, EnableLineWrap, Show, LeaveAlternateScreen));
        drop(disable_raw_mode());
    }
}

fn key(event: &Event) -> Option<KeyPress> {
    let pressed = match event {
        Event::Resize(..) => return Some(KeyPress::Resized),
        Event::Key(pressed) if pressed.kind != KeyEventKind::Release => pressed,
        Event::Key(_) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) => return None,
    };
    let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    if control {
        return matches!(pressed.code, KeyCode::Char('c' | 'd')).then_some(KeyPress::End);
    }
    let by = if matches!(pressed.code, KeyCode::Char('q') | KeyCode::Esc) {
        return Some(KeyPress::End);
    } else if matches!(pressed.code, KeyCode::Up | KeyCode::Char('k')) {
        ScrollBy::Lines(-1)
    } else if matches!(pressed.code, KeyCode::Down | KeyCode::Char('j')) {
        ScrollBy::Lines(1)
    } else if pressed.code == KeyCode::PageUp {
        ScrollBy::Pages(-1)
    } else if matches!(pressed.code, KeyCode::PageDown | KeyCode::Char(' ')) {
        ScrollBy::Pages(1)
    } else if matches!(pressed.code, KeyCode::Home | KeyCode::Char('g')) {
        ScrollBy::Start
    } else if matches!(pressed.code, KeyCode::End | KeyCode::Char('G')) {
        ScrollBy::End
    } else {
        return None;
    };
    Some(KeyPress::Scroll(by))
}

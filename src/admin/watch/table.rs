//! The text of the table: lines that fit the size of the terminal.

use std::time::Duration;

use bytesize::ByteSize;
use crossterm::style::Stylize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::observation::Observation;
use super::screen::{ScrollBy, Size};
use crate::admin::protocol::{DaemonStatus, LastPublish, LastVerdict, SessionEntry, SessionState};
use crate::clock::UnixSecs;

/// The space between two columns.
const GAP: usize = 2;
/// The minimum width of the JID column.
const LEAST: usize = 12;
/// The number of lines around the table: two above it, its header, and one below it.
const AROUND: usize = 4;

/// The columns, the most important first. On a narrow terminal the last ones are omitted.
const COLUMNS: [(&str, Cell); 9] = [
    ("JID", |_, session| session.jid.clone()),
    ("STATE", |_, session| session.state.to_string()),
    ("SINCE", |now, session| age(now, session.since)),
    ("QUEUE", |_, session| amount(session.queued as u64, session.queue_bytes as u64)),
    ("DISK", |_, session| amount(session.spooled, session.spool_bytes) + &aside(session)),
    ("LAST PUSH", last_push),
    ("PUSH SERVICE", services),
    ("CLIENT", |_, session| session.client.map_or_else(|| "-".to_owned(), |client| client.to_string())),
    ("LAST VERDICT", last_verdict),
];

/// Returns the text of a cell at a time.
type Cell = fn(UnixSecs, &SessionEntry) -> String;

/// The scroll position of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scroll {
    first: usize,
    /// The number of rows that are visible at once.
    page: usize,
}

impl Scroll {
    /// Scrolls. A position that is too far is corrected when the table is drawn.
    pub(super) fn by(&mut self, by: ScrollBy) {
        let page = isize::try_from(self.page.max(1)).unwrap_or(isize::MAX);
        self.first = match by {
            ScrollBy::Lines(lines) => self.first.saturating_add_signed(lines),
            ScrollBy::Pages(pages) => self.first.saturating_add_signed(pages.saturating_mul(page)),
            ScrollBy::Start => 0,
            ScrollBy::End => usize::MAX,
        };
    }

    fn fit(&mut self, rows: usize, page: usize) -> usize {
        self.page = page;
        self.first = self.first.min(rows.saturating_sub(page));
        self.first
    }
}

/// Returns the lines for a size of the terminal.
pub(super) fn render(
    observation: Option<&Observation>,
    trouble: Option<&str>,
    Size { width, height }: Size,
    scroll: &mut Scroll,
) -> Vec<String> {
    let Some(observation) = observation else {
        return vec![fit(trouble.unwrap_or("connecting …"), width)];
    };
    let mut lines =
        vec![trouble.map_or_else(|| headline(observation, width), |trouble| fit(trouble, width).red().to_string())];
    let Some(sessions) = &observation.sessions else {
        let text = observation.status.to_string();
        lines.push(String::new());
        lines.extend(text.lines().skip(1).map(|line| fit(line, width)));
        lines.extend([String::new(), fit("q quit", width).dim().to_string()]);
        lines.truncate(height);
        return lines;
    };
    let page = height.saturating_sub(AROUND);
    let first = scroll.fit(sessions.len(), page);
    lines.push(String::new());
    lines.extend(table(observation.at, sessions, first, Size { width, height: page }));
    let (from, to) = (first + usize::from(!sessions.is_empty()), (first + page).min(sessions.len()));
    let rows = format!("{from}–{to} of {} sessions   q quit, ↑ ↓ scroll", sessions.len());
    lines.resize(height.saturating_sub(1), String::new());
    lines.push(fit(&rows, width).dim().to_string());
    lines
}

fn headline(Observation { status, .. }: &Observation, width: usize) -> String {
    let DaemonStatus { version, live, suspect, dark, .. } = status;
    let draining = if status.draining { ", draining" } else { "" };
    let line = format!(
        "pushward {version}, up {}{draining}   {live} live  {suspect} suspect  {dark} dark   {} in memory  {} on disk",
        short(Duration::from_secs(status.uptime)),
        amount(status.queued as u64, status.queue_bytes as u64),
        amount(status.spooled, status.spool_bytes),
    );
    fit(&line, width).bold().to_string()
}

/// Returns the header and one page of rows.
fn table(now: UnixSecs, sessions: &[SessionEntry], first: usize, Size { width, height }: Size) -> Vec<String> {
    let shown: Vec<_> = sessions.iter().skip(first).take(height).collect();
    let rows: Vec<Vec<String>> =
        shown.iter().map(|session| COLUMNS.iter().map(|(_, cell)| printable(&cell(now, session))).collect()).collect();
    let widest = |(at, (name, _)): (usize, &(&str, Cell))| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width());
        cells.chain([name.width()]).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = COLUMNS.iter().enumerate().map(widest).collect();
    // The JID column shrinks before a column is omitted, down to a third of the line.
    let jid = widths.first().copied().unwrap_or_default();
    let least = jid.min((width / 3).max(LEAST));
    while widths.len() > 1 && widths.iter().skip(1).map(|column| column + GAP).sum::<usize>() + least > width {
        widths.pop();
    }
    let others: usize = widths.iter().skip(1).map(|column| column + GAP).sum();
    if let Some(jid) = widths.first_mut() {
        *jid = (*jid).min(width.saturating_sub(others));
    }
    let names: Vec<String> = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut lines = vec![line(&names, &widths, width).dim().to_string()];
    for (row, session) in rows.iter().zip(&shown) {
        let line = line(row, &widths, width);
        lines.push(match session.state {
            SessionState::Live => line,
            SessionState::Suspect => line.yellow().to_string(),
            SessionState::Dark | SessionState::None => line.dim().to_string(),
        });
    }
    lines
}

fn line(cells: &[String], widths: &[usize], width: usize) -> String {
    let cells = cells.iter().zip(widths).map(|(cell, width)| {
        let cell = fit(cell, *width);
        let padding = width.saturating_sub(cell.width());
        format!("{cell}{}", " ".repeat(padding))
    });
    fit(cells.collect::<Vec<_>>().join("  ").trim_end(), width)
}

/// Returns the part of a text that fits, with a mark if it was cut.
fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut cut: String = text
        .chars()
        .take_while(|c| {
            let fits = c.width().unwrap_or(0) <= left;
            left = left.saturating_sub(c.width().unwrap_or(0));
            fits
        })
        .collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Replaces characters with which a user could move the cursor or reverse the line.
fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() || c.width().is_none_or(|width| width == 0) { '?' } else { c };
    text.chars().map(plain).collect()
}

fn last_push(now: UnixSecs, session: &SessionEntry) -> String {
    match &session.push {
        Some(LastPublish { transport, outcome, at, .. }) => {
            format!("{outcome} by {} {}", transport.as_deref().unwrap_or("none"), age(now, *at))
        }
        None => "-".to_owned(),
    }
}

fn last_verdict(now: UnixSecs, session: &SessionEntry) -> String {
    match &session.verdict {
        Some(LastVerdict { verdict, at }) => format!("{verdict} {}", age(now, *at)),
        None => "-".to_owned(),
    }
}

fn services(_: UnixSecs, session: &SessionEntry) -> String {
    let services: Vec<_> = session.services.iter().map(ToString::to_string).collect();
    if services.is_empty() { "-".to_owned() } else { services.join(" ") }
}

/// Returns the text for a number of stanzas and their size.
fn amount(stanzas: u64, bytes: u64) -> String {
    if stanzas == 0 { "0".to_owned() } else { format!("{stanzas} ({})", ByteSize(bytes).display().iec_short()) }
}

fn age(now: UnixSecs, at: UnixSecs) -> String {
    short(now.since(at))
}

fn aside(session: &SessionEntry) -> String {
    if session.set_aside > 0 { format!(" ({} aside)", session.set_aside) } else { String::new() }
}

/// Returns a duration in its two largest units.
fn short(time: Duration) -> String {
    let text = humantime::format_duration(time).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::protocol::PingOutcome;

    fn session(jid: &str) -> SessionEntry {
        SessionEntry {
            jid: jid.to_owned(),
            state: SessionState::Live,
            since: UnixSecs::new(940),
            client: "192.0.2.7:50123".parse().ok(),
            login: Some("SASL2".to_owned()),
            queued: 3,
            queue_bytes: 2048,
            spooled: 0,
            spool_bytes: 0,
            set_aside: 0,
            services: vec!["push.example.net".parse().unwrap()],
            push: Some(LastPublish {
                transport: Some("s2s".to_owned()),
                outcome: PingOutcome::Accepted,
                condition: None,
                at: UnixSecs::new(995),
            }),
            verdict: Some(LastVerdict { verdict: "no_text".to_owned(), at: UnixSecs::new(997) }),
        }
    }

    fn observation(sessions: Vec<SessionEntry>) -> Observation {
        let status = DaemonStatus {
            version: "1.2.3".to_owned(),
            uptime: 90_061,
            draining: false,
            connections: 1,
            live: 1,
            suspect: 0,
            dark: 0,
            queued: 3,
            queue_bytes: 2048,
            accounts: 1,
            spooled: 0,
            spool_bytes: 0,
            wakes_waiting: 0,
            sasl2_ended: Vec::new(),
            handover: None,
        };
        Observation { at: UnixSecs::new(1000), status, sessions: Some(sessions) }
    }

    /// Removes the colours.
    fn plain(lines: &[String]) -> Vec<String> {
        let strip = |line: &String| {
            let mut text = String::new();
            let mut pieces = line.split('\u{1b}');
            text.push_str(pieces.next().unwrap());
            pieces.for_each(|piece| text.push_str(piece.split_once('m').unwrap().1));
            text
        };
        lines.iter().map(strip).collect()
    }

    #[test]
    fn a_wide_terminal_shows_every_column() {
        let lines = plain(&render(
            Some(&observation(vec![session("a@b/c")])),
            None,
            Size { width: 200, height: 6 },
            &mut Scroll::default(),
        ));
        assert_eq!(lines.len(), 6);
        assert!(lines[0].starts_with("pushward 1.2.3, up 1day 1h   1 live  0 suspect  0 dark"), "{}", lines[0]);
        let words =
            |line: &str| line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("|");
        assert_eq!(words(&lines[2]), "JID|STATE|SINCE|QUEUE|DISK|LAST PUSH|PUSH SERVICE|CLIENT|LAST VERDICT");
        let expect = "a@b/c|live|1m|3 (2.0K)|0|accepted by s2s 5s|push.example.net|192.0.2.7:50123|no_text 3s";
        assert_eq!(words(&lines[3]), expect);
        assert!(lines[5].starts_with("1–1 of 1 sessions"), "{}", lines[5]);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_addresses_stay() {
        let long = format!("{}@example.org/phone", "x".repeat(100));
        for width in [1, 12, 20, 40, 60, 80, 120, 160] {
            let observation = observation(vec![session("ü漢字@b/c"), session(&long)]);
            let lines = plain(&render(Some(&observation), None, Size { width, height: 10 }, &mut Scroll::default()));
            for line in &lines {
                assert!(line.width() <= width, "{width}: {line:?}");
            }
            assert!(width < 12 || lines[3].starts_with("ü漢字@b/c"), "{width}: {lines:?}");
        }
    }

    #[test]
    fn text_chosen_by_users_does_not_move_the_cursor() {
        let lines = plain(&render(
            Some(&observation(vec![session("a@b/\u{202e}c\u{7}")])),
            None,
            Size { width: 200, height: 6 },
            &mut Scroll::default(),
        ));
        assert!(lines[3].starts_with("a@b/?c? "), "{:?}", lines[3]);
    }

    #[test]
    fn the_table_is_scrolled_as_far_as_it_goes() {
        let observation = observation((0..50).map(|n| session(&format!("{n}@b/c"))).collect());
        let mut scroll = Scroll::default();
        let top = |scroll: &mut Scroll| {
            plain(&render(Some(&observation), None, Size { width: 80, height: 14 }, scroll))[3].clone()
        };
        assert!(top(&mut scroll).starts_with("0@b/c"));
        for (by, expect) in [
            (ScrollBy::Lines(-1), "0@"),
            (ScrollBy::Lines(1), "1@"),
            (ScrollBy::Pages(1), "11@"),
            (ScrollBy::End, "40@"),
            (ScrollBy::Pages(1), "40@"),
            (ScrollBy::Pages(-1), "30@"),
            (ScrollBy::Start, "0@"),
        ] {
            scroll.by(by);
            assert!(top(&mut scroll).starts_with(expect), "{by:?}: {}", top(&mut scroll));
        }
    }

    #[test]
    fn an_error_is_shown_above_the_last_answer() {
        let observation = observation(vec![session("a@b/c")]);
        let lines =
            plain(&render(Some(&observation), Some("gone"), Size { width: 80, height: 10 }, &mut Scroll::default()));
        assert!(lines[0] == "gone" && lines[3].starts_with("a@b/c"), "{lines:?}");
        assert_eq!(render(None, Some("gone"), Size { width: 80, height: 10 }, &mut Scroll::default()), ["gone"]);
    }
}

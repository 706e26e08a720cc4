//! Actions written as text, for the fuzzer.
//!
//! The first letters set the variant: `s` server with stream management, `c` client with it, `p` registered device, `r` roomy
//! queue, `f` a session that is continued from its record after every step; a line feed ends them. Then each action is a letter,
//! with its parameters behind it: `m3` is three messages. Bytes that are no action are skipped, so that spaces and line feeds
//! can group the actions. `fuzz/corpus/session` has examples.

use super::*;

/// Plays the actions in a model world. Panics if an invariant is broken.
pub(crate) fn fuzz(data: &[u8]) {
    let mut text = Text { rest: data };
    let variant = text.variant();
    let actions: Vec<Action> = std::iter::from_fn(|| text.action()).take(STEPS).collect();
    let (broken, _) = run(variant, &actions, &Arc::default(), false);
    if let Some(complaint) = broken {
        let (_, trace) = run(variant, &actions, &Arc::default(), true);
        panic!("{complaint}\n{variant:?}\n{trace}");
    }
}

struct Text<'d> {
    rest: &'d [u8],
}

impl Text<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// A number from 0 on: a digit is itself.
    fn below(&mut self, end: u8) -> Option<u8> {
        self.byte().map(|byte| byte.wrapping_sub(b'0') % end)
    }

    /// A number from 1 on: a digit is itself.
    fn count(&mut self, end: u8) -> Option<u8> {
        self.byte().map(|byte| byte.wrapping_sub(b'1') % end + 1)
    }

    fn flag(&mut self) -> Option<bool> {
        self.below(2).map(|bit| bit == 1)
    }

    fn variant(&mut self) -> Variant {
        let end = self.rest.iter().position(|byte| *byte == b'\n').unwrap_or(self.rest.len());
        let (letters, rest) = self.rest.split_at(end);
        self.rest = rest;
        let has = |letter| letters.contains(&letter);
        let registered = has(b'p');
        // A device without stream management has no session to hold, unless it is registered.
        let client_sm = has(b'c') || !registered;
        Variant {
            server_sm: has(b's'),
            client_sm,
            registered,
            roomy: has(b'r'),
            replaced_every: usize::from(has(b'f')),
        }
    }

    fn hello(&mut self) -> Option<Hello> {
        Some(match self.below(4)? {
            0 => Hello::EnableThenPresence,
            1 => Hello::PresenceThenEnable,
            2 => Hello::Enable,
            _ => Hello::Burst,
        })
    }

    fn end(&mut self) -> Option<End> {
        Some(match self.below(4)? {
            0 => End::Footer,
            1 => End::Error,
            2 => End::Killed,
            _ => End::Broken,
        })
    }

    /// Returns the next action, with parameters in the ranges of the random test.
    #[allow(clippy::too_many_lines, reason = "it names every action once")]
    fn action(&mut self) -> Option<Action> {
        use Action::*;
        loop {
            return Some(match self.byte()? {
                b'm' => Messages(self.count(3)?),
                b'B' => BigMessage,
                b'n' => Noise,
                b'+' => Subscribe,
                b'v' => Version,
                b'g' => PeerPing,
                b'p' => Presence(self.below(3)?, self.flag()?),
                b'o' => Orphan,
                b's' => ServerReads(self.count(4)?),
                b'?' => ServerAsks,
                b'E' => ServerEnds { how: self.end()?, reads: self.flag()? },
                b'b' => BindBeside { same_address: self.flag()?, hello: self.hello()? },
                b'M' => OlderMessages(self.count(3)?),
                b'V' => OlderVanishes,
                b'S' => OlderServerReads(self.count(4)?),
                b'D' => OlderDisk(self.count(7)?),
                b'X' => OlderServerEnds(self.end()?),
                b'c' => Connect { resume: self.flag()?, hello: self.hello()? },
                b'y' => Say,
                b'q' => Ask,
                b'r' => ClientReads { count: self.count(4)?, answers: self.flag()? },
                b'a' => ClientAnswers,
                b'R' => ClientAsks,
                b'A' => Available,
                b'U' => Unavailable,
                b'e' => EnablePush,
                b'k' => Cut,
                b'x' => Vanish,
                b'N' => NoticeVanished,
                b'l' => LateEvents,
                b'C' => ClientCloses,
                b'd' => Disk(self.count(7)?),
                b'f' => DiskIsFull(self.count(4)?),
                b'O' => OlderSettles,
                b'i' => Inherit(self.count(5)?),
                b't' => Pass([20, 110, 300, 2100, 7000, 31_000, 61_000, u16::MAX][usize::from(self.below(8)?)]),
                b'w' => Stall([130, 2500][usize::from(self.below(2)?)]),
                b'=' => Settle,
                b'!' => Crash { reads: self.flag()?, revives: self.flag()? },
                b'Z' => Drain,
                b'H' => HandOver,
                _ => continue,
            });
        }
    }
}

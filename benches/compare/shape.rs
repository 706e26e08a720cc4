//! The messages, rendered once so that only a number changes, and the check that each arrives unchanged, once and in
//! order.

/// Number of digits in a message's number.
const DIGITS: usize = 10;

/// The shapes of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// 200 B, one in each TLS record.
    Single,
    /// 200 B, 32 in each TLS record.
    Batched,
    /// 4 KiB, nearly all of it text.
    Text,
    /// 4 KiB, nearly all of it small elements with attributes.
    Tags,
}

impl Shape {
    /// Returns the length in bytes.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Single | Self::Batched => 200,
            Self::Text | Self::Tags => 4096,
        }
    }

    /// Returns the number of messages that share a TLS record.
    pub(crate) fn per_record(self) -> usize {
        if self == Self::Batched { 32 } else { 1 }
    }

    /// Returns the maximum number of messages of a pair in transit.
    pub(crate) fn window(self) -> u64 {
        match self {
            Self::Single => 64,
            // Real clients rarely have more than 250 unacknowledged stanzas. Beyond that number, stanzas are written to
            // disk.
            Self::Batched => 192,
            Self::Text | Self::Tags => 16,
        }
    }

    /// Returns a message between two users, which is exactly [`Shape::len`] long.
    pub(crate) fn message(self, from: &str, to: &str) -> Template {
        let start = format!("<message from='{from}@localhost/bench' to='{to}@localhost/bench' type='chat' id='m");
        let between = if self == Self::Tags { "'>" } else { "'><body>" };
        let end = if self == Self::Tags { "</message>" } else { "</body></message>" };
        let room = self.len().checked_sub(start.len() + DIGITS + between.len() + end.len()).unwrap();
        let content = if self == Self::Tags { tags(room) } else { text(room) };
        Template { prefix: start.into_bytes(), suffix: format!("{between}{content}{end}").into_bytes() }
    }
}

fn text(len: usize) -> String {
    "Shall we meet at the old mill at half past seven? ".chars().cycle().take(len).collect()
}

/// Returns elements as in forms and Jingle, padded with white space.
fn tags(len: usize) -> String {
    let mut tags = String::new();
    for number in 0.. {
        let tag = format!("<f n='{}'><v k='t'>{}</v></f>", number % 10, number % 7);
        if tags.len() + tag.len() > len {
            break;
        }
        tags.push_str(&tag);
    }
    tags.push_str(&" ".repeat(len - tags.len()));
    tags
}

/// A message without its number.
#[derive(Clone)]
pub(crate) struct Template {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
}

impl Template {
    /// Appends message `number`.
    pub(crate) fn render(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        let (mut digits, mut rest) = ([b'0'; DIGITS], number);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
        out.extend_from_slice(&self.suffix);
    }

    fn len(&self) -> usize {
        self.prefix.len() + DIGITS + self.suffix.len()
    }

    /// Returns the number of the message in `bytes`.
    fn number(&self, bytes: &[u8]) -> Option<u64> {
        let rest = bytes.strip_prefix(self.prefix.as_slice())?;
        let (digits, rest) = rest.split_at_checked(DIGITS)?;
        let number =
            digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')));
        (rest == self.suffix).then_some(number?)
    }
}

/// The messages that a receiver expects: the numbers from 0 on, with nonzas in between.
pub(crate) struct Expected {
    template: Template,
    /// Number of messages that have come.
    pub(crate) received: u64,
    /// True if an acknowledgement was requested (XEP-0198 §4).
    pub(crate) asked: bool,
}

impl Expected {
    pub(crate) fn new(template: Template) -> Self {
        Self { template, received: 0, asked: false }
    }

    /// Takes whole elements from the front of `inbox`. Ends the benchmark if one differs from the message that was
    /// sent.
    pub(crate) fn take(&mut self, inbox: &mut Vec<u8>, mut arrived: impl FnMut(u64)) {
        let len = self.template.len();
        let mut at = 0;
        while let Some(rest) = inbox.get(at..).filter(|rest| rest.len() >= 2) {
            if rest.starts_with(b"<m") {
                let Some(message) = rest.get(..len) else { break };
                let number = self.template.number(message);
                let what = || String::from_utf8_lossy(&message[..message.len().min(200)]);
                assert_eq!(number, Some(self.received), "not the next message: {}", what());
                arrived(self.received);
                self.received += 1;
                at += len;
            } else {
                let Some(end) = memchr::memchr(b'>', rest) else { break };
                let nonza = &rest[..=end];
                if nonza.starts_with(b"<r ") {
                    self.asked = true;
                } else {
                    assert!(nonza.starts_with(b"<a "), "unexpected: {}", String::from_utf8_lossy(rest));
                }
                at += end + 1;
            }
        }
        inbox.drain(..at);
    }
}

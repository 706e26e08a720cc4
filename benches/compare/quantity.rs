//! The measured quantities, their units, and the criteria for Pushward.

/// The criterion for a quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// Not judged.
    None,
    /// At most this many times HAProxy's.
    AtMost(f64),
    /// At least this many times HAProxy's.
    AtLeast(f64),
    /// At most this many units.
    Value(f64),
    /// At most this many times Prosody's.
    OfProsody(f64),
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Quantity {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// Factor from the measured unit (seconds, bytes, events) to the shown unit.
    pub(crate) scale: f64,
    /// Number of digits after the decimal point.
    pub(crate) digits: usize,
    pub(crate) bar: Bar,
}

type Row = (&'static str, &'static str, &'static str, f64, usize, Bar);

const ROWS: &[Row] = &[
    ("single.cpu", "CPU per million messages, 200 B, one a record", "s", 1.0, 2, Bar::AtMost(1.0)),
    ("single.rate", "messages, 200 B, one a record", "1/s", 1.0, 0, Bar::None),
    ("batched.cpu", "CPU per million messages, 200 B, 32 a record", "s", 1.0, 2, Bar::AtMost(1.5)),
    ("batched.rate", "messages, 200 B, 32 a record", "1/s", 1.0, 0, Bar::None),
    ("text.cpu", "CPU per million messages, 4 KiB of text", "s", 1.0, 2, Bar::AtMost(0.9)),
    ("text.rate", "messages, 4 KiB of text", "1/s", 1.0, 0, Bar::None),
    ("tags.cpu", "CPU per million messages, 4 KiB of small tags", "s", 1.0, 2, Bar::AtMost(1.5)),
    ("tags.rate", "messages, 4 KiB of small tags", "1/s", 1.0, 0, Bar::None),
    ("paced.cpu", "CPU per million messages, 200 B at a fixed rate", "s", 1.0, 2, Bar::AtMost(0.85)),
    ("paced.p50", "latency added at a fixed rate, p50", "µs", 1e6, 0, Bar::AtMost(1.0)),
    ("paced.p99", "latency added at a fixed rate, p99", "µs", 1e6, 0, Bar::None),
    ("logins.rate", "log-ins", "1/s", 1.0, 0, Bar::AtLeast(1.3)),
    ("logins.cpu", "CPU per log-in", "µs", 1e6, 0, Bar::None),
    ("handshakes.rate", "TLS handshakes", "1/s", 1.0, 0, Bar::None),
    ("handshakes.cpu", "CPU per TLS handshake", "µs", 1e6, 0, Bar::AtMost(0.62)),
    ("idle.memory", "memory of an idle session", "KB", 1e-3, 1, Bar::Value(10.0)),
    ("idle.left", "of it still held when all have left", "KB", 1e-3, 1, Bar::None),
    ("idle.again", "memory of an idle session when all have come back", "KB", 1e-3, 1, Bar::None),
    ("idle.growth", "growth when all have come back", "×", 1.0, 2, Bar::Value(1.1)),
    ("dark.memory", "memory of a dark session", "KB", 1e-3, 1, Bar::Value(4.0)),
    ("dark.queued", "memory of a dark session with messages waiting", "KB", 1e-3, 1, Bar::None),
    ("dark.excess", "of it beyond 4 KB, for each byte that waits", "B", 1.0, 2, Bar::Value(1.3)),
    ("dark.resume", "connect, resume and have what waited, p50", "ms", 1e3, 2, Bar::OfProsody(0.2)),
    ("push.p50", "message to publish, p50", "ms", 1e3, 2, Bar::Value(0.3)),
    ("push.p99", "message to publish, p99", "ms", 1e3, 2, Bar::Value(3.0)),
    ("push.cpu", "CPU per publish", "µs", 1e6, 0, Bar::Value(60.0)),
    ("push.share", "publishes for each message", "", 1.0, 2, Bar::None),
];

/// Returns all quantities, in the order of the table.
pub(crate) fn all() -> impl Iterator<Item = Quantity> {
    ROWS.iter().map(|&(key, title, unit, scale, digits, bar)| Quantity { key, title, unit, scale, digits, bar })
}

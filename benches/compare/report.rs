//! The results as a table: medians, their spread, ratios within the same round, and whether they meet the criteria.

use std::fmt::Write as _;

use super::proxy::Proxy;
use super::quantity::{self, Bar, Quantity};
use super::stats::{median, spread};

/// All values of a run.
#[derive(Default)]
pub(crate) struct Report {
    values: Vec<Value>,
}

struct Value {
    key: &'static str,
    proxy: Proxy,
    round: usize,
    value: f64,
}

/// Pushward's result for a criterion.
pub(crate) struct Verdict {
    /// The ratio or the value that is judged.
    pub(crate) judged: f64,
    /// True if it meets the criterion.
    pub(crate) good: bool,
}

impl Report {
    /// Adds a value of one round, in seconds, bytes or events.
    pub(crate) fn add(&mut self, key: &'static str, proxy: Proxy, round: usize, value: f64) {
        self.values.push(Value { key, proxy, round, value });
    }

    fn of(&self, quantity: &Quantity, proxy: Proxy) -> Vec<f64> {
        let values = self.values.iter().filter(|value| value.key == quantity.key && value.proxy == proxy);
        values.map(|value| value.value * quantity.scale).collect()
    }

    /// Returns the median of the ratios of Pushward to another program, each within one round.
    pub(crate) fn ratio(&self, quantity: &Quantity, proxy: Proxy, other: Proxy) -> Option<f64> {
        let of = |proxy| self.values.iter().filter(move |value| value.key == quantity.key && value.proxy == proxy);
        // A difference that is not even positive means that the machine was too busy with other work.
        let ratios: Vec<f64> = of(proxy)
            .filter_map(|own| {
                let other = of(other).find(|value| value.round == own.round)?;
                (own.value > 0.0 && other.value > 0.0).then_some(own.value / other.value)
            })
            .collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    /// Returns Pushward's result in one quantity. `None` if it is not judged, or if the program that it is compared
    /// with was not measured.
    pub(crate) fn verdict(&self, quantity: &Quantity) -> Option<Verdict> {
        let ratio = |other| self.ratio(quantity, Proxy::Pushward, other);
        let (judged, bar, good) = match quantity.bar {
            Bar::None => return None,
            Bar::AtMost(bar) => (ratio(Proxy::Haproxy)?, bar, f64::le as fn(&f64, &f64) -> bool),
            Bar::AtLeast(bar) => (ratio(Proxy::Haproxy)?, bar, f64::ge as fn(&f64, &f64) -> bool),
            Bar::OfProsody(bar) => (ratio(Proxy::Prosody)?, bar, f64::le as fn(&f64, &f64) -> bool),
            Bar::Value(bar) => {
                let values = self.of(quantity, Proxy::Pushward);
                (!values.is_empty()).then_some((median(&values), bar, f64::le as fn(&f64, &f64) -> bool))?
            }
        };
        Some(Verdict { judged, good: good(&judged, &bar) })
    }

    /// Returns the measured programs, Pushward first.
    fn measured(&self) -> Vec<Proxy> {
        let mut proxies: Vec<Proxy> = self.values.iter().map(|value| value.proxy).collect();
        proxies.sort();
        proxies.dedup();
        proxies
    }

    /// Returns the table in Markdown, with aligned columns. It is empty if nothing was measured.
    pub(crate) fn table(&self) -> String {
        if self.values.is_empty() {
            return String::new();
        }
        let proxies = self.measured();
        let mut rows = vec![vec!["quantity".to_owned()]];
        rows[0].extend(proxies.iter().map(|proxy| proxy.name().to_owned()));
        rows[0].extend(["× HAProxy", "bar", "verdict"].map(str::to_owned));
        for quantity in quantity::all() {
            if self.values.iter().any(|value| value.key == quantity.key) {
                rows.push(self.row(&quantity, &proxies));
            }
        }
        columns(&rows)
    }

    fn row(&self, quantity: &Quantity, proxies: &[Proxy]) -> Vec<String> {
        let unit = if quantity.unit.is_empty() { String::new() } else { format!(", {}", quantity.unit) };
        let mut row = vec![format!("{}{unit}", quantity.title)];
        row.extend(proxies.iter().map(|proxy| cell(&self.of(quantity, *proxy), quantity.digits)));
        let ratio = self.ratio(quantity, Proxy::Pushward, Proxy::Haproxy);
        row.push(ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}")));
        row.push(match quantity.bar {
            Bar::None => "–".into(),
            Bar::AtMost(bar) => format!("≤ {bar} × HAProxy"),
            Bar::AtLeast(bar) => format!("≥ {bar} × HAProxy"),
            Bar::Value(bar) => format!("≤ {bar} {}", quantity.unit),
            Bar::OfProsody(bar) => format!("≤ {bar} × Prosody"),
        });
        row.push(match self.verdict(quantity) {
            None => "–".into(),
            Some(Verdict { good: true, judged, .. }) => format!("ok ({judged:.2})"),
            Some(Verdict { good: false, judged, .. }) => format!("**over** ({judged:.2})"),
        });
        row
    }
}

/// Returns the median, with the spread if there are several values.
fn cell(values: &[f64], digits: usize) -> String {
    match values {
        [] => "–".into(),
        [value] => format!("{value:.digits$}"),
        values => format!("{:.digits$} ± {:.0} %", median(values), spread(values) * 100.0),
    }
}

/// Returns a Markdown table with columns of sufficient width. The first row is the header.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            let (before, after) = if column == 0 { ("", padding.as_str()) } else { (padding.as_str(), "") };
            write!(text, "| {before}{cell}{after} ").unwrap();
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let colon = if column == 0 { "-" } else { ":" };
                write!(text, "|{}{colon}", "-".repeat(width + 1)).unwrap();
            }
            text.push_str("|\n");
        }
    }
    text
}

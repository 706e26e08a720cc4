//! The ratios to HAProxy as a plot: one bar per quantity, and a mark at its limit.

use std::fmt::Write as _;

use super::proxy::Proxy;
use super::quantity::{self, Bar, Quantity};
use super::report::Report;

const WIDTH: f64 = 860.0;
/// Left and right end of the bars, in pixels.
const LEFT: f64 = 340.0;
const RIGHT: f64 = 800.0;
const ROW: f64 = 34.0;
const TOP: f64 = 56.0;
/// The longest bar, in multiples of HAProxy. Longer bars are cut off, and their number follows.
const LONGEST: f64 = 2.5;

/// Writes the plot. Quantities without a ratio to HAProxy are left out.
pub(crate) fn svg(report: &Report) -> String {
    let rows: Vec<(Quantity, f64)> = quantity::all()
        .filter(|quantity| !matches!(quantity.bar, Bar::None | Bar::OfProsody(_)))
        .filter_map(|quantity| {
            let ratio = report.ratio(&quantity, Proxy::Pushward, Proxy::Haproxy)?;
            Some((quantity, ratio))
        })
        .filter(|(quantity, _)| quantity.key != "idle.growth")
        .collect();
    let height = TOP + ROW * rows.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">Pushward in multiples of HAProxy; black marks are the bars</text>\n"
    );
    for (number, (quantity, ratio)) in rows.iter().enumerate() {
        row(&mut svg, TOP + ROW * number as f64, quantity, *ratio, report);
    }
    let one = x(1.0);
    writeln!(
        svg,
        "<line x1=\"{one}\" y1=\"{}\" x2=\"{one}\" y2=\"{}\" stroke=\"#888\" stroke-dasharray=\"4 3\"/>\n\
         <text x=\"{one}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">HAProxy</text>\n</svg>",
        TOP - 8.0,
        height - 24.0,
        height - 8.0
    )
    .unwrap();
    svg
}

fn row(svg: &mut String, y: f64, quantity: &Quantity, ratio: f64, report: &Report) {
    let end = x(ratio);
    let bar = match quantity.bar {
        Bar::AtMost(bar) => format!(", ≤ {bar}"),
        Bar::AtLeast(bar) => format!(", ≥ {bar}"),
        Bar::Value(bar) => format!(", ≤ {bar} {}", quantity.unit),
        Bar::None | Bar::OfProsody(_) => String::new(),
    };
    let good = report.verdict(quantity).is_none_or(|verdict| verdict.good);
    let colour = if good { "#3f8f5f" } else { "#c8553d" };
    writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}{bar}</text>\n\
         <rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"18\" fill=\"{colour}\"/>\n\
         <text x=\"{:.1}\" y=\"{}\" fill=\"#333\">{ratio:.2}</text>",
        LEFT - 10.0,
        y + 14.0,
        quantity.title,
        y,
        end - LEFT,
        end + 6.0,
        y + 14.0,
    )
    .unwrap();
    if let Bar::AtMost(bar) | Bar::AtLeast(bar) = quantity.bar {
        let at = x(bar);
        writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{}\" x2=\"{at:.1}\" y2=\"{}\" stroke=\"black\" stroke-width=\"2\"/>",
            y - 4.0,
            y + 22.0
        )
        .unwrap();
    }
}

fn x(ratio: f64) -> f64 {
    LEFT + ratio.clamp(0.0, LONGEST) / LONGEST * (RIGHT - LEFT)
}

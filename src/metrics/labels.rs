//! The labels of series, and the conversion of numbers to gauges.

/// Label names and values that are fixed words of this program.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];
/// A domain of the configuration, and a fixed label.
pub(super) type HostLabels = ([(&'static str, String); 1], Labels<1>);

pub(super) fn of_host(host: &str, label: &'static str, value: &'static str) -> HostLabels {
    ([("host", host.to_owned())], [(label, value)])
}

pub(super) fn gauge(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

//! Medians and percentiles.

/// Returns the percentile by nearest rank, or NaN without values.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Returns the middle value, or the mean of the two middle values, or NaN without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 0) => (upper + sorted[middle - 1]) / 2.0,
        (Some(value), _) => *value,
    }
}

/// Returns half of the difference between the smallest and the largest value, as a share of the median.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let (low, high) = (percentile(values, 0.0), percentile(values, 1.0));
    (high - low) / 2.0 / median(values).abs()
}

//! Suggestions for unknown keys.

use std::collections::BTreeSet;

/// Returns the remedy for an unknown key, given all known sections and keys.
pub(super) fn suggestion(section: &str, key: &str, known: &BTreeSet<(&str, &str)>) -> String {
    let wanted = key.to_lowercase().replace('-', "_");
    let here = || known.iter().filter(|(s, _)| *s == section).map(|(_, key)| *key);
    let nearest = here().min_by_key(|candidate| distance(&wanted, candidate));
    if let Some(candidate) = nearest.filter(|candidate| distance(&wanted, candidate) <= 1 + candidate.len() / 4) {
        return format!("did you mean {candidate}?");
    }
    match known.iter().find(|(_, candidate)| *candidate == wanted) {
        Some(("", _)) => "move the key to the top of the file, before any section".to_owned(),
        Some((elsewhere, _)) => format!("move the key to {elsewhere}"),
        None => format!("known keys: {}", here().collect::<Vec<_>>().join(", ")),
    }
}

/// Returns Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, (above_left, above)) in b.chars().zip(row.iter().zip(row.iter().skip(1))) {
            left = (above_left + usize::from(x != y)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

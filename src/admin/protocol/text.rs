//! Texts for terminals, without secrets.

/// Returns a form of a node that distinguishes nodes without revealing them: at most a quarter of its characters, four at
/// most, then its length. It contains no control characters.
pub fn shortened(node: &str) -> String {
    let characters = node.chars().count();
    let shown: String = node.chars().take((characters / 4).min(4)).collect();
    format!("{}…({characters})", printable(&shown))
}

/// Returns a text with its control characters replaced, so that it cannot move the cursor of a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

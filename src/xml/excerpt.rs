//! Text of a peer in a form that is safe in a log line or in the output for the operator.

/// The maximum characters that are kept.
const EXCERPT: usize = 200;

/// Returns a peer's text in one line. Escapes control characters and characters that change the direction of text, and
/// keeps only the first 200 characters.
pub fn excerpt(words: &str) -> String {
    let mut excerpt = String::new();
    let mut length = 0;
    for c in words.chars() {
        let escape = c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        let escaped: String = if escape { c.escape_default().collect() } else { c.into() };
        length += escaped.chars().count();
        if length > EXCERPT {
            excerpt.push('…');
            break;
        }
        excerpt.push_str(&escaped);
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt("plain ä 'text'"), "plain ä 'text'");
        assert_eq!(excerpt("a\nb\x1b[31m\u{202e}c\u{85}"), "a\\nb\\u{1b}[31m\\u{202e}c\\u{85}");
        let long = excerpt(&"ä".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (201, true));
        assert_eq!(excerpt(&"\n".repeat(1000)).chars().count(), 201);
        assert_eq!(excerpt(&"x".repeat(200)), "x".repeat(200));
    }
}

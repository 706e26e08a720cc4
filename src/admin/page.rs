//! The page at `/`: one document that contains its style and script, and a security policy that blocks everything else.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const DOCUMENT: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The document and its policy.
#[derive(Debug)]
pub(super) struct Page {
    /// HTML.
    pub(super) document: String,
    /// The `Content-Security-Policy`: allows the script and style in the document, by their hashes, and requests to this
    /// server.
    pub(super) policy: String,
}

/// The page.
pub(super) static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    document: DOCUMENT.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT),
    policy: format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        source(SCRIPT),
        source(STYLE)
    ),
});

fn source(inline: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, inline.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_complete_and_contacts_no_other_server() {
        let document = &PAGE.document;
        assert!(document.contains(SCRIPT) && document.contains(STYLE) && !document.contains("{{"), "{document}");
        for outside in ["src=", "@import", "url(", "href=\"http", "href=\"//", " onclick", " onload", " style=\""] {
            assert!(!document.contains(outside), "{outside}");
        }
    }
}

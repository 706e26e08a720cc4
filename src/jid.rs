//! Addresses (RFC 7622): every JID that is compared is normalised by the `jid` crate first.

pub use ::jid::{BareJid, FullJid, Jid};

/// A domain as it is compared, `None` if it is not one.
pub fn domain(text: &str) -> Option<String> {
    let jid = Jid::new(text).ok()?;
    (jid.node().is_none() && jid.resource().is_none()).then(|| jid.domain().as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_compared_in_lower_case() {
        assert_eq!(domain("Example.ORG").as_deref(), Some("example.org"));
        assert_eq!(domain("user@example.org"), None);
        assert_eq!(domain("example.org/x"), None);
        assert_eq!(domain(""), None);
    }
}

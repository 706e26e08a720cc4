//! Verification of the sender of an answer (RFC 6120 §8.1.2.1): an answer is identified by its id and its sender.

use crate::jid::{BareJid, FullJid, Jid};

/// Returns whether an answer with this `from` comes from the server of a session: without `from`, from the own bare or full
/// JID, or from the domain. Any other sender can only guess the id.
pub(super) fn is_server(from: Option<&str>, own: &FullJid) -> bool {
    let Some(from) = from else { return true };
    let from = Jid::new(from);
    match (from.node(), from.resource()) {
        (None, None) => from.domain() == own.domain(),
        (_, Some(_)) => from == *own,
        (Some(_), None) => from.bare() == own.bare(),
    }
}

/// The same as [`is_server`] before a JID is bound, on a stream to `host`. `account` is the account of the login, if it is
/// known.
pub(super) fn is_host(from: Option<&str>, host: &str, account: Option<&BareJid>) -> bool {
    let Some(from) = from else { return true };
    let from = Jid::new(from);
    let own = || account.is_none_or(|account| from.bare() == account.as_str());
    from.domain() == host && (from.node().is_none() && from.resource().is_none() || own())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_domain_and_the_account_itself_speak_for_the_server() {
        let own = FullJid::new("juliet@example.org/phone").unwrap();
        assert!(is_server(None, &own));
        for from in
            ["example.org", "Example.org", "juliet@example.org", "Juliet@example.org", "juliet@example.org/phone"]
        {
            assert!(is_server(Some(from), &own), "{from}");
        }
        for from in [
            "",
            "@",
            "example.net",
            "sub.example.org",
            "example.org/x",
            "mallory@example.org",
            "mallory@example.org/phone",
            "juliet@example.net",
            "juliet@example.org/Phone",
            "juliet@example.org/laptop",
        ] {
            assert!(!is_server(Some(from), &own), "{from}");
        }
    }

    #[test]
    fn before_the_bind_the_account_may_be_unknown() {
        let juliet = BareJid::new("juliet@example.org").unwrap();
        for (from, known, unknown) in [
            (None, true, true),
            (Some("example.org"), true, true),
            (Some("juliet@example.org/x"), true, true),
            (Some("mallory@example.org"), false, true),
            (Some("example.net"), false, false),
            (Some("juliet@example.net"), false, false),
        ] {
            let answers = [Some(&juliet), None].map(|account| is_host(from, "example.org", account));
            assert_eq!(answers, [known, unknown], "{from:?}");
        }
    }
}

//! Parsing of the domains of hosts and app servers.

use super::value::Wrong;
use crate::jid;

pub(super) fn domain(text: &str) -> Result<String, Wrong> {
    let remedy = "write the part of the users' addresses after the @, such as \"example.org\"";
    let domain = jid::domain(text).filter(|domain| !domain.contains(['/', '\\', '@', '*']));
    domain.ok_or_else(|| Wrong::new(format!("\"{text}\" is not a domain"), remedy))
}

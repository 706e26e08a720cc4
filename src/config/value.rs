//! What is wrong with a value.

/// What is wrong with a value, and the remedy.
pub(super) type Wrong = (String, String);

pub(super) fn wrong(what: impl Into<String>, remedy: &str) -> Wrong {
    (what.into(), remedy.to_owned())
}

pub(super) fn file_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() { Err(wrong("empty", "write a path")) } else { Ok(text.to_owned()) }
}

//! Errors of single values: [`Wrong`].

/// The problem of a value, and its remedy.
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: &str) -> Self {
        Self { what: what.into(), remedy: remedy.to_owned() }
    }
}

pub(super) fn file_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() { Err(Wrong::new("empty", "write a path")) } else { Ok(text.to_owned()) }
}

//! The configuration: from a file as written to a `Config` that cannot be wrong.

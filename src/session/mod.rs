//! The session core: sans-IO.

//! Paths that a package uses.

/// The configuration of a packaged Pushward.
pub const PACKAGED_CONFIG: &str = "/etc/pushward/config.toml";

//! File paths used by packages.

/// The configuration file of a packaged Pushward.
pub const PACKAGED_CONFIG: &str = "/etc/pushward/config.toml";

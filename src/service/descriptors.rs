//! The limit of file descriptors of this process, compared with the number that its configuration needs.

use std::fmt;

use rlimit::Resource;

use crate::config::Config;

/// The number of descriptors for the database, the log, the runtime, name servers and the operator.
const OWN: u64 = 64;

/// The error that the process may have fewer descriptors than the configured limits need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The hard limit of this process.
    pub hard: u64,
    /// The number that the configuration needs.
    pub needed: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hard, needed } = self;
        write!(f, "may need {needed} file descriptors, and a process started from here may open {hard}")
    }
}

impl Shortage {
    /// Returns the remedy.
    pub fn remedy(&self) -> String {
        format!("set LimitNOFILE={} in the systemd unit (or ulimit -Hn), or lower limits.connections", self.needed)
    }
}

/// Returns the number that the configured limits need: two descriptors per connection, one for the client and one for the
/// server, and one for each stream to a push service or server. Held sessions whose client is not connected keep their
/// connection to the server. They are not counted.
pub fn needed(config: &Config) -> u64 {
    let streams = config.push.s2s_connections + config.hosts.len() + config.listen.len();
    let connections = (config.limits.connections.all as u64).saturating_mul(2);
    connections.saturating_add(streams as u64).saturating_add(OWN)
}

/// Compares the configuration with the hard limit of this process.
///
/// # Errors
/// Returns a [`Shortage`]. If the limit cannot be read, there is none.
pub fn check(config: &Config) -> Result<(), Shortage> {
    let hard = Resource::NOFILE.get_hard().unwrap_or(u64::MAX);
    compare(hard, needed(config))
}

fn compare(hard: u64, needed: u64) -> Result<(), Shortage> {
    if hard < needed { Err(Shortage { hard, needed }) } else { Ok(()) }
}

/// Raises the soft limit to the hard limit. Logs a warning if that is not enough.
pub fn raise(config: &Config) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "file descriptor limit"),
        Err(error) => tracing::warn!(%error, "cannot raise file descriptor limit"),
    }
    if let Err(shortage) = check(config) {
        let remedy = shortage.remedy();
        tracing::warn!(
            hard = shortage.hard,
            needed = shortage.needed,
            remedy,
            "[limits] connections needs more file descriptors than the limit allows"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_connection_needs_one_descriptor_on_either_side() {
        let config = |limits: &str| {
            let text = format!("[[host]]\ndomain = \"localhost\"\n[push]\ns2s_connections = 7\n[limits]\n{limits}\n");
            Config::parse(&text, Path::new("config.toml")).unwrap()
        };
        assert_eq!(needed(&config("connections = 1000")), 2000 + 7 + 1 + 1 + OWN);
        assert_eq!(needed(&config("connections = 1001")) - needed(&config("connections = 1000")), 2);
    }

    #[test]
    fn a_hard_limit_below_the_need_is_a_shortage_that_names_the_number() {
        assert_eq!(compare(100, 100), Ok(()));
        let shortage = compare(99, 100).unwrap_err();
        assert_eq!(shortage, Shortage { hard: 99, needed: 100 });
        assert!(shortage.remedy().contains("LimitNOFILE=100"), "{}", shortage.remedy());
    }
}

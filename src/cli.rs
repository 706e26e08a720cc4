//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// What `pushward` was called with.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "pushward", version, about)]
pub struct Cli {
    /// The configuration file
    #[arg(long, short, global = true, value_name = "FILE", default_value = "config.toml")]
    pub config: PathBuf,
    /// What to do; `None` is [`Command::Run`].
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve clients (the default)
    #[default]
    Run,
    /// Say what is wrong with the configuration, the certificates and the servers behind
    Check,
    /// Show Pushward at work: a server, a push service and a client in this process
    Demo(Demo),
}

/// The options of `pushward demo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Demo {
    /// Keep the server running for clients of your own
    #[arg(long)]
    pub serve: bool,
    /// Show every stanza
    #[arg(long, short)]
    pub verbose: bool,
}

impl Cli {
    /// Reads the arguments of the process; ends it with a usage message if they are wrong, or if help was asked for.
    pub fn from_process() -> Self {
        Self::parse()
    }

    /// What to do.
    pub fn command(&self) -> Command {
        self.command.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    fn check(arguments: &[&str], config: &str, command: Command) {
        let cli = Cli::try_parse_from(["pushward"].iter().chain(arguments)).unwrap();
        assert_eq!((cli.config.as_path(), cli.command()), (Path::new(config), command), "{arguments:?}");
    }

    #[test]
    fn commands_and_options_are_understood_in_any_order() {
        <Cli as CommandFactory>::command().debug_assert();
        check(&[], "config.toml", Command::Run);
        check(&["run"], "config.toml", Command::Run);
        check(&["--config", "a.toml"], "a.toml", Command::Run);
        check(&["--config", "a.toml", "check"], "a.toml", Command::Check);
        check(&["check", "--config", "a.toml"], "a.toml", Command::Check);
        check(&["demo"], "config.toml", Command::Demo(Demo::default()));
        check(&["demo", "--serve", "--verbose"], "config.toml", Command::Demo(Demo { serve: true, verbose: true }));
    }

    #[test]
    fn a_misspelt_command_is_refused() {
        assert!(Cli::try_parse_from(["pushward", "chekc"]).is_err());
    }
}

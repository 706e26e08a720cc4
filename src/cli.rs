//! The command line. [`Cli`] parses it, and `main` runs the [`CliCommand`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::admin::protocol::AdminRequest;
use crate::jid::{BareJid, Jid};
use crate::paths::PACKAGED_CONFIG;
use crate::secret::Secret;
use crate::service::handover::PREFLIGHT;
use crate::service::print::Printable;
use crate::{admin, demo, setup};

/// The command line of `pushward`.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "pushward", version, about)]
pub struct Cli {
    /// Configuration file; if the default does not exist, /etc/pushward/config.toml is used
    #[arg(long, short, global = true, value_name = "FILE", default_value = "config.toml")]
    pub config: PathBuf,
    /// The command; `None` is [`CliCommand::Run`].
    #[command(subcommand)]
    command: Option<CliCommand>,
}

/// The commands of `pushward`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Subcommand)]
pub enum CliCommand {
    /// Run the daemon (the default)
    #[default]
    Run,
    /// Check the configuration, certificates, upstream servers and push services, and report problems with their remedy
    Check,
    /// Write a configuration for one domain, from options or interactively
    Setup(setup::SetupOptions),
    /// Print the manual page, shell completions, systemd units or the default configuration
    Print {
        /// The text to print
        what: Printable,
    },
    /// Demonstrate a push notification, with a built-in XMPP server, push service and clients
    Demo(demo::DemoOptions),
    /// Check for another process that this program can take its place. Not documented, because only Pushward uses it.
    #[command(skip)]
    Preflight,
    /// A command for the daemon
    #[command(flatten)]
    Ask(DaemonCommand),
}

/// The commands for the daemon that runs with this configuration.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum DaemonCommand {
    /// Show the status of the running daemon
    Status(View),
    /// List the sessions
    Sessions(View),
    /// Reload the configuration: certificates, hosts, limits, push rules, log level. Sessions stay connected
    Reload(OutputFormat),
    /// Replace the running daemon by the program that is installed now. Dark sessions go on; connected clients resume
    Upgrade(OutputFormat),
    /// Drain and end the running daemon, also under a service manager that keeps its sessions at a restart
    Stop(OutputFormat),
    /// Manage push registrations
    #[command(subcommand)]
    Push(PushCommand),
    /// Deliver the stanzas again that were set aside for the devices of an account
    Release {
        /// Account, such as user@example.org
        jid: BareJid,
        /// The output format
        #[command(flatten)]
        output: OutputFormat,
    },
    /// Show and drain the nodes of the cluster
    #[command(subcommand)]
    Node(NodeCommand),
    /// Delete all stored data of an account: registrations and waiting stanzas. Its dark sessions end
    Forget {
        /// Account, such as user@example.org
        jid: BareJid,
        /// The output format
        #[command(flatten)]
        output: OutputFormat,
    },
}

/// The commands for the nodes of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum NodeCommand {
    /// List the nodes: number, address, state, accounts
    List(OutputFormat),
    /// Move the sessions of a node to the others. It takes no more clients, and runs until it is stopped
    Drain {
        /// The number of the node; without it, the node that is asked
        node: Option<u8>,
        /// The output format
        #[command(flatten)]
        output: OutputFormat,
    },
}

/// The commands for registrations.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum PushCommand {
    /// List the registrations, with shortened nodes
    List {
        /// Only registrations of this account
        jid: Option<BareJid>,
        /// Only accounts that this node of the cluster owns
        #[arg(long = "node", value_name = "N", conflicts_with = "jid")]
        of_node: Option<u8>,
        /// The output format
        #[command(flatten)]
        output: OutputFormat,
    },
    /// Send a test notification and show the answer of the push service
    Ping {
        /// Account
        jid: BareJid,
        /// Only registrations at this push service
        #[arg(value_name = "PUSH-JID")]
        push_jid: Option<Jid>,
        /// Only the registration with this node, in full or as `push list` shows it
        node: Option<String>,
        /// The output format
        #[command(flatten)]
        output: OutputFormat,
    },
    /// Remove registrations: the device gets no notifications until it enables push again
    Remove {
        /// Account
        jid: BareJid,
        /// Push service
        #[arg(value_name = "PUSH-JID")]
        push_jid: Jid,
        /// Only the registration with this node, in full or as `push list` shows it
        node: Option<String>,
        /// The output format
        #[command(flatten)]
        output: OutputFormat,
    },
}

/// The output format of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct OutputFormat {
    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

/// The output format of a status, and whether it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct View {
    /// The output format
    #[command(flatten)]
    pub output: OutputFormat,
    /// Only this node of the cluster; without it, all nodes
    #[arg(long, value_name = "N", conflicts_with = "watch")]
    pub node: Option<u8>,
    /// Refresh until q is pressed; without a terminal, print again at each interval. In a cluster, only the node that is asked
    #[arg(long, short)]
    pub watch: bool,
    /// Time between refreshes, such as 500ms or 1m
    #[arg(long, short, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
    if bounds.contains(&interval) { Ok(interval) } else { Err("write a duration from 100ms to 1day".to_owned()) }
}

impl DaemonCommand {
    /// Returns the interval at which the daemon is asked again; `None`: once.
    pub fn watched_every(&self) -> Option<Duration> {
        match self {
            Self::Status(view) | Self::Sessions(view) => view.watch.then_some(view.interval),
            Self::Reload(_)
            | Self::Upgrade(_)
            | Self::Stop(_)
            | Self::Push(_)
            | Self::Node(_)
            | Self::Release { .. }
            | Self::Forget { .. } => None,
        }
    }

    /// Returns the request and the output format of its answer.
    pub fn into_request(self) -> (AdminRequest, OutputFormat) {
        match self {
            Self::Status(view) => (on(view.node, AdminRequest::Status), view.output),
            Self::Sessions(view) => (on(view.node, AdminRequest::Sessions), view.output),
            Self::Node(NodeCommand::List(output)) => (AdminRequest::Nodes, output),
            Self::Node(NodeCommand::Drain { node, output }) => (on(node, AdminRequest::DrainNode), output),
            Self::Reload(output) => (AdminRequest::Reload, output),
            Self::Upgrade(output) => (AdminRequest::Upgrade, output),
            Self::Stop(output) => (AdminRequest::Stop, output),
            Self::Push(PushCommand::List { jid, of_node, output }) => {
                (on(of_node, AdminRequest::PushList { account: jid }), output)
            }
            Self::Push(PushCommand::Ping { jid, push_jid, node, output }) => {
                (AdminRequest::PushPing { account: jid, service: push_jid, node: node.map(Secret::new) }, output)
            }
            Self::Push(PushCommand::Remove { jid, push_jid, node, output }) => {
                (AdminRequest::PushRemove { account: jid, service: push_jid, node: node.map(Secret::new) }, output)
            }
            Self::Release { jid, output } => (AdminRequest::Release { account: jid }, output),
            Self::Forget { jid, output } => (AdminRequest::Forget { account: jid }, output),
        }
    }
}

/// Returns the request to a node, if one is named.
fn on(node: Option<u8>, request: AdminRequest) -> AdminRequest {
    match node {
        Some(node) => AdminRequest::OnNode { node, request: Box::new(request) },
        None => request,
    }
}

impl From<DaemonCommand> for admin::command::Invocation {
    fn from(ask: DaemonCommand) -> Self {
        let watched_every = ask.watched_every();
        let (request, OutputFormat { json }) = ask.into_request();
        Self { request, json, watched_every }
    }
}

impl Cli {
    /// Reads the arguments of the process. Exits with a usage message if they are wrong or ask for help.
    ///
    /// If no configuration is named and the default does not exist, the packaged configuration is used, if it exists.
    pub fn from_process() -> Self {
        let matches = Self::with_hidden_commands().get_matches();
        let mut cli = Self::from_matches(&matches).unwrap_or_else(|error| error.exit());
        let named = matches.value_source("config") != Some(ValueSource::DefaultValue);
        if !named && !cli.config.exists() && Path::new(PACKAGED_CONFIG).exists() {
            cli.config = PathBuf::from(PACKAGED_CONFIG);
        }
        cli
    }

    /// Returns the whole command line.
    fn with_hidden_commands() -> clap::Command {
        Self::definition().subcommand(clap::Command::new(PREFLIGHT).hide(true))
    }

    fn from_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        match (matches.subcommand_name(), matches.get_one::<PathBuf>("config")) {
            (Some(PREFLIGHT), Some(config)) => {
                Ok(Self { config: config.clone(), command: Some(CliCommand::Preflight) })
            }
            _ => Self::from_arg_matches(matches),
        }
    }

    /// Returns the command line that `--help`, the manual and the completions describe.
    pub fn definition() -> clap::Command {
        <Self as CommandFactory>::command()
    }

    /// Returns the command.
    pub fn command(&self) -> CliCommand {
        self.command.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], config: &str, command: CliCommand) {
        let cli = Cli::try_parse_from(["pushward"].iter().chain(arguments)).unwrap();
        assert_eq!((cli.config.as_path(), cli.command()), (Path::new(config), command), "{arguments:?}");
    }

    #[test]
    fn commands_and_options_are_understood_in_any_order() {
        <Cli as CommandFactory>::command().debug_assert();
        check(&[], "config.toml", CliCommand::Run);
        check(&["run"], "config.toml", CliCommand::Run);
        check(&["--config", "a.toml"], "a.toml", CliCommand::Run);
        check(&["--config", "a.toml", "check"], "a.toml", CliCommand::Check);
        check(&["check", "--config", "a.toml"], "a.toml", CliCommand::Check);
        check(&["demo"], "config.toml", CliCommand::Demo(demo::DemoOptions::default()));
        check(
            &["demo", "--serve", "--verbose"],
            "config.toml",
            CliCommand::Demo(demo::DemoOptions { serve: true, verbose: true }),
        );
    }

    #[test]
    fn the_command_for_a_preflight_is_understood_and_hidden() {
        for arguments in [["--config", "a.toml", "preflight"], ["preflight", "--config", "a.toml"]] {
            let all = ["pushward"].iter().chain(&arguments);
            let matches = Cli::with_hidden_commands().try_get_matches_from(all).unwrap();
            let cli = Cli::from_matches(&matches).unwrap();
            assert_eq!((cli.config.as_path(), cli.command()), (Path::new("a.toml"), CliCommand::Preflight));
        }
        let matches = Cli::with_hidden_commands().try_get_matches_from(["pushward", "check"]).unwrap();
        assert_eq!(Cli::from_matches(&matches).unwrap().command(), CliCommand::Check);
        assert!(!Cli::with_hidden_commands().render_long_help().to_string().contains(PREFLIGHT));
        assert!(Cli::definition().find_subcommand(PREFLIGHT).is_none());
    }

    #[test]
    fn a_watched_command_repeats_at_its_interval() {
        let every = |arguments: &[&str]| {
            let cli = Cli::try_parse_from(["pushward"].iter().chain(arguments)).map_err(|error| error.to_string())?;
            let CliCommand::Ask(ask) = cli.command() else { panic!("{arguments:?}") };
            Ok::<_, String>(ask.watched_every())
        };
        assert_eq!(every(&["sessions"]), Ok(None));
        assert_eq!(every(&["sessions", "--watch"]), Ok(Some(Duration::from_secs(2))));
        assert_eq!(every(&["status", "-w", "--interval", "500ms"]), Ok(Some(Duration::from_millis(500))));
        assert!(every(&["status", "-w", "--interval", "0s"]).unwrap_err().contains("from 100ms to 1day"));
    }

    #[test]
    fn a_misspelt_command_or_address_is_refused() {
        for arguments in [&["chekc"][..], &["push"], &["forget"], &["forget", "a@b/c"], &["push", "remove", "a@b"]] {
            assert!(Cli::try_parse_from(["pushward"].iter().chain(arguments)).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn commands_to_the_daemon_become_requests() {
        let ask = |arguments: &[&str]| {
            let cli = Cli::try_parse_from(["pushward"].iter().chain(arguments)).unwrap();
            let CliCommand::Ask(ask) = cli.command() else { panic!("{arguments:?}") };
            ask.into_request()
        };
        let (text, json) = (OutputFormat { json: false }, OutputFormat { json: true });
        let (account, service): (BareJid, Jid) = ("a@b".parse().unwrap(), "push.b".parse().unwrap());
        assert_eq!(ask(&["status"]), (AdminRequest::Status, text));
        assert_eq!(ask(&["sessions", "--json"]), (AdminRequest::Sessions, json));
        assert_eq!(ask(&["reload"]), (AdminRequest::Reload, text));
        assert_eq!(ask(&["upgrade"]), (AdminRequest::Upgrade, text));
        assert_eq!(ask(&["stop", "--json"]), (AdminRequest::Stop, json));
        assert_eq!(ask(&["push", "list"]), (AdminRequest::PushList { account: None }, text));
        assert_eq!(ask(&["push", "list", "A@B"]), (AdminRequest::PushList { account: Some(account.clone()) }, text));
        let node = Some(Secret::new("n".to_owned()));
        let ping =
            AdminRequest::PushPing { account: account.clone(), service: Some(service.clone()), node: node.clone() };
        assert_eq!(ask(&["push", "ping", "a@b", "push.b", "n", "--json"]), (ping, json));
        let remove = AdminRequest::PushRemove { account: account.clone(), service, node };
        assert_eq!(ask(&["push", "remove", "a@b", "push.b", "n"]), (remove, text));
        let on = |node, request| AdminRequest::OnNode { node, request: Box::new(request) };
        assert_eq!(ask(&["node", "list"]), (AdminRequest::Nodes, text));
        assert_eq!(ask(&["node", "drain", "--json"]), (AdminRequest::DrainNode, json));
        assert_eq!(ask(&["node", "drain", "3"]), (on(3, AdminRequest::DrainNode), text));
        assert_eq!(ask(&["sessions", "--node", "2"]), (on(2, AdminRequest::Sessions), text));
        assert_eq!(ask(&["push", "list", "--node", "2"]), (on(2, AdminRequest::PushList { account: None }), text));
        assert_eq!(ask(&["release", "a@b"]), (AdminRequest::Release { account: account.clone() }, text));
        assert_eq!(ask(&["forget", "a@b"]), (AdminRequest::Forget { account }, text));
    }
}

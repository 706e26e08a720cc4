//! `pushward print`: prints the files that belong to the program. A test checks that the packaged files have the same
//! content.

use std::io;
use std::process::ExitCode;

use clap::{Arg, Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::stdout;

/// A file that can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Printable {
    /// Manual page, pushward(8)
    Man,
    /// Completions for bash
    Bash,
    /// Completions for zsh
    Zsh,
    /// Completions for fish
    Fish,
    /// systemd unit of the service
    Unit,
    /// Optional systemd unit for socket activation
    Socket,
    /// Configuration with every key and its default
    Config,
}

/// Prints a file to stdout. `command` is the command line that the manual and the completions describe.
pub fn run(what: Printable, command: Command) -> ExitCode {
    match text(what, command) {
        Ok(text) => stdout::print_or_fail(text, 0),
        Err(error) => {
            eprintln!("cannot print: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the text of a file.
///
/// # Errors
/// None in practice: writing to a vector does not fail.
pub fn text(what: Printable, command: Command) -> io::Result<Vec<u8>> {
    let embedded = |text: &str| Ok(text.as_bytes().to_vec());
    match what {
        Printable::Man => manual(command),
        Printable::Bash => completions(Shell::Bash, command),
        Printable::Zsh => completions(Shell::Zsh, command),
        Printable::Fish => completions(Shell::Fish, command),
        Printable::Unit => embedded(include_str!("pushward.service")),
        Printable::Socket => embedded(include_str!("pushward.socket")),
        Printable::Config => embedded(include_str!("../../config.toml")),
    }
}

fn completions(shell: Shell, mut command: Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "pushward", &mut text);
    Ok(text)
}

/// Returns one manual page for all commands.
fn manual(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let man = Man::new(command.clone()).section("8").manual("System Administration");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    commands(&mut roff, &command, "");
    for (title, entries) in SECTIONS {
        roff.control("SH", [*title]);
        for (term, meaning) in *entries {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*meaning)]);
        }
    }
    roff.to_writer(&mut text)?;
    man.render_version_section(&mut text)?;
    Ok(text)
}

/// A heading, and entries of a term and its description.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

const SECTIONS: &[Section] = &[
    (
        "SIGNALS",
        &[
            (
                "SIGTERM",
                "Hand the sessions to the service manager if it has a store for file descriptors; else drain as at SIGINT.",
            ),
            ("SIGINT", "Drain: close client and server streams gracefully, within drain_timeout, and exit."),
            ("SIGHUP", "Reload the configuration and the certificates, as pushward reload."),
            ("SIGUSR2", "Replace the process by the program that is installed now, as pushward upgrade."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Success."),
            ("1", "Failure; the reason is on stderr."),
            ("2", "Invalid command line."),
            ("69", "An upstream server, a push service or the daemon does not answer."),
            (
                "78",
                "Invalid configuration or certificate. Commands for the daemon: the configuration cannot be read, or is invalid \
                and no daemon answers at the socket that it names.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("RUST_LOG", "Overrides [log] level."),
            ("SSL_CERT_FILE", "File with trusted certificate authorities, instead of the system's."),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS",
                "Set by systemd, for readiness, watchdog and socket activation.",
            ),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/pushward/config.toml", "Configuration of the package. pushward print config shows every key."),
            (
                "/var/lib/pushward",
                "State directory of the package: registrations with their secrets, and undelivered stanzas.",
            ),
        ],
    ),
];

/// Adds the commands below `command`. Those with subcommands are replaced by their subcommands.
fn commands(roff: &mut Roff, command: &Command, path: &str) {
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            commands(roff, command, &path);
        } else {
            entry(roff, command, path.trim());
        }
    }
}

fn entry(roff: &mut Roff, command: &Command, path: &str) {
    let own = |arg: &&Arg| !arg.is_global_set() && arg.get_id() != "help" && !arg.is_hide_set();
    let arguments: Vec<_> = command.get_arguments().filter(own).collect();
    let mut usage = vec![bold(path)];
    for argument in arguments.iter().filter(|argument| argument.is_positional()) {
        usage.push(roman(" "));
        usage.push(italic(argument.to_string()));
    }
    roff.control("TP", []);
    roff.text(usage);
    roff.text([roman(command.get_about().map(ToString::to_string).unwrap_or_default())]);
    if arguments.is_empty() {
        return;
    }
    roff.control("RS", []);
    for argument in arguments {
        roff.control("TP", []);
        roff.text([italic(argument.to_string())]);
        let values = argument.get_possible_values();
        let values: Vec<_> = values.iter().map(|value| value.get_name()).collect();
        let takes = argument.get_action().takes_values() && !values.is_empty();
        let values = if takes { format!(": {}", values.join(", ")) } else { String::new() };
        roff.text([roman(format!("{}{values}", argument.get_help().map(ToString::to_string).unwrap_or_default()))]);
    }
    roff.control("RE", []);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_stands_in_the_manual_and_in_the_completions() {
        let mut names = Vec::new();
        collect(&Cli::definition(), &mut names);
        assert!(names.len() > 5, "{names:?}");
        for what in [Printable::Man, Printable::Bash, Printable::Zsh, Printable::Fish] {
            let text = String::from_utf8(text(what, Cli::definition()).unwrap()).unwrap();
            for name in &names {
                assert!(text.contains(name.as_str()), "{name} is not in {what:?}");
            }
        }
    }

    fn collect(command: &Command, names: &mut Vec<String>) {
        for command in command.get_subcommands() {
            names.push(command.get_name().to_owned());
            collect(command, names);
        }
    }
}

//! Every `pushward …` in the pages is a command line that the program accepts.

use pushward::cli::Cli;

use crate::page::Page;

/// Returns the command lines of `pushward` in a block of shell commands; lines that end with a backslash are joined.
fn command_lines(shell: &str) -> impl Iterator<Item = String> {
    let joined = shell.replace("\\\n", " ");
    let lines: Vec<_> = joined.lines().map(str::trim).filter(|line| line.starts_with("pushward ")).collect();
    let lines = lines.into_iter().map(|line| line.split(" #").next().unwrap_or_default().to_owned());
    lines.collect::<Vec<_>>().into_iter()
}

/// Parses a whole command line as the program does. Returns the error.
fn rejected_line(line: &str) -> Option<String> {
    let parsed = Cli::definition().try_get_matches_from(line.split_whitespace());
    parsed.err().map(|error| format!("{line}: {error}"))
}

/// Looks up the subcommands that a phrase such as `pushward push list [JID]` names. Returns the one that does not exist.
fn unknown_subcommand(phrase: &str) -> Option<String> {
    let mut command = Cli::definition();
    for word in phrase.split_whitespace().skip(1) {
        if !command.has_subcommands() || word.starts_with('-') {
            break;
        }
        let Some(next) = command.find_subcommand(word) else { return Some(format!("{phrase}: no command {word}")) };
        command = next.clone();
    }
    None
}

/// Returns the commands of a page that the program does not have, and the number of those that were looked at.
pub(crate) fn wrong_commands(page: &Page) -> (Vec<String>, usize) {
    let shell = page.blocks.iter().filter(|block| block.info == "sh");
    let lines: Vec<_> = shell.flat_map(|block| command_lines(&block.code)).collect();
    let phrases: Vec<_> = page.phrases.iter().filter(|code| code.starts_with("pushward ")).collect();
    let wrong = lines.iter().filter_map(|line| rejected_line(line));
    let wrong = wrong.chain(phrases.iter().filter_map(|phrase| unknown_subcommand(phrase))).collect();
    (wrong, lines.len() + phrases.len())
}

#[test]
fn commands_are_found_in_blocks_and_in_text() {
    let text = "`pushward push list [JID]` `pushward chekc` `pushward`\n```sh\npushward check \\\n    --config a  # why\nls pushward x\n\
                pushward push ping\n```\n```text\npushward x\n```\n";
    let (wrong, count) = wrong_commands(&Page::parse(text));
    assert_eq!(count, 4);
    assert_eq!(wrong.len(), 2, "{wrong:#?}");
    assert!(wrong[0].starts_with("pushward push ping: ") && wrong[1].ends_with("no command chekc"), "{wrong:#?}");
}

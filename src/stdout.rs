//! The standard output of the commands.

use std::io::{self, Write};
use std::process::ExitCode;

/// Prints a text. A reader that closes the pipe early, as `head` does, is no error.
///
/// # Errors
/// Returns the error of the system if the text cannot be printed.
pub fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints a text and returns the exit code `code`, or 1 with a message on stderr if the text cannot be printed.
pub fn print_or_fail(text: impl AsRef<[u8]>, code: u8) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            eprintln!("cannot print: {error}");
            ExitCode::FAILURE
        }
    }
}

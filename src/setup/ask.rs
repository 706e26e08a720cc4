//! [`Prompt`]: questions on the terminal.

use std::io::{self, BufRead, Write};

use super::draft::Draft;
use super::error::SetupError;

/// The number of wrong answers to one question after which the command gives up.
const TRIES: usize = 5;

/// Asks questions, if there is a user at a terminal.
#[derive(Debug)]
pub(super) struct Prompt {
    /// True if there is a terminal and the user wants to be asked.
    pub(super) interactive: bool,
}

impl Prompt {
    pub(super) fn asks(&self) -> bool {
        self.interactive
    }

    /// Returns the answer, or the suggestion if the answer is empty. If the suggestion is empty, too, the question is asked
    /// again.
    ///
    /// # Errors
    /// [`SetupError::Unanswered`] at the end of the input.
    pub(super) fn ask(&mut self, question: &str, suggestion: &str) -> Result<String, SetupError> {
        loop {
            let shown = if suggestion.is_empty() { String::new() } else { format!(" [{suggestion}]") };
            eprint!("{question}{shown}: ");
            let mut line = String::new();
            let read = io::stderr().flush().and_then(|()| io::stdin().lock().read_line(&mut line));
            match read {
                Ok(0) => return Err(SetupError::Unanswered(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(SetupError::Unanswered(error)),
            }
            let answer = line.trim();
            let answer = if answer.is_empty() { suggestion } else { answer };
            if !answer.is_empty() {
                return Ok(answer.to_owned());
            }
        }
    }
}

/// A question.
#[derive(Clone, Debug)]
pub(super) struct PromptQuestion {
    pub(super) text: &'static str,
    pub(super) suggestion: String,
    /// The value of an option. If present, the question is not asked.
    pub(super) given: Option<String>,
}

impl Prompt {
    /// Uses the given value, or asks until the draft is valid.
    ///
    /// # Errors
    /// Returns [`SetupError::Wrong`] if the given value is wrong, or after too many wrong answers, and
    /// [`SetupError::Unanswered`] at the end of the input.
    pub(super) fn until_right(
        &mut self,
        draft: &mut Draft,
        mut question: PromptQuestion,
        put: impl Fn(&mut Draft, String),
    ) -> Result<(), SetupError> {
        let mut tries = if question.given.is_some() { 1 } else { TRIES };
        loop {
            let answer = match question.given.take() {
                Some(given) => given,
                None => self.ask(question.text, &question.suggestion)?,
            };
            put(draft, answer);
            let Err(errors) = draft.parse() else { return Ok(()) };
            tries -= 1;
            if tries == 0 {
                return Err(SetupError::Wrong(errors));
            }
            for problem in errors.problems() {
                eprintln!("{}; {}", problem.what, problem.remedy);
            }
        }
    }
}

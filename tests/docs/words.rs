//! The words of the documentation, of the comments that document the code, and of the log lines.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, LitStr, Macro, Meta};

use crate::repository;

/// Words that hide what an operator searches for: personification, house jargon and archaic words.
const BANNED: [&str; 22] = [
    "told",
    "hears",
    "heard",
    "rests",
    "leans",
    "owes",
    "heir",
    "heirs",
    "farewell",
    "bury",
    "crumbs",
    "ghost",
    "sieve",
    "anew",
    "lest",
    "hence",
    "in vain",
    "of late",
    "for ever",
    "nobody's",
    "heeded",
    "passed over",
];

/// A documentation comment that begins with one of these has a sentence in the wrong order.
const OPENERS: [&str; 9] = ["What", "Who", "Whom", "Whose", "Whether", "How", "Where", "When", "Which"];

/// The macros whose text is a log line.
const LOGS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

/// Returns the banned words in a text. Text in backquotes is quoted from the program and may have them.
fn banned(text: &str) -> Vec<&'static str> {
    let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase();
    let is_letter = |c: char| c.is_alphanumeric() || c == '_' || c == '\'';
    let words =
        format!(" {} ", prose.split(|c| !is_letter(c)).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "));
    BANNED.into_iter().filter(|word| words.contains(&format!(" {word} "))).collect()
}

/// Returns the files below a directory with this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| match path.is_dir() {
        true => files(&path, extension),
        false => Vec::from_iter(path.extension().is_some_and(|it| it == extension).then_some(path)),
    });
    let mut found: Vec<_> = found.collect();
    found.sort();
    found
}

/// Collects the texts of log lines and of errors.
#[derive(Default)]
struct Messages(Vec<String>);

impl Messages {
    fn read(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.read(group.stream()),
                TokenTree::Literal(literal) => {
                    let text: Option<LitStr> = syn::parse2(TokenTree::from(literal).into()).ok();
                    self.0.extend(text.map(|text| text.value()));
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'a> Visit<'a> for Messages {
    fn visit_macro(&mut self, call: &'a Macro) {
        if call.path.segments.last().is_some_and(|name| LOGS.iter().any(|log| name.ident == log)) {
            self.read(call.tokens.clone());
        }
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if let Meta::List(list) = &attribute.meta
            && list.path.is_ident("error")
        {
            self.read(list.tokens.clone());
        }
    }
}

/// Returns the first lines of documentation comments.
fn first_lines(source: &str) -> impl Iterator<Item = &str> {
    let mut was_doc = false;
    source.lines().map(str::trim_start).filter_map(move |line| {
        let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let is_first = !std::mem::replace(&mut was_doc, text.is_some());
        text.filter(|_| is_first).map(str::trim)
    })
}

#[test]
fn the_documentation_avoids_house_words() {
    let root = repository();
    let mut pages = files(&root.join("docs"), "md");
    pages.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md", "config.toml"].map(|name| root.join(name)));
    assert!(pages.len() > 10, "{pages:?}");
    let mut found = Vec::new();
    for page in pages {
        for (at, line) in fs::read_to_string(&page).unwrap().lines().enumerate() {
            found.extend(banned(line).into_iter().map(|word| format!("{}:{}: {word}", page.display(), at + 1)));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn log_lines_and_errors_avoid_house_words() {
    let mut messages = Messages::default();
    for file in files(&repository().join("src"), "rs") {
        messages.visit_file(&syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap());
    }
    let Messages(texts) = messages;
    assert!(texts.len() > 200, "{} texts", texts.len());
    let found: Vec<_> = texts.iter().filter(|text| !banned(text).is_empty()).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// Code that is well documented has 1 to 4 % of them.
#[test]
fn few_documentation_comments_begin_with_a_question_word() {
    let (mut all, mut found) = (0, Vec::new());
    for file in files(&repository().join("src"), "rs") {
        for line in first_lines(&fs::read_to_string(&file).unwrap()) {
            all += 1;
            let opener = line.split(' ').next().unwrap_or_default();
            if OPENERS.contains(&opener) {
                found.push(format!("{}: {line}", file.display()));
            }
        }
    }
    assert!(all > 3000, "{all} comments");
    assert!(found.len() * 100 < all * 3, "{} of {all}: {found:#?}", found.len());
}

#[test]
fn house_words_are_found() {
    assert_eq!(banned("The client is Told, in vain; `told` is a field."), ["told", "in vain"]);
    assert_eq!(banned("untold, the heirloom, pushward_told"), [""; 0]);
    let mut messages = Messages::default();
    let source = r#"
        #[derive(Error)] enum Failure { #[error("it rests {0}")] One(u8) }
        fn f() { tracing::warn!(error = %1, "nobody hears of {}", 1); println!("told"); }
    "#;
    messages.visit_file(&syn::parse_file(source).unwrap());
    assert_eq!(messages.0, ["it rests {0}", "nobody hears of {}"]);
    assert!(messages.0.iter().all(|text| !banned(text).is_empty()));
    let lines: Vec<_> = first_lines("/// One.\n/// Two.\nfn f() {}\n    //! Three.\n// Four.\n///").collect();
    assert_eq!(lines, ["One.", "Three.", ""]);
}

//! Scripts in the place of the installed program, and the answers of a program that is asked whether it can take over.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Pushward, binary};

/// Continues as the program under test.
pub(super) const REAL: &str = "exec \"$real\" \"$@\"";

/// Installs a shell script as the program. It runs `preflight` if it is asked whether it can take over, and `start` if it is
/// executed in the place of the process. `$real` is the program under test.
pub(super) fn install(pushward: &Pushward, preflight: &str, start: &str) {
    let real = env!("CARGO_BIN_EXE_pushward");
    let text = format!("#!/bin/sh\nreal='{real}'\ncase \"$*\" in\n*preflight*) {preflight} ;;\n*) {start} ;;\nesac\n");
    let source = pushward.file("script");
    fs::write(&source, text).unwrap();
    // Another process writes it: a file that this one has open may not be executed (ETXTBSY), and tests fork at any time.
    let installed = Command::new("install").args(["-m", "755"]).arg(source).arg(pushward.program()).status();
    assert!(installed.unwrap().success());
}

/// Installs a program that gives this answer, and that must not be executed.
pub(super) fn install_answer(pushward: &Pushward, answer: &str) {
    install(pushward, &format!("echo '{answer}'"), "exit 1");
}

/// Returns answers that the running process refuses, each with a part of the reason. `taken` is an address that is in use.
///
/// Only this function knows the fields of an answer.
pub(super) fn refused_answers(pushward: &Pushward, taken: SocketAddr) -> Vec<(Value, String)> {
    const VERSION: &str = "9.9.9";
    let mut command = binary();
    let output = command.arg("--config").arg(pushward.file("config.toml")).arg("preflight").output().unwrap();
    let mut good: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    good["version"] = VERSION.into();
    let with = |field: &str, value: Value| {
        let mut answer = good.clone();
        answer[field] = value;
        answer
    };
    let without = |field: &str| {
        let mut answer = good.clone();
        let removed = answer.as_object_mut().unwrap().remove(field);
        assert!(removed.is_some(), "no {field} in {good}");
        answer
    };
    let mut answers = vec![
        (with("state", json!("/elsewhere/pushward")), "state".to_owned()),
        (with("listen", json!([taken])), taken.to_string()),
    ];
    for format in ["records", "relay", "parcel", "database"] {
        answers.push((with(format, json!([1000, 1001])), VERSION.to_owned()));
        answers.push((with(format, json!([0, 0])), VERSION.to_owned()));
    }
    for field in ["records", "relay", "parcel", "database", "state", "listen"] {
        // The reason quotes the answer.
        answers.push((without(field), VERSION.to_owned()));
    }
    answers
}

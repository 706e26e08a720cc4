//! Programs and configurations that cannot take over: the handover is refused, or the new process tries until it can start.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use super::dark::Dark;
use super::program::{REAL, install, install_answer, refused_answers};
use crate::support::{PATIENCE, Process, binary, eventually, free_address};

#[tokio::test]
async fn a_program_that_does_not_start_replaces_nothing() {
    let mut dark = Dark::new().await;
    install(&dark.pushward, "echo no such library >&2; exit 127", "exit 1");
    dark.assert_upgrade_refused("no such library").await;
    install_answer(&dark.pushward, "nonsense");
    dark.assert_upgrade_refused("nonsense").await;
    fs::remove_file(dark.pushward.program()).unwrap();
    let program = dark.pushward.program().display().to_string();
    dark.assert_upgrade_refused(&program).await;
    dark.pushward.signal("-USR2");
    let refused = || (dark.pushward.count("upgrade refused") == 4).then_some(());
    eventually(PATIENCE, || "a refusal after the signal".to_owned(), refused).await;
    dark.assert_goes_on(&[]).await;
}

/// The formats are those of the sessions, of the state beside them, and of the message that contains both.
#[tokio::test]
async fn a_program_that_reads_other_formats_or_uses_other_files_replaces_nothing() {
    let mut dark = Dark::new().await;
    let taken = TcpListener::bind(free_address()).unwrap();
    for (answer, reason) in refused_answers(&dark.pushward, taken.local_addr().unwrap()) {
        install_answer(&dark.pushward, &answer.to_string());
        dark.assert_upgrade_refused(&reason).await;
    }
    dark.assert_goes_on(&[]).await;
}

/// Regression test: the new process ended because it could not listen, and all sessions ended with it.
#[tokio::test]
async fn a_configuration_with_a_taken_address_replaces_nothing() {
    let mut dark = Dark::new().await;
    let taken = TcpListener::bind(free_address()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let table = format!("[[listen]]\naddress = '{address}'\ntls = 'direct'\n");
    dark.pushward.configure(|setup| setup.table(&table));
    dark.assert_upgrade_refused(&address).await;
    let page = format!("'{address}'");
    dark.pushward.configure(|setup| setup.without_tables().set("admin.listen", &page));
    dark.assert_upgrade_refused(&address).await;
    drop(taken);
    dark.pushward.replaced().await;
    dark.assert_goes_on(&[]).await;
}

/// Regression test: the new process found none of the sessions in its database, and closed them all.
#[tokio::test]
async fn a_configuration_with_another_state_directory_replaces_nothing() {
    let mut dark = Dark::new().await;
    let config = fs::read_to_string(dark.pushward.file("config.toml")).unwrap();
    let other = config.replace("state = 'state'", "state = 'other'");
    assert_ne!(config, other);
    fs::write(dark.pushward.file("other.toml"), other).unwrap();
    // The command must find the running process, so only the program has the other configuration.
    install(&dark.pushward, "exec \"$real\" --config other.toml preflight", "exit 1");
    dark.assert_upgrade_refused("state").await;
    dark.assert_goes_on(&[]).await;
}

/// A tool writes a certificate and its key one after the other, in the moment of the handover.
#[tokio::test]
async fn a_key_that_is_missing_while_the_new_process_starts_ends_no_session() {
    let dark = Dark::new().await;
    dark.store("before").await;
    let (key, aside) = (dark.pushward.file("certs/localhost.key"), dark.pushward.file("certs/aside"));
    install(&dark.pushward, "\"$real\" \"$@\" || exit; mv certs/localhost.key certs/aside", REAL);
    dark.pushward.signal("-USR2");
    dark.pushward.logged(&["cannot start"]).await;
    // The time is the subject: the process tries to start each second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    dark.server.assert_open();
    fs::rename(&aside, &key).unwrap();
    dark.handed_over(1).await;
    dark.assert_goes_on(&["before"]).await;
}

/// The address is free when the running process tests it, and taken when the new one starts.
#[tokio::test]
async fn an_address_that_is_taken_while_the_new_process_starts_ends_no_session() {
    let mut dark = Dark::new().await;
    let taken = TcpListener::bind(free_address()).unwrap();
    let address = taken.local_addr().unwrap();
    let table = format!("[[listen]]\naddress = '{address}'\ntls = 'direct'\n");
    dark.pushward.configure(|setup| setup.table(&table));
    drop(taken);
    install(&dark.pushward, REAL, &format!(": > executed; while [ ! -e taken ]; do sleep 0.02; done; {REAL}"));
    dark.pushward.signal("-USR2");
    let executed = dark.pushward.file("executed");
    let what = || format!("an execution in\n{}", dark.pushward.log().join("\n"));
    eventually(PATIENCE, what, || executed.exists().then_some(())).await;
    let taken = TcpListener::bind(address).unwrap();
    fs::write(dark.pushward.file("taken"), "").unwrap();
    dark.pushward.logged(&["cannot start", &address.to_string()]).await;
    dark.server.assert_open();
    drop(taken);
    dark.handed_over(1).await;
    dark.assert_goes_on(&[]).await;
}

/// A shell skips such a file too, so the process was started from the second directory.
#[tokio::test]
async fn a_file_in_path_that_is_not_executable_is_not_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    fs::create_dir(&first).unwrap();
    fs::create_dir(&second).unwrap();
    fs::write(first.join("pushward"), "not a program").unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pushward"), second.join("pushward")).unwrap();
    let config = directory.path().join("config.toml");
    let text = "state = 'state'\n[admin]\nlisten = ''\n[[listen]]\naddress = '127.0.0.1:0'\ntls = 'direct'\n\
                [[host]]\ndomain = 'localhost'\ncertificate = 'localhost.pem'\nkey = 'localhost.key'\nupstream = '127.0.0.1:1'\n";
    fs::write(&config, text).unwrap();
    let path = format!("{}:{}:{}", first.display(), second.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec pushward --config config.toml run"]).current_dir(directory.path());
    let process = Process::spawn("pushward", "cargo build", shell.env("PATH", path).env_remove("RUST_LOG"));
    let what = || format!("a listener in\n{}", process.log().lines().join("\n"));
    eventually(PATIENCE, what, || process.log().contains(" listening ").then_some(())).await;
    let mut command = tokio::process::Command::from(binary());
    let upgrade = command.arg("--config").arg(&config).arg("upgrade").output();
    let output = tokio::time::timeout(PATIENCE, upgrade).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
}

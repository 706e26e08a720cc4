//! `pushward setup`: a configuration from options or answers, which `pushward check` accepts.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{Authority, Client, PATIENCE, Process, Prosody, Pushward, Setup, binary, eventually};

/// Runs the command to its end without a terminal, so that it cannot ask.
fn setup(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = binary();
    command.arg("setup").args(arguments).current_dir(directory).stdin(Stdio::null());
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Starts Pushward with the written configuration, and logs in.
async fn serves(written: &Path) {
    let text = fs::read_to_string(written).unwrap();
    let text = format!("{text}\n[admin]\nlisten = ''\n[log]\nformat = 'json'\n");
    let pushward = Pushward::start(Setup::written(text)).await;
    let mut alice = Client::starttls(pushward.starttls, &pushward.tls()).await;
    assert_eq!(alice.login("alice", "phone").await, "alice@localhost/phone");
}

const LISTEN: [&str; 4] = ["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"];

#[tokio::test]
async fn options_produce_a_configuration_that_is_accepted_and_serves() {
    let prosody = Prosody::start().await;
    let directory = tempfile::tempdir().unwrap();
    let upstream = prosody.address.to_string();
    let options = ["--domain", "localhost", "--upstream", &upstream];
    let output = setup(directory.path(), &[&options[..], &LISTEN[..]].concat());
    let printed = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{printed}{}", stderr(&output));
    assert!(printed.contains("config.toml written"), "{printed}");
    assert!(printed.contains(&format!("localhost: the server at {upstream} is ready")), "{printed}");
    assert!(
        printed.contains(&format!("Prosody is ready at {upstream}; its configuration needs no change")),
        "{printed}"
    );
    let check = binary().arg("check").current_dir(directory.path()).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", stdout(&check));
    serves(&directory.path().join("config.toml")).await;
}

#[tokio::test]
async fn tls_to_the_server_is_selected_if_plain_does_not_work() {
    let authority = Authority::new("an authority");
    let issued = authority.issue("localhost");
    let prosody = Prosody::over_tls(&issued, "c2s_require_encryption = true").await;
    let directory = tempfile::tempdir().unwrap();
    let (upstream, ca) = (prosody.address.to_string(), authority.file().display().to_string());
    let options = ["--domain", "localhost", "--upstream", &upstream, "--upstream-ca", &ca];
    let output = setup(directory.path(), &[&options[..], &LISTEN[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let text = fs::read_to_string(directory.path().join("config.toml")).unwrap();
    assert!(
        text.contains("upstream_tls = \"starttls\"") && text.contains(&format!("upstream_ca = \"{ca}\"")),
        "{text}"
    );
}

#[tokio::test]
async fn the_required_changes_are_printed_for_the_software_of_a_server_that_is_not_ready() {
    let issued = Authority::new("an authority").issue("localhost");
    let prosody = Prosody::over_tls(&issued, "c2s_require_encryption = true").await;
    let directory = tempfile::tempdir().unwrap();
    let upstream = prosody.address.to_string();
    let output =
        setup(directory.path(), &[&["--domain", "localhost", "--upstream", &upstream][..], &LISTEN[..]].concat());
    let printed = stdout(&output);
    assert_eq!(output.status.code(), Some(69), "{printed}");
    assert!(printed.contains(&format!("Prosody answers at {upstream}; it is not ready")), "{printed}");
    assert!(printed.contains(&format!("c2s_ports = {{ {} }}", prosody.address.port())), "{printed}");
    assert!(printed.contains("c2s_require_encryption = false") && !printed.contains("ejabberd.yml"), "{printed}");
    assert!(directory.path().join("config.toml").exists());
}

#[tokio::test]
async fn answers_on_a_terminal_produce_a_configuration_and_invalid_ones_are_asked_again() {
    let prosody = Prosody::start().await;
    let directory = tempfile::tempdir().unwrap();
    let upstream = prosody.address.to_string();
    // script(1) provides the terminal.
    let mut command = Command::new("script");
    let program = format!("{} setup {}", env!("CARGO_BIN_EXE_pushward"), LISTEN.join(" "));
    command.args(["--quiet", "--return", "--command", &program, "/dev/null"]).current_dir(directory.path());
    let mut process = Process::spawn("pushward setup", "apt-get install bsdutils", &mut command);
    let log = process.log().clone();
    for answer in ["bad/domain", "localhost", &upstream, "", ""] {
        process.write_line(answer);
    }
    let status = eventually(PATIENCE * 2, || log.lines().join("\n"), || process.exited()).await;
    process.drained().await;
    let printed = log.lines().join("\n");
    assert!(status.success(), "{status}: {printed}");
    assert!(printed.contains("\"bad/domain\" is not a domain"), "{printed}");
    assert_eq!(printed.matches("Domain, as in user@DOMAIN").count(), 2, "{printed}");
    assert!(printed.contains("The domain's certificate chain, PEM [certs/localhost.pem]"), "{printed}");
    serves(&directory.path().join("config.toml")).await;
}

#[test]
fn without_a_terminal_the_missing_options_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let output = setup(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--domain DOMAIN, --certificate FILE --key FILE"), "{}", stderr(&output));
    // There is no certificate for it.
    let output = setup(directory.path(), &["--domain", "pushward.invalid", "--upstream", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no certificate found for pushward.invalid"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn an_invalid_configuration_is_not_written_and_an_existing_one_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let output = setup(directory.path(), &["--domain", "bad/domain"]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(!file.exists());
    fs::write(&file, "# mine\n").unwrap();
    let options = ["--domain", "localhost", "--upstream", "127.0.0.1:1"];
    let output = setup(directory.path(), &options);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("use --force to replace it"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&file).unwrap(), "# mine\n");
    let output = setup(directory.path(), &[&options[..], &["--force"]].concat());
    // The file was written, although no server answers.
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(fs::read_to_string(&file).unwrap().contains("upstream = \"127.0.0.1:1\""));
}

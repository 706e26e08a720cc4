//! Real clients that have only a terminal, driven by keys: they log in, exchange messages, lose the network, return,
//! and miss nothing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{
    Client, Element, PASSWORD, PATIENCE, Prosody, Pushward, Setup, Terminal, Wire, eventually, numbered,
};

const SIZE: (u16, u16) = (100, 30);

/// The clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// Built on libstrophe. It resumes.
    Profanity,
    /// Built on libpurple. It acknowledges stanzas, and does not resume.
    Finch,
}

/// alice in a terminal, as `alice@localhost/phone`.
struct Console {
    program: Program,
    terminal: Terminal,
    home: TempDir,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Profanity => "profanity",
            Self::Finch => "finch",
        }
    }

    /// Writes the configuration files of the client: an account that it connects at once.
    fn configure(self, home: &Path, certificate: &Path, port: u16, direct: bool) {
        let write = |name: &str, text: String| {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        match self {
            Self::Profanity => {
                let policy = if direct { "legacy" } else { "force" };
                let settings = "[logging]\nchlog=true\n[connection]\naccount=alice\nreconnect=1\n";
                write("config/profanity/profrc", settings.to_owned());
                let account = format!(
                    "[alice]\nenabled=true\njid=alice@localhost\nserver=127.0.0.1\nport={port}\nresource=phone\n\
                     password={PASSWORD}\ntls.policy={policy}\n"
                );
                write("data/profanity/accounts", account);
            }
            Self::Finch => {
                let security = if direct { "old_ssl" } else { "require_tls" };
                let account = format!(
                    "<account version='1.0'><account><protocol>prpl-jabber</protocol>\
                     <name>alice@localhost/phone</name><password>{PASSWORD}</password><settings>\
                     <setting name='connection_security' type='string'>{security}</setting>\
                     <setting name='connect_server' type='string'>127.0.0.1</setting>\
                     <setting name='port' type='int'>{port}</setting></settings><settings ui='gnt-purple'>\
                     <setting name='auto-login' type='bool'>1</setting></settings></account></account>"
                );
                write("accounts.xml", account);
                // Trusted certificates are named after the address of the connection.
                write("certificates/x509/tls_peers/127.0.0.1", fs::read_to_string(certificate).unwrap());
            }
        }
    }

    /// Returns the command that starts the client with all its files in `home`.
    fn command(self, home: &Path) -> Command {
        let mut command = Command::new(self.name());
        command.env("HOME", home).current_dir(home);
        match self {
            Self::Profanity => {
                command.env("XDG_CONFIG_HOME", home.join("config")).env("XDG_DATA_HOME", home.join("data"));
                command.env("XDG_CACHE_HOME", home.join("cache"));
            }
            Self::Finch => {
                command.arg("-c").arg(home);
            }
        }
        command
    }

    /// Returns the path of its chat history with bob, and the text before and after a body of his there.
    const fn history(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Profanity => {
                ("data/profanity/chatlogs/alice_at_localhost/bob_at_localhost", " - bob@localhost: ", "")
            }
            Self::Finch => ("logs/jabber/alice@localhost/bob@localhost", "bob@localhost/desk:</b></span> ", "<br>"),
        }
    }
}

impl Console {
    /// Starts the client, which logs in through `wire`.
    async fn start(program: Program, pushward: &Pushward, wire: &Wire, direct: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let certificate = pushward.file("certs/localhost.pem");
        program.configure(home.path(), &certificate, wire.address.port(), direct);
        let path = env::var_os("PATH").unwrap();
        let installed = env::split_paths(&path).any(|directory| directory.join(program.name()).exists());
        assert!(installed, "{0} is missing; install it with: apt-get install {0}", program.name());
        let mut terminal = Terminal::start(&program.command(home.path()), SIZE);
        match program {
            Program::Profanity => {
                terminal.draws("accept this certificate permanently", 0).await;
                terminal.press("/tls always\r");
            }
            Program::Finch => {}
        }
        Self { program, terminal, home }
    }

    /// Sends bob a message. He must have written before.
    fn sends(&mut self, body: &str) {
        match self.program {
            Program::Profanity => self.terminal.press(&format!("/msg bob@localhost {body}\r")),
            // The second window is the chat with bob.
            Program::Finch => self.terminal.press(&format!("\x1b2{body}\r")),
        }
    }

    /// Prepares for the loss of the connection.
    async fn prepare(&mut self) {
        match self.program {
            Program::Profanity => {}
            Program::Finch => {
                // The first action shows the accounts.
                self.terminal.press("\x1ba\r");
                self.terminal.draws("enable/disable accounts", 0).await;
            }
        }
    }

    /// Connects again.
    fn reconnect(&mut self) {
        match self.program {
            // Profanity reconnects by itself, every second.
            Program::Profanity => {}
            // Finch itself would wait up to a minute, so the account is disabled and enabled again.
            Program::Finch => self.terminal.press("  "),
        }
    }

    /// Returns the bodies of all messages of bob in its history, up to the one that is `last`.
    async fn heard_until(&self, last: &str) -> Vec<String> {
        let what = || {
            format!("{last:?} behind {:?} in {:?}, drawn:\n{}", self.received(), self.program, self.terminal.drawn())
        };
        eventually(PATIENCE, what, || Some(self.received()).filter(|received| received.iter().any(|body| body == last)))
            .await
    }

    fn received(&self) -> Vec<String> {
        let (directory, before, behind) = self.program.history();
        let entries = fs::read_dir(self.home.path().join(directory)).into_iter().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        let bodies = text.lines().filter_map(|line| line.split_once(before)?.1.strip_suffix(behind));
        bodies.map(str::to_owned).collect()
    }
}

async fn loses_its_network_and_gets_every_message_once(program: Program, direct: bool) {
    let prosody = Prosody::start().await;
    let pushward = Pushward::start(Setup::new(prosody.address)).await;
    let wire = Wire::to(if direct { pushward.direct } else { pushward.starttls }).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.available().await;
    let mut alice = Console::start(program, &pushward, &wire, direct).await;
    // The server keeps it until she is online.
    bob.say("alice@localhost", "first").await;
    alice.heard_until("first").await;
    alice.sends("to bob");
    let received = Element::parse(&bob.expect("<body>").await);
    assert_eq!(received.child("body").map(|body| body.text.as_str()), Some("to bob"));
    assert_eq!(received.attribute("from"), Some("alice@localhost/phone"));
    alice.prepare().await;

    wire.cut();
    // Without resumption and registration nothing could return to the session.
    let lost = if program == Program::Profanity { "\"session hibernated (dark)\"" } else { "\"session ended\"" };
    pushward.logged(&[lost, "alice@localhost/phone"]).await;
    let dark = numbered("dark", 1..=3);
    for body in &dark {
        bob.say("alice@localhost", body).await;
    }
    wire.mend();
    alice.reconnect();
    alice.heard_until("dark 3").await;
    // A duplicate would have come before the last message.
    bob.say("alice@localhost", "last").await;
    let wanted = [vec!["first".to_owned()], dark, vec!["last".to_owned()]].concat();
    assert_eq!(alice.heard_until("last").await, wanted);
    let resumed = pushward.log().iter().any(|line| line.contains("\"message\":\"session resumed\""));
    assert_eq!(resumed, program == Program::Profanity, "{program:?} resumes: {resumed}");
}

#[tokio::test]
async fn profanity_loses_its_network_and_gets_every_message_once_over_starttls() {
    loses_its_network_and_gets_every_message_once(Program::Profanity, false).await;
}

#[tokio::test]
async fn profanity_loses_its_network_and_gets_every_message_once_over_direct_tls() {
    loses_its_network_and_gets_every_message_once(Program::Profanity, true).await;
}

#[tokio::test]
async fn finch_loses_its_network_and_gets_every_message_once_over_starttls() {
    loses_its_network_and_gets_every_message_once(Program::Finch, false).await;
}

#[tokio::test]
async fn finch_loses_its_network_and_gets_every_message_once_over_direct_tls() {
    loses_its_network_and_gets_every_message_once(Program::Finch, true).await;
}

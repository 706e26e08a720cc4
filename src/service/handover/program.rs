//! [`Program`]: the installed program, which is asked whether it can take the place of this process, and then executed in it.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::Access;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::names::PARCEL;
use super::parcel::{PARCEL_VERSION, SealedParcel};
use crate::exit;

/// The command by which a program is asked.
pub const PREFLIGHT: &str = "preflight";
/// The time that the installed program has to load its configuration.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of its output that are read.
const OUTPUT: u64 = 16 << 10;
/// The variables by which a service manager passes descriptors.
const LISTEN: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_FDS_FIRST_FD"];
/// The variables of the interface to the service manager.
const MANAGER: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"];

/// The answer of a program to the question whether it can take the place of a running one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreflightReport {
    /// Its version.
    pub version: String,
    /// The lowest and the highest version of a session's record that it reads.
    pub records: [u32; 2],
    /// The same for the state beside the sessions.
    pub relay: [u32; 2],
    /// The same for the form in which everything is passed.
    pub parcel: [u32; 2],
    /// The same for the database.
    pub database: [u32; 2],
    /// The absolute path of its state directory.
    pub state: PathBuf,
    /// The addresses on which it would accept clients.
    pub listen: Vec<SocketAddr>,
    /// The address of its page for operators.
    pub page: Option<SocketAddr>,
}

/// The versions that this process writes.
#[derive(Clone, Copy, Debug)]
pub struct WrittenFormats {
    /// That of a session's record.
    pub records: u32,
    /// That of the state beside the sessions.
    pub relay: u32,
    /// That of the database.
    pub database: u32,
}

impl PreflightReport {
    /// Checks that the program reads what this process writes.
    fn check(self, written: WrittenFormats) -> Result<Self, PreflightError> {
        let formats = [
            ("session records", self.records, written.records),
            ("the state of the relay", self.relay, written.relay),
            ("handovers", self.parcel, PARCEL_VERSION),
            ("databases", self.database, written.database),
        ];
        for (what, read, written) in formats {
            if !(read[0]..=read[1]).contains(&written) {
                return Err(PreflightError::Format { version: self.version, what, read, written });
            }
        }
        Ok(self)
    }
}

/// The reason why a program cannot take the place of this process.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// It cannot be started.
    #[error("cannot be started: {0}")]
    Start(io::Error),
    /// It refuses its configuration, or does not run at all.
    #[error("{status}: {output}")]
    Refused {
        /// Its exit status.
        status: ExitStatus,
        /// Its output.
        output: String,
    },
    /// It does not answer.
    #[error("no answer within {}", humantime::format_duration(PATIENCE))]
    Late,
    /// Its answer is not that of Pushward, or of a version without a part that is needed.
    #[error("cannot take over from this version; its answer was: {0:?}")]
    Foreign(String),
    /// It cannot read the sessions.
    #[error("version {version} reads {what} of version {} to {}, and this process writes version {written}", read[0], read[1])]
    Format {
        /// The version of the program.
        version: String,
        /// The format.
        what: &'static str,
        /// The lowest and the highest version of the format that it reads.
        read: [u32; 2],
        /// The version that this process writes.
        written: u32,
    },
}

impl PreflightError {
    /// Returns whether the operator has to correct the configuration, or a file that it names.
    pub fn is_of_configuration(&self) -> bool {
        match self {
            Self::Refused { status, .. } => status.code() == Some(exit::CONFIG.into()),
            Self::Start(_) | Self::Late | Self::Foreign(_) | Self::Format { .. } => false,
        }
    }
}

/// The program of this process, as it is installed now.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Returns the program by which this process was started. Call it at the start: links are not resolved, so an upgrade that
    /// replaces the file is seen later.
    pub fn current() -> Self {
        let mut arguments = env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        Self { path: located(&name), arguments: arguments.collect() }
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the program whether it can take the place of this process. It loads its configuration and contacts nobody.
    /// Dropping the future ends the program.
    ///
    /// # Errors
    /// Returns the reason why it cannot.
    pub async fn preflight(&self, config: &Path, written: WrittenFormats) -> Result<PreflightReport, PreflightError> {
        let mut command = Command::new(&self.path);
        command.arg("--config").arg(config).arg(PREFLIGHT);
        LISTEN.iter().chain(&MANAGER).for_each(|name| {
            command.env_remove(name);
        });
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(PreflightError::Start)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let answer = async { tokio::join!(read(stdout), read(stderr), child.wait()) };
        let (stdout, stderr, status) = timeout(PATIENCE, answer).await.map_err(|_| PreflightError::Late)?;
        let status = status.map_err(PreflightError::Start)?;
        if !status.success() {
            let output = printable(&[stderr, stdout].concat());
            return Err(PreflightError::Refused { status, output });
        }
        let report: PreflightReport =
            serde_json::from_slice(&stdout).map_err(|_| PreflightError::Foreign(printable(&stdout)))?;
        report.check(written)
    }

    /// Executes the program in this process, with the parcel: all other threads end, and all other descriptors are closed.
    /// Signals must be [paused](super::SignalThread::pause). Returns only if that fails, with the error and the parcel.
    pub fn execute(&self, parcel: SealedParcel) -> (io::Error, SealedParcel) {
        match self.try_execute(&parcel.receiving) {
            Ok(never) => match never {},
            Err(error) => (error, parcel),
        }
    }

    fn try_execute(&self, inherited: &OwnedFd) -> io::Result<Infallible> {
        let path = c_string(self.path.clone().into())?;
        let arguments = [self.path.clone().into()].into_iter().chain(self.arguments.iter().cloned()).map(c_string);
        let arguments: Vec<_> = arguments.collect::<io::Result<_>>()?;
        let environment: Vec<_> = environment(inherited).map(c_string).collect::<io::Result<_>>()?;
        fcntl_setfd(inherited, FdFlags::empty())?;
        // `CommandExt::exec` would also reset the handling of SIGPIPE, even if it fails.
        let executed = nix::unistd::execve(&path, &arguments, &environment);
        fcntl_setfd(inherited, FdFlags::CLOEXEC)?;
        Ok(executed?)
    }
}

/// Returns the environment of this process, with the announcement of a descriptor.
fn environment(inherited: &OwnedFd) -> impl Iterator<Item = OsString> {
    let kept = env::vars_os().filter(|(name, _)| !LISTEN.iter().any(|listen| name == listen));
    let kept = kept.map(|(mut variable, value)| {
        variable.push("=");
        variable.push(value);
        variable
    });
    let announced = [
        "LISTEN_FDS=1".to_owned(),
        format!("LISTEN_PID={}", process::id()),
        format!("LISTEN_FDS_FIRST_FD={}", inherited.as_raw_fd()),
        format!("LISTEN_FDNAMES={PARCEL}"),
    ];
    kept.chain(announced.into_iter().map(OsString::from))
}

fn c_string(text: OsString) -> io::Result<CString> {
    Ok(CString::new(text.into_vec())?)
}

/// Returns the absolute path of a program by the name under which it was started.
fn located(name: &Path) -> PathBuf {
    if name.components().count() > 1 {
        return std::path::absolute(name).unwrap_or_else(|_| name.to_owned());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let is_program = |path: &PathBuf| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    let found = env::split_paths(&path).map(|directory| directory.join(name)).find(is_program);
    found.or_else(|| env::current_exe().ok()).unwrap_or_else(|| name.to_owned())
}

async fn read(output: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(output) = output {
        // The part before an error is used. The rest is left: the program does not wait longer than the deadline.
        drop(output.take(OUTPUT).read_to_end(&mut text).await);
    }
    text
}

/// Returns the output of a program as one line for a log.
fn printable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line: Vec<_> = text.split(char::is_control).filter(|part| !part.trim().is_empty()).collect();
    line.join("; ").chars().take(1000).collect()
}

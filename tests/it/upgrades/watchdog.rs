//! Notifications for the watchdog of the service manager, which kills a process that sends none for some time.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::dark::Dark;
use super::program::{REAL, install};
use crate::support::{Fault, Setup, eventually};

/// The time without a notification after which the service manager kills the process, in microseconds.
const WATCHDOG_USEC: &str = "600000";
/// The time in which several notifications must come, also on a busy machine.
const SEVERAL: Duration = Duration::from_secs(4);

/// The socket on which the service manager receives notifications.
struct Watchdog {
    socket: UnixDatagram,
    _directory: TempDir,
}

impl Watchdog {
    /// Starts a process that sends notifications to it.
    async fn with_dark() -> (Self, Dark) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let path = Box::leak(path.display().to_string().into_boxed_str());
        let settings =
            |setup: Setup| setup.copied().with_faults().env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", WATCHDOG_USEC);
        let watchdog = Self { socket, _directory: directory };
        let dark = Dark::with(settings).await;
        watchdog.assert_notified().await;
        (watchdog, dark)
    }

    /// Returns the number of notifications since the last call.
    fn notifications(&self) -> usize {
        let mut message = [0; 4096];
        let lengths =
            std::iter::from_fn(|| self.socket.recv(&mut message).ok().map(|length| message[..length].to_vec()));
        lengths.filter(|message| String::from_utf8_lossy(message).lines().any(|line| line == "WATCHDOG=1")).count()
    }

    /// Fails unless notifications come from now on.
    async fn assert_notified(&self) {
        self.notifications();
        let mut came = 0;
        let several = || {
            came += self.notifications();
            (came >= 3).then_some(())
        };
        eventually(SEVERAL, || "notifications for the watchdog".to_owned(), several).await;
    }
}

/// Regression test: the task that notifies was ended before the handover, and not started again when that was not begun.
#[tokio::test]
async fn the_watchdog_is_notified_after_a_handover_that_the_database_prevented() {
    let (watchdog, dark) = Watchdog::with_dark().await;
    dark.pushward.begin(Fault::Stall);
    dark.pushward.signal("-USR2");
    dark.pushward.logged(&["handover not begun", "database"]).await;
    dark.pushward.end(Fault::Stall);
    dark.store("before").await;
    watchdog.assert_notified().await;
    dark.assert_goes_on(&["before"]).await;
}

/// Regression test: the command waited a minute for another process.
#[tokio::test]
async fn the_command_says_that_the_database_prevented_a_handover() {
    let (watchdog, dark) = Watchdog::with_dark().await;
    dark.pushward.begin(Fault::Stall);
    let began = Instant::now();
    dark.assert_upgrade_fails("database").await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    dark.pushward.end(Fault::Stall);
    watchdog.assert_notified().await;
    dark.assert_goes_on(&[]).await;
}

/// The watchdog is armed for the new process from its first moment, and a large database takes long to open.
#[tokio::test]
async fn the_watchdog_is_notified_while_the_new_process_starts() {
    let (watchdog, dark) = Watchdog::with_dark().await;
    dark.store("before").await;
    // The name of the file is that of `Fault::Stall`.
    install(&dark.pushward, REAL, &format!(": > disk-stall; {REAL}"));
    dark.pushward.signal("-USR2");
    dark.pushward.stalled().await;
    watchdog.assert_notified().await;
    dark.pushward.end(Fault::Stall);
    dark.handed_over(1).await;
    watchdog.assert_notified().await;
    dark.assert_goes_on(&["before"]).await;
}

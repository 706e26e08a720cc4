//! [`CommandSocket`]: the unix socket for commands, with one request per connection.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Type};
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answers::AnswerWriter;
use super::cluster::ClusterHandlers;
use super::connection_slots::{ConnectionSlot, ConnectionSlots};
use super::error::AdminError;
use super::protocol::{self, AdminAnswer, AdminRequest};
use crate::net::listener::{AfterFailure, accept_each};

/// The limit for concurrent connections without a request. One more closes the oldest.
const CONNECTIONS: usize = 64;
/// The limit for concurrent commands.
const COMMANDS: usize = 16;
/// The limit for connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 16;
/// The time that the operator has to send a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bound socket. Its file is removed when it is dropped.
#[derive(Debug)]
pub(super) struct CommandSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// A file that is removed when this is dropped, unless another file has its name by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// The device and inode numbers of the file.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some()
            && identity(&self.path) == self.identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove admin socket");
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

impl CommandSocket {
    /// Creates the socket with mode 0600. Replaces a socket that a previous process has left.
    pub(super) async fn bind(path: &Path) -> Result<Self, AdminError> {
        remove_if_stale(path).await?;
        let bind = || -> io::Result<Self> {
            let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(path)?)?;
            let file = SocketFile::new(path);
            // The mode is set before the socket listens, so that no other user can connect.
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(Self { listener: UnixListener::from_std(socket.into())?, file })
        };
        bind().map_err(|source| AdminError::Socket { path: path.to_owned(), source })
    }

    /// Serves until `stop` is cancelled.
    pub(super) async fn serve(self, handlers: Arc<ClusterHandlers>, tasks: TaskTracker, stop: CancellationToken) {
        let Self { listener, file } = self;
        let (slots, commands) = (ConnectionSlots::new(CONNECTIONS), Arc::new(Semaphore::new(COMMANDS)));
        let serve = |(stream, _)| {
            let (handlers, stop, slot) = (Arc::clone(&handlers), stop.clone(), slots.enter());
            let commands = Arc::clone(&commands);
            tasks.spawn(async move {
                let conversation = converse(stream, &handlers, slot, &commands);
                if let Some(Err(error)) = stop.run_until_cancelled(conversation).await {
                    tracing::debug!(%error, "admin connection failed");
                }
            });
        };
        let accept = accept_each(&listener, serve, |error| {
            tracing::warn!(%error, "cannot accept connection on admin socket");
            AfterFailure::Pause
        });
        stop.run_until_cancelled(accept).await;
        drop(file);
    }
}

async fn remove_if_stale(path: &Path) -> Result<(), AdminError> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        return Err(AdminError::NotASocket(path.to_owned()));
    }
    match timeout(PATIENCE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| AdminError::Socket { path: path.to_owned(), source })
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(AdminError::Socket { path: path.to_owned(), source: error })
        }
        // The process answered, or was too busy to answer.
        Ok(Ok(_) | Err(_)) | Err(_) => Err(AdminError::InUse(path.to_owned())),
    }
}

async fn converse(
    stream: UnixStream,
    handlers: &ClusterHandlers,
    place: ConnectionSlot,
    commands: &Semaphore,
) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let (mut answers, mut read) = (AnswerWriter::new(write), BufReader::new(read));
    let begin = async {
        let asked = timeout(PATIENCE, protocol::read::<AdminRequest>(&mut read)).await?;
        Ok::<_, io::Error>((asked, timeout(PATIENCE, commands.acquire()).await))
    };
    let Some(begun) = place.run(begin).await else { return Ok(()) };
    let (asked, command) = begun?;
    drop(place);
    let Ok(_command) = command else {
        return answers.send(&AdminAnswer::Failed { reason: "too many commands at once".to_owned() }).await;
    };
    let last = match asked {
        Ok(Some(request)) => match handlers.answer(request, &mut answers).await? {
            Ok(()) => AdminAnswer::End,
            Err(reason) => AdminAnswer::Failed { reason },
        },
        Ok(None) => return Ok(()),
        Err(error) => AdminAnswer::Failed { reason: error.to_string() },
    };
    answers.send(&last).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_can_use_the_socket_and_its_file_is_removed_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let socket = CommandSocket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_one_in_use_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = CommandSocket::bind(&path).await.unwrap();
        assert!(matches!(CommandSocket::bind(&path).await, Err(AdminError::InUse(_))));
        assert!(path.exists());
        drop(socket);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(CommandSocket::bind(&path).await, Err(AdminError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn another_socket_of_the_same_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let first = CommandSocket::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let second = CommandSocket::bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}

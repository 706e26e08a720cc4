//! The store of the service manager for file descriptors (sd_pid_notify_with_fds(3), `FDSTORE=1`): what is put there is passed to
//! the next process of the service.

use std::env;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sd_notify::{NotifyState, notify_with_fds};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::names::{LISTENER, SET};
use super::parcel::SealedParcel;

/// The time that the service manager has to handle what it was sent.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time after which a refused descriptor is closed. New versions of systemd close it in another thread.
const CLOSING: Duration = Duration::from_millis(100);
/// The name of a descriptor that only shows whether the store takes any.
const PROBE: &str = "probe";

/// The reason why descriptors are not in the store.
#[derive(Debug, Error)]
pub enum NotStored {
    /// There is no service manager with a store.
    #[error("the service manager has no store for file descriptors")]
    NoStore,
    /// The store is full, or not permitted.
    #[error("the service manager refused file descriptors; FileDescriptorStoreMax= in the unit is their limit")]
    Refused,
    /// The service manager does not answer.
    #[error("the service manager did not answer within {}", humantime::format_duration(PATIENCE))]
    Late,
    /// It cannot be reached.
    #[error("cannot reach the service manager: {0}")]
    Unreachable(#[from] io::Error),
}

/// Checks that the service manager stores descriptors.
///
/// # Errors
/// Returns the reason why it does not.
pub async fn probe() -> Result<(), NotStored> {
    // systemd before version 254 does not set $FDSTORE.
    let off = env::var_os("FDSTORE").is_some_and(|limit| limit == "0");
    if off || env::var_os("NOTIFY_SOCKET").is_none() {
        return Err(NotStored::NoStore);
    }
    takes().await
}

/// Puts a parcel and the listeners into the store. Both ends of the parcel are stored, because the manager removes descriptors
/// whose other end is closed.
///
/// # Errors
/// Returns the reason why the store did not take all of them. In that case none of them stays there.
pub async fn put(number: NonZeroU64, parcel: &SealedParcel, listeners: &[OwnedFd]) -> Result<(), NotStored> {
    let set = format!("{SET}{number}");
    let names: Vec<_> = (0..listeners.len()).map(|index| format!("{LISTENER}{index}")).collect();
    let stored = async {
        store(&set, parcel.ends()).await?;
        for (name, listener) in names.iter().zip(listeners) {
            store(name, [listener.as_fd()].into_iter()).await?;
        }
        // The store takes descriptors in order: if it took this one, it took those before.
        takes().await
    };
    let stored = stored.await;
    if stored.is_err() {
        drop(remove(names.iter().map(String::as_str).chain([set.as_str()])).await);
    }
    stored
}

/// Removes descriptors from the store by their names.
///
/// # Errors
/// Returns an error if the service manager does not answer.
pub async fn remove(names: impl Iterator<Item = &str>) -> Result<(), NotStored> {
    for name in names {
        forget(name).await?;
    }
    barrier().await
}

/// Returns an error if the store does not take another descriptor.
async fn takes() -> Result<(), NotStored> {
    let (kept, sent) = UnixStream::pair()?;
    store(PROBE, [sent.as_fd()].into_iter()).await?;
    drop(sent);
    barrier().await?;
    kept.set_nonblocking(true)?;
    let mut kept = tokio::net::UnixStream::from_std(kept)?;
    // The manager closes what it does not store.
    let refused = matches!(timeout(CLOSING, kept.read(&mut [0])).await, Ok(Ok(0)));
    forget(PROBE).await?;
    if refused { Err(NotStored::Refused) } else { Ok(()) }
}

async fn store(name: &str, descriptors: impl Iterator<Item = BorrowedFd<'_>>) -> Result<(), NotStored> {
    let copies: Vec<OwnedFd> = descriptors.map(|it| it.try_clone_to_owned()).collect::<io::Result<_>>()?;
    let name = name.to_owned();
    send(move || {
        let descriptors: Vec<_> = copies.iter().map(AsFd::as_fd).collect();
        notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(&name)], &descriptors)
    })
    .await
}

async fn forget(name: &str) -> Result<(), NotStored> {
    let name = name.to_owned();
    send(move || sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)])).await
}

/// Sends a message. A service manager that does not read would block the sender.
async fn send(message: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), NotStored> {
    match timeout(PATIENCE, spawn_blocking(message)).await {
        Ok(Ok(sent)) => Ok(sent?),
        Ok(Err(_)) | Err(_) => Err(NotStored::Late),
    }
}

/// Waits until the service manager has handled all messages so far: it closes the descriptor of this one after them.
async fn barrier() -> Result<(), NotStored> {
    let (kept, sent) = UnixStream::pair()?;
    send(move || notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[sent.as_fd()])).await?;
    kept.set_nonblocking(true)?;
    let mut kept = tokio::net::UnixStream::from_std(kept)?;
    timeout(PATIENCE, kept.read(&mut [0])).await.map_err(|_| NotStored::Late)?.map(drop).map_err(NotStored::from)
}

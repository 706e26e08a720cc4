//! [`InheritedDescriptors`]: the descriptors with which this process was started, from a service manager or from the process whose place it
//! takes.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketType};

use super::fd_store;
use super::names::{LISTENER, PARCEL, SET};
use super::parcel::{Parcel, SealedParcel};
use crate::service::sockets::{PassedError, Sockets};

/// The descriptors with which this process was started.
#[derive(Debug, Default)]
pub struct InheritedDescriptors {
    /// Listeners beside the parcels.
    listeners: Sockets,
    parcels: Vec<SealedParcel>,
    /// The parcel that this process could not seal.
    unsealed: Option<Parcel>,
    /// The names of these descriptors in the store of the service manager.
    stored: BTreeSet<String>,
}

impl InheritedDescriptors {
    /// Takes the descriptors that were passed to this process. A second call returns none.
    ///
    /// # Errors
    /// Returns [`PassedError::NotTcp`] or [`PassedError::NotListening`].
    pub fn from_env() -> Result<Self, PassedError> {
        // Before the call that removes the other variables.
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        let mut parcels: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            if name == PARCEL || name.starts_with(SET) {
                let socket = take_pair(&mut passed, index);
                parcels.entry(name.clone()).or_default().extend(socket);
            } else {
                inherited.listeners.add(&mut passed, index, name.starts_with(LISTENER))?;
            }
            if name.starts_with(SET) || name.starts_with(LISTENER) {
                inherited.stored.insert(name);
            }
        }
        // Usually there is one. After a crash there may be more: the number in the database decides.
        inherited.parcels = parcels.into_values().filter_map(SealedParcel::of).collect();
        Ok(inherited)
    }

    /// Returns what this process itself has sealed, to go on with it.
    pub fn own(parcel: SealedParcel) -> Self {
        Self { parcels: vec![parcel], ..Self::default() }
    }

    /// Returns what this process itself could not seal, to go on with it.
    pub fn unsealed(parcel: Parcel) -> Self {
        Self { unsealed: Some(parcel), ..Self::default() }
    }

    /// Returns the listeners of this process, to go on with them.
    pub fn own_listeners(listeners: Vec<OwnedFd>) -> Self {
        let mut own = Self::default();
        own.listeners.add_own(listeners);
        own
    }

    /// Returns whether there is a parcel that was not opened.
    pub fn has_parcel(&self) -> bool {
        self.unsealed.is_some() || !self.parcels.is_empty()
    }

    /// Returns whether the store of the service manager has the same descriptors.
    pub fn is_stored(&self) -> bool {
        !self.stored.is_empty()
    }

    /// Returns copies of the listeners. Parcels stay as they are.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn listeners(&self) -> io::Result<Sockets> {
        let mut listeners = self.listeners.try_clone()?;
        for parcel in &self.parcels {
            // An error is reported when the parcel is opened.
            listeners.add_own(parcel.listeners().unwrap_or_default());
        }
        if let Some(parcel) = &self.unsealed {
            listeners.add_own(parcel.listeners.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?);
        }
        Ok(listeners)
    }

    /// Opens the parcels of previous processes, and closes all listeners: their copies are in use.
    pub fn open(&mut self) -> Vec<Parcel> {
        self.listeners = Sockets::default();
        let mut parcels: Vec<_> = self.unsealed.take().into_iter().collect();
        for sealed in std::mem::take(&mut self.parcels) {
            match sealed.open() {
                Ok(parcel) => parcels.push(parcel),
                Err(error) => tracing::error!(%error, "cannot open what the previous process has left"),
            }
        }
        for parcel in &mut parcels {
            parcel.listeners.clear();
        }
        parcels
    }

    /// Removes the descriptors from the store of the service manager, so that nothing is used a second time.
    pub async fn forget(&mut self) {
        let stored = std::mem::take(&mut self.stored);
        if !stored.is_empty()
            && let Err(error) = fd_store::remove(stored.iter().map(String::as_str)).await
        {
            tracing::error!(%error, "cannot remove descriptors from the store of the service manager");
        }
    }
}

fn take_pair(passed: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    let family = i32::from(AddressFamily::UNIX.as_raw());
    let kind = i32::try_from(SocketType::SEQPACKET.as_raw()).unwrap_or_default();
    match passed.take_custom::<OwnedFd>(index, family, kind, "pair of unix sockets") {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "descriptor of the previous process cannot be used");
            None
        }
    }
}

//! [`HandleRecord`]: the state of a handle, for another process.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::published::Published;
use super::succession::SessionRequests;
use crate::clock::UnixSecs;
use crate::push::account::{DeviceId, LoginId};
use crate::session::SmId;
use crate::session::negotiate::HeldSession;
use crate::session::sasl::LoginMethod;

/// The state of a handle that another process goes on with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HandleRecord {
    pub(super) login: LoginId,
    pub(super) held: HeldSession,
    pub(super) resource: String,
    pub(super) device: DeviceId,
    pub(super) is_dark: bool,
    /// The time of the last change of [`Handle::reach`].
    pub(super) since: UnixSecs,
    pub(super) resumable: Option<SmId>,
    /// The newest login of the device beside which the session stays.
    pub(super) answered: LoginId,
    pub(super) requests: SessionRequests,
    pub(super) peer: Option<SocketAddr>,
    pub(super) method: Option<LoginMethod>,
    #[serde(default)]
    pub(super) verdict: Option<(Cow<'static, str>, UnixSecs)>,
    #[serde(default)]
    pub(super) push: Option<(Published, SystemTime)>,
}

impl HandleRecord {
    /// The login that began the session.
    pub fn login(&self) -> LoginId {
        self.login
    }

    /// The id under which the session can be resumed.
    pub fn resumable(&self) -> Option<&SmId> {
        self.resumable.as_ref()
    }
}

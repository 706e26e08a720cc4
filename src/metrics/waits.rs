//! Waits whose deadline passed: the words of the label.

/// A wait with a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For the store to answer a login.
    Login,
    /// For older sessions of a device to end, give way or answer.
    OlderSessions,
    /// For a session to end that was asked to give way.
    GiveWay,
    /// For the count of a session that is ending, so that its client learns of it.
    Tombstone,
    /// For a session to take the connection that resumes it.
    HandOver,
    /// For the store to finish what a session has left.
    Store,
    /// For the database to answer the operator.
    Admin,
}

impl Wait {
    pub(super) const ALL: [Self; 7] =
        [Self::Login, Self::OlderSessions, Self::GiveWay, Self::Tombstone, Self::HandOver, Self::Store, Self::Admin];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::OlderSessions => "older_sessions",
            Self::GiveWay => "give_way",
            Self::Tombstone => "tombstone",
            Self::HandOver => "hand_over",
            Self::Store => "store",
            Self::Admin => "admin",
        }
    }
}

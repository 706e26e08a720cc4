//! Waits that exceeded their deadline: the words of the label.

/// A wait with a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For the store to answer a login.
    Login,
    /// For older sessions of a device to end or to answer.
    OlderSessions,
    /// For a session to end that was asked to.
    GiveWay,
    /// For the handled count of a session that is ending, which its client is to be sent.
    Tombstone,
    /// For a session to take the connection that resumes it.
    HandOver,
    /// For the store to finish the changes that a session has left.
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

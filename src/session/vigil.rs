//! The state of the current attachment for the poison guard.

/// The watch over an attachment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vigil {
    /// When it began, on the session's own clock in milliseconds.
    began: u32,
    /// The guard has taken the attachment's end.
    ended: bool,
    /// The first unacknowledged stanza is a suspect: nothing is written behind it until it is acknowledged.
    alone: bool,
}

impl Vigil {
    /// Begins at this time of the session's own clock.
    pub(super) fn new(began: u32) -> Self {
        Self { began, ..Self::default() }
    }

    pub(super) fn began(self) -> u32 {
        self.began
    }

    /// The attachment ends; whether it is the first time that this is said.
    pub(super) fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.ended, true)
    }

    /// Whether a suspect was written alone, and awaits its acknowledgement.
    pub(super) fn is_alone(self) -> bool {
        self.alone
    }

    /// A suspect is written alone.
    pub(super) fn begin_alone(&mut self) {
        self.alone = true;
    }

    /// All that was written is acknowledged.
    pub(super) fn on_all_acknowledged(&mut self) {
        self.alone = false;
    }
}

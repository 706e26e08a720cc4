//! The state of the current attachment for the poison guard.

/// The watch over an attachment.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct AttachmentWatch {
    /// The time at which it began, in milliseconds on the session's own clock.
    began: u32,
    /// True if the end of the attachment was reported to the guard.
    ended: bool,
    /// True if the first unacknowledged stanza is a suspect: nothing is written after it until it is acknowledged.
    alone: bool,
}

impl AttachmentWatch {
    /// Begins the watch at this time of the session's own clock.
    pub(super) fn new(began: u32) -> Self {
        Self { began, ..Self::default() }
    }

    pub(super) fn began(self) -> u32 {
        self.began
    }

    /// Notes that the attachment ends; returns whether this is the first report.
    pub(super) fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.ended, true)
    }

    /// Returns whether a suspect was written alone and awaits acknowledgement.
    pub(super) fn is_alone(self) -> bool {
        self.alone
    }

    /// Notes that a suspect is written alone.
    pub(super) fn begin_alone(&mut self) {
        self.alone = true;
    }

    /// Notes that everything written is acknowledged.
    pub(super) fn on_all_acknowledged(&mut self) {
        self.alone = false;
    }
}

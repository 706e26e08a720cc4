//! stub
use super::classify::Reading;
use super::registration::Extensions;
use super::rooms::Rooms;
use super::roster::Roster;

/// Why
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// x
    Muted,
}
impl Blocked {
    /// x
    pub fn name(self) -> &'static str {
        "muted"
    }
}
/// x
pub fn verdict(_: &Reading<'_>, _: &Extensions, _: &Roster, _: &Rooms) -> Result<(), Blocked> {
    Ok(())
}

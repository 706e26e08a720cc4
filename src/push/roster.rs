//! stub
/// x
#[derive(Debug, Default)]
pub struct Roster;
impl Roster {
    /// x
    pub fn is_known(&self) -> bool {
        true
    }
}

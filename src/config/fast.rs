//! `[fast]`: tokens of clients (XEP-0484).

use std::time::Duration;

use super::section::Section;
use super::units::DAY;
pub use crate::push::fast::FastSettings;

pub(super) fn read(mut s: Section<'_>) -> FastSettings {
    let d = FastSettings::default();
    let read = FastSettings { ttl: s.duration("ttl", d.ttl, Duration::ZERO..=3660 * DAY) };
    s.finish();
    read
}

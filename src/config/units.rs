//! Units of time for defaults and bounds.

use std::time::Duration;

/// The shortest duration of most settings.
pub(super) const MOMENT: Duration = Duration::from_millis(50);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

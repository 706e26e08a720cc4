//! A bound session: the task that owns both legs until the session ends.

mod driver;
mod membership;
mod predecessors;

pub(super) use driver::run;

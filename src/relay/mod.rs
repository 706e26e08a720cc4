//! One task per session: an event goes into the core, its outputs are performed.

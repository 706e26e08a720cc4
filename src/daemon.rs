//! Binds, spawns, handles signals and drains.

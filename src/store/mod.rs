//! What survives a restart: the redb database and its writer thread.

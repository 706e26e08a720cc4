//! The main job in one process: an embedded server, a push service and two clients.

//! Exit codes of the commands.

/// The command line is wrong. `clap` uses the same code.
pub const USAGE: u8 = 2;
/// `EX_UNAVAILABLE` of sysexits.h: a server or the daemon does not answer or is not compatible, or no transport reaches
/// a push service.
pub const UNAVAILABLE: u8 = 69;
/// `EX_CONFIG` of sysexits.h: the configuration or a certificate is wrong.
pub const CONFIG: u8 = 78;

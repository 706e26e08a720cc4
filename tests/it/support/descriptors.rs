//! Descriptor limits for tests with many connections.

use std::process::Command;

/// Raises a process's descriptor limit as far as allowed, and returns the new limit.
pub(crate) fn raise_descriptors(process: u32) -> usize {
    let prlimit = |arguments: &[&str]| {
        let mut command = Command::new("prlimit");
        let output = command.arg("--pid").arg(process.to_string()).args(arguments).output();
        let output = output.expect("prlimit; install it with: apt-get install util-linux");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let hard = prlimit(&["--nofile", "--output", "HARD", "--noheadings"]);
    prlimit(&[&format!("--nofile={hard}:{hard}")]);
    hard.parse().unwrap_or(usize::MAX)
}

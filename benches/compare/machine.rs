//! The machine and the date of the measurement.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::options::Options;
use super::proxy::Proxy;

/// Returns the command, the machine, the date and the versions, as a Markdown list.
pub(crate) fn describe(options: &Options, proxies: &[Proxy]) -> String {
    let mut text = String::new();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    writeln!(text, "- Command: `cargo bench --bench compare -- {}`", arguments.join(" ")).unwrap();
    writeln!(text, "- Machine: {}, {} cores, Linux {}", processor(), cores(), kernel()).unwrap();
    writeln!(text, "- Date: {}", date()).unwrap();
    let versions = proxies.iter().map(|proxy| format!("{} {}", proxy.name(), proxy.version().unwrap_or_default()));
    writeln!(text, "- Versions: {}", versions.collect::<Vec<_>>().join(", ")).unwrap();
    writeln!(
        text,
        "- All: one process with {} worker threads (nginx: processes), TLS 1.3, TLS_AES_128_GCM_SHA256, X25519, \
         ECDSA P-256, nothing resumed, one ticket; medians of {} rounds ± half the range; ratios are medians of the \
         ratios within a round",
        options.threads, options.repeats
    )
    .unwrap();
    text
}

/// Returns the number of processors.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name));
    name.unwrap_or("an unknown processor").trim().to_owned()
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn date() -> String {
    let output = Command::new("date").arg("--iso-8601").output();
    output.map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

//! Pushward's processor time during a measurement by parts of the program, as `perf` samples it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::report::columns;

/// Parts of the program, by substrings of their functions' names. The first match counts. Inlined code counts with the
/// function that contains it.
const PARTS: [(&str, &[&str]); 7] = [
    ("TLS and its ciphers", &["aws_lc", "rustls", "tls_stream", "25519", "nistz256", "bignum"]),
    ("XML: framing, reading, writing", &["pushward::xml", "fearless_simd", "simdutf8", "quick_xml"]),
    ("session and push rules", &["pushward::session", "pushward::push"]),
    ("database", &["redb", "pushward::store"]),
    ("connections, relay, metrics", &["pushward::"]),
    ("tokio", &["tokio", "mio::", "futures", "parking_lot"]),
    ("memory: allocating, sharing, copying", &["bytes::", "malloc", "alloc", "free", "mem", "unlink_chunk"]),
];
const KERNEL: &str = "kernel";
const OTHER: &str = "other";

/// A recording in progress.
pub(crate) struct Recording {
    perf: Child,
    file: PathBuf,
}

impl Recording {
    /// Starts recording a process into a file.
    pub(crate) fn start(file: &Path, process: u32) -> Self {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut perf = Command::new("perf");
        perf.args(["record", "--quiet", "--freq", "997", "--call-graph", "fp", "--output"]);
        perf.arg(file).arg("--pid").arg(process.to_string()).stderr(Stdio::null());
        Self { perf: perf.spawn().expect("perf; install linux-perf"), file: file.to_owned() }
    }

    /// Ends the recording. Returns each part's share of the samples.
    pub(crate) fn finish(mut self) -> BTreeMap<&'static str, f64> {
        kill(Pid::from_raw(self.perf.id() as i32), Signal::SIGINT).unwrap();
        self.perf.wait().unwrap();
        let mut report = Command::new("perf");
        report.args(["report", "--stdio", "--no-children", "--call-graph", "none", "--sort", "dso,sym", "--input"]);
        let report = report.arg(&self.file).stderr(Stdio::null()).output().unwrap();
        let mut shares = BTreeMap::new();
        for line in String::from_utf8_lossy(&report.stdout).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [share, object, _, ..] = words[..] else { continue };
            let Some(share) = share.strip_suffix('%').and_then(|share| share.parse::<f64>().ok()) else { continue };
            *shares.entry(part(object, line)).or_default() += share;
        }
        assert!(!shares.is_empty(), "perf has seen nothing of {}", self.file.display());
        shares
    }
}

fn part(object: &str, line: &str) -> &'static str {
    if object.starts_with('[') {
        return KERNEL;
    }
    let fits = |(_, names): &&(&str, &[&str])| names.iter().any(|name| line.contains(name));
    PARTS.iter().find(fits).map_or(OTHER, |(part, _)| part)
}

/// Recordings by measurement. Of several rounds, only the last is kept.
#[derive(Default)]
pub(crate) struct Profiles(Vec<(String, BTreeMap<&'static str, f64>)>);

impl Profiles {
    /// Ends a recording of the measurement with this name.
    pub(crate) fn add(&mut self, name: String, recording: Recording) {
        self.0.retain(|(other, _)| *other != name);
        self.0.push((name, recording.finish()));
    }

    /// Returns a table in percent, if anything was recorded.
    pub(crate) fn table(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut rows = vec![vec!["Pushward's processor time, %".to_owned()]];
        rows[0].extend(self.0.iter().map(|(name, _)| name.clone()));
        for part in [KERNEL].into_iter().chain(PARTS.map(|(part, _)| part)).chain([OTHER]) {
            let shares = self.0.iter().map(|(_, shares)| format!("{:.0}", shares.get(part).unwrap_or(&0.0)));
            rows.push([part.to_owned()].into_iter().chain(shares).collect());
        }
        columns(&rows)
    }
}

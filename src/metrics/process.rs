//! Metrics of the process as the system reports them, under the names that all Prometheus clients use. They are read on demand
//! from proc(5); those that cannot be read are left out.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The ticks per second in `/proc/self/stat`: `USER_HZ`, which is 100 on every architecture that Rust's standard library runs
/// on.
const TICKS: f64 = 100.0;

/// This process.
#[derive(Debug)]
pub(super) struct Process {
    /// The time of the start, in unix seconds.
    started: f64,
}

impl Process {
    /// Records the current time as the start of the process.
    pub(super) fn new() -> Self {
        Self { started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()) }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut encode = |name: &str, help: &str, metric: Box<dyn EncodeMetric>| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let start = Box::new(ConstGauge::new(self.started));
        encode("process_start_time_seconds", "Start time of the process, in unix seconds.", start)?;
        if let Some(seconds) = cpu_seconds() {
            encode("process_cpu_seconds", "CPU time used.", Box::new(ConstCounter::new(seconds)))?;
        }
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory.", status("VmRSS:").map(|kib| kib * 1024)),
            ("process_virtual_memory_bytes", "Virtual memory.", status("VmSize:").map(|kib| kib * 1024)),
            ("process_threads", "Threads.", status("Threads:")),
            ("process_open_fds", "Open file descriptors, including sockets.", open_descriptors()),
            ("process_max_fds", "Limit of open file descriptors.", most_descriptors()),
        ] {
            if let Some(value) = value {
                encode(name, help, Box::new(ConstGauge::new(value)))?;
            }
        }
        Ok(())
    }
}

/// Returns the first number in a line of `/proc/self/status`.
fn status(line: &str) -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|is| is.strip_prefix(line))?.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, in brackets, may contain anything; utime and stime are the 14th and the 15th.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / TICKS)
}

fn open_descriptors() -> Option<i64> {
    // The directory itself is open while it is read.
    fs::read_dir("/proc/self/fd").ok()?.count().checked_sub(1)?.try_into().ok()
}

fn most_descriptors() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_reports_the_resources_of_this_process() {
        assert!(status("VmRSS:").is_some_and(|kib| kib > 100));
        assert!(status("Threads:").is_some_and(|threads| threads > 0));
        let _more = fs::File::open("/proc/self/status").unwrap();
        assert!(open_descriptors().is_some_and(|open| open > 3));
        assert!(most_descriptors().is_some_and(|most| most > 10));
        assert!(cpu_seconds().is_some_and(|seconds| (0.0..1e6).contains(&seconds)));
    }
}

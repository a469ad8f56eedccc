//! The metrics of the process, by the names that Prometheus' client libraries give them.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::state::encode_gauges;

/// The unit of times in `/proc`, which is the same on all machines that we build for (`times(2)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc` with every collection. What cannot be read is left out.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if let Some(seconds) = cpu_seconds() {
            let help = "CPU time that the process has used, in seconds";
            let mut metric =
                encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Memory of the process, in bytes", resident_bytes()),
            ("process_open_fds", "Files and sockets that the process has open", open_files()),
            ("process_max_fds", "How many files and sockets the process may have open", max_files()),
            ("process_start_time_seconds", "When the process started, in seconds since 1970", start_time()),
        ];
        for (name, help, value) in gauges {
            let samples = value.map(|value| (Vec::new(), value)).into_iter().collect();
            encode_gauges(&mut encoder, (name, help), samples)?;
        }
        Ok(())
    }
}

/// Returns a field of `/proc/self/stat` by its number in proc(5). The name, which is the second
/// field, may contain anything.
fn stat_field(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat_field(14)? + stat_field(15)?) / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn open_files() -> Option<f64> {
    // One of them is the folder that is being read.
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64 - 1.0)
}

fn max_files() -> Option<f64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map(|files| files as f64)
}

fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat_field(22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;

    #[test]
    fn a_process_has_memory_files_and_a_beginning() {
        let text = Metrics::new().encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name}\n{text}")).parse().expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_start_time_seconds") > 1.7e9, "{text}");
    }
}

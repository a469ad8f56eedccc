//! The results, one row for each number of tenants.

use std::fs;
use std::time::Duration;

use crate::console::View;

/// The results for one number of tenants.
pub(crate) struct Row {
    pub(crate) tenants: usize,
    pub(crate) cold_start: Duration,
    pub(crate) cold_cpu: Duration,
    /// Memory when ready, when the contexts have been fetched, and after a call to each tenant.
    pub(crate) started_bytes: u64,
    pub(crate) warm_bytes: u64,
    pub(crate) served_bytes: u64,
    pub(crate) arrival_p50: Duration,
    pub(crate) arrival_p95: Duration,
    /// CPU microseconds to add one tenant.
    pub(crate) add_cpu: f64,
    /// A view of the console's overview, and of a search in it.
    pub(crate) overview: View,
    pub(crate) search: View,
    /// A scrape of the metrics.
    pub(crate) scrape: View,
    /// CPU microseconds per call, here and in a gateway with one tenant at the same time.
    pub(crate) call_us: f64,
    pub(crate) call_us_alone: f64,
}

pub(crate) fn print_head() {
    println!("\nload {}", load_average());
    println!(
        "| tenants | ready s | CPU s | MiB ready | MiB warm | MiB served | file to answer p50 ms | p95 ms | add CPU ms | overview CPU ms | KB | search CPU ms | scrape CPU ms | scrape KB | call CPU us | alone us | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
}

pub(crate) fn print_foot() {
    println!("load {}", load_average());
}

impl Row {
    pub(crate) fn print(&self) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "| {} | {:.2} | {:.2} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {:.1} | {:.2} | {:.2} | {:.1} | {:.1} | {:.1} | {:.3} |",
            self.tenants,
            self.cold_start.as_secs_f64(),
            self.cold_cpu.as_secs_f64(),
            mib(self.started_bytes),
            mib(self.warm_bytes),
            mib(self.served_bytes),
            microseconds(self.arrival_p50) / 1e3,
            microseconds(self.arrival_p95) / 1e3,
            self.add_cpu / 1e3,
            self.overview.cpu_ms,
            self.overview.bytes as f64 / 1e3,
            self.search.cpu_ms,
            self.scrape.cpu_ms,
            self.scrape.bytes as f64 / 1e3,
            self.call_us,
            self.call_us_alone,
            self.call_us / self.call_us_alone,
        );
    }
}

pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Returns a percentile of ascending durations; zero if there are none.
pub(crate) fn percentile(ascending: &[Duration], hundredths: usize) -> Duration {
    let at = (ascending.len() * hundredths / 100).min(ascending.len().saturating_sub(1));
    ascending.get(at).copied().unwrap_or_default()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}

//! The results as one table.

use std::collections::BTreeMap;

use crate::load::{Era, Outcome};
use crate::statistics;
use crate::usage::Usage;

/// One measurement of one target.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_per_call: f64,
    sleeps_per_call: f64,
    resident_mib: f64,
}

impl Sample {
    pub(crate) fn new(outcome: Outcome, used: Usage, resident_bytes: u64) -> Self {
        let calls = outcome.latencies.len();
        let percentile = |hundredths: usize| {
            let at = (calls * hundredths / 100).min(calls.saturating_sub(1));
            outcome.latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
        };
        Self {
            requests_per_second: calls as f64 / outcome.elapsed.as_secs_f64(),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            cpu_us_per_call: used.cpu.as_secs_f64() * 1e6 / calls as f64,
            sleeps_per_call: used.sleeps as f64 / calls as f64,
            resident_mib: resident_bytes as f64 / f64::from(1 << 20),
        }
    }
}

/// All measurements of a run, by connections, era and target.
pub(crate) struct Report {
    targets: Vec<String>,
    samples: BTreeMap<(usize, Era, String), Vec<Sample>>,
    load_before: String,
}

impl Report {
    /// Starts a report with `targets` as its columns; ratios refer to the first.
    pub(crate) fn new(targets: Vec<String>) -> Self {
        Self { targets, samples: BTreeMap::new(), load_before: statistics::load_average() }
    }

    pub(crate) fn add(&mut self, target: &str, era: Era, connections: usize, sample: Sample) {
        self.samples.entry((connections, era, target.to_owned())).or_default().push(sample);
    }

    pub(crate) fn print(&self, rounds: usize, delay_ms: u64, tenants: usize) {
        let (before, after) = (&self.load_before, statistics::load_average());
        println!(
            "\ntools/call over TLS, {tenants} tenants, backend {delay_ms} ms, medians of {rounds} rounds in turns, load {before} -> {after}"
        );
        println!(
            "| conc | era | target | req/s | p50 ms | p99 ms | p99 x | CPU us/call | spread | CPU x | sleeps/call | RSS MiB |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
        let mut groups: Vec<(usize, Era)> =
            self.samples.keys().map(|(connections, era, _)| (*connections, *era)).collect();
        groups.dedup();
        for (connections, era) in groups {
            self.print_group(connections, era);
        }
    }

    /// Prints how much more CPU a call takes at one target than at another: of each round, since both
    /// then saw the same machine.
    pub(crate) fn compare(&self, target: &str, base: &str) {
        for (key @ (connections, era, _), bases) in &self.samples {
            if key.2 != base {
                continue;
            }
            let own = &self.samples[&(*connections, *era, target.to_owned())];
            let rounds = own.iter().zip(bases);
            let mut more: Vec<f64> = rounds
                .map(|(own, base)| (own.cpu_us_per_call / base.cpu_us_per_call - 1.0) * 100.0)
                .collect();
            more.sort_by(f64::total_cmp);
            let quarter = |number: usize| more[(more.len() - 1) * number / 4];
            println!(
                "{connections} connections, {era}: {target} takes {:+.1} % of the CPU of {base} more (median of rounds; half of them {:+.1} to {:+.1} %)",
                quarter(2),
                quarter(1),
                quarter(3),
            );
        }
    }

    fn print_group(&self, connections: usize, era: Era) {
        let base = &self.samples[&(connections, era, self.targets[0].clone())];
        for target in &self.targets {
            let own = &self.samples[&(connections, era, target.clone())];
            let value = |field: fn(&Sample) -> f64| median(own, field);
            let ratio = |field: fn(&Sample) -> f64| median(own, field) / median(base, field);
            let cpus = own.iter().map(|sample| sample.cpu_us_per_call);
            println!(
                "| {connections} | {era} | {target} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.0}-{:.0} | {:.2} | {:.2} | {:.0} |",
                value(|sample| sample.requests_per_second),
                value(|sample| sample.p50_ms),
                value(|sample| sample.p99_ms),
                ratio(|sample| sample.p99_ms),
                value(|sample| sample.cpu_us_per_call),
                cpus.clone().fold(f64::INFINITY, f64::min),
                cpus.fold(0.0, f64::max),
                ratio(|sample| sample.cpu_us_per_call),
                value(|sample| sample.sleeps_per_call),
                value(|sample| sample.resident_mib),
            );
        }
    }
}

fn median(samples: &[Sample], field: fn(&Sample) -> f64) -> f64 {
    statistics::median(samples.iter().map(field))
}

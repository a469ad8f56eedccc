//! What happened: counters, violations, and the line that is printed for each round.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tenantd::base::clock::{Clock, SystemClock};

/// Shared by all who act.
pub(super) struct Report {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The round and its fault, for what happens in it.
    now: String,
    counts: BTreeMap<String, u64>,
    violations: Vec<String>,
    /// The kind of fault of the round that is going on.
    kind: String,
    by_kind: BTreeMap<String, Kind>,
    /// When a healthy node served somebody who was put out for the last time, by order.
    served_after: BTreeMap<String, Vec<Duration>>,
}

/// What happened in the rounds with one kind of fault.
#[derive(Default)]
struct Kind {
    rounds: u64,
    counts: BTreeMap<String, u64>,
    served_after: Vec<Duration>,
    violations: u64,
}

impl State {
    fn kind(&mut self) -> &mut Kind {
        self.by_kind.entry(self.kind.clone()).or_default()
    }
}

impl Kind {
    fn count(&self, is_meant: impl Fn(&str) -> bool) -> u64 {
        self.counts.iter().filter(|(what, _)| is_meant(what)).map(|(_, count)| count).sum()
    }
}

impl Report {
    pub(super) fn new() -> Self {
        Self { started: SystemClock.monotonic(), state: Mutex::default() }
    }

    /// Counts an event.
    pub(super) fn count(&self, what: impl Into<String>) {
        let what = what.into();
        self.with(|state| {
            *state.kind().counts.entry(what.clone()).or_default() += 1;
            *state.counts.entry(what).or_default() += 1;
        });
    }

    /// Notes when a healthy node served somebody who was put out by an order for the last time.
    pub(super) fn measure_service(&self, order: &str, after: Option<Duration>) {
        self.with(|state| {
            state.kind().served_after.extend(after);
            state.served_after.entry(order.to_owned()).or_default().extend(after);
        });
    }

    /// Says that a round begins.
    pub(super) fn begin(&self, round: usize, fault: &str, kind: &str) {
        self.with(|state| {
            state.now = format!("round {round}, {fault}");
            kind.clone_into(&mut state.kind);
            state.kind().rounds += 1;
        });
    }

    /// Notes that something happened that must not, and prints it at once.
    pub(super) fn violation(&self, what: impl AsRef<str>) {
        let at = (SystemClock.monotonic() - self.started).as_secs_f64();
        self.with(|state| {
            let line = format!("VIOLATION at {at:.2} s, {}: {}", state.now, what.as_ref());
            println!("{line}");
            state.violations.push(line);
            state.kind().violations += 1;
        });
    }

    /// Returns the violations so far.
    pub(super) fn violations(&self) -> usize {
        self.with(|state| state.violations.len())
    }

    /// Prints a line of the round that is going on.
    pub(super) fn line(&self, text: &str) {
        let at = (SystemClock.monotonic() - self.started).as_secs_f64();
        let now = self.with(|state| state.now.clone());
        println!("{at:8.2} s  {now}: {text}");
    }

    /// Prints everything, and panics if there were violations.
    pub(super) fn conclude(&self) {
        self.with(|state| {
            println!("\nwhat clients met:");
            state.counts.iter().for_each(|(what, count)| println!("  {count:8} {what}"));
            println!(
                "\n{:40} rounds renewals   calls put out  last served by a healthy node  violations",
                "fault"
            );
            for (name, kind) in &mut state.by_kind {
                println!(
                    "{name:40} {:6} {:8} {:7} {:7}      {} {:14}",
                    kind.rounds,
                    kind.count(|what| what == "refresh: 200"),
                    kind.count(|what| what == "call: 200"),
                    kind.count(|what| what.ends_with(" acknowledged") && !what.contains("not ")),
                    describe(&mut kind.served_after),
                    kind.violations,
                );
            }
            for (order, served_after) in &mut state.served_after {
                println!("put out by {order}: {} times, {}", served_after.len(), describe(served_after));
            }
            println!("violations: {}", state.violations.len());
            state.violations.iter().for_each(|violation| println!("  {violation}"));
        });
        assert_eq!(self.violations(), 0, "see above");
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().expect("nobody panics with it"))
    }
}

/// Returns the 99th percentile and the maximum.
fn describe(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    let after = |place: usize| times.get(place).map_or(0.0, Duration::as_secs_f64);
    format!("p99 {:.2} s, max {:.2} s", after(last * 99 / 100), after(last))
}

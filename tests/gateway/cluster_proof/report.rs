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
    durations: BTreeMap<&'static str, Vec<Duration>>,
    violations: Vec<String>,
    /// Rounds by their fault.
    rounds: BTreeMap<String, u64>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { started: SystemClock.monotonic(), state: Mutex::default() }
    }

    /// Counts an event.
    pub(super) fn count(&self, what: impl Into<String>) {
        self.with(|state| *state.counts.entry(what.into()).or_default() += 1);
    }

    /// Notes how long something took.
    pub(super) fn measure(&self, what: &'static str, took: Option<Duration>) {
        self.with(|state| state.durations.entry(what).or_default().extend(took));
    }

    /// Says that a round begins.
    pub(super) fn begin(&self, round: usize, fault: &str, kind: &str) {
        self.with(|state| {
            state.now = format!("round {round}, {fault}");
            *state.rounds.entry(kind.to_owned()).or_default() += 1;
        });
    }

    /// Notes that something happened that must not, and prints it at once.
    pub(super) fn violation(&self, what: impl AsRef<str>) {
        let at = (SystemClock.monotonic() - self.started).as_secs_f64();
        self.with(|state| {
            let line = format!("VIOLATION at {at:.2} s, {}: {}", state.now, what.as_ref());
            println!("{line}");
            state.violations.push(line);
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
            println!("\nrounds by fault:");
            state.rounds.iter().for_each(|(fault, count)| println!("  {count:6} {fault}"));
            println!("what clients met:");
            state.counts.iter().for_each(|(what, count)| println!("  {count:8} {what}"));
            for (what, took) in &mut state.durations {
                took.sort_unstable();
                let part =
                    |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)));
                println!("{what}: p50 {:?}, p99 {:?}, longest {:?}", part(50), part(99), took.last());
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

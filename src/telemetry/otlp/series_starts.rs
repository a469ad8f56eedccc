//! When each cumulative series began, which every one of its data points says.
//!
//! A tenant that goes takes its counters with it, and begins anew if it comes back. The only thing
//! known of such a beginning is that it was not before the last export.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What was last seen of a series.
#[derive(Debug, Clone, Copy)]
struct SeenSeries {
    start: u64,
    value: f64,
}

/// The beginnings of all series, in nanoseconds since 1970.
#[derive(Debug)]
pub(super) struct SeriesStarts {
    seen: HashMap<u64, SeenSeries>,
    now_seen: HashMap<u64, SeenSeries>,
    /// The last export, before which no series began that was not in it.
    last_export: u64,
}

impl SeriesStarts {
    /// Begins with no series; none is older than `start`.
    pub(super) fn new(start: u64) -> Self {
        Self { seen: HashMap::new(), now_seen: HashMap::new(), last_export: start }
    }

    /// Returns the beginning of a series, whose value in this export is given.
    pub(super) fn find(&mut self, name: &str, labels: &[(&str, String)], value: f64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (name, labels).hash(&mut hasher);
        let key = hasher.finish();
        let start = match self.seen.get(&key) {
            Some(seen) if seen.value <= value => seen.start,
            _ => self.last_export,
        };
        self.now_seen.insert(key, SeenSeries { start, value });
        start
    }

    /// Ends an export: series that were not in it are forgotten.
    pub(super) fn finish_export(&mut self, now: u64) {
        self.seen = std::mem::take(&mut self.now_seen);
        self.last_export = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_begins_with_the_program_or_after_the_last_export() {
        let mut starts = SeriesStarts::new(10);
        let acme = [("tenant", "acme".to_owned())];
        assert_eq!(starts.find("calls", &acme, 5.0), 10);
        starts.finish_export(20);
        assert_eq!(starts.find("calls", &acme, 6.0), 10, "it goes on");
        assert_eq!(starts.find("calls", &[("tenant", "beta".to_owned())], 1.0), 20, "it is new");
        starts.finish_export(30);
        assert_eq!(starts.find("calls", &acme, 1.0), 30, "it began anew");
        starts.finish_export(40);
        starts.finish_export(50);
        assert_eq!(starts.find("calls", &acme, 9.0), 50, "it was gone");
    }
}

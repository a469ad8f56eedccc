//! Debounces file events: a scan waits for a short quiet after an entry's last event, but never
//! longer than a ceiling after its first, so that one endlessly written file delays no other and a
//! burst costs one scan per entry.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_millis(25);
const CEILING: Duration = Duration::from_millis(500);
/// Beyond this number of entries a full scan is cheaper.
const MANY: usize = 4_096;

/// The entries that had events and were not scanned since.
#[derive(Debug, Default)]
pub(super) struct Pace {
    entries: HashMap<String, Rung>,
    all: Option<Rung>,
    /// Files that were renamed into place and not touched since, and so are complete.
    renamed: HashMap<PathBuf, String>,
}

#[derive(Debug, Clone, Copy)]
struct Rung {
    first: Instant,
    last: Instant,
}

/// A scan that is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The entries to scan; `None`: all.
    pub(super) stems: Option<BTreeSet<String>>,
    pub(super) renamed: HashSet<PathBuf>,
}

impl Rung {
    fn due(self) -> Instant {
        (self.last + QUIET).min(self.first + CEILING)
    }
}

impl Pace {
    /// Records an event of an entry.
    pub(super) fn ring(&mut self, stem: String, now: Instant) {
        if self.entries.len() >= MANY {
            return self.ring_all(now);
        }
        self.entries.entry(stem).and_modify(|rung| rung.last = now).or_insert(Rung { first: now, last: now });
    }

    /// Records that a file of an entry was renamed into place.
    pub(super) fn renamed(&mut self, stem: &str, file: &Path) {
        if self.renamed.len() < MANY {
            self.renamed.insert(file.to_owned(), stem.to_owned());
        }
    }

    /// Records that a file was touched, so that an earlier rename no longer proves it complete.
    pub(super) fn touched(&mut self, file: &Path) {
        self.renamed.remove(file);
    }

    /// Records that any entry may have changed.
    pub(super) fn ring_all(&mut self, now: Instant) {
        self.entries.clear();
        let rung = self.all.get_or_insert(Rung { first: now, last: now });
        rung.last = now;
    }

    /// Returns when the next entry is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.values().chain(&self.all).map(|rung| rung.due()).min()
    }

    /// Takes the scan that is due, if any.
    pub(super) fn take(&mut self, now: Instant) -> Option<Look> {
        if self.all.is_some_and(|rung| rung.due() <= now) {
            self.all = None;
            self.entries.clear();
            return Some(Look { stems: None, renamed: self.take_renamed(|_| true) });
        }
        let due = self.entries.extract_if(|_, rung| rung.due() <= now).map(|(stem, _)| stem);
        let stems: BTreeSet<_> = due.collect();
        if stems.is_empty() {
            return None;
        }
        let renamed = self.take_renamed(|stem| stems.contains(stem));
        Some(Look { stems: Some(stems), renamed })
    }

    fn take_renamed(&mut self, due: impl Fn(&str) -> bool) -> HashSet<PathBuf> {
        self.renamed.extract_if(|_, stem| due(stem)).map(|(file, _)| file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    fn clock() -> ManualClock {
        ManualClock::at(jiff::Timestamp::UNIX_EPOCH)
    }

    fn stems(look: Option<Look>) -> Vec<String> {
        look.and_then(|look| look.stems).into_iter().flatten().collect()
    }

    #[test]
    fn an_entry_is_looked_at_after_a_little_quiet() {
        let (mut pace, clock) = (Pace::default(), clock());
        pace.ring("a".into(), clock.monotonic());
        assert_eq!(pace.take(clock.monotonic()), None);
        clock.advance(QUIET);
        assert_eq!(stems(pace.take(clock.monotonic())), ["a"]);
        assert_eq!(pace.next_due(), None);
    }

    #[test]
    fn an_endlessly_written_file_is_looked_at_by_the_ceiling_and_delays_nobody() {
        let (mut pace, clock) = (Pace::default(), clock());
        let (mut noisy, mut calm) = (0, 0);
        pace.ring("calm".into(), clock.monotonic());
        for _ in 0..100 {
            pace.ring("noisy".into(), clock.monotonic());
            clock.advance(Duration::from_millis(10));
            for stem in stems(pace.take(clock.monotonic())) {
                if stem == "noisy" { noisy += 1 } else { calm += 1 }
            }
        }
        assert_eq!((noisy, calm), (2, 1), "in one second");
    }

    #[test]
    fn a_flood_of_entries_becomes_one_look_at_all() {
        let (mut pace, clock) = (Pace::default(), clock());
        (0..MANY + 1).for_each(|n| pace.ring(n.to_string(), clock.monotonic()));
        clock.advance(QUIET);
        assert_eq!(pace.take(clock.monotonic()), Some(Look::default()));
        assert_eq!(pace.take(clock.monotonic()), None);
    }

    #[test]
    fn a_renamed_file_is_told_with_its_own_entry_unless_it_was_touched_since() {
        let (mut pace, clock) = (Pace::default(), clock());
        pace.ring("a".into(), clock.monotonic());
        clock.advance(QUIET);
        for stem in ["b", "c"] {
            pace.ring(stem.into(), clock.monotonic());
            pace.renamed(stem, Path::new(stem));
        }
        pace.touched(Path::new("c"));
        assert!(pace.take(clock.monotonic()).expect("a is due").renamed.is_empty());
        clock.advance(QUIET);
        let look = pace.take(clock.monotonic()).expect("b and c are due");
        assert_eq!(look.renamed, HashSet::from([PathBuf::from("b")]));
    }
}

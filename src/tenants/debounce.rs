//! Debounces file events: a scan waits for a short quiet after an entry's last event, but never
//! longer than a ceiling after its first, so that one endlessly written file delays no other and a
//! burst costs one scan per entry.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::scan::ScanRequest;

const QUIET_PERIOD: Duration = Duration::from_millis(25);
const MAX_DELAY: Duration = Duration::from_millis(500);
/// Beyond this number of entries a full scan is cheaper.
const MAX_TRACKED_ENTRIES: usize = 4_096;

/// The entries that had events and were not scanned since.
#[derive(Debug, Default)]
pub(super) struct Debouncer {
    entries: HashMap<String, EventWindow>,
    full_scan: Option<EventWindow>,
    /// Files that were renamed into place and not touched since, and so are complete.
    renamed: HashMap<PathBuf, String>,
}

#[derive(Debug, Clone, Copy)]
struct EventWindow {
    first: Instant,
    last: Instant,
}

impl EventWindow {
    fn due(self) -> Instant {
        (self.last + QUIET_PERIOD).min(self.first + MAX_DELAY)
    }
}

impl Debouncer {
    /// Records an event of an entry.
    pub(super) fn notify(&mut self, entry_id: String, now: Instant) {
        if self.entries.len() >= MAX_TRACKED_ENTRIES {
            return self.notify_all(now);
        }
        self.entries
            .entry(entry_id)
            .and_modify(|window| window.last = now)
            .or_insert(EventWindow { first: now, last: now });
    }

    /// Records that a file of an entry was renamed into place.
    pub(super) fn notify_renamed(&mut self, entry_id: &str, file: &Path) {
        if self.renamed.len() < MAX_TRACKED_ENTRIES {
            self.renamed.insert(file.to_owned(), entry_id.to_owned());
        }
    }

    /// Records that a file was touched, so that an earlier rename no longer proves it complete.
    pub(super) fn forget_renamed(&mut self, file: &Path) {
        self.renamed.remove(file);
    }

    /// Records that any entry may have changed.
    pub(super) fn notify_all(&mut self, now: Instant) {
        self.entries.clear();
        let window = self.full_scan.get_or_insert(EventWindow { first: now, last: now });
        window.last = now;
    }

    /// Returns when the next entry is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.values().chain(&self.full_scan).map(|window| window.due()).min()
    }

    /// Takes the scan that is due, if any.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<ScanRequest> {
        if self.full_scan.is_some_and(|window| window.due() <= now) {
            self.full_scan = None;
            self.entries.clear();
            return Some(ScanRequest { entry_ids: None, renamed: self.take_renamed(|_| true) });
        }
        let due = self.entries.extract_if(|_, window| window.due() <= now);
        let entry_ids: BTreeSet<_> = due.map(|(entry_id, _)| entry_id).collect();
        if entry_ids.is_empty() {
            return None;
        }
        let renamed = self.take_renamed(|entry_id| entry_ids.contains(entry_id));
        Some(ScanRequest { entry_ids: Some(entry_ids), renamed })
    }

    fn take_renamed(&mut self, is_due: impl Fn(&str) -> bool) -> HashSet<PathBuf> {
        self.renamed.extract_if(|_, entry_id| is_due(entry_id)).map(|(file, _)| file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    fn clock() -> ManualClock {
        ManualClock::at(jiff::Timestamp::UNIX_EPOCH)
    }

    fn entry_ids(request: Option<ScanRequest>) -> Vec<String> {
        request.and_then(|request| request.entry_ids).into_iter().flatten().collect()
    }

    #[test]
    fn an_entry_is_scanned_after_a_quiet_period() {
        let (mut debouncer, clock) = (Debouncer::default(), clock());
        debouncer.notify("a".into(), clock.monotonic());
        assert_eq!(debouncer.take_due(clock.monotonic()), None);
        clock.advance(QUIET_PERIOD);
        assert_eq!(entry_ids(debouncer.take_due(clock.monotonic())), ["a"]);
        assert_eq!(debouncer.next_due(), None);
    }

    #[test]
    fn an_endlessly_written_file_is_scanned_at_the_ceiling_and_delays_no_other() {
        let (mut debouncer, clock) = (Debouncer::default(), clock());
        let (mut noisy, mut calm) = (0, 0);
        debouncer.notify("calm".into(), clock.monotonic());
        for _ in 0..100 {
            debouncer.notify("noisy".into(), clock.monotonic());
            clock.advance(Duration::from_millis(10));
            for entry_id in entry_ids(debouncer.take_due(clock.monotonic())) {
                if entry_id == "noisy" { noisy += 1 } else { calm += 1 }
            }
        }
        assert_eq!((noisy, calm), (2, 1), "in one second");
    }

    #[test]
    fn a_flood_of_entries_becomes_one_full_scan() {
        let (mut debouncer, clock) = (Debouncer::default(), clock());
        (0..MAX_TRACKED_ENTRIES + 1).for_each(|n| debouncer.notify(n.to_string(), clock.monotonic()));
        clock.advance(QUIET_PERIOD);
        assert_eq!(debouncer.take_due(clock.monotonic()), Some(ScanRequest::default()));
        assert_eq!(debouncer.take_due(clock.monotonic()), None);
    }

    #[test]
    fn a_full_scan_waits_for_quiet_too_and_takes_all_entries_and_renamed_files_with_it() {
        let (mut debouncer, clock) = (Debouncer::default(), clock());
        debouncer.notify("a".into(), clock.monotonic());
        debouncer.notify_renamed("a", Path::new("a"));
        debouncer.notify_all(clock.monotonic());
        clock.advance(QUIET_PERIOD - Duration::from_millis(1));
        debouncer.notify_all(clock.monotonic());
        clock.advance(Duration::from_millis(1));
        assert_eq!(debouncer.take_due(clock.monotonic()), None);
        clock.advance(QUIET_PERIOD);
        let renamed = HashSet::from([PathBuf::from("a")]);
        let all = ScanRequest { entry_ids: None, renamed };
        assert_eq!(debouncer.take_due(clock.monotonic()), Some(all));
        assert_eq!(debouncer.next_due(), None);
    }

    #[test]
    fn a_renamed_file_is_reported_with_its_own_entry_unless_it_was_touched_since() {
        let (mut debouncer, clock) = (Debouncer::default(), clock());
        debouncer.notify("a".into(), clock.monotonic());
        clock.advance(QUIET_PERIOD);
        for entry_id in ["b", "c"] {
            debouncer.notify(entry_id.into(), clock.monotonic());
            debouncer.notify_renamed(entry_id, Path::new(entry_id));
        }
        debouncer.forget_renamed(Path::new("c"));
        assert!(debouncer.take_due(clock.monotonic()).expect("a is due").renamed.is_empty());
        clock.advance(QUIET_PERIOD);
        let request = debouncer.take_due(clock.monotonic()).expect("b and c are due");
        assert_eq!(request.renamed, HashSet::from([PathBuf::from("b")]));
    }
}

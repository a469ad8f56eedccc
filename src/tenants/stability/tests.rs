use std::fs;

use super::*;
use crate::base::clock::{Clock, ManualClock};
use crate::tenants::entry::{Entry, PersistedState};
use crate::tenants::scan::scan_folder;
use crate::tenants::source::TenantsSource;

/// A folder, and what the reconciler knows of it.
struct Fixture {
    folder: tempfile::TempDir,
    clock: ManualClock,
    entries: EntryMap,
    observations: Observations,
}

/// The entries to load, each with whether it is provisional, and the removed ones.
type Decided = (Vec<(String, bool)>, Vec<String>);

fn loads(entry_id: &str, is_provisional: bool) -> Decided {
    (vec![(entry_id.to_owned(), is_provisional)], Vec::new())
}

fn nothing() -> Decided {
    Decided::default()
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            clock: ManualClock::at(jiff::Timestamp::UNIX_EPOCH),
            entries: EntryMap::new(),
            observations: Observations::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn delete(&self, name: &str) {
        fs::remove_file(self.path(name)).expect("deleted");
    }

    fn wait(&self, milliseconds: u64) {
        self.clock.advance(Duration::from_millis(milliseconds));
    }

    fn scan(&self) -> Vec<ScannedEntry> {
        let source = TenantsSource::Folder(self.folder.path().to_owned());
        scan_folder(&source, None, &HashMap::new()).expect("listed").entries
    }

    /// Makes the entries known as they are now.
    fn know_all(&mut self) {
        for scanned in self.scan() {
            let mut entry = Entry::new(self.clock.now(), PersistedState::default());
            entry.stamps = scanned.stamps;
            self.entries.insert(scanned.files.id.into(), Box::new(entry));
        }
    }

    fn classify_with(&mut self, request: &ScanRequest, is_first: bool) -> Decided {
        let (scanned, now) = (self.scan(), self.clock.monotonic());
        let context = ScanContext { request, entries: &self.entries, now, is_first };
        let outcome = context.classify(scanned, &mut self.observations);
        let load = |load: PendingLoad| (load.scanned.files.id, load.is_provisional);
        let removed = outcome.removed.iter().map(|entry_id| entry_id.to_string()).collect();
        (outcome.to_load.into_iter().map(load).collect(), removed)
    }

    fn classify(&mut self) -> Decided {
        self.classify_with(&ScanRequest::default(), false)
    }

    fn classify_renamed(&mut self, names: &[&str]) -> Decided {
        let renamed = names.iter().map(|name| self.path(name)).collect();
        self.classify_with(&ScanRequest { renamed, ..ScanRequest::default() }, false)
    }

    fn unstable(&self) -> Vec<String> {
        self.observations.entry_ids().map(|entry_id| entry_id.to_string()).collect()
    }
}

#[test]
fn the_first_scan_takes_everything_as_stable() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", "x");
    assert_eq!(fixture.classify_with(&ScanRequest::default(), true), loads("a", false));
    assert!(fixture.unstable().is_empty());
}

#[test]
fn a_file_is_read_once_two_scans_half_a_second_apart_agree() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", "x");
    assert_eq!(fixture.classify(), nothing());
    assert_eq!(fixture.unstable(), ["a"]);
    assert_eq!(fixture.observations.next_due(), Some(fixture.clock.monotonic() + STABLE_AFTER));
    fixture.wait(499);
    assert_eq!(fixture.classify(), nothing(), "frequent scans neither confirm nor delay");
    fixture.wait(1);
    assert_eq!(fixture.classify(), loads("a", false));
    assert!(fixture.unstable().is_empty());
}

#[test]
fn a_change_between_two_scans_begins_anew() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", "x");
    assert_eq!(fixture.classify(), nothing());
    fixture.wait(500);
    fixture.write("a.yaml", "longer");
    assert_eq!(fixture.classify(), nothing());
    fixture.wait(499);
    assert_eq!(fixture.classify(), nothing());
    fixture.wait(1);
    assert_eq!(fixture.classify(), loads("a", false));
}

#[test]
fn what_was_renamed_into_place_is_read_at_once_if_the_rest_is_as_it_was() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", "x");
    assert_eq!(fixture.classify_renamed(&["a.yaml"]), loads("a", false));
    fixture.know_all();
    fixture.write("a.env", "X=y");
    assert_eq!(fixture.classify_renamed(&["a.env"]), loads("a", false));
    fixture.write("a.yaml", "longer");
    assert_eq!(fixture.classify_renamed(&["a.env"]), nothing(), "the other one is still written");
}

#[test]
fn a_zip_counts_if_it_reads_completely_or_a_later_scan_confirms_it() {
    let mut fixture = Fixture::new();
    fixture.write("a.zip", "x");
    assert_eq!(fixture.classify_renamed(&["a.zip"]), loads("a", true), "its overlay may be coming");
    let (scanned, now) = (fixture.scan(), fixture.clock.monotonic());
    fixture.observations.observe(&"a".into(), Some(scanned[0].stamps.clone()), now);
    fixture.wait(499);
    assert_eq!(fixture.classify(), loads("a", true));
    fixture.wait(1);
    assert_eq!(fixture.classify(), loads("a", false));
    fixture.know_all();
    fixture.write("a.zip", "longer");
    assert_eq!(fixture.classify(), loads("a", true));
    assert_eq!(fixture.classify_renamed(&["a.zip"]), loads("a", false), "of a known entry");
}

#[test]
fn a_file_that_went_away_makes_its_entry_unstable() {
    let mut fixture = Fixture::new();
    fixture.write("a.zip", "x");
    fixture.write("a.yaml", "x");
    fixture.know_all();
    fixture.delete("a.yaml");
    assert_eq!(fixture.classify_renamed(&["a.zip"]), nothing(), "an editor may be about to write it");
    fixture.wait(500);
    assert_eq!(fixture.classify(), loads("a", false));
}

#[test]
fn an_entry_is_removed_once_two_scans_miss_it() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", "x");
    fixture.know_all();
    fixture.delete("a.yaml");
    assert_eq!(fixture.classify(), nothing());
    assert!(fixture.observations.is_absent("a"));
    fixture.wait(499);
    assert_eq!(fixture.classify(), nothing());
    fixture.wait(1);
    assert_eq!(fixture.classify(), (Vec::new(), vec!["a".to_owned()]));
}

#[test]
fn an_entry_that_comes_back_is_neither_removed_nor_read() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", "x");
    fixture.know_all();
    fs::rename(fixture.path("a.yaml"), fixture.path("aside")).expect("moved");
    assert_eq!(fixture.classify(), nothing());
    fs::rename(fixture.path("aside"), fixture.path("a.yaml")).expect("moved back");
    fixture.know_all();
    fixture.wait(500);
    assert_eq!(fixture.classify(), nothing());
    assert!(fixture.unstable().is_empty());
}

#[test]
fn entries_outside_of_the_request_are_not_missed() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", "x");
    fixture.know_all();
    fixture.delete("a.yaml");
    let others = ScanRequest { entry_ids: Some(["b".to_owned()].into()), ..ScanRequest::default() };
    for _ in 0..2 {
        assert_eq!(fixture.classify_with(&others, false), nothing());
        fixture.wait(500);
    }
    assert!(fixture.unstable().is_empty());
}

#[test]
fn an_entry_that_vanishes_before_it_is_stable_is_forgotten() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", "x");
    assert_eq!(fixture.classify(), nothing());
    fixture.delete("a.yaml");
    assert_eq!(fixture.classify(), nothing());
    assert!(fixture.unstable().is_empty());
    assert_eq!(fixture.observations.next_due(), None);
}

#[test]
fn an_entry_without_a_file_that_can_be_seen_is_never_stable_by_one_scan() {
    let stamps = FileStamps::default();
    let nothing_renamed = HashSet::new();
    assert_eq!(Stability::judge(&stamps, &nothing_renamed, None), Stability::Unstable);
    assert_eq!(Stability::judge(&stamps, &nothing_renamed, Some(&stamps)), Stability::Unstable);
}

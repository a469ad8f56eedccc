//! What one target has been told, and what it has to be told next.
//!
//! A target is told of the difference between what it knows and what is so. Nothing is queued: what
//! waits is bounded by what is wrong, however long a target does not answer. What came and went
//! meanwhile is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::condition::{Condition, ConditionKey, Conditions, Subject};
use crate::base::disk;
use crate::spec::AlertKind;

/// More conditions of one kind than this are told as one event.
const MAX_SINGLE_EVENTS: usize = 5;
/// The largest file that is read back.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What one target knows and does not know.
#[derive(Debug)]
pub(super) struct Telling {
    kinds: Vec<AlertKind>,
    told: BTreeMap<ConditionKey, Told>,
    /// What is so and was neither told nor is being told.
    untold: BTreeSet<ConditionKey>,
    /// What is being told.
    pending: BTreeSet<ConditionKey>,
    /// How many conditions came and went untold since the last event that arrived.
    missed: u64,
}

/// What a target was told of a condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    subject: Subject,
    level: u8,
}

/// A line of the file in which it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct KeptTold {
    #[serde(flatten)]
    key: ConditionKey,
    #[serde(flatten)]
    told: Told,
}

/// What a target has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Conditions of this kind are so, or got worse.
    Raised(AlertKind, Vec<(ConditionKey, Condition)>),
    /// Conditions of this kind are over.
    Resolved(AlertKind, Vec<(ConditionKey, Subject)>),
}

impl Telling {
    /// Creates it for a target that is told of these kinds and knows nothing yet.
    pub(super) fn new(kinds: Vec<AlertKind>) -> Self {
        let (told, untold, pending) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { kinds, told, untold, pending, missed: 0 }
    }

    /// Reads what the target was told before the last restart. A missing or damaged file counts as
    /// nothing. Blocks.
    pub(super) fn load(&mut self, file: &Path) {
        let kept = disk::read(file, MAX_FILE_BYTES).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Vec<KeptTold>>(&bytes).ok());
        self.told = kept.into_iter().flatten().map(|kept| (kept.key, kept.told)).collect();
        self.told.retain(|key, _| self.kinds.contains(&key.kind));
    }

    /// Returns the file's contents.
    pub(super) fn encode(&self) -> Vec<u8> {
        let kept = |(key, told): (&ConditionKey, &Told)| KeptTold { key: key.clone(), told: told.clone() };
        let kept: Vec<KeptTold> = self.told.iter().map(kept).collect();
        serde_json::to_vec(&kept).expect("it is plain data")
    }

    /// Returns what it was told of, as conditions without their texts.
    pub(super) fn conditions(&self) -> impl Iterator<Item = (ConditionKey, Condition)> + '_ {
        self.told.iter().map(|(key, told)| {
            let summary =
                format!("{} ({}), as it was before the restart", key.kind.as_str(), told.subject.name);
            let condition = Condition::new(told.subject.clone(), summary, "see whether it is still so");
            (key.clone(), Condition { level: told.level, ..condition })
        })
    }

    /// Takes in what is so now, and counts what came and went untold.
    pub(super) fn note(&mut self, current: &Conditions) {
        let missed = self.untold.iter().filter(|key| !current.contains_key(key)).count();
        self.missed += missed as u64;
        let is_untold = |key: &&ConditionKey| {
            self.kinds.contains(&key.kind) && !self.told.contains_key(key) && !self.pending.contains(key)
        };
        self.untold = current.keys().filter(is_untold).cloned().collect();
    }

    /// Forgets what is for another gateway to tell from now on, without a word to the target.
    pub(super) fn leave_to_others(&mut self, kinds: &[AlertKind]) {
        self.told.retain(|key, _| !kinds.contains(&key.kind));
        self.untold.retain(|key| !kinds.contains(&key.kind));
    }

    /// Returns how many conditions came and went untold.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// Returns how many conditions wait to be told.
    pub(super) fn waiting_count(&self) -> usize {
        self.untold.len() + self.pending.len()
    }

    /// Returns what the target has to be told next, which is pending from then on.
    pub(super) fn next_change(&mut self, current: &Conditions) -> Option<Change> {
        let change = self.next_raised(current).or_else(|| self.next_resolved(current))?;
        self.pending = change.keys().cloned().collect();
        self.untold.retain(|key| !self.pending.contains(key));
        Some(change)
    }

    /// Records that a change has arrived, with the number of those that were missed.
    pub(super) fn record(&mut self, change: Change, missed: u64) {
        self.pending.clear();
        self.missed = self.missed.saturating_sub(missed);
        match change {
            Change::Raised(_, conditions) => {
                self.told.extend(conditions.into_iter().map(|(key, condition)| {
                    (key, Told { subject: condition.subject, level: condition.level })
                }))
            }
            Change::Resolved(_, subjects) => subjects.iter().for_each(|(key, _)| {
                self.told.remove(key);
            }),
        }
    }

    fn next_raised(&mut self, current: &Conditions) -> Option<Change> {
        // What got better is no news, but getting worse again is.
        for (key, told) in &mut self.told {
            let level = current.get(key).map_or(told.level, |condition| condition.level);
            told.level = told.level.min(level);
        }
        let is_news = |(key, condition): &(&ConditionKey, &Condition)| {
            let told = self.told.get(key);
            self.kinds.contains(&key.kind) && told.is_none_or(|told| told.level < condition.level)
        };
        let news: Vec<_> = current.iter().filter(is_news).collect();
        let (kind, batch) = next_batch(news, |(key, _)| key.kind)?;
        let owned = |(key, condition): (&ConditionKey, &Condition)| (key.clone(), condition.clone());
        Some(Change::Raised(kind, batch.into_iter().map(owned).collect()))
    }

    fn next_resolved(&self, current: &Conditions) -> Option<Change> {
        let over: Vec<_> = self.told.iter().filter(|(key, _)| !current.contains_key(key)).collect();
        let (kind, batch) = next_batch(over, |(key, _)| key.kind)?;
        let owned = |(key, told): (&ConditionKey, &Told)| (key.clone(), told.subject.clone());
        Some(Change::Resolved(kind, batch.into_iter().map(owned).collect()))
    }
}

impl Change {
    fn keys(&self) -> impl Iterator<Item = &ConditionKey> {
        let (raised, resolved) = match self {
            Self::Raised(_, conditions) => (Some(conditions), None),
            Self::Resolved(_, subjects) => (None, Some(subjects)),
        };
        let raised = raised.into_iter().flatten().map(|(key, _)| key);
        raised.chain(resolved.into_iter().flatten().map(|(key, _)| key))
    }
}

/// Returns what belongs into the next event: one item, or all of its kind if there are many.
fn next_batch<T>(items: Vec<T>, kind_of: impl Fn(&T) -> AlertKind) -> Option<(AlertKind, Vec<T>)> {
    let has = |kind: AlertKind| items.iter().any(|item| kind_of(item) == kind);
    let kind = AlertKind::ALL.into_iter().find(|kind| has(*kind))?;
    let mut batch: Vec<T> = items.into_iter().filter(|item| kind_of(item) == kind).collect();
    if batch.len() <= MAX_SINGLE_EVENTS {
        batch.truncate(1);
    }
    Some((kind, batch))
}

/// Returns the file in which it is kept what a target was told.
pub(super) fn told_file(folder: &Path, target: &str) -> PathBuf {
    folder.join(format!("{target}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(kind: AlertKind, names: &[&str], level: u8) -> Conditions {
        let condition = |name: &&str| {
            let key = ConditionKey { kind, id: (*name).to_owned() };
            (key, Condition { level, ..Condition::new(Subject::tenant(name), "down", "repair it") })
        };
        names.iter().map(condition).collect()
    }

    fn degraded(names: &[&str]) -> Conditions {
        conditions(AlertKind::TenantDegraded, names, 0)
    }

    /// Tells all that there is to tell. Returns what was raised and resolved, and how many each.
    fn tell_all(telling: &mut Telling, current: &Conditions) -> Vec<(bool, usize)> {
        telling.note(current);
        let mut all = Vec::new();
        while let Some(change) = telling.next_change(current) {
            all.push((matches!(change, Change::Raised(..)), change.keys().count()));
            telling.record(change, telling.missed());
        }
        all
    }

    #[test]
    fn each_state_is_told_once_in_each_direction() {
        let mut telling = Telling::new(AlertKind::ALL.to_vec());
        assert_eq!(tell_all(&mut telling, &degraded(&["a", "b"])), [(true, 1), (true, 1)]);
        assert_eq!(tell_all(&mut telling, &degraded(&["a", "b"])), []);
        assert_eq!(tell_all(&mut telling, &degraded(&["b", "c"])), [(true, 1), (false, 1)]);
        assert_eq!(tell_all(&mut telling, &degraded(&[])), [(false, 1), (false, 1)]);
    }

    #[test]
    fn many_of_a_kind_are_one_event() {
        let mut telling = Telling::new(AlertKind::ALL.to_vec());
        let names = ["a", "b", "c", "d", "e", "f"];
        assert_eq!(tell_all(&mut telling, &degraded(&names)), [(true, 6)]);
        assert_eq!(tell_all(&mut telling, &degraded(&[])), [(false, 6)]);
    }

    #[test]
    fn a_target_hears_only_of_its_kinds() {
        let mut telling = Telling::new(vec![AlertKind::DiskLow]);
        assert_eq!(tell_all(&mut telling, &degraded(&["a"])), []);
        assert_eq!(telling.waiting_count(), 0);
    }

    #[test]
    fn what_gets_worse_is_told_again_and_what_gets_better_is_not() {
        let mut telling = Telling::new(AlertKind::ALL.to_vec());
        let mut told = |level| tell_all(&mut telling, &conditions(AlertKind::ApiKeyExpires, &["a"], level));
        assert_eq!(
            (told(0), told(0), told(1), told(3)),
            (vec![(true, 1)], vec![], vec![(true, 1)], vec![(true, 1)])
        );
        assert_eq!((told(0), told(1)), (vec![], vec![(true, 1)]));
    }

    #[test]
    fn what_came_and_went_while_nobody_answered_is_counted_and_what_is_pending_is_not() {
        let mut telling = Telling::new(AlertKind::ALL.to_vec());
        telling.note(&degraded(&["a", "b"]));
        let change = telling.next_change(&degraded(&["a", "b"])).expect("one is to be told");
        assert_eq!(telling.waiting_count(), 2);
        telling.note(&degraded(&["c"]));
        assert_eq!(telling.missed(), 1, "b came and went; a is being told");
        telling.note(&degraded(&[]));
        assert_eq!(telling.missed(), 2);
        telling.record(change, 1);
        assert_eq!(telling.missed(), 1);
        assert_eq!(tell_all(&mut telling, &degraded(&[])), [(false, 1)], "a is over");
    }

    #[test]
    fn what_was_told_is_known_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = told_file(folder.path(), "pager");
        let mut telling = Telling::new(AlertKind::ALL.to_vec());
        tell_all(&mut telling, &degraded(&["a", "b"]));
        std::fs::write(&file, telling.encode()).expect("written");
        let mut telling = Telling::new(AlertKind::ALL.to_vec());
        telling.load(&file);
        assert_eq!(telling.conditions().count(), 2);
        assert_eq!(tell_all(&mut telling, &degraded(&["b"])), [(false, 1)]);
        std::fs::write(&file, "damaged").expect("written");
        telling.load(&file);
        assert_eq!(telling.conditions().count(), 0);
    }
}

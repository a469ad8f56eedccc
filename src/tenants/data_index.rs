//! The index of which entries restrict and which openly give out the same data. It is updated per
//! entry, so that a pass looks at few entries however many there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::spec::DataFingerprint;

/// Entries by the data that they give access to.
#[derive(Default)]
pub(super) struct DataIndex {
    restricted: AccessIndex,
    open: AccessIndex,
    /// Data that an entry began or ceased to restrict since the last call of `take_affected`.
    changed: BTreeSet<DataFingerprint>,
}

/// Which entries give access to which data in one way, from both sides.
#[derive(Default)]
struct AccessIndex {
    entry_ids: HashMap<DataFingerprint, BTreeSet<Arc<str>>>,
    data: HashMap<Arc<str>, Vec<DataFingerprint>>,
}

impl DataIndex {
    /// Records what an entry gives to authorized callers only, and what to everybody. Both are
    /// empty for an entry that is gone.
    pub(super) fn update(
        &mut self,
        entry_id: &Arc<str>,
        restricted: Vec<DataFingerprint>,
        open: Vec<DataFingerprint>,
    ) {
        self.changed.extend(self.restricted.update(entry_id, restricted));
        self.open.update(entry_id, open);
    }

    /// Returns another entry that gives some of this data to authorized callers only.
    pub(super) fn find_restricting_entry(
        &self,
        entry_id: &str,
        data: &[DataFingerprint],
    ) -> Option<&Arc<str>> {
        let mut restricting =
            data.iter().filter_map(|fingerprint| self.restricted.entry_ids.get(fingerprint)).flatten();
        restricting.find(|other| ***other != *entry_id)
    }

    /// Returns the entries whose warning may have changed: those in `changed`, and the open ones
    /// whose data another entry began or ceased to restrict.
    pub(super) fn take_affected(&mut self, changed: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        let data = std::mem::take(&mut self.changed);
        let open = data.iter().filter_map(|fingerprint| self.open.entry_ids.get(fingerprint)).flatten();
        open.chain(changed).cloned().collect()
    }
}

impl AccessIndex {
    /// Returns the data recorded before and after, or nothing if both are the same.
    fn update(&mut self, entry_id: &Arc<str>, data: Vec<DataFingerprint>) -> Vec<DataFingerprint> {
        let before = self.data.get(entry_id).map(Vec::as_slice).unwrap_or_default();
        if before == data {
            return Vec::new();
        }
        let before = self.data.remove(entry_id).unwrap_or_default();
        for fingerprint in &before {
            if let Some(entry_ids) = self.entry_ids.get_mut(fingerprint) {
                entry_ids.remove(entry_id);
                if entry_ids.is_empty() {
                    self.entry_ids.remove(fingerprint);
                }
            }
        }
        for fingerprint in &data {
            self.entry_ids.entry(*fingerprint).or_default().insert(Arc::clone(entry_id));
        }
        let changed = before.into_iter().chain(data.iter().copied()).collect();
        if !data.is_empty() {
            self.data.insert(Arc::clone(entry_id), data);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::base::secret::Secret;

    /// Fingerprints of the data at these paths.
    fn data(paths: &str) -> Vec<DataFingerprint> {
        let url = |path| Url::parse(&format!("https://portal.test/{path}")).expect("a URL");
        paths
            .split_whitespace()
            .map(|path| DataFingerprint::compute(&url(path), &Secret::new("k"), None))
            .collect()
    }

    fn names(entry_ids: BTreeSet<Arc<str>>) -> String {
        entry_ids.iter().map(|entry_id| &**entry_id).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_update_affects_the_open_entries_of_the_data_that_it_changes() {
        let mut index = DataIndex::default();
        // Entry, what it restricts and what it opens; which entries that affects besides itself,
        // and which entry then restricts the data `x` for `open`.
        for (entry_id, restricted, open, affected, restricting) in [
            ("open", "", "x y", "", None),
            ("other", "", "y", "", None),
            ("guard", "x", "", "open", Some("guard")),
            ("guard", "x", "", "", Some("guard")),
            ("guard", "x y", "", "open other", Some("guard")),
            ("elsewhere", "z", "", "", Some("guard")),
            ("guard", "y", "", "open other", None),
            ("a-guard", "x", "", "open", Some("a-guard")),
            // What an entry restricts itself is no reason to warn it.
            ("a-guard", "", "", "open", None),
            ("open", "x", "x", "open", None),
            ("open", "", "", "", None),
        ] {
            index.update(&entry_id.into(), data(restricted), data(open));
            let step = format!("{entry_id}: restricts {restricted:?}, opens {open:?}");
            assert_eq!(names(index.take_affected(&BTreeSet::new())), affected, "{step}");
            assert_eq!(
                index.find_restricting_entry("open", &data("x")).map(|one| &**one),
                restricting,
                "{step}"
            );
        }
        index.update(&"guard".into(), Vec::new(), Vec::new());
        assert_eq!(names(index.take_affected(&["new".into()].into())), "new other");
        index.update(&"other".into(), Vec::new(), Vec::new());
        index.update(&"elsewhere".into(), Vec::new(), Vec::new());
        for AccessIndex { entry_ids, data } in [index.restricted, index.open] {
            assert!(entry_ids.is_empty() && data.is_empty(), "entries that are gone leave nothing");
        }
    }
}

//! The names in the folder that people mistake for one another, so that a scan of one of them
//! covers all: whether a tenant may serve depends on files whose names are almost its own.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use super::scan::ScanResult;
use crate::bundle;

/// Entry ids, and names of misnamed files, by the hash of their lookalike keys. A hash collision
/// only costs a needless scan.
#[derive(Debug, Default)]
pub(super) struct LookalikeIndex {
    names: HashMap<u64, Vec<Box<str>>>,
    hasher: RandomState,
}

impl LookalikeIndex {
    /// Records the names that a scan found; a full scan forgets all others.
    pub(super) fn update(&mut self, scanned: &ScanResult, is_full_scan: bool) {
        if is_full_scan {
            self.names.clear();
        }
        let entry_ids = scanned.entries.iter().map(|found| found.files.id.as_str());
        for name in entry_ids.chain(scanned.misnamed.iter().map(String::as_str)) {
            for key in bundle::lookalike_keys(name) {
                let names = self.names.entry(self.hasher.hash_one(key)).or_default();
                if !names.iter().any(|known| **known == *name) {
                    names.reserve_exact(1);
                    names.push(name.into());
                }
            }
        }
    }

    /// Adds the lookalikes of the names to them.
    pub(super) fn add_lookalikes(&self, names: &mut BTreeSet<String>) {
        let keys: BTreeSet<u64> = names
            .iter()
            .flat_map(|name| bundle::lookalike_keys(name))
            .map(|key| self.hasher.hash_one(key))
            .collect();
        let known = keys.iter().filter_map(|key| self.names.get(key)).flatten();
        names.extend(known.map(|name| name.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_of_one_name_covers_its_lookalikes() {
        let mut index = LookalikeIndex::default();
        let misnamed = |names: &[&str]| ScanResult {
            entries: Vec::new(),
            misnamed: names.iter().map(|name| name.to_string()).collect(),
        };
        index.update(&misnamed(&["acme.yaml.txt", "beta.env.txt"]), true);
        index.update(&misnamed(&["Acme.yaml "]), false);
        let widened = |index: &LookalikeIndex| {
            let mut names = BTreeSet::from(["acme (1)".to_owned()]);
            index.add_lookalikes(&mut names);
            names.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(widened(&index), ["Acme.yaml ", "acme (1)", "acme.yaml.txt"]);
        index.update(&misnamed(&["beta.env.txt"]), true);
        assert_eq!(widened(&index), ["acme (1)"]);
    }
}

//! The index of which entries guard and which openly give out the same data. It is updated per
//! entry, so that a pass looks at few entries however many there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::spec::Reach;

/// Entries by the data that they give access to.
#[derive(Default)]
pub(super) struct Companions {
    guards: Index,
    open: Index,
    /// Data that an entry began or ceased to guard since the last call of `take_concerned`.
    touched: BTreeSet<Reach>,
}

#[derive(Default)]
struct Index {
    entry_ids: HashMap<Reach, BTreeSet<Arc<str>>>,
    reaches: HashMap<Arc<str>, Vec<Reach>>,
}

impl Companions {
    /// Records what an entry gives to authorized callers only, and what to everybody. Both are
    /// empty for an entry that is gone.
    pub(super) fn update(&mut self, entry_id: &Arc<str>, guards: Vec<Reach>, open: Vec<Reach>) {
        self.touched.extend(self.guards.update(entry_id, guards));
        self.open.update(entry_id, open);
    }

    /// Returns another entry that guards some of this data.
    pub(super) fn find_guard(&self, entry_id: &str, reaches: &[Reach]) -> Option<&Arc<str>> {
        let guards = reaches.iter().filter_map(|reach| self.guards.entry_ids.get(reach)).flatten();
        guards.into_iter().find(|guard| ***guard != *entry_id)
    }

    /// Returns the entries whose warning may have changed: those in `changed`, and the open ones
    /// whose data another entry began or ceased to guard.
    pub(super) fn take_concerned(&mut self, changed: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        let touched = std::mem::take(&mut self.touched);
        let others = touched.iter().filter_map(|reach| self.open.entry_ids.get(reach)).flatten();
        others.chain(changed).cloned().collect()
    }
}

impl Index {
    /// Returns the data recorded before and after, or nothing if both are the same.
    fn update(&mut self, entry_id: &Arc<str>, reaches: Vec<Reach>) -> Vec<Reach> {
        let before = self.reaches.get(entry_id).map(Vec::as_slice).unwrap_or_default();
        if before == reaches {
            return Vec::new();
        }
        let before = self.reaches.remove(entry_id).unwrap_or_default();
        for reach in &before {
            if let Some(entry_ids) = self.entry_ids.get_mut(reach) {
                entry_ids.remove(entry_id);
                if entry_ids.is_empty() {
                    self.entry_ids.remove(reach);
                }
            }
        }
        for reach in &reaches {
            self.entry_ids.entry(*reach).or_default().insert(Arc::clone(entry_id));
        }
        let touched = before.into_iter().chain(reaches.iter().copied()).collect();
        if !reaches.is_empty() {
            self.reaches.insert(Arc::clone(entry_id), reaches);
        }
        touched
    }
}

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
    /// Data that an entry began or ceased to guard since the last call of `concerned`.
    touched: BTreeSet<Reach>,
}

#[derive(Default)]
struct Index {
    stems: HashMap<Reach, BTreeSet<Arc<str>>>,
    noted: HashMap<Arc<str>, Vec<Reach>>,
}

impl Companions {
    /// Records what an entry gives to authorized callers only, and what to everybody. Both are
    /// empty for an entry that is gone.
    pub(super) fn note(&mut self, stem: &Arc<str>, guards: Vec<Reach>, open: Vec<Reach>) {
        self.touched.extend(self.guards.note(stem, guards));
        self.open.note(stem, open);
    }

    /// Returns another entry that guards some of this data.
    pub(super) fn guard(&self, stem: &str, reaches: &[Reach]) -> Option<&Arc<str>> {
        let guards = reaches.iter().filter_map(|reach| self.guards.stems.get(reach)).flatten();
        guards.into_iter().find(|guard| ***guard != *stem)
    }

    /// Returns the entries whose warning may have changed: those in `changed`, and the open ones
    /// whose data another entry began or ceased to guard.
    pub(super) fn concerned(&mut self, changed: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        let touched = std::mem::take(&mut self.touched);
        let others = touched.iter().filter_map(|reach| self.open.stems.get(reach)).flatten();
        others.chain(changed).cloned().collect()
    }
}

impl Index {
    /// Returns the data recorded before and after, or nothing if both are the same.
    fn note(&mut self, stem: &Arc<str>, reaches: Vec<Reach>) -> Vec<Reach> {
        let before = self.noted.get(stem).map(Vec::as_slice).unwrap_or_default();
        if before == reaches {
            return Vec::new();
        }
        let before = self.noted.remove(stem).unwrap_or_default();
        for reach in &before {
            if let Some(stems) = self.stems.get_mut(reach) {
                stems.remove(stem);
                if stems.is_empty() {
                    self.stems.remove(reach);
                }
            }
        }
        for reach in &reaches {
            self.stems.entry(*reach).or_default().insert(Arc::clone(stem));
        }
        let touched = before.into_iter().chain(reaches.iter().copied()).collect();
        if !reaches.is_empty() {
            self.noted.insert(Arc::clone(stem), reaches);
        }
        touched
    }
}

//! Who guards and who gives to everybody which data, kept up to date, so that a pass looks at few among however many.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::spec::Reach;

/// Entries by the data that they give out.
#[derive(Default)]
pub(super) struct Companions {
    guards: Index,
    open: Index,
    /// What somebody began or ceased to guard, of which others have not been told.
    touched: BTreeSet<Reach>,
}

#[derive(Default)]
struct Index {
    stems: HashMap<Reach, BTreeSet<Arc<str>>>,
    noted: HashMap<Arc<str>, Vec<Reach>>,
}

impl Companions {
    /// Takes note of what an entry gives to some callers only now, and to everybody; of one that is gone, nothing.
    pub(super) fn note(&mut self, stem: &Arc<str>, guards: Vec<Reach>, open: Vec<Reach>) {
        self.touched.extend(self.guards.note(stem, guards));
        self.open.note(stem, open);
    }

    /// An entry besides this one that guards some of this.
    pub(super) fn guard(&self, stem: &str, reaches: &[Reach]) -> Option<&Arc<str>> {
        let guards = reaches.iter().filter_map(|reach| self.guards.stems.get(reach)).flatten();
        guards.into_iter().find(|guard| ***guard != *stem)
    }

    /// The entries that may have something to be told: they changed, or are open and who guards what they give out changed.
    pub(super) fn concerned(&mut self, changed: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        let touched = std::mem::take(&mut self.touched);
        let others = touched.iter().filter_map(|reach| self.open.stems.get(reach)).flatten();
        others.chain(changed).cloned().collect()
    }
}

impl Index {
    /// Returns what is noted anew, or not any more.
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

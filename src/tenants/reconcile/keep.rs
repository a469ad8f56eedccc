//! Persists what a pass put in force before it is published, so that nothing acknowledged is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pass::{AT_ONCE, Changed, GRACE, Worker};
use crate::tenants::pace::Look;
use crate::tenants::scan::Found;

impl Worker {
    /// Forgets entries that are missing in the first full scan, since they were deleted before it,
    /// and those that vanished before they could be read. An empty folder may be a volume that is
    /// not mounted yet, so it counts only after a grace period.
    pub(super) fn drop_absent(&mut self, found: &[Found], look: &Look) {
        let for_good = self.now().duration_since(self.started) >= GRACE;
        let is_unknown = !self.is_known && found.is_empty() && !for_good;
        if look.stems.is_some() || is_unknown || (self.is_known && self.keeper.has_seen_all()) {
            return;
        }
        self.is_known = true;
        let there: BTreeSet<&str> = found.iter().map(|found| found.entry.stem.as_str()).collect();
        let is_there = |stem: &str| there.contains(stem) || self.sightings.contains_key(stem);
        for stem in self.keeper.drop_absent(is_there) {
            self.holdings.note(&stem, None);
        }
    }

    /// Persists what was put in force. Returns the entries for which it changed whether they are
    /// persisted.
    pub(super) async fn keep(&mut self, changed: &Changed) -> Changed {
        let mut news = Changed::new();
        for (number, stem) in changed.iter().enumerate() {
            self.collect(stem);
            // Ten thousand entries of a cold start are written in batches: changes are in memory
            // twice while they are written.
            if number % AT_ONCE == AT_ONCE - 1 && !self.keeper.refuses() {
                news.extend(self.write_kept().await);
            }
        }
        news.extend(self.write_kept().await);
        news
    }

    /// Passes the changes of an entry to the keeper.
    fn collect(&mut self, stem: &Arc<str>) {
        let now = self.parts.clock.now();
        let accepted = self.roster.get_mut(stem).and_then(|known| known.take_accepted(stem, now));
        if let Some(accepted) = accepted {
            self.keeper.accept(stem, accepted);
        }
        if let Some(claims) = self.roster.get_mut(stem).and_then(|known| known.take_claims(stem)) {
            self.keeper.claim(claims);
        }
    }

    async fn write_kept(&mut self) -> Changed {
        if !self.keeper.is_behind() {
            return Changed::new();
        }
        let written = self.keeper.write().await;
        let concerned: Vec<_> = written.into_iter().chain(self.keeper.waiting()).collect();
        concerned.into_iter().filter(|stem| self.is_news(stem)).collect()
    }

    fn is_news(&mut self, stem: &str) -> bool {
        let unkept = self.keeper.waits(stem);
        self.roster.get_mut(stem).is_some_and(|known| known.note_unkept(unkept))
    }
}

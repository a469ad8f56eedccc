//! What a pass put in force is kept before anybody is told of it, so that nothing acknowledged is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pass::{AT_ONCE, Changed, GRACE, Worker};
use crate::tenants::pace::Look;
use crate::tenants::scan::Found;

impl Worker {
    /// What is not in the folder when it is first seen was deleted. An empty one may be a volume not mounted yet.
    pub(super) fn drop_absent(&mut self, found: &[Found], look: &Look) {
        let for_good = self.now().duration_since(self.started) >= GRACE;
        if self.is_known || look.stems.is_some() || (found.is_empty() && !for_good) {
            return;
        }
        self.is_known = true;
        let there: BTreeSet<&str> = found.iter().map(|found| found.entry.stem.as_str()).collect();
        self.keeper.drop_absent(|stem| there.contains(stem));
    }

    /// Keeps what was put in force. Returns the entries of which it is news that they are kept, or are not.
    pub(super) async fn keep(&mut self, changed: &Changed) -> Changed {
        let mut news = Changed::new();
        for (number, stem) in changed.iter().enumerate() {
            self.accept(stem);
            // Ten thousand at a cold start are kept in shares: what is on its way to the store is there twice.
            if number % AT_ONCE == AT_ONCE - 1 && !self.keeper.refuses() {
                news.extend(self.write_kept().await);
            }
        }
        news.extend(self.write_kept().await);
        news
    }

    fn accept(&mut self, stem: &Arc<str>) {
        let now = self.parts.clock.now();
        let accepted = self.roster.get_mut(stem).and_then(|known| known.take_accepted(stem, now));
        if let Some(accepted) = accepted {
            self.keeper.accept(stem, accepted);
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

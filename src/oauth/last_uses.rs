//! When each grant was used last, in memory: a write to the disk with each call would cost more
//! than the call. What is not known here, a renewal in the store tells to within the lifetime of an
//! access token.

use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::DashMap;
use jiff::{SignedDuration, Timestamp};

use crate::store::GrantId;

/// The limit on remembered grants; it takes about 5 MiB.
const MAX_GRANTS: usize = 100_000;
/// By then a renewal or the end of the grant says more.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// When grants were used last; seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct LastUses(DashMap<GrantId, AtomicI64>);

impl LastUses {
    /// Records a use. Beyond the limit, grants that are not known yet are left out.
    pub(super) fn record(&self, grant: GrantId, now: Timestamp) {
        if let Some(last) = self.0.get(&grant) {
            last.store(now.as_second(), Ordering::Relaxed);
        } else if self.0.len() < MAX_GRANTS {
            self.0.insert(grant, AtomicI64::new(now.as_second()));
        }
    }

    /// Returns when a grant was used last, as far as that is known.
    pub(super) fn find(&self, grant: GrantId) -> Option<Timestamp> {
        let last = self.0.get(&grant)?.load(Ordering::Relaxed);
        Timestamp::from_second(last).ok()
    }

    /// Forgets what is long ago.
    pub(super) fn remove_old(&self, now: Timestamp) {
        let until = (now - REMEMBERED).as_second();
        self.0.retain(|_, last| last.load(Ordering::Relaxed) > until);
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_after_a_day() {
        let (uses, known) = (LastUses::default(), GrantId::random());
        uses.record(known, NOW);
        (0..MAX_GRANTS).for_each(|_| uses.record(GrantId::random(), NOW));
        assert_eq!(uses.0.len(), MAX_GRANTS);
        uses.record(known, NOW + 1.hour());
        assert_eq!(uses.find(known), Some(NOW + 1.hour()));
        uses.remove_old(NOW + REMEMBERED);
        assert_eq!((uses.0.len(), uses.find(known)), (1, Some(NOW + 1.hour())));
    }
}

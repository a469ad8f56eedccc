//! Orders that operators gave at any gateway of a cluster, as one entry follows them. Which revision
//! is in force follows from the files and the orders alone, so that all gateways come to the same,
//! whichever of the two they saw first.

use std::mem;

use super::findings::rollback_missing_error;
use super::phase::{Candidate, ClaimDecision, Phase};
use super::{BuildTenant, Entry};
use crate::base::digest::Digest;
use crate::store::{EntryOrders, Replacement};
use crate::tenants::scan::FileStamps;

/// What an entry needs, to follow a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tenants) enum RollbackNeed {
    /// Nothing: it is as ordered.
    Nothing,
    /// This revision, to be put in force instead of its files.
    Revision(Digest),
    /// Its files, which are no longer replaced and must be read again.
    Files,
}

impl Entry {
    /// Takes in what was ordered about the entry. Returns whether that changed anything but its
    /// revision, which [`rollback_need`](Self::rollback_need) tells.
    pub(in crate::tenants) fn follow_orders(&mut self, orders: EntryOrders, build: impl BuildTenant) -> bool {
        self.remember_orders(orders);
        let is_paused = orders.paused.unwrap_or(self.persisted.is_paused);
        let is_news = is_paused != self.persisted.is_paused;
        if is_news {
            self.set_paused(is_paused, build);
            self.is_order_unwritten = true;
        }
        let is_approved = self.held_change().is_some_and(|held| orders.approved == Some(held.revision));
        if is_approved {
            self.approve();
        }
        is_news | is_approved | self.force_accepted()
    }

    /// Takes in what was ordered about the entry and is being followed.
    pub(in crate::tenants) fn remember_orders(&mut self, orders: EntryOrders) {
        self.orders = orders;
    }

    /// Makes the revision that was ordered the candidate, as any rollback.
    pub(in crate::tenants) fn follow_rollback(&mut self, revision: Candidate) {
        self.roll_back(revision);
        self.is_order_unwritten = true;
    }

    /// Returns whether what was ordered is to be written to this gateway's store, once.
    pub(in crate::tenants) fn take_unwritten_order(&mut self) -> bool {
        mem::take(&mut self.is_order_unwritten)
    }

    /// Has the accepted claim decided anew, if an operator accepted that of these files.
    fn force_accepted(&mut self) -> bool {
        let (Phase::Candidate(candidate) | Phase::LiveWithCandidate(_, candidate)) = &mut self.phase else {
            return false;
        };
        let is_accepted = self.orders.accepted == Some(candidate.revision);
        // What is rejected all the same, because somebody holds the claim, is no news each time.
        let is_undecided = match candidate.decision {
            ClaimDecision::Pending => true,
            ClaimDecision::Rejected(_) => self.persisted.rejected_digest == Some(candidate.revision),
            ClaimDecision::Forced => false,
        };
        if is_accepted && is_undecided {
            candidate.decision = ClaimDecision::Forced;
        }
        is_accepted && is_undecided
    }

    /// Returns what the entry needs, to have the revision in force that was ordered.
    pub(in crate::tenants) fn rollback_need(&self) -> RollbackNeed {
        let replacement = self.orders.replacement.filter(|ordered| Some(ordered.files) == self.on_disk);
        match replacement {
            Some(Replacement { files, revision }) => {
                let is_live = self.phase.live().is_some_and(|live| live.tenant.revision == revision);
                let is_kept = files == revision || self.persisted.is_pinned(self.on_disk);
                match is_live && is_kept && !self.has_candidate() {
                    true => RollbackNeed::Nothing,
                    false => RollbackNeed::Revision(revision),
                }
            }
            None if self.persisted.is_pinned(self.on_disk) => RollbackNeed::Files,
            None => RollbackNeed::Nothing,
        }
    }

    /// Has the files read again, which an older revision no longer replaces.
    pub(in crate::tenants) fn end_rollback(&mut self) {
        self.persisted.pinned_digest = None;
        self.missed_rollback = None;
        self.is_order_unwritten = true;
        self.stamps = FileStamps::default();
        self.on_disk = None;
    }

    /// Puts a revision aside that an operator replaced by one which is not to be had here. What is
    /// in force stays, closed unless the files certainly do not change who may call; so does what was
    /// in force before a restart. Returns whether that is news.
    pub(in crate::tenants) fn miss_rollback(&mut self, why: &str) -> bool {
        let (live, candidate) = mem::take(&mut self.phase).into_parts();
        if let (Some(live), Some(candidate)) = (&live, &candidate) {
            live.close_unless_access_unchanged(candidate.access_fingerprint);
        }
        let in_force = self.persisted.in_force.map(|(_, digest)| digest);
        let was_in_force = |candidate: &Candidate| live.is_none() && in_force == Some(candidate.revision);
        let (kept, aside) = match candidate {
            Some(candidate) if was_in_force(&candidate) => (Some(candidate), None),
            candidate => (None, candidate),
        };
        let is_news = aside.is_some();
        self.phase = Phase::from_parts(live, kept);
        let finding = Some(Box::new(rollback_missing_error(why)));
        let was = mem::replace(&mut self.missed_rollback, finding);
        is_news || was != self.missed_rollback
    }

    /// Whether a rollback waits for what this gateway does not have.
    pub(in crate::tenants) fn misses_rollback(&self) -> bool {
        self.missed_rollback.is_some()
    }

    /// Returns the digest of the candidate whose claim was rejected.
    pub(in crate::tenants) fn rejected_revision(&self) -> Option<Digest> {
        self.phase
            .candidate()
            .filter(|candidate| candidate.rejection().is_some())
            .map(|candidate| candidate.revision)
    }
}

impl Candidate {
    /// Returns the digest of what it was read from.
    pub(in crate::tenants) fn revision(&self) -> Digest {
        self.revision
    }
}

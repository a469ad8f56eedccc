//! Access tokens that are refused before they expire, and the calls and streams that end with them. In memory, because it is
//! asked with every call; the store has the same, for after a restart. What the store could not take counts all the same, and
//! is written as soon as it can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::DashMap;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::store::{GrantId, Life, Revoked, Subject};

/// What is revoked, and who is under way.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    revoked: DashMap<(Arc<str>, Subject), Revoked>,
    /// Those that the store does not have yet, and the life that each belongs to.
    unwritten: DashMap<(Arc<str>, Subject), Life>,
    /// Every token of before is refused; seconds since 1970.
    all_until: AtomicI64,
    /// By what grant callers are under way.
    leaves: DashMap<GrantId, Leave>,
}

/// Held while a call or stream is under way; fires when it must end.
pub(super) type Leave = Arc<CancellationToken>;

impl Revocations {
    /// Refuses tokens from now on. Ends what is under way by a grant.
    pub(super) fn add(&self, life: &Life, revoked: Revoked) {
        self.revoked.insert((Arc::clone(life.tenant()), revoked.subject), revoked);
        if let Subject::Grant(id) = revoked.subject
            && let Some((_, leave)) = self.leaves.remove(&id)
        {
            leave.cancel();
        }
    }

    /// Refuses every access token that was issued until then: whose is revoked cannot be told.
    pub(super) fn refuse_all(&self, issued_until: Timestamp) {
        self.all_until.store(issued_until.as_second(), Ordering::Relaxed);
    }

    /// Whether every token that was issued then is refused.
    pub(super) fn include_all(&self, issued: Timestamp) -> bool {
        issued.as_second() <= self.all_until.load(Ordering::Relaxed)
    }

    /// Whether a token of this subject, issued then, is refused.
    pub(super) fn include(&self, tenant: &Arc<str>, subject: Subject, issued: Timestamp) -> bool {
        let revoked = self.revoked.get(&(Arc::clone(tenant), subject));
        revoked.is_some_and(|revoked| issued <= revoked.issued_until)
    }

    /// Whether a grant was ended, whatever the store says of it.
    pub(super) fn ended(&self, tenant: &Arc<str>, grant: GrantId) -> bool {
        self.revoked.contains_key(&(Arc::clone(tenant), Subject::Grant(grant)))
    }

    /// The store could not take this one.
    pub(super) fn is_unwritten(&self, life: &Life, subject: Subject) {
        self.unwritten.insert((Arc::clone(life.tenant()), subject), life.clone());
    }

    /// The store has this one now.
    pub(super) fn is_written(&self, life: &Life, subject: Subject) {
        self.unwritten.remove(&(Arc::clone(life.tenant()), subject));
    }

    /// Some of those that the store does not have yet.
    pub(super) fn unwritten(&self, at_most: usize) -> Vec<(Life, Revoked)> {
        let some = self.unwritten.iter().take(at_most);
        some.filter_map(|one| Some((one.value().clone(), *self.revoked.get(one.key())?))).collect()
    }

    /// What ends a call by this grant; ends with `parent`, too. Take it before asking whether the grant is revoked: whatever
    /// comes after that ends the call.
    pub(super) fn leave(&self, grant: GrantId, parent: &CancellationToken) -> Leave {
        let mut leave = self.leaves.entry(grant).or_insert_with(|| Arc::new(parent.child_token()));
        if leave.is_cancelled() {
            *leave = Arc::new(parent.child_token());
        }
        Arc::clone(&leave)
    }

    /// Forgets what has expired, and who is no longer under way.
    pub(super) fn tidy(&self, now: Timestamp) {
        // The grant of one that the store does not have lies there as if nothing had happened.
        self.revoked.retain(|key, revoked| revoked.forget > now || self.unwritten.contains_key(key));
        self.leaves.retain(|_, leave| Arc::strong_count(leave) > 1);
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn revoked(subject: Subject) -> Revoked {
        Revoked { subject, issued_until: NOW, forget: NOW + 1.hour() }
    }

    #[test]
    fn what_is_revoked_ends_at_once_and_for_its_tenant_only() {
        let revocations = Revocations::default();
        let (acme, beta): (Arc<str>, Arc<str>) = ("acme".into(), "beta".into());
        let grant = GrantId::random();
        let parent = CancellationToken::new();
        let leave = revocations.leave(grant, &parent);
        revocations.add(&Life::begin(&acme), revoked(Subject::Grant(grant)));
        assert!(leave.is_cancelled() && !parent.is_cancelled());
        assert!(revocations.include(&acme, Subject::Grant(grant), NOW));
        assert!(!revocations.include(&beta, Subject::Grant(grant), NOW));
        assert!(!revocations.include(&acme, Subject::Grant(grant), NOW + 1.second()), "issued later");
        revocations.tidy(NOW + 1.hour());
        assert!(!revocations.include(&acme, Subject::Grant(grant), NOW));
    }

    #[test]
    fn nothing_is_kept_of_those_no_longer_under_way() {
        let revocations = Revocations::default();
        let (parent, grant) = (CancellationToken::new(), GrantId::random());
        let leave = revocations.leave(grant, &parent);
        revocations.tidy(NOW);
        assert_eq!(revocations.leaves.len(), 1);
        parent.cancel();
        assert!(leave.is_cancelled());
        assert!(
            !revocations.leave(grant, &CancellationToken::new()).is_cancelled(),
            "a new parent counts anew"
        );
        drop(leave);
        revocations.tidy(NOW);
        assert_eq!(revocations.leaves.len(), 0);
    }
}

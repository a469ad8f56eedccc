//! Access tokens that are refused before they expire, and the calls and streams that end with them.
//! Held in memory, as every call checks them; the store has them too, for restarts. A revocation
//! that the store could not take is in force all the same, and is written as soon as possible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use dashmap::DashMap;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::base::digest::Digest;
use crate::identity::Account;
use crate::store::{GrantId, Incarnation, Revocation, RevokedSubject};

/// The revocations, and the calls in progress.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    revoked: DashMap<(Arc<str>, RevokedSubject), Revocation>,
    /// Revocations that the store does not have yet, and the incarnation that each belongs to.
    unpersisted: DashMap<(Arc<str>, RevokedSubject), Incarnation>,
    /// Every token issued until then is refused; seconds since 1970.
    all_revoked_until: AtomicI64,
    /// The calls in progress, by grant.
    in_flight: DashMap<GrantId, CallsInFlight>,
}

/// The calls in progress of one grant.
#[derive(Debug)]
struct CallsInFlight {
    token: GrantRevocationToken,
    holder: GrantHolder,
}

/// Who a grant was given to.
#[derive(Debug, Clone)]
pub(super) struct GrantHolder {
    pub(super) tenant: Arc<str>,
    pub(super) client: Digest,
    /// None for a machine client.
    pub(super) account: Option<Arc<Account>>,
}

/// Held during a call or stream; fires when that must end.
pub(super) type GrantRevocationToken = Arc<GrantRevocation>;

/// Fires when the calls of a grant must end.
#[derive(Debug)]
pub(super) struct GrantRevocation {
    token: CancellationToken,
    /// They end because nobody knows whether the grant was revoked.
    is_in_doubt: AtomicBool,
}

impl GrantRevocation {
    fn below(parent: &CancellationToken) -> GrantRevocationToken {
        Arc::new(Self { token: parent.child_token(), is_in_doubt: AtomicBool::new(false) })
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Whether the calls ended only because it was not known whether they may go on.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt.load(Ordering::Acquire)
    }

    fn cancel(&self) {
        self.token.cancel();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }
}

impl Revocations {
    /// Refuses tokens from now on, and ends the calls and streams of the revoked grant or client.
    pub(super) fn insert(&self, incarnation: &Incarnation, revoked: Revocation) {
        let tenant = incarnation.tenant();
        self.revoked.insert((Arc::clone(tenant), revoked.subject), revoked);
        match revoked.subject {
            RevokedSubject::Grant(id) => {
                if let Some((_, calls)) = self.in_flight.remove(&id) {
                    calls.token.cancel();
                }
            }
            RevokedSubject::Client(digest) => {
                self.end_calls(|holder| holder.tenant == *tenant && holder.client == digest);
            }
        }
    }

    /// Takes a revocation from the store, unless it is in force already.
    pub(super) fn adopt(&self, incarnation: &Incarnation, revoked: Revocation) {
        let known = self.revoked.get(&(Arc::clone(incarnation.tenant()), revoked.subject)).map(|it| *it);
        if known.is_none_or(|known| known.issued_until.as_second() < revoked.issued_until.as_second()) {
            self.insert(incarnation, revoked);
        }
    }

    /// Ends the calls and streams of these grants.
    pub(super) fn end_calls(&self, is_meant: impl Fn(&GrantHolder) -> bool) {
        self.in_flight.retain(|_, calls| {
            let is_over = is_meant(&calls.holder);
            if is_over {
                calls.token.cancel();
            }
            !is_over
        });
    }

    /// Ends all calls and streams, since it is not known whose grant was revoked.
    pub(super) fn end_calls_in_doubt(&self) {
        self.in_flight.retain(|_, calls| {
            calls.token.is_in_doubt.store(true, Ordering::Release);
            calls.token.cancel();
            false
        });
    }

    /// Refuses every access token issued until then, as the revoked ones can no longer be
    /// identified.
    pub(super) fn revoke_all_until(&self, issued_until: Timestamp) {
        self.all_revoked_until.store(issued_until.as_second(), Ordering::Relaxed);
    }

    /// Whether every token issued at that time is refused.
    pub(super) fn is_covered_by_revoke_all(&self, issued: Timestamp) -> bool {
        issued.as_second() <= self.all_revoked_until.load(Ordering::Relaxed)
    }

    /// Whether a token of this subject, issued at that time, is refused. A grant that was revoked never
    /// comes back, so the time does not matter there: the gateways' clocks may differ.
    pub(super) fn is_revoked(&self, tenant: &Arc<str>, subject: RevokedSubject, issued: Timestamp) -> bool {
        let revoked = self.revoked.get(&(Arc::clone(tenant), subject));
        let is_grant = matches!(subject, RevokedSubject::Grant(_));
        revoked.is_some_and(|revoked| is_grant || issued <= revoked.issued_until)
    }

    /// Whether a grant was revoked, even if the store still has it.
    pub(super) fn is_grant_ended(&self, tenant: &Arc<str>, grant: GrantId) -> bool {
        self.revoked.contains_key(&(Arc::clone(tenant), RevokedSubject::Grant(grant)))
    }

    /// Records that the store could not take this revocation.
    pub(super) fn mark_unpersisted(&self, incarnation: &Incarnation, subject: RevokedSubject) {
        self.unpersisted.insert((Arc::clone(incarnation.tenant()), subject), incarnation.clone());
    }

    /// Records that the store has this revocation.
    pub(super) fn mark_persisted(&self, incarnation: &Incarnation, subject: RevokedSubject) {
        self.unpersisted.remove(&(Arc::clone(incarnation.tenant()), subject));
    }

    /// Returns up to `max_count` revocations that the store does not have yet.
    pub(super) fn unpersisted(&self, max_count: usize) -> Vec<(Incarnation, Revocation)> {
        let entries = self.unpersisted.iter().take(max_count);
        entries.filter_map(|entry| Some((entry.value().clone(), *self.revoked.get(entry.key())?))).collect()
    }

    /// Returns the token that ends calls of this grant; it fires with `parent`, too. Take it before
    /// checking whether the grant is revoked, so that any later revocation ends the call.
    pub(super) fn token_for(
        &self,
        grant: GrantId,
        holder: impl FnOnce() -> GrantHolder,
        parent: &CancellationToken,
    ) -> GrantRevocationToken {
        let begin = || CallsInFlight { token: GrantRevocation::below(parent), holder: holder() };
        let mut calls = self.in_flight.entry(grant).or_insert_with(begin);
        if calls.token.is_cancelled() {
            calls.token = GrantRevocation::below(parent);
        }
        Arc::clone(&calls.token)
    }

    /// Forgets expired revocations, and grants without calls in progress.
    pub(super) fn remove_expired(&self, now: Timestamp) {
        // Unwritten revocations are kept: without them the store's grant would be valid again.
        self.revoked.retain(|key, revoked| revoked.forget_at > now || self.unpersisted.contains_key(key));
        self.in_flight.retain(|_, calls| Arc::strong_count(&calls.token) > 1);
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use crate::oauth::testkit::ada;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn revoked(subject: RevokedSubject) -> Revocation {
        Revocation { subject, issued_until: NOW, forget_at: NOW + 1.hour() }
    }

    fn machine(tenant: &Arc<str>) -> GrantHolder {
        GrantHolder { tenant: Arc::clone(tenant), client: Digest::of(b"machine"), account: None }
    }

    #[test]
    fn a_revocation_ends_calls_at_once_and_for_its_tenant_only() {
        let revocations = Revocations::default();
        let (acme, beta): (Arc<str>, Arc<str>) = ("acme".into(), "beta".into());
        let grant = GrantId::random();
        let parent = CancellationToken::new();
        let token = revocations.token_for(grant, || machine(&acme), &parent);
        revocations.insert(&Incarnation::new(&acme), revoked(RevokedSubject::Grant(grant)));
        assert!(token.is_cancelled() && !parent.is_cancelled());
        assert!(revocations.is_revoked(&acme, RevokedSubject::Grant(grant), NOW));
        assert!(!revocations.is_revoked(&beta, RevokedSubject::Grant(grant), NOW));
        let ahead = revocations.is_revoked(&acme, RevokedSubject::Grant(grant), NOW + 1.second());
        assert!(ahead, "by a gateway whose clock is ahead");
        revocations.remove_expired(NOW + 1.hour());
        assert!(!revocations.is_revoked(&acme, RevokedSubject::Grant(grant), NOW));
    }

    #[test]
    fn revoking_a_client_ends_its_calls_at_its_tenant_only() {
        let revocations = Revocations::default();
        let (acme, beta): (Arc<str>, Arc<str>) = ("acme".into(), "beta".into());
        let parent = CancellationToken::new();
        let [ours, theirs] = [&acme, &beta]
            .map(|tenant| revocations.token_for(GrantId::random(), || machine(tenant), &parent));
        revocations.insert(&Incarnation::new(&acme), revoked(RevokedSubject::Client(machine(&acme).client)));
        assert!(ours.is_cancelled() && !theirs.is_cancelled());
        let client = RevokedSubject::Client(machine(&acme).client);
        assert!(revocations.is_revoked(&acme, client, NOW));
        assert!(!revocations.is_revoked(&acme, client, NOW + 1.second()), "it may come back");
    }

    #[test]
    fn what_is_heard_again_ends_no_later_calls() {
        let revocations = Revocations::default();
        let (acme, parent): (Arc<str>, _) = ("acme".into(), CancellationToken::new());
        let (incarnation, subject) = (Incarnation::new(&acme), RevokedSubject::Client(machine(&acme).client));
        revocations.adopt(&incarnation, revoked(subject));
        assert!(revocations.is_revoked(&acme, subject, NOW));
        let later = revocations.token_for(GrantId::random(), || machine(&acme), &parent);
        revocations.adopt(&incarnation, revoked(subject));
        assert!(!later.is_cancelled());
        revocations.adopt(&incarnation, Revocation { issued_until: NOW + 1.second(), ..revoked(subject) });
        assert!(later.is_cancelled());
    }

    #[test]
    fn calls_end_and_may_begin_anew() {
        let revocations = Revocations::default();
        let (acme, parent) = (Arc::from("acme"), CancellationToken::new());
        let ada = || GrantHolder { account: Some(Arc::new(ada())), ..machine(&acme) };
        let grant = GrantId::random();
        let (hers, its) = (
            revocations.token_for(grant, ada, &parent),
            revocations.token_for(GrantId::random(), || machine(&acme), &parent),
        );
        revocations.end_calls(|holder| holder.account.is_some());
        assert!(hers.is_cancelled() && !its.is_cancelled());
        assert!(!revocations.token_for(grant, ada, &parent).is_cancelled());
    }

    #[test]
    fn calls_that_end_in_doubt_are_told_from_revoked_ones() {
        let revocations = Revocations::default();
        let (parent, machine) = (CancellationToken::new(), || machine(&"acme".into()));
        let doubted = revocations.token_for(GrantId::random(), machine, &parent);
        revocations.end_calls_in_doubt();
        assert!(doubted.is_cancelled() && doubted.is_in_doubt());
        let revoked = revocations.token_for(GrantId::random(), machine, &parent);
        revocations.end_calls(|_| true);
        assert!(revoked.is_cancelled() && !revoked.is_in_doubt());
    }

    #[test]
    fn a_grant_without_calls_in_progress_is_forgotten() {
        let revocations = Revocations::default();
        let (parent, grant) = (CancellationToken::new(), GrantId::random());
        let caller = || machine(&"acme".into());
        let token = revocations.token_for(grant, caller, &parent);
        revocations.remove_expired(NOW);
        assert_eq!(revocations.in_flight.len(), 1);
        parent.cancel();
        assert!(token.is_cancelled());
        assert!(
            !revocations.token_for(grant, caller, &CancellationToken::new()).is_cancelled(),
            "a new parent counts anew"
        );
        drop(token);
        revocations.remove_expired(NOW);
        assert_eq!(revocations.in_flight.len(), 0);
    }
}

//! Budgets: how much of one resource all parties may hold together, and how much each party may
//! hold.
//!
//! A budget counts weight (bytes, or a stand-in for time), never items. It has three bounds:
//!
//! - the limit, for all parties together;
//! - a share for each tenant, each source network and each backend origin: half of the limit, so
//!   that no single party can fill it. A client of a tenant gets half of its tenant's share, or
//!   less where the user of the budget says so, so that it cannot fill that share either;
//! - a reserve, the last fifth of the limit and of each share, which is open only to callers with a
//!   credential. Callers without one therefore cannot lock out callers with one, neither from the
//!   whole budget nor from one tenant.
//!
//! A [`Reservation`] returns its weight when it is dropped. A refused request reserves nothing. The
//! limit may change at any time: what is held stays, and counts against the new one.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;

/// A party whose share is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Consumer {
    /// A tenant, by name.
    Tenant(Arc<str>),
    /// A source network, as [`client_network`](super::net::client_network) computes it.
    Network(IpAddr),
    /// An OAuth client of a tenant, by the tenant's name and the client's id.
    Client { tenant: Arc<str>, id: Arc<str> },
    /// A backend origin: scheme, host and port. Takes the tenant's place in budgets that already
    /// limit each tenant by other means.
    Origin(Arc<str>),
}

/// The bounds of one resource and how much of it is held.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    held: AtomicU64,
    /// The weight each party holds. An entry lives as long as its [`BudgetShare`].
    shares: DashMap<Consumer, Weak<BudgetShare>>,
}

/// The weight that one party holds of a budget.
#[derive(Debug)]
pub struct BudgetShare {
    budget: Arc<Budget>,
    consumer: Consumer,
    /// A limit of its own; without it, it follows the budget's.
    own_limit: Option<u64>,
    held: AtomicU64,
}

/// The weight that one request, response or stream holds; returned when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    /// The shares of the tenant, the source network and the client, as far as they are known.
    shares: [Option<Arc<BudgetShare>>; 3],
    /// Whether it may use the last fifth of each limit.
    may_use_reserve: bool,
    weight: u64,
}

/// The bound of a budget that a reservation would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All parties together have used up the budget.
    #[error("this server has reached its limit")]
    Budget,
    /// The tenant has used up its share.
    #[error("this tenant has reached the limit of one tenant")]
    Tenant,
    /// The source network has used up its share.
    #[error("this address has reached the limit of one address")]
    Network,
    /// The client has used up its share.
    #[error("this client has reached the limit of one client")]
    Client,
    /// The calls to one origin have used up its share.
    #[error("calls to this origin have reached the limit of one origin")]
    Origin,
}

impl Exhausted {
    /// Returns the label value used in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Budget => "all",
            Self::Tenant => "tenant",
            Self::Network => "network",
            Self::Client => "client",
            Self::Origin => "origin",
        }
    }
}

impl Budget {
    /// Creates a budget of this limit. The unit is up to its user.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit: limit.into(), held: AtomicU64::new(0), shares: DashMap::new() })
    }

    /// Creates a budget of `mib` MiB, counted in bytes.
    pub fn from_mib(mib: usize) -> Arc<Self> {
        Self::new(mib_to_bytes(mib))
    }

    /// Returns the limit for all parties together.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit to `mib` MiB. What is held stays: until enough of it was returned, nothing
    /// more is reserved.
    pub fn set_mib(&self, mib: usize) {
        self.limit.store(mib_to_bytes(mib), Ordering::Relaxed);
    }

    /// Returns the weight that all parties hold together now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns the limit of one party.
    pub fn share_limit(&self) -> u64 {
        self.limit() / 2
    }

    /// Returns the share of a party with its default limit. Keep it where the party is looked up
    /// often.
    pub fn share(self: &Arc<Self>, consumer: Consumer) -> Arc<BudgetShare> {
        self.find_share(consumer, None)
    }

    /// Returns the share of a party, which may hold up to `limit`. Pass the same limit each time.
    pub fn share_with_limit(self: &Arc<Self>, consumer: Consumer, limit: u64) -> Arc<BudgetShare> {
        self.find_share(consumer, Some(limit))
    }

    fn find_share(self: &Arc<Self>, consumer: Consumer, own_limit: Option<u64>) -> Arc<BudgetShare> {
        let mut entry = self.shares.entry(consumer.clone()).or_default();
        if let Some(share) = entry.upgrade() {
            return share;
        }
        let share =
            Arc::new(BudgetShare { budget: Arc::clone(self), consumer, own_limit, held: AtomicU64::new(0) });
        *entry = Arc::downgrade(&share);
        share
    }

    /// Creates an empty reservation, counted against these shares, if given. `may_use_reserve`
    /// opens the last fifth of each limit, which is kept for callers with a credential and for work
    /// known from before (a renewal, a name that was found).
    pub fn new_reservation(
        self: &Arc<Self>,
        share: Option<Arc<BudgetShare>>,
        network_share: Option<Arc<BudgetShare>>,
        may_use_reserve: bool,
    ) -> Reservation {
        Reservation {
            budget: Arc::clone(self),
            shares: [share, network_share, None],
            may_use_reserve,
            weight: 0,
        }
    }

    /// Returns the number of parties that have a share now.
    #[cfg(test)]
    pub fn consumer_count(&self) -> usize {
        self.shares.len()
    }
}

impl BudgetShare {
    /// Returns the weight that the party holds now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns how much the party may hold.
    fn limit(&self) -> u64 {
        let default = match self.consumer {
            Consumer::Tenant(_) | Consumer::Network(_) | Consumer::Origin(_) => self.budget.share_limit(),
            Consumer::Client { .. } => self.budget.share_limit() / 2,
        };
        self.own_limit.unwrap_or(default)
    }

    fn to_exhausted(&self) -> Exhausted {
        match self.consumer {
            Consumer::Tenant(_) => Exhausted::Tenant,
            Consumer::Network(_) => Exhausted::Network,
            Consumer::Client { .. } => Exhausted::Client,
            Consumer::Origin(_) => Exhausted::Origin,
        }
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        // A new share of the same party may have replaced this one since; that one stays.
        self.budget.shares.remove_if(&self.consumer, |_, share| share.strong_count() == 0);
    }
}

impl Reservation {
    /// Counts this reservation against a client's share as well. It must be empty.
    pub fn with_client_share(mut self, client: Arc<BudgetShare>) -> Self {
        debug_assert_eq!(self.weight, 0, "what it has is counted nowhere else");
        self.shares[2] = Some(client);
        self
    }

    /// Creates an empty reservation that is counted against the same shares as this one.
    pub fn new_empty(&self) -> Self {
        let (budget, shares) = (Arc::clone(&self.budget), self.shares.clone());
        Self { budget, shares, may_use_reserve: self.may_use_reserve, weight: 0 }
    }

    /// Reserves `weight` more, or nothing at all.
    ///
    /// # Errors
    /// The bound that would be exceeded: a share's (tenant, source network or client) or the
    /// budget's.
    pub fn try_grow(&mut self, weight: u64) -> Result<(), Exhausted> {
        if weight == 0 {
            return Ok(());
        }
        for (at, share) in self.shares.iter().enumerate() {
            let Some(share) = share else { continue };
            if !try_add(&share.held, weight, self.available_limit(share.limit())) {
                let exhausted = share.to_exhausted();
                self.release_shares(at, weight);
                return Err(exhausted);
            }
        }
        if !try_add(&self.budget.held, weight, self.available_limit(self.budget.limit())) {
            self.release_shares(self.shares.len(), weight);
            return Err(Exhausted::Budget);
        }
        self.weight += weight;
        Ok(())
    }

    /// Returns `weight` of what is held, at most all of it.
    pub fn shrink(&mut self, weight: u64) {
        let weight = weight.min(self.weight);
        self.weight -= weight;
        self.release_shares(self.shares.len(), weight);
        self.budget.held.fetch_sub(weight, Ordering::Relaxed);
    }

    /// Returns everything that is held.
    pub fn release(&mut self) {
        self.shrink(self.weight);
    }

    /// Returns the weight that is held.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Whether the holder should hurry because the budget runs low.
    ///
    /// That is so if one of its shares is more than half full, or, if it may not use the reserve,
    /// if the whole budget is more than three quarters full.
    pub fn is_under_pressure(&self) -> bool {
        let budget = &self.budget;
        let is_large = |share: &Arc<BudgetShare>| share.held() > share.limit() / 2;
        let is_full = budget.held() > budget.limit() / 4 * 3;
        self.shares.iter().flatten().any(is_large) || (is_full && !self.may_use_reserve)
    }

    /// Returns the part of a limit that this reservation may use: all of it, or all but the
    /// reserve, which is the last fifth.
    fn available_limit(&self, limit: u64) -> u64 {
        if self.may_use_reserve { limit } else { limit - limit / 5 }
    }

    fn release_shares(&self, shares: usize, weight: u64) {
        for share in self.shares.iter().take(shares).flatten() {
            share.held.fetch_sub(weight, Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

fn mib_to_bytes(mib: usize) -> u64 {
    (mib as u64).saturating_mul(1 << 20)
}

/// Adds `weight` unless the sum would exceed `limit`.
fn try_add(held: &AtomicU64, weight: u64, limit: u64) -> bool {
    let sum = |held: u64| held.checked_add(weight).filter(|sum| *sum <= limit);
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::net::client_network;

    fn tenant(budget: &Arc<Budget>, name: &str) -> Option<Arc<BudgetShare>> {
        Some(budget.share(Consumer::Tenant(name.into())))
    }

    fn source(budget: &Arc<Budget>, address: &str) -> Option<Arc<BudgetShare>> {
        Some(budget.share(Consumer::Network(client_network(address.parse().expect("an address")))))
    }

    #[test]
    fn one_tenant_has_half_and_the_others_have_the_rest() {
        let budget = Budget::new(100);
        let mut a = budget.new_reservation(tenant(&budget, "a"), None, true);
        let mut more_of_a = budget.new_reservation(tenant(&budget, "a"), None, true);
        let mut b = budget.new_reservation(tenant(&budget, "b"), None, true);
        assert_eq!(a.try_grow(40), Ok(()));
        assert_eq!(more_of_a.try_grow(11), Err(Exhausted::Tenant));
        assert_eq!(more_of_a.try_grow(10), Ok(()), "a refusal takes nothing");
        assert_eq!(b.try_grow(50), Ok(()));
        drop((a, more_of_a, b));
        assert_eq!((budget.held(), budget.consumer_count()), (0, 0));
    }

    #[test]
    fn one_network_has_half_whichever_tenants_it_calls() {
        let budget = Budget::new(100);
        let mut one = budget.new_reservation(tenant(&budget, "a"), source(&budget, "2001:db8::1"), true);
        let mut two = budget.new_reservation(tenant(&budget, "b"), source(&budget, "2001:db8::2"), true);
        let mut other =
            budget.new_reservation(tenant(&budget, "b"), source(&budget, "2001:db8:0:1::1"), true);
        assert_eq!(one.try_grow(50), Ok(()));
        assert_eq!(two.try_grow(1), Err(Exhausted::Network));
        assert_eq!(other.try_grow(50), Ok(()), "what was refused left nothing behind in the tenant's share");
    }

    #[test]
    fn the_last_fifth_is_for_callers_with_a_credential() {
        let budget = Budget::new(100);
        let mut a = budget.new_reservation(tenant(&budget, "a"), None, false);
        let mut b = budget.new_reservation(tenant(&budget, "b"), None, false);
        let mut c = budget.new_reservation(tenant(&budget, "c"), None, false);
        assert_eq!((a.try_grow(40), b.try_grow(40)), (Ok(()), Ok(())));
        assert_eq!(c.try_grow(1), Err(Exhausted::Budget));
        let mut c = budget.new_reservation(tenant(&budget, "c"), None, true);
        assert_eq!(c.try_grow(20), Ok(()));
        assert_eq!(budget.held(), 100);
    }

    #[test]
    fn the_last_fifth_of_a_tenants_share_is_for_its_callers_with_a_credential() {
        let budget = Budget::new(100);
        let mut unknown = budget.new_reservation(tenant(&budget, "a"), None, false);
        let mut known = budget.new_reservation(tenant(&budget, "a"), None, true);
        assert_eq!((unknown.try_grow(40), unknown.try_grow(1)), (Ok(()), Err(Exhausted::Tenant)));
        assert_eq!((known.try_grow(10), known.try_grow(1)), (Ok(()), Err(Exhausted::Tenant)));
    }

    #[test]
    fn a_client_has_half_of_its_tenants_share() {
        let budget = Budget::new(100);
        let client = |id: &str| budget.share(Consumer::Client { tenant: "a".into(), id: id.into() });
        let mut one =
            budget.new_reservation(tenant(&budget, "a"), None, true).with_client_share(client("one"));
        let mut two =
            budget.new_reservation(tenant(&budget, "a"), None, true).with_client_share(client("two"));
        assert_eq!((one.try_grow(25), one.try_grow(1)), (Ok(()), Err(Exhausted::Client)));
        assert_eq!((two.try_grow(25), budget.held()), (Ok(()), 50));
    }

    #[test]
    fn a_shrunk_weight_is_free_for_others_and_never_exceeds_what_was_held() {
        let budget = Budget::new(100);
        let mut a = budget.new_reservation(tenant(&budget, "a"), None, true);
        assert_eq!(a.try_grow(50), Ok(()));
        a.shrink(30);
        assert_eq!((a.weight(), budget.held()), (20, 20));
        a.shrink(1000);
        assert_eq!((a.weight(), budget.held()), (0, 0));
        assert_eq!(a.try_grow(u64::MAX), Err(Exhausted::Tenant));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_client_may_have_a_share_of_its_own_size() {
        let budget = Budget::new(100);
        let reservation = |id: &str| {
            let client = Consumer::Client { tenant: "a".into(), id: id.into() };
            budget
                .new_reservation(tenant(&budget, "a"), None, true)
                .with_client_share(budget.share_with_limit(client, 5))
        };
        let (mut ann, mut more_of_ann, mut bob) =
            (reservation("ann"), reservation("ann"), reservation("bob"));
        assert_eq!((ann.try_grow(4), more_of_ann.try_grow(2)), (Ok(()), Err(Exhausted::Client)));
        assert_eq!((more_of_ann.try_grow(1), bob.try_grow(5)), (Ok(()), Ok(())));
        let tenant = budget.share(Consumer::Tenant("a".into()));
        assert_eq!(tenant.held(), 10);
        drop((ann, more_of_ann));
        assert_eq!((tenant.held(), budget.held()), (5, 5));
    }

    #[test]
    fn only_large_holders_are_under_pressure_until_little_is_left() {
        let budget = Budget::new(100);
        let mut a = budget.new_reservation(tenant(&budget, "a"), None, true);
        let mut b = budget.new_reservation(tenant(&budget, "b"), None, false);
        assert_eq!((a.try_grow(25), b.try_grow(1)), (Ok(()), Ok(())));
        assert!(!a.is_under_pressure() && !b.is_under_pressure());
        assert_eq!(a.try_grow(1), Ok(()));
        assert!(a.is_under_pressure() && !b.is_under_pressure());
        let mut others: Vec<_> =
            ["c", "d", "e"].map(|name| budget.new_reservation(tenant(&budget, name), None, true)).into();
        others.iter_mut().for_each(|reservation| assert_eq!(reservation.try_grow(20), Ok(())));
        assert!(
            b.is_under_pressure() && !others[0].is_under_pressure(),
            "nobody who showed a credential is hurried for it"
        );
    }

    #[test]
    fn a_weight_refused_by_the_budget_is_returned_to_the_shares() {
        let budget = Budget::new(100);
        let mut others = budget.new_reservation(None, None, true);
        let mut a = budget.new_reservation(tenant(&budget, "a"), None, true);
        assert_eq!(others.try_grow(80), Ok(()));
        assert_eq!(a.try_grow(30), Err(Exhausted::Budget));
        others.release();
        assert_eq!(a.try_grow(50), Ok(()), "what was refused is not held against its tenant");
    }

    #[test]
    fn a_new_empty_reservation_counts_in_the_same_shares() {
        let budget = Budget::new(100);
        let mut one = budget.new_reservation(tenant(&budget, "a"), None, true);
        let mut another = one.new_empty();
        assert_eq!((one.try_grow(40), another.weight()), (Ok(()), 0));
        assert_eq!(another.try_grow(11), Err(Exhausted::Tenant));
        assert_eq!(another.try_grow(10), Ok(()));
    }

    #[test]
    fn a_limit_that_changes_counts_what_is_held() {
        const MIB: u64 = 1 << 20;
        let budget = Budget::from_mib(4);
        let mut a = budget.new_reservation(tenant(&budget, "a"), None, true);
        let mut b = budget.new_reservation(tenant(&budget, "b"), None, true);
        assert_eq!((a.try_grow(2 * MIB), a.try_grow(1)), (Ok(()), Err(Exhausted::Tenant)));
        budget.set_mib(8);
        assert_eq!((a.try_grow(2 * MIB), a.try_grow(1)), (Ok(()), Err(Exhausted::Tenant)), "also of a share");
        budget.set_mib(2);
        assert_eq!(b.try_grow(1), Err(Exhausted::Budget), "what is held is more than the limit");
        a.shrink(3 * MIB);
        assert_eq!((b.try_grow(MIB), a.try_grow(1)), (Ok(()), Err(Exhausted::Tenant)));
    }

    #[test]
    fn a_share_exists_as_long_as_somebody_holds_it() {
        let budget = Budget::new(100);
        let kept = budget.share(Consumer::Tenant("a".into()));
        let mut reservation = budget.new_reservation(tenant(&budget, "a"), None, true);
        assert_eq!(reservation.try_grow(7), Ok(()));
        assert_eq!(kept.held(), 7);
        drop(kept);
        assert_eq!(budget.consumer_count(), 1);
        drop(reservation);
        assert_eq!(budget.consumer_count(), 0);
    }
}

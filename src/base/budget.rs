//! Budgets: how much of one resource all may hold together, and how much of it any one party may hold.
//!
//! A budget counts weight (bytes, or what stands for time), never things. It has three bounds:
//!
//! - the limit, for everybody together;
//! - a share for each tenant, each source network and each origin of backends: half of the limit, so that no party can
//!   fill it alone; a client of a tenant has half of what its tenant has, or less where its user says so, so that it
//!   cannot fill that either;
//! - a reserve, the last fifth of the limit and of each share, which only callers with a credential may use, so that
//!   nobody who is unknown can shut out those who are known, neither from everything nor from one tenant.
//!
//! A [`Hold`] gives back what it has when it is dropped. What is refused takes nothing.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;

/// A party whose share is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Party {
    /// A tenant, by its name.
    Tenant(Arc<str>),
    /// A source network, as [`network`](super::reach::network) gives it.
    Network(IpAddr),
    /// A client of a tenant's login, by the names of both.
    Client { tenant: Arc<str>, id: Arc<str> },
    /// Where backends are: scheme, host and port. It is counted in the tenant's place where tenants have bounds of their own.
    Origin(Arc<str>),
}

/// The bounds of one resource, and what is held of it.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: AtomicU64,
    /// What each party holds, while it holds or may come to hold something.
    shares: DashMap<Party, Weak<Share>>,
}

/// What one party holds of a budget.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    party: Party,
    limit: u64,
    held: AtomicU64,
}

/// What one request, answer or stream holds; given back when dropped.
#[derive(Debug)]
pub struct Hold {
    budget: Arc<Budget>,
    /// The tenant's share, the source's and the client's, where they are known.
    shares: [Option<Arc<Share>>; 3],
    /// Whether the caller showed a credential that was found good.
    has_credential: bool,
    weight: u64,
}

/// There is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All parties together hold what they may.
    #[error("this server holds as much as it may")]
    Budget,
    /// One tenant holds its share.
    #[error("this tenant holds as much as one tenant may")]
    Tenant,
    /// One source network holds its share.
    #[error("this address holds as much as one address may")]
    Network,
    /// One client holds its share.
    #[error("this client holds as much as one client may")]
    Client,
    /// The calls to one origin hold its share.
    #[error("calls to this origin hold as much as one origin may")]
    Origin,
}

impl Exhausted {
    /// What metrics call it.
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
    /// A budget of this limit, in whatever unit its user counts.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicU64::new(0), shares: DashMap::new() })
    }

    /// A budget of so many MiB, counted in bytes.
    pub fn of_mib(mib: usize) -> Arc<Self> {
        Self::new((mib as u64).saturating_mul(1 << 20))
    }

    /// What all parties together may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What all parties together hold now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// What one party may hold.
    pub fn share_limit(&self) -> u64 {
        self.limit / 2
    }

    /// The share of a party; keep it where the party is asked for often.
    pub fn share(self: &Arc<Self>, party: Party) -> Arc<Share> {
        let limit = match party {
            Party::Tenant(_) | Party::Network(_) | Party::Origin(_) => self.share_limit(),
            Party::Client { .. } => self.share_limit() / 2,
        };
        self.share_of(party, limit)
    }

    /// The share of a party that may hold so much, always the same.
    pub fn share_of(self: &Arc<Self>, party: Party, limit: u64) -> Arc<Share> {
        let mut entry = self.shares.entry(party.clone()).or_default();
        if let Some(share) = entry.upgrade() {
            return share;
        }
        let share = Arc::new(Share { budget: Arc::clone(self), party, limit, held: AtomicU64::new(0) });
        *entry = Arc::downgrade(&share);
        share
    }

    /// A hold that has nothing yet, counted against the shares of a tenant and a source network where they are known.
    pub fn hold(
        self: &Arc<Self>,
        tenant: Option<Arc<Share>>,
        network: Option<Arc<Share>>,
        has_credential: bool,
    ) -> Hold {
        Hold { budget: Arc::clone(self), shares: [tenant, network, None], has_credential, weight: 0 }
    }

    /// How many parties are counted now.
    #[cfg(test)]
    pub fn parties(&self) -> usize {
        self.shares.len()
    }
}

impl Share {
    /// What the party holds now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn exhausted(&self) -> Exhausted {
        match self.party {
            Party::Tenant(_) => Exhausted::Tenant,
            Party::Network(_) => Exhausted::Network,
            Party::Client { .. } => Exhausted::Client,
            Party::Origin(_) => Exhausted::Origin,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Another share of the same party may have been made since; it stays.
        self.budget.shares.remove_if(&self.party, |_, share| share.strong_count() == 0);
    }
}

impl Hold {
    /// Counts it against a client's share as well.
    pub fn of_client(mut self, client: Arc<Share>) -> Self {
        debug_assert_eq!(self.weight, 0, "what it has is counted nowhere else");
        self.shares[2] = Some(client);
        self
    }

    /// A hold that has nothing yet, counted as this one is.
    pub fn another(&self) -> Self {
        let (budget, shares) = (Arc::clone(&self.budget), self.shares.clone());
        Self { budget, shares, has_credential: self.has_credential, weight: 0 }
    }

    /// Takes so much more, or nothing.
    ///
    /// # Errors
    /// The bound that is in the way: of the tenant, the source network or the client, or of all.
    pub fn grow(&mut self, weight: u64) -> Result<(), Exhausted> {
        for (at, share) in self.shares.iter().enumerate() {
            let Some(share) = share else { continue };
            if !try_add(&share.held, weight, self.open_part(share.limit)) {
                let exhausted = share.exhausted();
                self.give_back_to_shares(at, weight);
                return Err(exhausted);
            }
        }
        if !try_add(&self.budget.held, weight, self.open_part(self.budget.limit)) {
            self.give_back_to_shares(self.shares.len(), weight);
            return Err(Exhausted::Budget);
        }
        self.weight += weight;
        Ok(())
    }

    /// Gives back so much of what it has.
    pub fn shrink(&mut self, weight: u64) {
        let weight = weight.min(self.weight);
        self.weight -= weight;
        self.give_back_to_shares(self.shares.len(), weight);
        self.budget.held.fetch_sub(weight, Ordering::Relaxed);
    }

    /// Gives back all that it has.
    pub fn release(&mut self) {
        self.shrink(self.weight);
    }

    /// What it has.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Whether its parties should hurry: one of them holds more than half of what it may, or, for callers without a
    /// credential, more than three quarters of what all may hold together are held.
    pub fn is_pressed(&self) -> bool {
        let budget = &self.budget;
        let is_large = |share: &Arc<Share>| share.held() > share.limit / 2;
        let is_full = budget.held() > budget.limit / 4 * 3;
        self.shares.iter().flatten().any(is_large) || (is_full && !self.has_credential)
    }

    /// The caller was found to have a credential: the reserve is open to it from now on.
    pub fn set_credential(&mut self) {
        self.has_credential = true;
    }

    /// What of a bound is open to this caller: the last fifth only with a credential.
    fn open_part(&self, limit: u64) -> u64 {
        if self.has_credential { limit } else { limit - limit / 5 }
    }

    fn give_back_to_shares(&self, shares: usize, weight: u64) {
        for share in self.shares.iter().take(shares).flatten() {
            share.held.fetch_sub(weight, Ordering::Relaxed);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.release();
    }
}

/// Adds `weight` unless the sum would be more than `limit`.
fn try_add(held: &AtomicU64, weight: u64, limit: u64) -> bool {
    let sum = |held: u64| held.checked_add(weight).filter(|sum| *sum <= limit);
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reach::network;

    fn tenant(budget: &Arc<Budget>, name: &str) -> Option<Arc<Share>> {
        Some(budget.share(Party::Tenant(name.into())))
    }

    fn source(budget: &Arc<Budget>, address: &str) -> Option<Arc<Share>> {
        Some(budget.share(Party::Network(network(address.parse().expect("an address")))))
    }

    #[test]
    fn one_tenant_has_half_and_the_others_have_the_rest() {
        let budget = Budget::new(100);
        let mut a = budget.hold(tenant(&budget, "a"), None, true);
        let mut more_of_a = budget.hold(tenant(&budget, "a"), None, true);
        let mut b = budget.hold(tenant(&budget, "b"), None, true);
        assert_eq!(a.grow(40), Ok(()));
        assert_eq!(more_of_a.grow(11), Err(Exhausted::Tenant));
        assert_eq!(more_of_a.grow(10), Ok(()), "a refusal takes nothing");
        assert_eq!(b.grow(50), Ok(()));
        drop((a, more_of_a, b));
        assert_eq!((budget.held(), budget.parties()), (0, 0));
    }

    #[test]
    fn one_address_has_half_whichever_tenants_it_asks() {
        let budget = Budget::new(100);
        let mut one = budget.hold(tenant(&budget, "a"), source(&budget, "2001:db8::1"), true);
        let mut two = budget.hold(tenant(&budget, "b"), source(&budget, "2001:db8::2"), true);
        let mut other = budget.hold(tenant(&budget, "b"), source(&budget, "2001:db8:0:1::1"), true);
        assert_eq!(one.grow(50), Ok(()));
        assert_eq!(two.grow(1), Err(Exhausted::Network));
        assert_eq!(other.grow(50), Ok(()), "what was refused left nothing behind in the tenant's share");
    }

    #[test]
    fn the_last_fifth_is_for_those_with_a_credential() {
        let budget = Budget::new(100);
        let mut a = budget.hold(tenant(&budget, "a"), None, false);
        let mut b = budget.hold(tenant(&budget, "b"), None, false);
        let mut c = budget.hold(tenant(&budget, "c"), None, false);
        assert_eq!((a.grow(40), b.grow(40)), (Ok(()), Ok(())));
        assert_eq!(c.grow(1), Err(Exhausted::Budget));
        c.set_credential();
        assert_eq!(c.grow(20), Ok(()));
        assert_eq!(budget.held(), 100);
    }

    #[test]
    fn the_last_fifth_of_a_tenants_share_is_for_its_callers_with_a_credential() {
        let budget = Budget::new(100);
        let mut unknown = budget.hold(tenant(&budget, "a"), None, false);
        let mut known = budget.hold(tenant(&budget, "a"), None, true);
        assert_eq!((unknown.grow(40), unknown.grow(1)), (Ok(()), Err(Exhausted::Tenant)));
        assert_eq!((known.grow(10), known.grow(1)), (Ok(()), Err(Exhausted::Tenant)));
    }

    #[test]
    fn a_client_has_half_of_what_its_tenant_has() {
        let budget = Budget::new(100);
        let client = |id: &str| budget.share(Party::Client { tenant: "a".into(), id: id.into() });
        let mut one = budget.hold(tenant(&budget, "a"), None, true).of_client(client("one"));
        let mut two = budget.hold(tenant(&budget, "a"), None, true).of_client(client("two"));
        assert_eq!((one.grow(25), one.grow(1)), (Ok(()), Err(Exhausted::Client)));
        assert_eq!((two.grow(25), budget.held()), (Ok(()), 50));
    }

    #[test]
    fn what_is_given_back_is_free_for_others_and_never_more_than_was_taken() {
        let budget = Budget::new(100);
        let mut a = budget.hold(tenant(&budget, "a"), None, true);
        assert_eq!(a.grow(50), Ok(()));
        a.shrink(30);
        assert_eq!((a.weight(), budget.held()), (20, 20));
        a.shrink(1000);
        assert_eq!((a.weight(), budget.held()), (0, 0));
        assert_eq!(a.grow(u64::MAX), Err(Exhausted::Tenant));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_client_may_have_a_share_of_its_own_size() {
        let budget = Budget::new(100);
        let hold = |id: &str| {
            let client = Party::Client { tenant: "a".into(), id: id.into() };
            budget.hold(tenant(&budget, "a"), None, true).of_client(budget.share_of(client, 5))
        };
        let (mut ann, mut more_of_ann, mut bob) = (hold("ann"), hold("ann"), hold("bob"));
        assert_eq!((ann.grow(4), more_of_ann.grow(2)), (Ok(()), Err(Exhausted::Client)));
        assert_eq!((more_of_ann.grow(1), bob.grow(5)), (Ok(()), Ok(())));
        let tenant = budget.share(Party::Tenant("a".into()));
        assert_eq!(tenant.held(), 10);
        drop((ann, more_of_ann));
        assert_eq!((tenant.held(), budget.held()), (5, 5));
    }

    #[test]
    fn only_the_large_are_to_hurry_until_little_is_left() {
        let budget = Budget::new(100);
        let mut a = budget.hold(tenant(&budget, "a"), None, true);
        let mut b = budget.hold(tenant(&budget, "b"), None, false);
        assert_eq!((a.grow(25), b.grow(1)), (Ok(()), Ok(())));
        assert!(!a.is_pressed() && !b.is_pressed());
        assert_eq!(a.grow(1), Ok(()));
        assert!(a.is_pressed() && !b.is_pressed());
        let mut others: Vec<_> =
            ["c", "d", "e"].map(|name| budget.hold(tenant(&budget, name), None, true)).into();
        others.iter_mut().for_each(|hold| assert_eq!(hold.grow(20), Ok(())));
        assert!(
            b.is_pressed() && !others[0].is_pressed(),
            "nobody who showed a credential is hurried for it"
        );
    }

    #[test]
    fn what_all_together_have_no_room_for_is_given_back_to_the_shares() {
        let budget = Budget::new(100);
        let mut others = budget.hold(None, None, true);
        let mut a = budget.hold(tenant(&budget, "a"), None, true);
        assert_eq!(others.grow(80), Ok(()));
        assert_eq!(a.grow(30), Err(Exhausted::Budget));
        others.release();
        assert_eq!(a.grow(50), Ok(()), "what was refused is not held against its tenant");
    }

    #[test]
    fn another_hold_counts_in_the_same_shares() {
        let budget = Budget::new(100);
        let mut one = budget.hold(tenant(&budget, "a"), None, true);
        let mut another = one.another();
        assert_eq!((one.grow(40), another.weight()), (Ok(()), 0));
        assert_eq!(another.grow(11), Err(Exhausted::Tenant));
        assert_eq!(another.grow(10), Ok(()));
    }

    #[test]
    fn a_share_lives_as_long_as_somebody_has_it() {
        let budget = Budget::new(100);
        let kept = budget.share(Party::Tenant("a".into()));
        let mut hold = budget.hold(tenant(&budget, "a"), None, true);
        assert_eq!(hold.grow(7), Ok(()));
        assert_eq!(kept.held(), 7);
        drop(kept);
        assert_eq!(budget.parties(), 1);
        drop(hold);
        assert_eq!(budget.parties(), 0);
    }
}

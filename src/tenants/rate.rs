//! How often each caller may ask one tenant: a generic cell rate algorithm per caller.
//!
//! The buckets live in the tenant's slot, so a reload forgives nobody; the allowance comes with each question, so a
//! reload that changes it is in force at once. A caller who was away for a minute has a whole minute's allowance.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::base::reach::network;

/// From this many callers on, those whose bucket has filled up again are forgotten when a new one comes.
const CALLERS_KEPT: usize = 10_000;

/// Who is counted as one caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallerKey {
    /// The holder of a static key, wherever they call from.
    Label(Arc<str>),
    /// Whoever logged in, by the subject of their tokens, wherever they call from and with whichever client.
    User(Arc<str>),
    /// An address; of IPv6 the /64 that one customer has.
    Network(IpAddr),
}

impl CallerKey {
    /// The caller behind an address.
    pub fn network(address: IpAddr) -> Self {
        Self::Network(network(address))
    }
}

/// The buckets of one tenant.
#[derive(Debug, Default)]
pub struct Buckets {
    /// When each caller's bucket will be full again. Most tenants have no limit, and an empty map is a kilobyte.
    full_at: OnceLock<DashMap<CallerKey, Instant>>,
}

impl Buckets {
    /// Takes one request of `caller` at `now`. When the allowance is used up: how long to wait.
    pub fn take(&self, caller: CallerKey, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let buckets = self.full_at.get_or_init(DashMap::new);
        if buckets.len() >= CALLERS_KEPT {
            buckets.retain(|_, full_at| *full_at > now);
        }
        let minute = Duration::from_secs(60);
        let each = minute / per_minute.max(1);
        let mut full_at = buckets.entry(caller).or_insert(now);
        let next = (*full_at).max(now) + each;
        match (next - now).checked_sub(minute) {
            None | Some(Duration::ZERO) => {
                *full_at = next;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    fn label(text: &str) -> CallerKey {
        CallerKey::Label(text.into())
    }

    #[test]
    fn the_allowance_comes_back_with_time() {
        let (buckets, clock) = (Buckets::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        for _ in 0..6 {
            assert_eq!(buckets.take(label("a"), 6, clock.monotonic()), Ok(()));
        }
        assert_eq!(buckets.take(label("a"), 6, clock.monotonic()), Err(Duration::from_secs(10)));
        clock.advance(Duration::from_secs(10));
        assert_eq!(buckets.take(label("a"), 6, clock.monotonic()), Ok(()));
        assert!(buckets.take(label("a"), 6, clock.monotonic()).is_err());
    }

    #[test]
    fn callers_do_not_share_an_allowance() {
        let (buckets, clock) = (Buckets::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        assert!(buckets.take(label("a"), 1, clock.monotonic()).is_ok());
        assert!(buckets.take(label("a"), 1, clock.monotonic()).is_err());
        assert!(buckets.take(label("b"), 1, clock.monotonic()).is_ok());
    }

    #[test]
    fn one_ipv6_customer_is_one_caller() {
        let caller = |text: &str| CallerKey::network(text.parse().expect("an address"));
        assert_eq!(caller("2001:db8:1:2::1"), caller("2001:db8:1:2:ffff::9"));
        assert_ne!(caller("2001:db8:1:2::1"), caller("2001:db8:1:3::1"));
        assert_eq!(caller("::ffff:192.0.2.1"), caller("192.0.2.1"));
        assert_ne!(caller("192.0.2.1"), caller("192.0.2.2"));
    }

    #[test]
    fn callers_long_gone_are_forgotten() {
        let (buckets, clock) = (Buckets::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        for n in 0..CALLERS_KEPT {
            assert!(buckets.take(label(&n.to_string()), 60, clock.monotonic()).is_ok());
        }
        clock.advance(Duration::from_secs(2));
        assert!(buckets.take(label("new"), 60, clock.monotonic()).is_ok());
        assert_eq!(buckets.full_at.get().map(DashMap::len), Some(1));
    }
}

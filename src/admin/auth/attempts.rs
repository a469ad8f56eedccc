//! Counts failed logins by network. Tokens are too long to guess; this keeps the audit and the log
//! from being filled. It never keeps out who has a good token.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::net;
use crate::base::sync::lock;

/// The failures of one network in a [`WINDOW`] that are answered one by one.
const ALLOWED: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// The networks that are remembered.
const NETWORKS: usize = 4096;

/// The failed attempts of the last minute.
#[derive(Debug, Default)]
pub(in crate::admin) struct FailedAttempts(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl FailedAttempts {
    /// Counts one, and returns whether there were too many.
    pub(super) fn count(&self, address: IpAddr, now: Instant) -> bool {
        let mut all = lock(&self.0);
        if all.len() >= NETWORKS {
            all.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        if all.len() >= NETWORKS {
            // Forgetting only means answering in more words.
            all.clear();
        }
        let (since, count) = all.entry(net::client_network(address)).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count > ALLOWED
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    #[test]
    fn failures_of_a_network_are_too_many_for_a_minute() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let attempts = FailedAttempts::default();
        let fail = |address: &str| attempts.count(address.parse().expect("an address"), clock.monotonic());
        assert!((0..ALLOWED).all(|_| !fail("192.0.2.1")));
        assert!(fail("192.0.2.1") && !fail("192.0.2.2"));
        clock.advance(WINDOW);
        assert!(!fail("192.0.2.1"));
    }

    #[test]
    fn many_networks_take_a_bounded_room() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let attempts = FailedAttempts::default();
        for number in 0..20_000_u32 {
            attempts.count(IpAddr::from(number.to_be_bytes()), clock.monotonic());
        }
        assert!(lock(&attempts.0).len() <= NETWORKS);
    }
}

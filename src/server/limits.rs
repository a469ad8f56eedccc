//! How many connections there may be: in all, and of one party.

use std::net::IpAddr;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::reach::network;
use crate::settings::Limits;
use crate::telemetry::metrics::Metrics;

/// The door: a permit is taken before accepting, the party is counted after.
pub(super) struct Admission {
    permits: Arc<Semaphore>,
    parties: Arc<DashMap<IpAddr, usize>>,
    per_party: usize,
    metrics: Arc<Metrics>,
}

/// One connection's place; given back when dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    party: IpAddr,
    parties: Arc<DashMap<IpAddr, usize>>,
    metrics: Arc<Metrics>,
}

impl Admission {
    pub(super) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            parties: Arc::default(),
            per_party: limits.connections_per_ip,
            metrics,
        }
    }

    /// Waits until one more connection may be accepted; further ones queue in the kernel.
    pub(super) async fn permit(&self) -> OwnedSemaphorePermit {
        let permits = Arc::clone(&self.permits);
        if permits.available_permits() == 0 {
            self.metrics.connection_refused("cap");
        }
        permits.acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Counts a connection from `address` (IPv6: its /64); `None` when that party has enough.
    pub(super) fn admit(&self, permit: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        let party = network(address);
        {
            let mut count = self.parties.entry(party).or_insert(0);
            if *count >= self.per_party {
                drop(count);
                self.metrics.connection_refused("per_ip");
                return None;
            }
            *count += 1;
        }
        self.metrics.connections(1);
        let (parties, metrics) = (Arc::clone(&self.parties), Arc::clone(&self.metrics));
        Some(Place { _permit: permit, party, parties, metrics })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections(-1);
        if let Entry::Occupied(mut count) = self.parties.entry(self.party) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize, connections_per_ip: usize) -> Admission {
        let limits = Limits { connections, connections_per_ip, ..Limits::default() };
        Admission::new(&limits, Arc::default())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn one_party_has_its_share_and_gets_it_back() {
        let door = admission(10, 2);
        let one = door.admit(door.permit().await, ip("2001:db8::1")).expect("a place");
        let two = door.admit(door.permit().await, ip("2001:db8::2")).expect("a place");
        assert!(door.admit(door.permit().await, ip("2001:db8::3")).is_none());
        assert!(door.admit(door.permit().await, ip("2001:db8:0:1::3")).is_some());
        drop(one);
        assert!(door.admit(door.permit().await, ip("2001:db8::3")).is_some());
        drop(two);
        assert!(door.parties.is_empty());
        assert_eq!(door.permits.available_permits(), 10);
    }

    #[tokio::test]
    async fn nobody_is_accepted_beyond_the_cap() {
        let door = admission(1, 10);
        let place = door.admit(door.permit().await, ip("192.0.2.1")).expect("a place");
        let mut next = Box::pin(door.permit());
        assert!(is_pending(&mut next).await);
        drop(place);
        let _permit = next.await;
    }

    async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}

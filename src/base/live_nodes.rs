//! How many gateways serve the same tenants, and which part of a limit each of them applies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The number of gateways that live now, this one included. Clones share the number.
#[derive(Debug, Clone)]
pub struct LiveNodes(Arc<AtomicU32>);

impl Default for LiveNodes {
    /// Returns the number of a gateway that shares nothing.
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(1)))
    }
}

impl LiveNodes {
    /// Returns the number.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes the number; a gateway that reads it lives itself.
    pub fn set(&self, count: u32) {
        self.0.store(count.max(1), Ordering::Relaxed);
    }

    /// Returns the part of a limit that one gateway allows: never nothing, since a caller may be
    /// led to this gateway alone.
    pub fn share(&self, limit: u32) -> u32 {
        (limit / self.count()).max(limit.min(1))
    }

    /// The same for places that calls take.
    pub fn share_places(&self, places: usize) -> usize {
        (places / self.count() as usize).max(places.min(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_limit_at_most_unless_it_is_smaller_than_the_number_of_nodes() {
        let nodes = LiveNodes::default();
        assert_eq!((nodes.count(), nodes.share(10)), (1, 10));
        nodes.set(3);
        assert_eq!([10, 3, 2, 1, 0].map(|limit| nodes.share(limit)), [3, 1, 1, 1, 0]);
        nodes.set(0);
        assert_eq!((nodes.share(10), nodes.share_places(10)), (10, 10));
        nodes.set(4);
        assert_eq!([10, 2, 0].map(|places| nodes.share_places(places)), [2, 1, 0]);
    }
}

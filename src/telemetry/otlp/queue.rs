//! What waits to be exported: bounded, so that a dead receiver costs a fixed amount of memory and
//! no caller any time. What has no room is counted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::sync::lock;

/// How many items of a signal were sent, and how many were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalCounts {
    /// What is counted: `spans`, `log_records` or `data_points`.
    pub items: &'static str,
    /// Items that the receiver took.
    pub sent: u64,
    /// Items that had no room, or that the receiver did not want.
    pub dropped: u64,
}

/// A bounded queue of one signal.
#[derive(Debug)]
pub(super) struct ExportQueue<T> {
    items: Mutex<Vec<T>>,
    limit: usize,
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl<T> ExportQueue<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { items: Mutex::default(), limit, sent: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// Adds an item, if there is room.
    pub(super) fn push(&self, item: T) {
        let mut items = lock(&self.items);
        if items.len() < self.limit {
            items.push(item);
        } else {
            drop(items);
            self.record_dropped(1);
        }
    }

    /// Takes the oldest items, at most `count`.
    pub(super) fn take(&self, count: usize) -> Vec<T> {
        let mut items = lock(&self.items);
        if items.len() <= count {
            return std::mem::take(&mut *items);
        }
        let rest = items.split_off(count);
        std::mem::replace(&mut *items, rest)
    }

    /// Puts back what could not be sent, as far as there is room; the oldest give way.
    pub(super) fn put_back(&self, mut unsent: Vec<T>) {
        let mut items = lock(&self.items);
        let room = self.limit.saturating_sub(items.len());
        let lost = unsent.len().saturating_sub(room);
        unsent.drain(..lost);
        unsent.append(&mut items);
        *items = unsent;
        drop(items);
        self.record_dropped(lost as u64);
    }

    /// Counts a batch that was sent, and of which some items were not taken.
    pub(super) fn record_sent(&self, count: u64, rejected: u64) {
        self.sent.fetch_add(count.saturating_sub(rejected), Ordering::Relaxed);
        self.record_dropped(rejected.min(count));
    }

    pub(super) fn record_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns how many were sent and how many were dropped.
    pub(super) fn counts(&self, items: &'static str) -> SignalCounts {
        SignalCounts {
            items,
            sent: self.sent.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_counted_and_the_rest_keeps_its_order() {
        let queue = ExportQueue::new(4);
        (1..=5).for_each(|item| queue.push(item));
        assert_eq!(queue.counts("spans").dropped, 1);
        let batch = queue.take(3);
        assert_eq!(batch, [1, 2, 3]);
        queue.push(6);
        queue.put_back(batch);
        assert_eq!(queue.counts("spans").dropped, 2, "the oldest gives way");
        assert_eq!(queue.take(9), [2, 3, 4, 6]);
        queue.record_sent(4, 1);
        assert_eq!(queue.counts("spans"), SignalCounts { items: "spans", sent: 3, dropped: 3 });
    }
}

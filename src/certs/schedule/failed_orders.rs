//! The count of orders that led to no certificate, kept across restarts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DAY, HOUR};

/// How many orders may fail.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrderCaps {
    pub(super) per_hour: usize,
    pub(super) per_day: usize,
}

/// The times at which they were placed, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::certs) struct FailedOrders(Vec<Timestamp>);

impl FailedOrders {
    /// Counts an order that is about to be placed. It counts until it succeeds, so a crash leaves
    /// it counted.
    pub(super) fn push(&mut self, now: Timestamp) {
        self.0.push(now);
    }

    /// Uncounts the last order, which succeeded or was not placed after all.
    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    /// Drops orders that no cap counts any more. Times in the future, from a clock that was ahead,
    /// become now, so that they do not count for longer.
    pub(super) fn prune(&mut self, now: Timestamp) {
        self.0.iter_mut().for_each(|at| *at = (*at).min(now));
        self.0.sort();
        self.0.retain(|&at| now < at + DAY);
    }

    /// Returns when the caps allow the next order, if they do not allow it now.
    pub(super) fn caps_allow_at(&self, caps: OrderCaps) -> Option<Timestamp> {
        let nth_last = |n: usize| self.0.len().checked_sub(n).map(|index| self.0[index]);
        let hour = nth_last(caps.per_hour).map(|at| at + HOUR);
        let day = nth_last(caps.per_day).map(|at| at + DAY);
        hour.max(day)
    }
}

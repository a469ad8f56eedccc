//! Orders that led to nothing, counted across restarts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DAY, HOUR};

/// How many may lead to nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) an_hour: usize,
    pub(super) a_day: usize,
}

/// The moments at which they were placed, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::certs) struct Fruitless(Vec<Timestamp>);

impl Fruitless {
    /// An order is about to be placed. It counts until it bears fruit, so that a crash leaves it counted.
    pub(super) fn placed(&mut self, now: Timestamp) {
        self.0.push(now);
    }

    /// The last one bore fruit, or was not placed after all.
    pub(super) fn forget_last(&mut self) {
        self.0.pop();
    }

    /// Forgets what no cap counts any more. A clock that was ahead must not make it count longer.
    pub(super) fn mend(&mut self, now: Timestamp) {
        self.0.iter_mut().for_each(|at| *at = (*at).min(now));
        self.0.sort();
        self.0.retain(|&at| now < at + DAY);
    }

    /// When the caps allow the next one, if they don't now.
    pub(super) fn frees_at(&self, caps: Caps) -> Option<Timestamp> {
        let nth_last = |n: usize| self.0.len().checked_sub(n).map(|index| self.0[index]);
        let hour = nth_last(caps.an_hour).map(|at| at + HOUR);
        let day = nth_last(caps.a_day).map(|at| at + DAY);
        hour.max(day)
    }
}

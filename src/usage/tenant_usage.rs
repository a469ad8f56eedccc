//! The counters of one tenant, which outlive its revisions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::traffic::{CallEnd, Traffic, TrafficReport};
use crate::base::sync::lock;

/// The counters of one tenant. They take no memory worth counting until its first call.
#[derive(Debug, Default)]
pub(super) struct TenantUsage {
    traffic: Mutex<Traffic>,
    calls_in_flight: AtomicUsize,
}

impl TenantUsage {
    pub(super) fn begin_call(&self) {
        self.calls_in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_call(&self) {
        self.calls_in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn calls_in_flight(&self) -> usize {
        self.calls_in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn record(&self, now: Timestamp, end: CallEnd, elapsed: Duration, bytes: u64) {
        lock(&self.traffic).record(now, end, elapsed, bytes);
    }

    pub(super) fn traffic(&self, now: Timestamp) -> TrafficReport {
        TrafficReport { in_flight: self.calls_in_flight(), hours: lock(&self.traffic).last_hours(now) }
    }
}

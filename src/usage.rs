//! Floor 2: how much callers use tenants.
//!
//! [`Usage`] belongs to the gateway and has the counters of each tenant by its name, so that they
//! survive reloads and the removal of files. A tenant's server gets a [`UsageMeter`]: it opens a
//! [`MeteredCall`] for each call, which counts it whichever way it ends.
//!
//! [`traffic`] is what an operator looks at: the last 24 hours. [`rate_limit`] bounds requests per
//! minute.

mod latency;
mod meter;
pub mod rate_limit;
mod tenant_usage;
pub mod traffic;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use self::meter::{MeteredCall, UsageMeter};
use self::tenant_usage::TenantUsage;
use self::traffic::{CallEnd, Traffic, TrafficReport};
use crate::base::clock::Clock;
use crate::base::sync::lock;
use crate::spec::TenantName;

/// The usage of all tenants of one gateway.
pub struct Usage {
    clock: Arc<dyn Clock>,
    traffic: Mutex<Traffic>,
    tenants: Mutex<HashMap<Arc<str>, Arc<TenantUsage>>>,
}

impl Usage {
    /// Creates counters that stand at zero.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, traffic: Mutex::default(), tenants: Mutex::default() })
    }

    /// Returns the meter of a tenant. Its counters go on where they were if the tenant was known
    /// before.
    pub fn meter(self: &Arc<Self>, tenant: &TenantName) -> UsageMeter {
        let counters = Arc::clone(lock(&self.tenants).entry(Arc::clone(tenant.as_arc())).or_default());
        UsageMeter::new(Arc::clone(self), counters)
    }

    /// Returns the traffic of the gateway: all its tenants, the removed ones included.
    pub fn traffic(&self) -> TrafficReport {
        let hours = lock(&self.traffic).last_hours(self.clock.now());
        let in_flight = lock(&self.tenants).values().map(|tenant| tenant.calls_in_flight()).sum();
        TrafficReport { in_flight, hours }
    }

    /// Returns the traffic of a tenant by its name; all zero if it never had any.
    pub fn tenant_traffic(&self, name: &str) -> TrafficReport {
        let now = self.clock.now();
        let tenants = lock(&self.tenants);
        let report = |tenant: &Arc<TenantUsage>| tenant.traffic(now);
        tenants.get(name).map_or_else(|| TenantUsage::default().traffic(now), report)
    }

    /// Counts a call of a tenant that ended.
    fn record(&self, tenant: &TenantUsage, end: CallEnd, elapsed: Duration, bytes: u64) {
        let now = self.clock.now();
        tenant.record(now, end, elapsed, bytes);
        lock(&self.traffic).record(now, end, elapsed, bytes);
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage").field("tenants", &lock(&self.tenants).len()).finish_non_exhaustive()
    }
}

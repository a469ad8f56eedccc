//! Floor 2: how much callers use tenants, and how much they may.
//!
//! [`Usage`] belongs to the gateway and has the counters of each tenant by its name, so that they
//! survive reloads and the removal of files. A tenant's server gets a [`UsageMeter`]: it opens a
//! [`MeteredCall`] for each call, which asks the limits and counts the call whichever way it ends.
//!
//! What is counted goes three ways: into the [`traffic`] of the last 24 hours, of which the ledger
//! remembers the sums after a restart; into the counts of quotas; and into the ledger. The last two
//! are written to the store every few seconds ([`WRITE_INTERVAL`]) and when the gateway stops, so a
//! killed process forgets at most the calls of that time. A store that cannot be written stops no
//! call. Gateways that share a database count together there ([`sharing`]).
//!
//! [`rate_limit`] bounds requests per minute, for the public edge.

mod allowance;
mod caller;
mod latency;
mod ledger;
mod limit;
mod meter;
mod period;
mod quotas;
pub mod rate_limit;
mod sharing;
mod tenant_usage;
pub mod traffic;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast;

use self::allowance::resets_at;
pub use self::caller::{CallerKey, UsageCaller};
use self::ledger::{Backlog, EndedCall};
pub use self::limit::{LimitKind, LimitReached, LimitScope, QuotaStatus, QuotaWarning};
pub use self::meter::{MeteredCall, UsageMeter};
use self::period::Period;
use self::quotas::Crossings;
use self::sharing::SharedCounts;
use self::tenant_usage::{CallToRecord, TenantUsage};
use self::traffic::{CallEnd, Traffic, TrafficReport};
pub use self::writer::WRITE_INTERVAL;
use crate::base::clock::Clock;
use crate::base::live_nodes::LiveNodes;
use crate::base::sync::lock;
use crate::spec::{TenantName, UsageLimits};
use crate::store::{self, ClusterStore, LocalStore, Store};

/// How many warnings wait for a slow subscriber; it misses the oldest ones beyond them.
const WARNINGS_KEPT: usize = 256;

/// Where usage is kept.
pub enum UsageStore {
    /// In this gateway's state folder.
    File(LocalStore),
    /// In a database, together with that of other gateways.
    Database(ClusterStore),
}

impl From<&Store> for UsageStore {
    fn from(store: &Store) -> Self {
        store.cluster().map_or_else(|| Self::File(store.local().clone()), Self::Database)
    }
}

/// Where usage is written, and what has to be known for that.
enum Ledger {
    File(LocalStore),
    Shared(Box<SharedCounts>),
}

/// The usage of all tenants of one gateway.
pub struct Usage {
    clock: Arc<dyn Clock>,
    traffic: Mutex<Traffic>,
    tenants: Mutex<HashMap<Arc<str>, Arc<TenantUsage>>>,
    /// The tenants that the next write collects from.
    dirty: Mutex<Vec<Arc<TenantUsage>>>,
    backlog: Mutex<Backlog>,
    /// Held while a batch is written, so that an older count never replaces a newer one.
    writing: tokio::sync::Mutex<()>,
    store: Option<Ledger>,
    nodes: LiveNodes,
    warnings: broadcast::Sender<QuotaWarning>,
}

impl Usage {
    /// Creates counters that stand at zero and are never written.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self::with_store(clock, None))
    }

    /// Creates counters that go on where those in the store stand. Without a store they stand at
    /// zero, and there is no ledger.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(clock: Arc<dyn Clock>, store: Option<UsageStore>) -> Result<Arc<Self>, store::Error> {
        let store = store.map(|store| match store {
            UsageStore::File(store) => Ledger::File(store),
            UsageStore::Database(store) => Ledger::Shared(Box::new(SharedCounts::new(store))),
        });
        let usage = Self::with_store(clock, store);
        usage.restore().await?;
        Ok(Arc::new(usage))
    }

    fn with_store(clock: Arc<dyn Clock>, store: Option<Ledger>) -> Self {
        Self {
            clock,
            traffic: Mutex::default(),
            tenants: Mutex::default(),
            dirty: Mutex::default(),
            backlog: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            store,
            nodes: LiveNodes::default(),
            warnings: broadcast::Sender::new(WARNINGS_KEPT),
        }
    }

    /// Returns the meter of a tenant. Its counters go on where they were if the tenant was known
    /// before.
    pub fn meter(self: &Arc<Self>, tenant: &TenantName, limits: UsageLimits) -> UsageMeter {
        UsageMeter::new(Arc::clone(self), self.tenant(tenant.as_arc()), limits)
    }

    /// Returns the traffic of the gateway: all its tenants, the removed ones included.
    pub fn traffic(&self) -> TrafficReport {
        let hours = lock(&self.traffic).last_hours(self.clock.now());
        let in_flight = lock(&self.tenants).values().map(|tenant| tenant.calls_in_flight()).sum();
        TrafficReport { in_flight, hours, quotas: Vec::new() }
    }

    /// Returns the traffic of a tenant by its name; all zero if it never had any.
    pub fn tenant_traffic(&self, name: &str) -> TrafficReport {
        let now = self.clock.now();
        let tenant = lock(&self.tenants).get(name).cloned();
        let tenant = tenant.unwrap_or_else(|| Arc::new(TenantUsage::new(name.into())));
        TrafficReport {
            in_flight: tenant.calls_in_flight(),
            hours: tenant.last_hours(now),
            quotas: Vec::new(),
        }
    }

    /// Returns the number of gateways among which rates are shared, to be set by whoever knows it.
    pub fn live_nodes(&self) -> &LiveNodes {
        &self.nodes
    }

    /// Subscribes to the quotas of which four fifths are used, each once in its day or month.
    pub fn subscribe_warnings(&self) -> broadcast::Receiver<QuotaWarning> {
        self.warnings.subscribe()
    }

    fn tenant(&self, name: &Arc<str>) -> Arc<TenantUsage> {
        let mut tenants = lock(&self.tenants);
        let tenant = tenants.entry(Arc::clone(name));
        Arc::clone(tenant.or_insert_with(|| Arc::new(TenantUsage::new(Arc::clone(name)))))
    }

    fn has_ledger(&self) -> bool {
        self.store.is_some()
    }

    fn ended_call(&self, end: CallEnd, elapsed: Duration, bytes: u64) -> EndedCall {
        EndedCall { now: self.clock.now(), end, elapsed, bytes }
    }

    /// Counts a call of a tenant that ended.
    fn record(&self, tenant: &Arc<TenantUsage>, ended: &CallToRecord<'_>) {
        let recorded = tenant.record(ended);
        if recorded.became_dirty && self.has_ledger() {
            lock(&self.dirty).push(Arc::clone(tenant));
        }
        let call = &ended.call;
        lock(&self.traffic).record(call.now, call.end, call.elapsed, call.bytes);
        self.warn(tenant, recorded.crossings, call.now);
    }

    /// Tells of quotas of which four fifths are used.
    fn warn(&self, tenant: &TenantUsage, crossings: Crossings, now: Timestamp) {
        for (scope, crossing) in crossings {
            let warning = QuotaWarning {
                tenant: Arc::clone(tenant.name()),
                scope,
                kind: crossing.kind,
                used: crossing.used,
                of: crossing.of,
                resets_at: resets_at(crossing.kind, Period::from_time(now)),
            };
            match &self.store {
                Some(Ledger::Shared(shared)) => shared.hold(warning),
                _ => self.tell(&warning),
            }
        }
    }

    fn tell(&self, warning: &QuotaWarning) {
        warning.log();
        // There may be no subscriber.
        let _subscribers = self.warnings.send(warning.clone());
    }
}

impl QuotaWarning {
    fn log(&self) {
        let Self { tenant, scope, kind, used, of, resets_at } = self;
        let (tenant, limit) = (&**tenant, kind.as_str());
        match scope {
            // Somebody's share is their own affair first.
            LimitScope::Caller(_) => {
                tracing::info!(tenant, %scope, limit, used, of, %resets_at, "a caller has used 80 % of a quota");
            }
            LimitScope::Tenant | LimitScope::Tool(_) => tracing::warn!(
                tenant, %scope, limit, used, of, %resets_at,
                "80 % of a quota are used; when it is used up, calls are refused until it begins again. To \
                 allow more, raise it under limits: in the tenant's file"
            ),
        }
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage").field("tenants", &lock(&self.tenants).len()).finish_non_exhaustive()
    }
}

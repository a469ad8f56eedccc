//! The edge's memory budgets. Each has a limit, a share per tenant and per source network, and a
//! reserve for callers with a credential:
//!
//! - requests, from when their body is awaited until they are answered. Only bytes that arrived are
//!   counted: a client that announces much and sends nothing takes next to no room from others;
//! - calls and streams under way, whatever was asked;
//! - answers, until their bytes have left.
//!
//! There are also slots for lingering: at most this many refused clients have what they still send
//! read and dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::budget::{Budget, BudgetShare, Consumer, Exhausted, Reservation};
use crate::base::log_limiter::LogLimiter;
use crate::base::net::client_network;
use crate::settings::Limits;
use crate::spec::TenantName;
use crate::telemetry::metrics::Metrics;

/// Memory that a call in flight takes besides its text: rmcp gives each call two queues of 32
/// messages, the rest are tasks. Measured with open `subscriptions/listen` streams: 62 KiB each.
pub(super) const CALL_BYTES: u64 = 64 << 10;
/// Streams that one person or service client may have open. A client normally opens one or two.
const STREAMS_OF_ONE: u64 = 16;
/// Memory that a response takes besides its body: its head and the state of its stream.
const ANSWER_BYTES: u64 = 1 << 10;
/// The maximum number of refused clients that may go on sending at a time.
const LINGERERS: u64 = 1_024;
/// When to try again after a refusal for lack of room.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// The budgets of one edge.
#[derive(Debug)]
pub(super) struct MemoryBudgets {
    pub(super) requests: MeteredBudget,
    pub(super) calls: MeteredBudget,
    pub(super) responses: MeteredBudget,
    lingerers: Arc<Budget>,
    metrics: Arc<Metrics>,
}

/// The slot of a client that was refused and may go on sending, until dropped.
#[derive(Debug)]
pub(super) struct Lingerer {
    network: Arc<BudgetShare>,
    _slot: Reservation,
}

/// One budget, with the metric and the rate-limited log line for what it refuses.
#[derive(Debug)]
pub(super) struct MeteredBudget {
    budget: Arc<Budget>,
    name: &'static str,
    setting: &'static str,
    metrics: Arc<Metrics>,
    /// Limits the log line about refusals, so that a client that keeps calling cannot fill the
    /// disk.
    log_limiter: LogLimiter,
}

/// The parties against whose shares a reservation counts.
#[derive(Debug, Clone)]
pub(super) struct Attribution {
    tenant: Option<Arc<str>>,
    network: IpAddr,
    has_credential: bool,
}

impl MemoryBudgets {
    pub(super) fn new(limits: &Limits, metrics: &Arc<Metrics>) -> Self {
        let budget = |name, setting, mib| MeteredBudget::new(name, setting, mib, Arc::clone(metrics));
        Self {
            requests: budget("requests", "limits.request_memory_mib", limits.request_memory_mib),
            calls: budget("calls", "limits.call_memory_mib", limits.call_memory_mib),
            responses: budget("answers", "limits.answer_memory_mib", limits.answer_memory_mib),
            lingerers: Budget::new(LINGERERS),
            metrics: Arc::clone(metrics),
        }
    }

    /// Changes how much memory there is. What is held stays.
    pub(super) fn set_limits(&self, limits: &Limits) {
        self.requests.budget.set_mib(limits.request_memory_mib);
        self.calls.budget.set_mib(limits.call_memory_mib);
        self.responses.budget.set_mib(limits.answer_memory_mib);
    }

    /// Reserves room for a call, or for a stream of the person or service client
    /// `stream_subject`, if there is also room for its response.
    ///
    /// # Errors
    /// The bound that is exhausted. It has been counted, and logged unless that was done recently.
    pub(super) fn reserve_call(
        &self,
        attribution: &Attribution,
        stream_subject: Option<&str>,
        now: Instant,
    ) -> Result<Reservation, Exhausted> {
        let mut reservation = self.calls.new_reservation(attribution);
        if let Some(subject) = stream_subject {
            reservation = reservation.with_client_share(self.calls.stream_share(attribution, subject));
        }
        self.calls.try_grow(&mut reservation, CALL_BYTES, attribution, now)?;
        self.reserve_response(attribution, None, now)?;
        Ok(reservation)
    }

    /// Reserves room for a response with a body of `body_bytes`, if that size is known.
    ///
    /// # Errors
    /// The bound that is exhausted. It has been counted, and logged unless that was done recently.
    pub(super) fn reserve_response(
        &self,
        attribution: &Attribution,
        body_bytes: Option<u64>,
        now: Instant,
    ) -> Result<Reservation, Exhausted> {
        let mut reservation = self.responses.new_reservation(attribution);
        let bytes = ANSWER_BYTES + body_bytes.unwrap_or_default();
        self.responses.try_grow(&mut reservation, bytes, attribution, now)?;
        Ok(reservation)
    }

    /// Returns a slot for a client that was refused and may go on sending, if one is free.
    pub(super) fn linger(&self, attribution: &Attribution) -> Option<Lingerer> {
        let mut slot = new_reservation(&self.lingerers, attribution);
        let network = self.lingerers.share(Consumer::Network(attribution.network));
        match slot.try_grow(1) {
            Ok(()) => Some(Lingerer { network, _slot: slot }),
            Err(exhausted) => {
                self.metrics.record_budget_rejection("lingering", exhausted.reason());
                None
            }
        }
    }
}

impl Lingerer {
    /// Returns how many clients of its network are lingered on.
    pub(super) fn count_in_network(&self) -> u64 {
        self.network.held()
    }
}

impl MeteredBudget {
    fn new(name: &'static str, setting: &'static str, mib: usize, metrics: Arc<Metrics>) -> Self {
        let budget = Budget::from_mib(mib);
        metrics.register_budget(name, Arc::clone(&budget));
        Self { budget, name, setting, metrics, log_limiter: LogLimiter::new(Duration::from_secs(60)) }
    }

    /// Returns an empty reservation.
    pub(super) fn new_reservation(&self, attribution: &Attribution) -> Reservation {
        new_reservation(&self.budget, attribution)
    }

    /// Returns the share of a person or service client that logged in, for its streams.
    fn stream_share(&self, attribution: &Attribution, subject: &str) -> Arc<BudgetShare> {
        let tenant = attribution.tenant.clone().unwrap_or_default();
        let client = Consumer::Client { tenant, id: subject.into() };
        self.budget.share_with_limit(client, STREAMS_OF_ONE * CALL_BYTES)
    }

    /// Lets a reservation of this budget grow by `bytes`, and records it if there is no room.
    fn try_grow(
        &self,
        reservation: &mut Reservation,
        bytes: u64,
        attribution: &Attribution,
        now: Instant,
    ) -> Result<(), Exhausted> {
        let grown = reservation.try_grow(bytes);
        grown.inspect_err(|&exhausted| self.record_rejection(exhausted, attribution, now))
    }

    /// Returns whether a source network holds so much that its connections that do not read should
    /// be closed.
    pub(super) fn is_under_pressure_from(&self, address: IpAddr) -> bool {
        self.budget
            .new_reservation(None, Some(self.budget.share(Consumer::Network(client_network(address)))), true)
            .is_under_pressure()
    }

    /// Counts a refusal, and logs it unless that was done recently.
    pub(super) fn record_rejection(&self, exhausted: Exhausted, attribution: &Attribution, now: Instant) {
        self.metrics.record_budget_rejection(self.name, exhausted.reason());
        let Some(suppressed) = self.log_limiter.check(now) else { return };
        tracing::warn!(
            tenant = attribution.tenant.as_deref(),
            client.addr = %attribution.network,
            suppressed,
            "a request was refused for lack of memory, because {exhausted} ({}); docs/configuration.md \
             explains the limits",
            self.setting
        );
    }
}

impl Attribution {
    /// The parties of a request whose caller has not been authenticated yet.
    pub(super) fn new(address: IpAddr, tenant: Option<&TenantName>) -> Self {
        let tenant = tenant.map(|name| Arc::clone(name.as_arc()));
        Self { tenant, network: client_network(address), has_credential: false }
    }

    /// Sets whether the caller's credential was verified.
    pub(super) fn with_credential(mut self, has_credential: bool) -> Self {
        self.has_credential = has_credential;
        self
    }
}

/// Returns an empty reservation that counts against the shares of `attribution`.
fn new_reservation(budget: &Arc<Budget>, attribution: &Attribution) -> Reservation {
    let tenant = attribution.tenant.clone().map(|name| budget.share(Consumer::Tenant(name)));
    let network = budget.share(Consumer::Network(attribution.network));
    budget.new_reservation(tenant, Some(network), attribution.has_credential)
}

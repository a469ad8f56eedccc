//! The HTTP clients of the process.
//!
//! All tenants share one pool of HTTP/1.1 connections per origin, with a limit on idle ones. Such a
//! connection carries one call at a time, so closing or stalling it affects that call only. HTTP/2
//! multiplexes calls, so a tenant that enables it gets connections of its own. The clients
//! decompress nothing; `body_encoding` does, within a bound.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::sync::watch;
use url::Url;

use super::Error;
use super::address_guard::{AddressGuard, AddressRules};
use super::body::ResponseBody;
use super::connector::{BackendConnector, tls_config};
use super::context_cache::ContextCache;
use super::meter::ConnectionMeter;
use super::proxies::Proxies;
use super::response_budget::ResponseBudget;
use crate::base::budget::{Budget, BudgetShare, Consumer, Reservation};
use crate::base::clock::Clock;
use crate::spec::TenantName;
use crate::telemetry::metrics::Metrics;

/// How long an idle connection is kept. Common servers close theirs after five seconds (uvicorn,
/// Node); keeping one longer loses requests that cross the close on the wire.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// The memory of kept contexts unless [`Pool::with_context_budget`] is given another.
const DEFAULT_CONTEXT_MIB: usize = 256;
const MAX_IDLE_PER_ORIGIN: usize = 64;
/// The maximum number of calls in flight over all tenants, each on a connection of its own; half of
/// it for one origin. A fifth of the open-files limit applies if lower, which leaves the rest to
/// clients.
const MAX_CALLS: u64 = 8192;
const MIN_CALLS: u64 = 16;
const MAX_HEADERS_BYTES: usize = 64 << 10;
/// The interval of HTTP/2 pings, and the time without an answer after which a connection is dead.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection pool of the process. Refuses to connect to forbidden addresses. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<PoolShared>,
    responses: ResponseBudget,
    contexts: ContextCache,
    /// The tenant in whose shares calls count, if this is one tenant's pool.
    tenant: Option<Arc<str>>,
}

struct PoolShared {
    connector: BackendConnector,
    /// The HTTP/1.1 connections shared by all tenants.
    http1: Connections,
    /// The budget of calls in flight, each of which occupies a connection.
    calls: Arc<Budget>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: watch::Sender<u64>,
}

impl Pool {
    /// For backends at addresses that keep the rules.
    pub fn new(rules: AddressRules, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let connector = BackendConnector::new(AddressGuard::new(rules), tls_config(), Proxies::from_env());
        Ok(Self::with_connector(connector, clock, metrics))
    }

    pub(super) fn with_connector(
        connector: BackendConnector,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let http1 = Connections::new(&connector);
        let calls = Budget::new(max_calls());
        let contexts = Budget::from_mib(DEFAULT_CONTEXT_MIB);
        let contexts = ContextCache::new(contexts, Arc::clone(&clock), Arc::clone(&metrics));
        let health = watch::Sender::new(0);
        let shared = Arc::new(PoolShared { connector, http1, calls, clock, metrics, health });
        Self { shared, responses: ResponseBudget::default(), contexts, tenant: None }
    }

    /// Returns the connections for one tenant: the shared ones, or its own if it uses HTTP/2.
    pub(super) fn connections(&self, http2: bool) -> Connections {
        match http2 {
            false => self.shared.http1.clone(),
            true => Connections::new(&self.shared.connector.with_http2()),
        }
    }

    /// Returns the same pool with responses counted in `budget`.
    pub fn with_response_budget(mut self, budget: Arc<Budget>) -> Self {
        self.responses = ResponseBudget::new(budget);
        self
    }

    /// Returns the same pool with the kept contexts of all tenants counted in `budget`, which
    /// nothing else may use.
    pub fn with_context_budget(mut self, budget: Arc<Budget>) -> Self {
        let (clock, metrics) = (Arc::clone(&self.shared.clock), Arc::clone(&self.shared.metrics));
        self.contexts = ContextCache::new(budget, clock, metrics);
        self
    }

    /// Changes how much memory, in MiB, the responses and the kept contexts of all tenants may
    /// take. Contexts that no longer fit are dropped.
    pub fn set_memory_limits(&self, responses_mib: usize, contexts_mib: usize) {
        self.responses.set_mib(responses_mib);
        self.contexts.set_mib(contexts_mib);
    }

    /// Returns the same pool with responses counted in this tenant's share.
    pub fn for_tenant(mut self, name: &TenantName) -> Self {
        self.responses = self.responses.for_tenant(name);
        self.tenant = Some(Arc::clone(name.as_arc()));
        self
    }

    /// Returns the memory for responses.
    pub(super) fn response_budget(&self) -> &ResponseBudget {
        &self.responses
    }

    /// Returns the cache of all tenants' contexts.
    pub(super) fn context_cache(&self) -> &ContextCache {
        &self.contexts
    }

    /// Returns the name of the tenant whose pool this is.
    pub(super) fn tenant(&self) -> Option<&Arc<str>> {
        self.tenant.as_ref()
    }

    /// Changes whenever a tenant's backend becomes unhealthy or recovers; see
    /// [`super::BackendClient::degradation`].
    pub fn subscribe_health(&self) -> watch::Receiver<u64> {
        self.shared.health.subscribe()
    }

    /// Returns the host and port of the proxy used for a URL, if any, without its credentials.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<String> {
        let proxy = self.shared.connector.proxies().proxy_for(&url.as_str().parse().ok()?)?;
        let (host, port) = (proxy.uri().host()?, proxy.uri().port());
        Some(port.map_or(host.to_owned(), |port| format!("{host}:{port}")))
    }

    pub(super) fn notify_health_changed(&self) {
        self.shared.health.send_modify(|count| *count += 1);
    }

    /// Returns an origin's share of the calls in flight.
    pub(super) fn origin_share(&self, origin: &str) -> Arc<BudgetShare> {
        self.shared.calls.share(Consumer::Origin(origin.into()))
    }

    /// Reserves a place for one more call.
    ///
    /// # Errors
    /// [`Error::GatewayBusy`] if the process or the origin has its maximum of calls in flight.
    pub(super) fn reserve_call(&self, origin: Arc<BudgetShare>) -> Result<Reservation, Error> {
        let mut reservation = self.shared.calls.new_reservation(Some(origin), None, true);
        reservation.try_grow(1).map_err(|_| Error::GatewayBusy)?;
        Ok(reservation)
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }
}

type HttpClient = legacy::Client<BackendConnector, Full<Bytes>>;

/// HTTP connections per origin. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections(Arc<HttpClients>);

struct HttpClients {
    /// Reuses idle connections.
    pooled: HttpClient,
    /// Opens a new connection for each request and does not keep it.
    fresh: HttpClient,
    connector: BackendConnector,
}

/// Which connections a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionChoice {
    Pooled,
    Fresh,
}

impl Connections {
    fn new(connector: &BackendConnector) -> Self {
        Self(Arc::new(HttpClients {
            pooled: client(connector, MAX_IDLE_PER_ORIGIN),
            fresh: client(connector, 0),
            connector: connector.clone(),
        }))
    }

    /// Sends one request. The error's source chain tells whether anything was sent.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        choice: ConnectionChoice,
    ) -> Result<Response<ResponseBody>, legacy::Error> {
        if let Some(auth) = self.0.connector.proxies().authorization(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, auth);
        }
        let http = match choice {
            ConnectionChoice::Pooled => &self.0.pooled,
            ConnectionChoice::Fresh => &self.0.fresh,
        };
        let response = http.request(request).await?;
        let meter = response.extensions().get::<Arc<ConnectionMeter>>().cloned();
        if let Some(meter) = &meter {
            meter.on_progress();
        }
        Ok(response.map(|body| ResponseBody::new(body, meter)))
    }
}

fn client(connector: &BackendConnector, idle: usize) -> HttpClient {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(idle)
        .http1_max_buf_size(MAX_HEADERS_BYTES)
        .http2_max_header_list_size(MAX_HEADERS_BYTES as u32)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector.clone())
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

fn max_calls() -> u64 {
    let files = getrlimit(Resource::Nofile).current;
    files.map_or(MAX_CALLS, |files| (files / 5).clamp(MIN_CALLS, MAX_CALLS))
}

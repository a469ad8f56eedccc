//! The client of one tenant for its backend.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::HeaderName;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::answer;
use super::context_cache::{CachedContext, FetchedContext, SemanticContext};
use super::exchange::exchange;
use super::pool::Connections;
use super::request::BackendRequest;
use super::{BackendResponse, BackendState, CallContext, Error, Pool, TraceContext};
use crate::base::budget::{BudgetShare, Reservation};
use crate::base::digest::{Digest, Hasher};
use crate::base::json::JsonDocument;
use crate::spec::{BackendSpec, CallSpec, Degradation, LimitsSpec, TemplateValues, UrlTemplate};
use crate::telemetry::otlp::{SpanParent, TraceSpan};

/// The largest context that is cached.
const CONTEXT_BYTES: usize = 1 << 20;

/// Schedules fetches of one client's context in the background.
pub(super) trait RefreshScheduler: fmt::Debug + Send + Sync {
    /// Requests a fetch, unless one is scheduled or in progress already. Returns whether there will
    /// be one.
    fn request(self: Arc<Self>) -> bool;
}

/// The client of one revision of a tenant.
#[derive(Debug)]
pub struct BackendClient {
    inner: Arc<ClientInner>,
    refresher: OnceLock<Arc<dyn RefreshScheduler>>,
    /// Stops background work when the client is dropped.
    _close_on_drop: DropGuard,
}

/// The part of a client that background fetches hold. It does not keep the client alive, so that
/// dropping a tenant stops its fetches.
#[derive(Debug)]
pub(super) struct ClientInner {
    pool: Pool,
    connections: Connections,
    /// The origin of the context, which most other calls share.
    origin: Arc<str>,
    /// The origin's share of the calls in flight.
    share: Arc<BudgetShare>,
    context: Arc<CallSpec>,
    user_header: Option<HeaderName>,
    answer_cap: usize,
    context_ttl: Duration,
    state: Arc<BackendState>,
    backend: Digest,
    /// Serializes fetches of the context.
    refresh_lock: tokio::sync::Mutex<()>,
    last_refresh: Mutex<RefreshResult>,
    closed: CancellationToken,
}

/// The number of context fetches so far and the outcome of the last one.
#[derive(Debug, Clone)]
struct RefreshResult {
    count: u64,
    /// A context that is not kept is gone once its callers are done.
    outcome: Result<Weak<SemanticContext>, Error>,
}

impl BackendClient {
    /// Creates the client of one revision of a tenant. `state` is passed on from revision to
    /// revision.
    pub fn new(
        pool: Pool,
        spec: &BackendSpec,
        limits: &LimitsSpec,
        context_ttl: Duration,
        state: Arc<BackendState>,
    ) -> Self {
        let backend = backend_fingerprint(&spec.context);
        state.switch_backend(backend);
        state.set_places(limits.concurrent_calls);
        let closed = CancellationToken::new();
        let origin: Arc<str> = template_origin(&spec.context.url).into();
        let inner = ClientInner {
            share: pool.origin_share(&origin),
            origin,
            connections: pool.connections(spec.http2),
            pool,
            context: spec.context.clone(),
            user_header: spec.user_header.clone(),
            answer_cap: limits.max_response_bytes,
            context_ttl,
            state,
            backend,
            refresh_lock: tokio::sync::Mutex::new(()),
            last_refresh: Mutex::new(RefreshResult { count: 0, outcome: Ok(Weak::new()) }),
            closed: closed.clone(),
        };
        Self { inner: Arc::new(inner), refresher: OnceLock::new(), _close_on_drop: closed.drop_guard() }
    }

    /// Makes one call, subject to bulkhead, circuit breaker, deadline and size limit, and resends
    /// it where that is safe. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The fault of the call, or the limit or open breaker that prevented it.
    pub async fn call(
        &self,
        spec: &CallSpec,
        arguments: &TemplateValues,
        call: &CallContext,
    ) -> Result<BackendResponse, Error> {
        self.inner.call(spec, arguments, call, self.inner.answer_cap).await
    }

    /// Returns the semantic context.
    ///
    /// It is the same for all callers, so the user header is not sent with it. It is cached, and
    /// concurrent fetches are merged. A stale context is returned at once and refreshed in the
    /// background if a [`super::ContextRefresher`] knows this client; otherwise the caller waits.
    /// The last good context is returned while the backend is down.
    ///
    /// # Errors
    /// The fault of the fetch, if there is no context to fall back on.
    pub async fn context(&self, call: &CallContext) -> Result<Arc<SemanticContext>, Error> {
        let Some(cached) = self.inner.cached_context() else { return self.inner.refresh(call).await };
        if self.inner.is_fresh(&cached) || self.request_refresh() {
            return Ok(cached.context);
        }
        Ok(self.inner.refresh(call).await.unwrap_or(cached.context))
    }

    /// Returns the cached context without calling the backend. A stale one is refreshed in the
    /// background, and so is one that had no room if there is room now.
    pub fn cached_context(&self) -> Option<Arc<SemanticContext>> {
        let cached = self.inner.cached_context();
        let is_due = match &cached {
            Some(cached) => !self.inner.is_fresh(cached),
            None => self.inner.has_room_again(),
        };
        if is_due {
            self.request_refresh();
        }
        cached.map(|cached| cached.context)
    }

    /// Runs a computation over a response of `bytes` bytes.
    ///
    /// Large work runs on a blocking thread and takes turns with the tenant's other large work.
    ///
    /// # Errors
    /// [`Error::Busy`] or [`Error::TimedOut`] if its turn does not come in time.
    pub async fn run_offloaded<T, F>(&self, bytes: usize, deadline: Instant, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.inner.state.offloader.run(bytes, deadline, work).await
    }

    /// Creates an empty reservation for data derived from an answer, within the shares of the
    /// tenant and of the caller's network.
    pub fn new_reservation(&self, call: &CallContext) -> Reservation {
        self.inner.pool.response_budget().new_reservation(call)
    }

    /// Restores a context from before a restart, unless there is a newer one. It counts as stale.
    pub fn restore_context(&self, context: JsonDocument) {
        self.inner.restore_context(context);
    }

    /// Returns why the backend degrades its tenant, if the last call failed because of it.
    pub fn degradation(&self) -> Option<Degradation> {
        let (failure, since) = self.inner.state.failure()?;
        Some(Degradation { reason: failure.to_string(), since })
    }

    pub(super) fn inner(&self) -> &Arc<ClientInner> {
        &self.inner
    }

    /// Registers the refresher that fetches the context in the background from now on.
    pub(super) fn attach_refresher(&self, refresher: Arc<dyn RefreshScheduler>) {
        self.refresher.get_or_init(|| refresher);
    }

    /// Requests a background refresh; returns whether there will be one.
    pub(super) fn request_refresh(&self) -> bool {
        self.refresher.get().is_some_and(|refresher| Arc::clone(refresher).request())
    }
}

impl ClientInner {
    /// Fetches the context. Concurrent callers share one fetch and its outcome.
    pub(super) async fn refresh(&self, call: &CallContext) -> Result<Arc<SemanticContext>, Error> {
        let seen = self.last_refresh().count;
        let _guard = self.with_deadline(call.deadline, async { Ok(self.refresh_lock.lock().await) }).await?;
        let last = self.last_refresh();
        if last.count != seen
            && let Some(context) = last.outcome?.upgrade()
        {
            return Ok(context);
        }
        let fetched = self.fetch(call).await;
        let outcome = fetched.as_ref().map(Arc::downgrade).map_err(Clone::clone);
        *self.last_refresh.lock().expect("no holder of this lock panics") =
            RefreshResult { count: last.count + 1, outcome };
        fetched
    }

    /// Completes when the client is dropped.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Returns the origin of the context.
    pub(super) fn origin(&self) -> &Arc<str> {
        &self.origin
    }

    /// Returns the fingerprint that distinguishes this backend from others.
    pub(super) fn backend(&self) -> Digest {
        self.backend
    }

    pub(super) fn cached_context(&self) -> Option<CachedContext> {
        self.state.cached_context(self.backend)
    }

    pub(super) fn restore_context(&self, context: JsonDocument) {
        if self.cached_context().is_none() {
            self.keep_context(context, None, None);
        }
    }

    /// Returns whether the last context had no room in memory and would have some now.
    fn has_room_again(&self) -> bool {
        self.pool.context_cache().has_room_again(&self.state.context)
    }

    /// Keeps a context, if there is room for it.
    fn keep_context(
        &self,
        document: JsonDocument,
        fetched_at: Option<Instant>,
        reservation: Option<Reservation>,
    ) -> Arc<SemanticContext> {
        let document = document.into_shrunk();
        let fetched = FetchedContext { backend: self.backend, document, fetched_at, reservation };
        self.state.keep_context(self.pool.context_cache(), fetched, self.pool.tenant().cloned())
    }

    pub(super) fn has_fresh_context(&self) -> bool {
        self.cached_context().is_some_and(|cached| self.is_fresh(&cached))
    }

    fn is_fresh(&self, cached: &CachedContext) -> bool {
        let now = self.pool.clock().monotonic();
        cached.fetched_at.is_some_and(|fetched| now.saturating_duration_since(fetched) < self.context_ttl)
    }

    async fn fetch(&self, call: &CallContext) -> Result<Arc<SemanticContext>, Error> {
        // The context is the tenant's, so its fetch carries no user and counts for no network.
        let internal_call = CallContext { user: None, network: None, ..call.clone() };
        let cap = self.answer_cap.min(CONTEXT_BYTES);
        let context = self.context.clone();
        let fetched = self.call(&context, &TemplateValues::new(), &internal_call, cap).await;
        if let Err(refused @ (Error::Refused { .. } | Error::TooLarge { .. })) = &fetched {
            // A single question may be refused, but a refused context means a wrong configuration.
            self.record_health(Some(refused.clone()));
        }
        let BackendResponse { document, reservation } = fetched?;
        Ok(self.keep_context(document, Some(self.pool.clock().monotonic()), Some(reservation)))
    }

    async fn call(
        &self,
        spec: &CallSpec,
        arguments: &TemplateValues,
        call: &CallContext,
        cap: usize,
    ) -> Result<BackendResponse, Error> {
        let started = self.pool.clock().monotonic();
        let span = call.span.as_ref().map(|parent| client_span(parent, spec, started));
        let traced = span.as_ref().map(|span| CallContext {
            trace: Some(TraceContext::for_span(span.ids(), call.trace.as_ref())),
            ..call.clone()
        });
        let outcome = self.call_guarded(spec, arguments, traced.as_ref().unwrap_or(call), cap).await;
        if let Some(span) = span {
            end_span(span, outcome.as_ref().err());
        }
        let elapsed = self.pool.clock().monotonic().saturating_duration_since(started);
        let class = outcome.as_ref().map_or_else(Error::class, |_| "ok");
        self.pool.metrics().record_backend_call(class, elapsed);
        outcome
    }

    async fn call_guarded(
        &self,
        spec: &CallSpec,
        arguments: &TemplateValues,
        call: &CallContext,
        cap: usize,
    ) -> Result<BackendResponse, Error> {
        let request = BackendRequest::render(spec, arguments, call, self.user_header.as_ref())?;
        let breaker_permit = self.state.breaker.check(self.pool.clock().monotonic())?;
        let _place = self.with_deadline(call.deadline, self.state.bulkhead.acquire()).await?;
        let _connection = self.pool.reserve_call(self.share_for(&request))?;
        let outcome = self.with_deadline(call.deadline, self.send(request, cap, spec, call)).await;
        match &outcome {
            Err(error) if error.is_outage() => breaker_permit.record_outage(self.pool.clock().monotonic()),
            // Nothing was sent, so this says nothing about the backend.
            Err(Error::AddressRefused | Error::BadRequest) => {}
            _ => breaker_permit.record_success(),
        }
        match &outcome {
            Ok(_) => self.record_health(None),
            Err(error) if error.is_backend_fault() => self.record_health(Some(error.clone())),
            Err(_) => {}
        }
        outcome
    }

    fn share_for(&self, request: &BackendRequest) -> Arc<BudgetShare> {
        let origin = request.origin();
        if *origin == *self.origin { self.share.clone() } else { self.pool.origin_share(&origin) }
    }

    async fn send(
        &self,
        request: BackendRequest,
        cap: usize,
        spec: &CallSpec,
        call: &CallContext,
    ) -> Result<BackendResponse, Error> {
        let response = exchange(&self.connections, self.pool.clock(), request).await?;
        let reservation = self.pool.response_budget().new_reservation(call);
        let unread = answer::receive(response, cap, spec, reservation, self.pool.clock().now()).await?;
        self.state.offloader.run(unread.size(), call.deadline, move || unread.parse()).await?
    }

    fn record_health(&self, failure: Option<Error>) {
        if self.state.record_health(self.backend, failure, self.pool.clock().now()) {
            self.pool.notify_health_changed();
        }
    }

    fn last_refresh(&self) -> RefreshResult {
        self.last_refresh.lock().expect("no holder of this lock panics").clone()
    }

    /// Bounds `work` by a deadline.
    fn with_deadline<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, Error>>,
    ) -> impl Future<Output = Result<T, Error>> {
        let left = deadline.saturating_duration_since(self.pool.clock().monotonic());
        // Not an `async fn`, whose future would have room for `work` twice.
        tokio::time::timeout(left, work).map(|outcome| outcome.unwrap_or(Err(Error::TimedOut)))
    }
}

/// Starts the span of a call, without its URL: arguments may be part of that.
fn client_span(parent: &SpanParent, spec: &CallSpec, started: Instant) -> TraceSpan {
    let mut span = parent.start_client_span(spec.method.to_string(), started);
    span.set("http.request.method", spec.method.as_str());
    if let Ok(url) = Url::parse(spec.url.head()) {
        span.set("url.scheme", url.scheme());
        span.set("server.address", url.host_str().unwrap_or_default());
        if let Some(port) = url.port_or_known_default() {
            span.set("server.port", port);
        }
    }
    span
}

fn end_span(mut span: TraceSpan, error: Option<&Error>) {
    let Some(error) = error else { return span.finish() };
    if let Some(status) = error.status() {
        span.set("http.response.status_code", status);
    }
    span.fail(error.class());
}

/// Returns the origin of a template, in the form of [`BackendRequest::origin`].
fn template_origin(template: &UrlTemplate) -> String {
    match Url::parse(template.head()) {
        Ok(url) => url.origin().ascii_serialization(),
        Err(_) => "the backend".to_owned(),
    }
}

/// Returns a digest that identifies a backend: the request for its context, including the key.
pub(super) fn backend_fingerprint(spec: &CallSpec) -> Digest {
    let (mut hasher, values) = (Hasher::new(), spec.constants.apply_to(&TemplateValues::new()));
    hasher.update_field(spec.method.as_str().as_bytes());
    // Context URLs that cannot be rendered are rejected during validation.
    hasher.update_field(spec.url.render(&values).unwrap_or_default().as_bytes());
    if let Some(body) = &spec.body {
        hasher.update_field(body.render(&values).to_string().as_bytes());
    }
    for (name, value) in spec.headers.iter() {
        hasher.update_field(name.as_str().as_bytes());
        hasher.update_field(value.expose().as_bytes());
    }
    hasher.finish()
}

//! Floor 3: the MCP server of one tenant, and the only module that names rmcp.
//!
//! One URL serves both eras of the protocol: 2026-07-28 (stateless, `server/discover`) and the
//! revisions with an `initialize` handshake, without sessions. rmcp speaks the protocol; this
//! module adds what it lacks: arguments are validated against the tool's schema, results are
//! readable and bounded, every refusal has a JSON-RPC body, a slow response becomes a stream that
//! is kept alive, a panic becomes `-32603`.
//!
//! [`protocol`] answers the methods of MCP, the same for every tenant. What a tenant gives out
//! comes from its [`source`]: [`api`], the tenant made of an HTTP API. [`server_state`] stands
//! between the two: it gives a caller what [`permissions`] allow, and checks arguments by
//! [`schema`]. Routing, CORS, authentication and body limits belong to `server`.

mod api;
mod failure;
#[cfg(feature = "conformance")]
mod fixture;
mod lineage;
mod payload;
mod permissions;
pub(crate) mod protocol;
mod schema;
mod server_state;
mod source;
#[cfg(test)]
mod tests;
mod timing;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use rmcp::RoleServer;
use rmcp::service::RequestContext;

use crate::backend::{BackendClient, ContextRefresher};
use crate::base::body::Body;
use crate::base::clock::Clock;
use crate::base::diagnostic::Report;
use crate::oauth::bearer::Principal;
use crate::spec::{Degradation, SlowAnswers, TenantName, ToolSpec};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::Tracer;
use crate::usage::UsageMeter;

use api::ApiSource;
pub use permissions::{AuthMode, Permissions, ProtectedItem, ToolRight};
use protocol::{InFlightCounter, RmcpService, message};
use server_state::{ServerConfig, ServerState};
use source::Source;
use timing::Timing;

/// The configuration of an MCP server: its part of the tenant's spec, and its dependencies.
#[derive(Debug)]
pub struct McpServerConfig {
    /// The tenant; also the name in `serverInfo`.
    pub tenant: TenantName,
    /// The name of the backend's dataset, and the host part of the context's URI.
    pub dataset: Arc<str>,
    /// The title shown to people.
    pub title: Arc<str>,
    /// What the dataset is about; the instructions, if there are no `instructions`.
    pub description: Option<Arc<str>>,
    /// The operator's instructions for models.
    pub instructions: Option<Arc<str>>,
    /// The listed tools, in the order in which they are listed; hidden tools are not among them.
    pub tools: Arc<[ToolSpec]>,
    /// The client of the tenant's backend.
    pub backend: Arc<BackendClient>,
    /// How long a call may take, from the arrival of its request.
    pub call_timeout: Duration,
    /// How clients get an answer that is not ready soon.
    pub slow_answers: SlowAnswers,
    /// The URL of the icon in `serverInfo`.
    pub icon_url: Arc<str>,
    /// `ttlMs` of lists and resources.
    pub list_ttl: Duration,
    /// The approximate maximum size of a result.
    pub max_result_bytes: usize,
    /// Which callers the tenant admits, and the rules for single tools.
    pub auth_mode: AuthMode,
    /// Accepted values of the Host header; `None` accepts any.
    pub allowed_hosts: Option<Arc<[String]>>,
    /// Values of the Origin header that may call.
    pub allowed_origins: Arc<[String]>,
    /// Counts tool calls by outcome.
    pub metrics: Arc<Metrics>,
    /// Starts the spans of requests.
    pub tracer: Tracer,
    /// The audit log, for calls and reads.
    pub audit: Audit,
    /// Counts the tenant's calls.
    pub usage: UsageMeter,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
}

impl McpServerConfig {
    fn into_parts(self, timing: Timing) -> (ServerConfig, AuthMode, Arc<dyn Source>) {
        let source = Arc::new(ApiSource {
            tenant: self.tenant.clone(),
            dataset: self.dataset,
            title: Arc::clone(&self.title),
            description: self.description,
            instructions: self.instructions,
            tools: self.tools,
            backend: self.backend,
            max_result_bytes: self.max_result_bytes,
            clock: Arc::clone(&self.clock),
        });
        let config = ServerConfig {
            tenant: self.tenant,
            title: self.title,
            call_timeout: self.call_timeout,
            slow_answers: self.slow_answers,
            icon_url: self.icon_url,
            list_ttl: self.list_ttl,
            allowed_hosts: self.allowed_hosts,
            allowed_origins: self.allowed_origins,
            metrics: self.metrics,
            tracer: self.tracer,
            audit: self.audit,
            usage: self.usage,
            clock: self.clock,
            timing,
        };
        #[cfg(feature = "conformance")]
        let source = fixture::extend(source);
        (config, self.auth_mode, source)
    }
}

/// What authentication found out about a request; passed in its extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The authenticated caller.
    pub principal: Principal,
    /// The request id under which the log has more.
    pub request_id: String,
    /// Where the call comes from.
    pub address: IpAddr,
    /// When the request came in (monotonic).
    pub started: Instant,
}

impl Caller {
    /// Returns the caller of a request that rmcp passes on. Only tests have requests without one.
    fn from_context(context: &RequestContext<RoleServer>) -> Option<&Self> {
        context.extensions.get::<Parts>()?.extensions.get()
    }
}

/// The MCP endpoint of one tenant, both protocol eras on one URL.
pub struct McpServer {
    state: Arc<ServerState>,
    /// Built for the first request, since most tenants are idle.
    service: OnceLock<Arc<RmcpService>>,
    in_flight: InFlightCounter,
}

impl McpServer {
    /// Compiles the schemas of the tools.
    ///
    /// # Errors
    /// A report with one finding for each schema of the operator's tools that cannot be used.
    pub fn new(config: McpServerConfig) -> Result<Self, Report> {
        Self::with_timing(config, Timing::default())
    }

    fn with_timing(config: McpServerConfig, timing: Timing) -> Result<Self, Report> {
        let (config, auth_mode, source) = config.into_parts(timing);
        let state = Arc::new(ServerState::new(config, source, auth_mode)?);
        Ok(Self { state, service: OnceLock::new(), in_flight: InFlightCounter::default() })
    }

    /// Answers one request whose body was read under the tenant's limit. It never panics; a 4xx
    /// response has a JSON-RPC body.
    ///
    /// Dropping the future, or the response body while it streams, cancels the call down to the
    /// backend.
    pub async fn handle(&self, mut request: Request<Bytes>, caller: Caller) -> Response<Body> {
        let guard = self.in_flight.enter();
        if let Err(refusal) = message::check_origin(request.headers(), &self.state.config.allowed_origins) {
            return *refusal;
        }
        let accept = match message::check_request(&mut request) {
            Ok(accept) => accept.restrict(self.state.config.slow_answers),
            Err(refusal) => return *refusal,
        };
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(accept);
        let pending = Box::pin(protocol::handle(Arc::clone(self.service()), request));
        protocol::respond_or_stream(pending, accept, &self.state.config.timing, guard).await
    }

    fn service(&self) -> &Arc<RmcpService> {
        self.service.get_or_init(|| Arc::new(protocol::build(&self.state)))
    }

    /// Hands open `subscriptions/listen` streams over to the successor, and notifies them if its
    /// tools differ.
    ///
    /// The streams continue under the successor: they are notified of later changes, and end when
    /// the successor is closed.
    pub fn hand_over_to(&self, successor: &McpServer) {
        self.state.hand_over_to(&successor.state);
    }

    /// Ends open and future `subscriptions/listen` streams gracefully, with a final result. Calls
    /// go on.
    pub fn end_streams(&self) {
        self.state.lineage.end_streams();
    }

    /// Ends all open streams gracefully, with a final result, and cancels requests in flight.
    pub fn close(&self) {
        self.state.lineage.close();
    }

    /// Returns why the tenant's source degrades it, if its last call failed because of it.
    pub fn degradation(&self) -> Option<Degradation> {
        self.state.degradation()
    }

    /// Has the tenant's source fetch in advance what callers will need.
    pub fn start_refreshing(&self, refresher: &ContextRefresher) {
        self.state.start_refreshing(refresher);
    }

    /// Returns who may have what of this server.
    pub fn permissions(&self) -> &Permissions {
        self.state.permissions()
    }

    /// Returns how many requests and streams are in flight.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.count()
    }
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServer")
            .field("tenant", &self.state.tenant())
            .field("in_flight", &self.in_flight_count())
            .finish_non_exhaustive()
    }
}

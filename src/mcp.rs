//! Floor 3: the MCP server of one tenant. The only place that names rmcp.
//!
//! One URL serves both eras of the protocol: 2026-07-28 (stateless, `server/discover`) and the revisions with an
//! `initialize` handshake, without sessions. rmcp speaks the protocol; this module adds what it lacks: arguments are
//! checked against the tool's schema, results are readable and bounded, every refusal has a JSON-RPC body, a slow
//! answer becomes a stream that is kept alive, a panic becomes `-32603`.
//!
//! A request goes through [`front`] (may it be handed on, and what did the answer mean), rmcp, [`handler`] (the
//! protocol's methods), [`call`] (one tool call) or [`resource`] (one read) and [`result`] (what the client is handed,
//! which [`payload`] puts into rmcp's message); [`rights`] decides what the caller may have, and [`upgrade`] holds the
//! connection while it takes long. Routing, CORS, authentication and body caps are `server`'s.

mod call;
mod context;
#[cfg(feature = "conformance")]
mod fixture;
pub(crate) mod front;
mod handler;
mod pace;
mod payload;
mod render;
mod reply;
mod resource;
mod result;
mod rights;
mod rows;
mod schema;
mod service;
mod shared;
mod subscriptions;
#[cfg(test)]
mod tests;
mod under_way;
mod upgrade;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};

use crate::backend;
use crate::base::body::Body;
use crate::base::diagnostic::Report;
use crate::oauth::bearer::Principal;
use crate::spec::{TenantName, ToolSpec};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;

use pace::Pace;
pub use rights::{Door, Item, Rights};
use service::Service;
use shared::Shared;
use under_way::UnderWay;

/// What an MCP server is made of: its part of the tenant's spec, and its handles.
#[derive(Debug)]
pub struct Surface {
    pub tenant: TenantName,
    pub dataset: Arc<str>,
    pub title: Arc<str>,
    pub description: Option<Arc<str>>,
    pub instructions: Option<Arc<str>>,
    pub tools: Arc<[ToolSpec]>,
    pub backend: Arc<backend::Client>,
    pub deadline: Duration,
    pub list_ttl: Duration,
    pub max_result_bytes: usize,
    /// Whom it lets in, and what rules there are for single tools.
    pub door: Door,
    /// Values of the Host header that are ours; `None` accepts any.
    pub allowed_hosts: Option<Arc<[String]>>,
    /// Values of the Origin header that may call.
    pub allowed_origins: Arc<[String]>,
    pub metrics: Arc<Metrics>,
    pub audit: Audit,
}

/// What the front found out about a request; travels in its extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Principal,
    pub request_id: String,
    /// Where the caller is, as [`network`](crate::base::reach::network) gives it.
    pub network: IpAddr,
    /// When the request came in (monotonic).
    pub started: Instant,
}

/// The MCP endpoint of one tenant, both protocol eras on one URL.
pub struct McpServer {
    shared: Arc<Shared>,
    /// Built for the first request: most of many tenants are idle.
    service: OnceLock<Arc<Service>>,
    under_way: UnderWay,
}

impl McpServer {
    /// Compiles the schemas. The findings are schema errors of the operator's own tools.
    pub fn new(surface: Surface) -> Result<Self, Report> {
        Self::with_pace(surface, Pace::default())
    }

    fn with_pace(surface: Surface, pace: Pace) -> Result<Self, Report> {
        let shared = Arc::new(Shared::new(surface, pace)?);
        Ok(Self { shared, service: OnceLock::new(), under_way: UnderWay::default() })
    }

    /// Answers one request whose body was read under the tenant's cap. Never panics; a 4xx has a JSON-RPC body.
    ///
    /// Dropping the future, or the answer's body while it streams, cancels the call down to the backend.
    pub async fn handle(&self, mut request: Request<Bytes>, caller: Caller) -> Response<Body> {
        let guard = self.under_way.enter();
        if let Err(refusal) = front::admit_origin(request.headers(), self.shared.allowed_origins()) {
            return *refusal;
        }
        let reader = match front::admit(&mut request) {
            Ok(reader) => reader,
            Err(refusal) => return *refusal,
        };
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(reader);
        let pending = Box::pin(service::answer(Arc::clone(self.service()), request));
        upgrade::in_time(pending, reader, &self.shared.pace, guard).await
    }

    fn service(&self) -> &Arc<Service> {
        self.service.get_or_init(|| Arc::new(service::build(&self.shared)))
    }

    /// A successor took this server's place: tells open `subscriptions/listen` streams when the tools changed.
    ///
    /// The streams go on under the successor: they hear of later changes, and end when it is closed.
    pub fn superseded_by(&self, successor: &McpServer) {
        self.shared.line.hand_over(self.shared.change_to(&successor.shared), &successor.shared.line);
    }

    /// Ends open `subscriptions/listen` streams gracefully (final result), and new ones at once. Calls go on.
    pub fn end_streams(&self) {
        self.shared.line.end_streams();
    }

    /// Ends all open streams gracefully (final result); requests under way are cancelled.
    pub fn close(&self) {
        self.shared.line.close();
    }

    /// Who may have what of this server.
    pub fn rights(&self) -> &Rights {
        self.shared.rights()
    }

    /// Requests and streams under way.
    pub fn under_way(&self) -> usize {
        self.under_way.count()
    }
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServer")
            .field("tenant", &self.shared.tenant())
            .field("under_way", &self.under_way())
            .finish_non_exhaustive()
    }
}

//! Floor 3: the MCP server of one tenant. The only place that names rmcp.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};

use crate::backend;
use crate::base::body::Body;
use crate::oauth::bearer::Principal;
use crate::spec::{TenantName, ToolSpec};
use crate::telemetry::metrics::Metrics;

/// What an MCP server is made of: its part of the tenant's spec, and its handles.
#[derive(Debug)]
pub struct Surface {
    pub tenant: TenantName,
    pub dataset: Arc<str>,
    pub title: Arc<str>,
    pub description: Option<Arc<str>>,
    pub instructions: Option<Arc<str>>,
    pub tools: Vec<ToolSpec>,
    pub backend: Arc<backend::Client>,
    pub deadline: Duration,
    pub list_ttl: Duration,
    pub max_result_bytes: usize,
    /// The tenant asks for credentials: lists are cached privately.
    pub private: bool,
    /// Values of the Host header that are ours; `None` accepts any.
    pub allowed_hosts: Option<Arc<[String]>>,
    /// Values of the Origin header that may call.
    pub allowed_origins: Arc<[String]>,
    pub metrics: Arc<Metrics>,
}

/// What the front found out about a request; travels in its extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Principal,
    pub request_id: String,
    /// When the request came in (monotonic).
    pub started: Instant,
}

/// The MCP endpoint of one tenant, both protocol eras on one URL.
pub struct McpServer {}

impl McpServer {
    /// Compiles schemas and builds the service. The findings are schema errors of the operator's own tools.
    pub fn new(_surface: Surface) -> Result<Self, crate::base::diagnostic::Report> {
        unimplemented!("owner: mcp")
    }

    /// Answers one request whose body was read under the tenant's cap. Never panics; a 4xx has a JSON-RPC body.
    pub async fn handle(&self, _request: Request<Bytes>, _caller: Caller) -> Response<Body> {
        unimplemented!("owner: mcp")
    }

    /// A successor took this server's place: tells open `subscriptions/listen` streams when the tools changed.
    pub fn superseded_by(&self, _successor: &McpServer) {
        unimplemented!("owner: mcp")
    }

    /// The context changed: instructions and the resource follow. Nothing to rebuild.
    /// Ends all open streams gracefully (final result); requests under way are cancelled.
    pub fn close(&self) {
        unimplemented!("owner: mcp")
    }

    /// Requests and streams under way.
    pub fn under_way(&self) -> usize {
        unimplemented!("owner: mcp")
    }
}

//! rmcp's HTTP service as each tenant uses it: a single type, no sessions, and plain JSON if one
//! message is the whole response.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use super::current_caller::run_as;
use super::handler::McpHandler;
use super::message::RequestSnapshot;
use super::payload_slot::{self, PayloadSlot};
use crate::base::body::Body;
use crate::mcp::Caller;
use crate::mcp::server_state::ServerState;
use crate::oauth::bearer::Principal;

/// The only instantiation in the binary: each further one costs a minute of compile time.
pub(in crate::mcp) type RmcpService = StreamableHttpService<McpHandler, NeverSessionManager>;

/// Builds the service of one tenant; it takes about 1 kB.
pub(in crate::mcp) fn build(state: &Arc<ServerState>) -> RmcpService {
    let handler = McpHandler::new(Arc::clone(state));
    StreamableHttpService::new(move || Ok(handler.clone()), Arc::default(), config(state))
}

fn config(state: &ServerState) -> StreamableHttpServerConfig {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        // The body was already read under the tenant's limit.
        .with_max_request_body_bytes(usize::MAX)
        // `message` has checked the origin; rmcp only understands origins that are URLs with a
        // host.
        .disable_allowed_origins();
    match state.config.allowed_hosts.as_deref() {
        None => config.disable_allowed_hosts(),
        // rmcp reads an empty list as "any"; a name that cannot exist (RFC 6761 section 6.4) admits
        // none.
        Some([]) => config.with_allowed_hosts(["closed.invalid"]),
        Some(hosts) => config.with_allowed_hosts(hosts.iter().map(String::as_str)),
    }
}

/// Passes a request to rmcp, explains its refusals, and puts the payload, whose bytes rmcp never
/// sees, into its results.
pub(in crate::mcp) async fn handle(service: Arc<RmcpService>, mut request: Request<Bytes>) -> Response<Body> {
    let snapshot = RequestSnapshot::from_request(&request);
    let caller = request.extensions().get::<Caller>();
    let caller = caller.map_or(Principal::Anonymous, |caller| caller.principal.clone());
    let payload_slot = PayloadSlot::default();
    request.extensions_mut().insert(payload_slot.clone());
    let response = run_as(caller, service.handle(request.map(Full::new))).await;
    payload_slot::insert_payload(snapshot.explain_rejection(response).await, payload_slot).await
}

//! rmcp's HTTP service, as every tenant has it: one type, no sessions, JSON where one message is the whole answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use rmcp::model::ProtocolVersion;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use super::Caller;
use super::front::Asked;
use super::handler::TenantHandler;
use super::payload::{self, Slot};
use super::shared::Shared;
use crate::base::body::Body;
use crate::oauth::bearer::Principal;

/// The only pair of type parameters in the binary: each further one costs a minute of compile time.
pub(super) type Service = StreamableHttpService<TenantHandler, NeverSessionManager>;

/// The protocol revisions that are served, oldest first.
pub(super) const VERSIONS: &[ProtocolVersion] = ProtocolVersion::KNOWN_VERSIONS;

/// Builds the service of one tenant: about 1 kB.
pub(super) fn build(shared: &Arc<Shared>) -> Service {
    let handler = TenantHandler::new(Arc::clone(shared));
    StreamableHttpService::new(move || Ok(handler.clone()), Arc::default(), config(shared))
}

fn config(shared: &Shared) -> StreamableHttpServerConfig {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        // The body was read under the tenant's own cap.
        .with_max_request_body_bytes(usize::MAX)
        // `front` looked at the origin: rmcp knows those only that are URLs with a host.
        .disable_allowed_origins();
    match shared.allowed_hosts() {
        None => config.disable_allowed_hosts(),
        // rmcp takes an empty list as "any": a name that cannot exist (RFC 6761 section 6.4) keeps it closed.
        Some([]) => config.with_allowed_hosts(["closed.invalid"]),
        Some(hosts) => config.with_allowed_hosts(hosts.iter().map(String::as_str)),
    }
}

tokio::task_local! {
    /// Who asks, for what rmcp wants to know before it hands a request on.
    static ASKING: Principal;
}

/// What something is for whoever asks now; for nobody in particular outside of a request.
pub(super) fn asking<T>(what: impl FnOnce(&Principal) -> T) -> T {
    let known = ASKING.try_with(Principal::clone);
    what(known.as_ref().unwrap_or(&Principal::Anonymous))
}

/// Hands a request to rmcp, explains its refusals, and completes its results.
pub(super) async fn answer(service: Arc<Service>, mut request: Request<Bytes>) -> Response<Body> {
    let asked = Asked::of(&request);
    let caller = request.extensions().get::<Caller>();
    let caller = caller.map_or(Principal::Anonymous, |caller| caller.principal.clone());
    let slot = Slot::default();
    request.extensions_mut().insert(slot.clone());
    let response = ASKING.scope(caller, service.handle(request.map(Full::new))).await;
    payload::complete(asked.explain(response).await, slot).await
}

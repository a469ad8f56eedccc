//! One read of a resource: finds it, checks the caller's rights, has the source read it, and writes
//! an audit entry.

use rmcp::model::ResourceContents;
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use super::payload_slot::PayloadSlot;
use super::request_info::{ReadTarget, RequestInfo, caller};
use super::request_span::RequestSpan;
use crate::base::panic::catch_panic;
use crate::mcp::failure::CallFailure;
use crate::mcp::payload::Payload;
use crate::mcp::server_state::{AccessError, GrantedResource, ServerState};
use crate::mcp::source::Output;
use crate::telemetry::metrics::CallOutcome;

/// What reads count as in limits and the ledger, beside the tools.
const RESOURCES_READ: &str = "resources/read";

const NOT_ALLOWED: &str = "Your account may not read this. Ask the operator of this server for access; \
                           reading again does not help.";

/// Answers `resources/read`.
///
/// # Errors
///
/// The resource does not exist, the caller may not read it, or the source fails.
pub(super) async fn read(
    state: &ServerState,
    uri: &str,
    span: RequestSpan,
    context: &RequestContext<RoleServer>,
) -> Result<ResourceContents, ErrorData> {
    let caller = caller(context);
    let mut info = RequestInfo::from_context(context, state, span);
    let output = match state.view(caller).resource(uri) {
        Err(AccessError::Unknown) => {
            return info.span.end(Err(unknown_resource(uri)));
        }
        Err(AccessError::NotAllowed(_)) => {
            state.config.usage.record_refusal();
            Err(CallFailure::NotAllowed)
        }
        Ok(resource) => {
            let mut metered = info.begin_metering(state, caller, RESOURCES_READ.into());
            let output = match metered.admit() {
                Ok(()) => contents(state, resource, &info, context).await,
                Err(limit) => Err(limit.into()),
            };
            info.finish_metering(state, caller, metered, &output).await;
            output
        }
    };
    let outcome = output.as_ref().err().map_or(CallOutcome::Ok, CallFailure::outcome);
    let payload = output.as_ref().ok().and_then(|output| output.payload.as_ref());
    let readable = payload.map(Payload::readable_bytes);
    info.record_audit(state, ReadTarget::Resource(uri), caller, outcome, readable);
    info.span.end_call(output.as_ref().err());
    let Output { message, payload } = output.map_err(|failure| to_error(failure, &info))?;
    PayloadSlot::from_context(context).set(payload);
    Ok(message)
}

/// Reads the resource; a panic becomes an error of the protocol.
async fn contents(
    state: &ServerState,
    resource: GrantedResource<'_>,
    info: &RequestInfo,
    context: &RequestContext<RoleServer>,
) -> Result<Output<ResourceContents>, CallFailure> {
    let read = catch_panic(wait_for_contents(state, resource, info, context)).await;
    read.unwrap_or_else(|_panicked| Err(info.panic_failure()))
}

async fn wait_for_contents(
    state: &ServerState,
    resource: GrantedResource<'_>,
    info: &RequestInfo,
    context: &RequestContext<RoleServer>,
) -> Result<Output<ResourceContents>, CallFailure> {
    tokio::select! {
        contents = resource.read(&info.call) => contents,
        () = context.ct.cancelled() => Err(CallFailure::Cancelled),
        () = state.lineage.closed() => Err(CallFailure::Closed),
    }
}

fn unknown_resource(uri: &str) -> ErrorData {
    let data = serde_json::json!({ "uri": uri });
    ErrorData::resource_not_found("this server has no such resource", Some(data))
}

fn to_error(failure: CallFailure, info: &RequestInfo) -> ErrorData {
    match failure {
        CallFailure::NotAllowed => ErrorData::invalid_request(info.with_request_id(NOT_ALLOWED), None),
        CallFailure::Limit(limit) => {
            ErrorData::invalid_request(info.with_request_id(&limit.to_string()), None)
        }
        CallFailure::Protocol(error) => error,
        _ => ErrorData::internal_error(info.with_request_id(&failure.to_string()), None),
    }
}

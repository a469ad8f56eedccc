//! One read of a resource: finds it, checks the caller's rights, has the source read it, and writes
//! an audit entry.

use rmcp::model::ResourceContents;
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use super::payload_slot::PayloadSlot;
use super::request_info::{ReadTarget, RequestInfo, caller};
use crate::base::panic::catch_panic;
use crate::mcp::failure::CallFailure;
use crate::mcp::payload::Payload;
use crate::mcp::server_state::{AccessError, GrantedResource, ServerState};
use crate::mcp::source::Output;
use crate::telemetry::metrics::CallOutcome;

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
    context: &RequestContext<RoleServer>,
) -> Result<ResourceContents, ErrorData> {
    let caller = caller(context);
    let info = RequestInfo::from_context(context, state);
    let granted = state.view(caller).resource(uri);
    if let Err(AccessError::Unknown) = granted {
        return Err(unknown_resource(uri));
    }
    let metered = info.begin_metering(state);
    let output = match granted {
        Err(AccessError::Unknown) => unreachable!("it has returned"),
        Err(AccessError::NotAllowed(_)) => Err(CallFailure::NotAllowed),
        Ok(resource) => {
            let read = catch_panic(wait_for_contents(state, resource, &info, context)).await;
            read.unwrap_or_else(|_panicked| Err(info.panic_failure()))
        }
    };
    let outcome = output.as_ref().err().map_or(CallOutcome::Ok, CallFailure::outcome);
    let payload = output.as_ref().ok().and_then(|output| output.payload.as_ref());
    let readable = payload.map(Payload::readable_bytes);
    metered.finish(outcome.into(), payload.map_or(0, Payload::total_bytes) as u64);
    info.record_audit(state, ReadTarget::Resource(uri), caller, outcome, readable);
    let Output { message, payload } = output.map_err(|failure| to_error(failure, &info))?;
    PayloadSlot::from_context(context).set(payload);
    Ok(message)
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
        CallFailure::Protocol(error) => error,
        _ => ErrorData::internal_error(info.with_request_id(&failure.to_string()), None),
    }
}

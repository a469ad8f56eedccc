//! One read of a resource: finds it, checks the caller's rights, returns its contents and writes an
//! audit entry.

use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::model::{Resource, ResourceContents};
use rmcp::service::RequestContext;

use super::call::{CallFailure, ReadTarget, RequestInfo, caller};
use super::payload::{Payload, PayloadSlot, placeholder_resource};
use super::server_state::{AccessError, GrantedContext, ServerState};
use crate::base::panic::catch_panic;
use crate::telemetry::metrics::CallOutcome;

const NOT_ALLOWED: &str = "Your account may not read this. Ask the operator of this server to let you; asking again changes nothing.";

/// Returns the semantic context as a listed resource.
pub(super) fn context_resource(shared: &ServerState) -> Resource {
    Resource::new(shared.context_uri(), "context")
        .with_title(format!("Semantic context of {}", shared.title()))
        .with_description("What the dataset holds and can be asked: entities, measures, sample questions.")
        .with_mime_type("application/json")
}

/// Answers `resources/read`.
///
/// # Errors
///
/// The resource does not exist, the caller may not read it, or the backend fails.
pub(super) async fn read(
    shared: &ServerState,
    uri: &str,
    context: &RequestContext<RoleServer>,
) -> Result<ResourceContents, ErrorData> {
    let caller = caller(context);
    let asked = RequestInfo::from_context(context, shared.deadline());
    let document = match shared.view(caller).context() {
        // The context is the only resource.
        _ if uri != shared.context_uri() => return Err(unknown(uri)),
        Err(AccessError::Unknown) => return Err(unknown(uri)),
        Err(AccessError::NotAllowed(_)) => Err(CallFailure::NotAllowed),
        Ok(document) => Ok(document),
    };
    let payload = match document {
        Ok(document) => {
            catch_panic(fetch(shared, document, &asked, context)).await.unwrap_or(Err(CallFailure::Internal))
        }
        Err(failure) => Err(failure),
    };
    let outcome = payload.as_ref().err().map_or(CallOutcome::Ok, CallFailure::outcome);
    let bytes = payload.as_ref().ok().map(Payload::readable_bytes);
    asked.record_audit(shared, ReadTarget::Resource(uri), caller, outcome, bytes);
    match payload {
        Ok(payload) => {
            PayloadSlot::from_context(context).set(payload);
            Ok(placeholder_resource(uri))
        }
        Err(failure) => Err(refused(&failure, &asked)),
    }
}

async fn fetch(
    shared: &ServerState,
    document: GrantedContext<'_>,
    asked: &RequestInfo,
    context: &RequestContext<RoleServer>,
) -> Result<Payload, CallFailure> {
    tokio::select! {
        payload = asked.context_resource(shared, document) => payload,
        () = context.ct.cancelled() => Err(CallFailure::Cancelled),
        () = shared.lineage.closed() => Err(CallFailure::Closed),
    }
}

fn unknown(uri: &str) -> ErrorData {
    let data = serde_json::json!({ "uri": uri });
    ErrorData::resource_not_found("there is no such resource here", Some(data))
}

fn refused(failure: &CallFailure, asked: &RequestInfo) -> ErrorData {
    match failure {
        CallFailure::NotAllowed => ErrorData::invalid_request(asked.with_request_id(NOT_ALLOWED), None),
        _ => ErrorData::internal_error(asked.with_request_id(&failure.to_string()), None),
    }
}

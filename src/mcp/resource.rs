//! One read of a resource: finds it, checks the caller's rights, returns its contents and writes an
//! audit entry.

use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::model::{Resource, ResourceContents};
use rmcp::service::RequestContext;

use super::call::{Asked, Failure, Read, caller};
use super::payload::{Payload, Slot, empty_resource};
use super::shared::{GrantedContext, Shared, Withheld};
use crate::base::panic::caught;
use crate::telemetry::metrics::Outcome;

const NOT_ALLOWED: &str = "Your account may not read this. Ask the operator of this server to let you; asking again changes nothing.";

/// Returns the semantic context as a listed resource.
pub(super) fn listed(shared: &Shared) -> Resource {
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
    shared: &Shared,
    uri: &str,
    context: &RequestContext<RoleServer>,
) -> Result<ResourceContents, ErrorData> {
    let caller = caller(context);
    let asked = Asked::of(context, shared.deadline());
    let document = match shared.view(caller).context() {
        // The context is the only resource.
        _ if uri != shared.context_uri() => return Err(unknown(uri)),
        Err(Withheld::Unknown) => return Err(unknown(uri)),
        Err(Withheld::NotAllowed(_)) => Err(Failure::NotAllowed),
        Ok(document) => Ok(document),
    };
    let payload = match document {
        Ok(document) => {
            caught(fetch(shared, document, &asked, context)).await.unwrap_or(Err(Failure::Internal))
        }
        Err(failure) => Err(failure),
    };
    let outcome = payload.as_ref().err().map_or(Outcome::Ok, Failure::outcome);
    let bytes = payload.as_ref().ok().map(Payload::readable_bytes);
    asked.note(shared, Read::Resource(uri), caller, outcome, bytes);
    match payload {
        Ok(payload) => {
            Slot::of(context).fill(payload);
            Ok(empty_resource(uri))
        }
        Err(failure) => Err(refused(&failure, &asked)),
    }
}

async fn fetch(
    shared: &Shared,
    document: GrantedContext<'_>,
    asked: &Asked,
    context: &RequestContext<RoleServer>,
) -> Result<Payload, Failure> {
    tokio::select! {
        payload = asked.resource(shared, document) => payload,
        () = context.ct.cancelled() => Err(Failure::Cancelled),
        () = shared.line.closed() => Err(Failure::Closed),
    }
}

fn unknown(uri: &str) -> ErrorData {
    let data = serde_json::json!({ "uri": uri });
    ErrorData::resource_not_found("there is no such resource here", Some(data))
}

fn refused(failure: &Failure, asked: &Asked) -> ErrorData {
    match failure {
        Failure::NotAllowed => ErrorData::invalid_request(asked.with_id(NOT_ALLOWED), None),
        _ => ErrorData::internal_error(asked.with_id(&failure.to_string()), None),
    }
}

//! Operators' commands on tenants (pause, resume, roll back, accept, remove, add a file) and on
//! certificates, and queries about tenants' history.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;

use super::Admin;
use super::call::Call;
use super::response::{self, Refusal, problem};
use crate::base::body::Body;
use crate::base::diagnostic::Report;
use crate::store;
use crate::tenants::reconcile::{Command, CommandError, MAX_UPLOAD_BYTES, UploadError};

impl Refusal for CommandError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Rejected { .. } | Self::BuildFailed(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotFound | Self::NoRevision(_) => StatusCode::NOT_FOUND,
            Self::NoStore
            | Self::NotActivated { .. }
            | Self::NothingToAccept
            | Self::NothingToApprove
            | Self::OtherChange(_)
            | Self::ClaimHeld(_)
            | Self::SingleTenant
            | Self::TenantIsSecret(_) => StatusCode::CONFLICT,
            Self::FileRemoval { .. } | Self::Store(store::Error::Database { .. }) => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ShuttingDown | Self::NotShared(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn findings(&self) -> Option<&Report> {
        match self {
            Self::Rejected { report, .. } | Self::BuildFailed(report) => Some(report),
            _ => None,
        }
    }
}

impl Refusal for UploadError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Rejected(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InvalidName(_) => StatusCode::BAD_REQUEST,
            Self::AlreadyExists(_) | Self::SingleTenant | Self::FromKubernetes => StatusCode::CONFLICT,
            Self::Io(_) => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    fn findings(&self) -> Option<&Report> {
        match self {
            Self::Rejected(report) => Some(report),
            _ => None,
        }
    }
}

/// Scans the tenants folder, and answers when that is done.
pub(super) async fn reload(call: Call<'_>) -> Response<Body> {
    match call.admin.reconciler.reload().await {
        Some(generation) => response::json(StatusCode::OK, &json!({ "generation": generation })),
        None => problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway is shutting down"),
    }
}

/// Renews a certificate, and answers when the order is over.
pub(super) async fn renew(call: Call<'_>) -> Response<Body> {
    finish_order(call.admin.certificates.renew(call.segment(0)).await)
}

/// Tries whether a certificate could be renewed, and answers when the order is over.
pub(super) async fn rehearse(call: Call<'_>) -> Response<Body> {
    finish_order(call.admin.certificates.dry_run(call.segment(0)).await)
}

/// Stops serving a tenant.
pub(super) async fn pause(call: Call<'_>) -> Response<Body> {
    execute(call, Command::Pause).await
}

/// Serves a paused tenant again.
pub(super) async fn resume(call: Call<'_>) -> Response<Body> {
    execute(call, Command::Resume).await
}

/// Gives a tenant what its files claim.
pub(super) async fn accept(call: Call<'_>) -> Response<Body> {
    execute(call, Command::Accept).await
}

/// Puts the change in force that waits for approval.
pub(super) async fn approve(call: Call<'_>) -> Response<Body> {
    let digest = call.parameter("digest");
    execute(call, Command::Approve(digest)).await
}

/// Puts a stored revision in force.
pub(super) async fn roll_back(call: Call<'_>) -> Response<Body> {
    match call.parameter("revision").and_then(|number| number.parse().ok()) {
        Some(number) => execute(call, Command::RollBack(number)).await,
        None => problem(StatusCode::BAD_REQUEST, "give the revision: ?revision=NUMBER"),
    }
}

/// Deletes a tenant's files and stored data.
pub(super) async fn remove(call: Call<'_>) -> Response<Body> {
    execute(call, Command::Remove).await
}

/// Returns the stored revisions of a tenant.
pub(super) async fn history(call: Call<'_>) -> Response<Body> {
    response::from_result(call.admin.reconciler.history(call.segment(0)).await)
}

/// Returns the difference between two revisions.
pub(super) async fn diff(call: Call<'_>) -> Response<Body> {
    let number = |name| call.parameter(name).and_then(|text| text.parse().ok());
    let (from, to) = (number("from"), number("to"));
    response::from_result(call.admin.reconciler.diff(call.segment(0), from, to).await)
}

async fn execute(call: Call<'_>, command: Command) -> Response<Body> {
    response::from_result(call.admin.reconciler.execute(call.segment(0), command).await)
}

/// Puts a file into the tenants folder.
pub(super) async fn upload(mut call: Call<'_>) -> Response<Body> {
    let replace = call.parameter("replace").is_some();
    let Some(bytes) = call.read_body(MAX_UPLOAD_BYTES).await else {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "the file is too large, or is incomplete");
    };
    store_file(call.admin, call.segment(0).to_owned(), bytes, replace).await
}

/// Validates a file and puts it into the tenants folder.
pub(super) async fn store_file(admin: &Admin, name: String, bytes: Bytes, replace: bool) -> Response<Body> {
    let uploaded = admin.reconciler.upload(name, bytes.into(), replace).await;
    response::from_result(uploaded.map(|status| json!({ "tenant": status, "kept": true })))
}

/// Returns the response to an order for a certificate.
fn finish_order(outcome: Result<(), String>) -> Response<Body> {
    match outcome {
        Ok(()) => response::json(StatusCode::OK, &json!({ "done": true })),
        Err(why) => problem(StatusCode::CONFLICT, &why),
    }
}

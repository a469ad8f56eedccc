//! Operators' commands on tenants (pause, resume, roll back, accept, remove, add a file) and
//! queries about their history. Commands are accepted from this machine only, whatever address the
//! listener has.

use http::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::account::Ends;
use super::request::{decode_segment, query_parameter, read_body};
use super::response::{self, Refusal, problem};
use super::{Admin, backup, clients, signing_keys};
use crate::base::body::Body;
use crate::base::diagnostic::Report;
use crate::oauth::tokens::signing_keys::KeyRotation;
use crate::store;
use crate::telemetry::audit::{AuditEvent, AuditRecord};
use crate::tenants::reconcile::{Command, CommandError, MAX_UPLOAD_BYTES, UploadError};

impl Refusal for CommandError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Rejected { .. } | Self::BuildFailed(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotFound | Self::NoRevision(_) => StatusCode::NOT_FOUND,
            Self::NoStore
            | Self::NotActivated { .. }
            | Self::NothingToAccept
            | Self::ClaimHeld(_)
            | Self::SingleTenant => StatusCode::CONFLICT,
            Self::FileRemoval { .. } | Self::Store(store::Error::Database { .. }) => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
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
            Self::AlreadyExists(_) | Self::SingleTenant => StatusCode::CONFLICT,
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

/// Executes a request that changes something, and records in the audit log who ordered what about
/// which tenant.
pub(super) async fn handle<B>(admin: &Admin, request: Request<B>, ends: Ends) -> Response<Body>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !ends.peer.ip().to_canonical().is_loopback() {
        let detail = "the gateway accepts changes from its own machine only; run tenantd there";
        return problem(StatusCode::FORBIDDEN, detail);
    }
    let (head, body) = request.into_parts();
    let parameter = |name| query_parameter(head.uri.query(), name);
    let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    let name = &*segments.get(2).map(|name| decode_segment(name)).unwrap_or_default();
    let (order, response) = match (&head.method, segments.as_slice()) {
        (&Method::POST, ["-", "backup"]) => return backup::back_up(admin.store.as_ref()).await,
        // Both are answered when the order is over.
        (&Method::POST, ["-", "renew", _]) => return finish_order(admin.certificates.renew(name).await),
        (&Method::POST, ["-", "rehearse", _]) => return finish_order(admin.certificates.dry_run(name).await),
        (&Method::POST, ["api", "tenants", _, "pause"]) => {
            ("pause", execute(admin, name, Command::Pause).await)
        }
        (&Method::POST, ["api", "tenants", _, "resume"]) => {
            ("resume", execute(admin, name, Command::Resume).await)
        }
        (&Method::POST, ["api", "tenants", _, "accept"]) => {
            ("accept", execute(admin, name, Command::Accept).await)
        }
        (&Method::POST, ["api", "tenants", _, "rollback"]) => {
            match parameter("revision").and_then(|number| number.parse().ok()) {
                Some(number) => ("rollback", execute(admin, name, Command::RollBack(number)).await),
                None => return problem(StatusCode::BAD_REQUEST, "give the revision: ?revision=NUMBER"),
            }
        }
        (&Method::POST, ["api", "tenants", _, "keys"]) => {
            let is_emergency = parameter("emergency").is_some();
            let rotation = if is_emergency { KeyRotation::Emergency } else { KeyRotation::Gentle };
            ("rotate_keys", signing_keys::rotate(admin, name, rotation).await)
        }
        (&Method::POST, ["api", "tenants", _, "clients"]) => {
            ("add_client", clients::add(admin, name, body).await)
        }
        (&Method::DELETE, ["api", "tenants", _, "clients", id]) => {
            ("remove_client", clients::remove(admin, name, &decode_segment(id)).await)
        }
        (&Method::DELETE, ["api", "tenants", _]) => ("remove", execute(admin, name, Command::Remove).await),
        (&Method::PUT, ["api", "files", _]) => {
            let replace = parameter("replace").is_some();
            ("add", upload(admin, name, body, replace).await)
        }
        _ => {
            let detail = "use GET, or a request that docs/admin.md lists for changes";
            return problem(StatusCode::METHOD_NOT_ALLOWED, detail);
        }
    };
    record(admin, name, order, response.status(), ends).await;
    response
}

/// Writes an audit record about an order.
async fn record(admin: &Admin, tenant: &str, order: &'static str, status: StatusCode, ends: Ends) {
    // The kernel's tables are files.
    let uid = tokio::task::spawn_blocking(move || ends.account()).await.unwrap_or_default();
    let outcome = match status {
        status if status.is_success() => "ok",
        StatusCode::NOT_FOUND => "not_found",
        _ => "refused",
    };
    admin.audit.record(&AuditRecord {
        order: Some(order),
        uid,
        ..AuditRecord::new(AuditEvent::Order, tenant, outcome)
    });
}

/// Returns the stored revisions of a tenant.
pub(super) async fn history(admin: &Admin, tenant: &str) -> Response<Body> {
    response::from_result(admin.reconciler.history(tenant).await)
}

/// Returns the difference between two revisions.
pub(super) async fn diff(admin: &Admin, tenant: &str, query: Option<&str>) -> Response<Body> {
    let number = |name| query_parameter(query, name).and_then(|text| text.parse().ok());
    response::from_result(admin.reconciler.diff(tenant, number("from"), number("to")).await)
}

async fn execute(admin: &Admin, tenant: &str, command: Command) -> Response<Body> {
    response::from_result(admin.reconciler.execute(tenant, command).await)
}

async fn upload<B>(admin: &Admin, file_name: &str, body: B, replace: bool) -> Response<Body>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(bytes) = read_body(body, MAX_UPLOAD_BYTES).await else {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "the file is too large, or is incomplete");
    };
    let uploaded = admin.reconciler.upload(file_name.to_owned(), bytes.into(), replace).await;
    response::from_result(uploaded.map(|status| json!({ "tenant": status, "kept": true })))
}

/// Returns the response to an order for a certificate.
fn finish_order(outcome: Result<(), String>) -> Response<Body> {
    match outcome {
        Ok(()) => response::json(StatusCode::OK, &json!({ "done": true })),
        Err(why) => problem(StatusCode::CONFLICT, &why),
    }
}

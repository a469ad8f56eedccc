//! Operators' commands on tenants (pause, resume, roll back, accept, remove, add a file) and
//! queries about their history. Commands are accepted from this machine only, whatever address the
//! listener has.

use http::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::Admin;
use super::account::Ends;
use super::reply::{done, json_answer, problem};
use super::request::{decoded, parameter, whole};
use crate::base::body::Body;
use crate::base::diagnostic::Report;
use crate::oauth::signing_keys::KeyRotation;
use crate::store;
use crate::telemetry::audit::{AuditEvent, AuditRecord};
use crate::tenants::reconcile::UploadError;
use crate::tenants::reconcile::{Command, CommandError};

/// The largest archive that is loaded, and some overhead for the request.
const LARGEST_FILE: usize = 33 << 20;

impl Admin {
    /// Executes a request that changes something, and records in the audit log who ordered what
    /// about which tenant.
    pub(super) async fn change<B>(&self, request: Request<B>, ends: Ends) -> Response<Body>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !ends.peer.ip().to_canonical().is_loopback() {
            let detail = "changes are taken from the gateway's own machine only; run tenantd there";
            return problem(StatusCode::FORBIDDEN, detail);
        }
        let (head, body) = request.into_parts();
        let number = |name| parameter(head.uri.query(), name).and_then(|text| text.parse().ok());
        let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        let (name, order, answer) = match (&head.method, segments.as_slice()) {
            (&Method::POST, ["-", "backup"]) => return self.backup().await,
            // Both are answered when the order is over.
            (&Method::POST, ["-", "renew", name]) => {
                return done(self.certificates.renew(&decoded(name)).await);
            }
            (&Method::POST, ["-", "rehearse", name]) => {
                return done(self.certificates.dry_run(&decoded(name)).await);
            }
            (&Method::POST, ["api", "tenants", name, "pause"]) => {
                (name, "pause", self.order(name, Command::Pause).await)
            }
            (&Method::POST, ["api", "tenants", name, "resume"]) => {
                (name, "resume", self.order(name, Command::Resume).await)
            }
            (&Method::POST, ["api", "tenants", name, "accept"]) => {
                (name, "accept", self.order(name, Command::Accept).await)
            }
            (&Method::POST, ["api", "tenants", name, "rollback"]) => match number("revision") {
                Some(number) => (name, "rollback", self.order(name, Command::RollBack(number)).await),
                None => return problem(StatusCode::BAD_REQUEST, "say which revision: ?revision=NUMBER"),
            },
            (&Method::POST, ["api", "tenants", name, "keys"]) => {
                let emergency = parameter(head.uri.query(), "emergency").is_some();
                let how = if emergency { KeyRotation::Emergency } else { KeyRotation::Gentle };
                (name, "rotate_keys", self.rotate_keys(name, how).await)
            }
            (&Method::POST, ["api", "tenants", name, "clients"]) => {
                (name, "add_client", self.enter_client(name, body).await)
            }
            (&Method::DELETE, ["api", "tenants", name, "clients", id]) => {
                (name, "remove_client", self.remove_client(name, id).await)
            }
            (&Method::DELETE, ["api", "tenants", name]) => {
                (name, "remove", self.order(name, Command::Remove).await)
            }
            (&Method::PUT, ["api", "files", name]) => {
                let replace = parameter(head.uri.query(), "replace").is_some();
                (name, "add", self.add(name, body, replace).await)
            }
            _ => {
                let detail = "use GET, or what docs/admin.md lists for changes";
                return problem(StatusCode::METHOD_NOT_ALLOWED, detail);
            }
        };
        self.note(&decoded(name), order, answer.status(), ends).await;
        answer
    }

    async fn note(&self, tenant: &str, order: &'static str, status: StatusCode, ends: Ends) {
        // The kernel's tables are files.
        let uid = tokio::task::spawn_blocking(move || ends.account()).await.unwrap_or_default();
        let outcome = match status {
            status if status.is_success() => "ok",
            StatusCode::NOT_FOUND => "not_found",
            _ => "refused",
        };
        self.audit.record(&AuditRecord {
            order: Some(order),
            uid,
            ..AuditRecord::new(AuditEvent::Order, tenant, outcome)
        });
    }

    /// Returns the stored revisions of a tenant.
    pub(super) async fn history(&self, name: &str) -> Response<Body> {
        to_response(self.reconciler.history(&decoded(name)).await)
    }

    /// Returns the difference between two revisions.
    pub(super) async fn difference(&self, name: &str, query: Option<&str>) -> Response<Body> {
        let number = |name| parameter(query, name).and_then(|text| text.parse().ok());
        to_response(self.reconciler.diff(&decoded(name), number("from"), number("to")).await)
    }

    async fn order(&self, name: &str, order: Command) -> Response<Body> {
        to_response(self.reconciler.execute(&decoded(name), order).await)
    }

    async fn add<B>(&self, name: &str, body: B, replace: bool) -> Response<Body>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(body) = whole(body, LARGEST_FILE).await else {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "the file is too large, or did not come whole");
        };
        match self.reconciler.upload(decoded(name), body.into(), replace).await {
            Ok(status) => json_answer(StatusCode::OK, &json!({ "tenant": status, "kept": true })),
            Err(UploadError::Rejected(report)) => findings("the tenant would be refused", &report),
            Err(refused @ UploadError::InvalidName(_)) => {
                problem(StatusCode::BAD_REQUEST, &refused.to_string())
            }
            Err(refused @ UploadError::AlreadyExists(_)) => {
                problem(StatusCode::CONFLICT, &refused.to_string())
            }
            Err(refused @ UploadError::Io(_)) => {
                problem(StatusCode::INSUFFICIENT_STORAGE, &refused.to_string())
            }
        }
    }
}

fn to_response(outcome: Result<impl Serialize, CommandError>) -> Response<Body> {
    let refused = match outcome {
        Ok(done) => return json_answer(StatusCode::OK, &done),
        Err(refused) => refused,
    };
    let status = match &refused {
        CommandError::Rejected { report, .. } | CommandError::BuildFailed(report) => {
            return findings(&refused.to_string(), report);
        }
        CommandError::NotFound | CommandError::NoRevision(_) => StatusCode::NOT_FOUND,
        CommandError::NoStore
        | CommandError::NotActivated { .. }
        | CommandError::NothingToAccept
        | CommandError::ClaimHeld(_) => StatusCode::CONFLICT,
        CommandError::FileRemoval { .. } | CommandError::Store(store::Error::Database { .. }) => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        CommandError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        CommandError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, &refused.to_string())
}

fn findings(detail: &str, report: &Report) -> Response<Body> {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let title = status.canonical_reason();
    let document = json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail, "findings": report,
    });
    json_answer(status, &document)
}

//! Limits concurrent requests to the admin listener, except for probes.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::account::Ends;
use super::response::problem;
use super::{Admin, dispatch};
use crate::base::body::Body;
use crate::base::evicting_limiter::Evictable;

/// The maximum of concurrent requests that are not probes; the other connections are left to
/// probes.
const REQUESTS: usize = 48;
/// The maximum of concurrent uploads; each may occupy 33 MiB.
const UPLOADS: usize = 4;

/// The concurrency limits of one admin listener.
#[derive(Debug)]
pub struct RequestPermits {
    requests: Semaphore,
    uploads: Semaphore,
}

impl Default for RequestPermits {
    fn default() -> Self {
        Self { requests: Semaphore::new(REQUESTS), uploads: Semaphore::new(UPLOADS) }
    }
}

/// Answers a request if it is its turn.
pub(super) async fn handle(admin: &Admin, request: Request<&mut Incoming>, ends: Ends) -> Response<Body> {
    if is_probe(&request) {
        return dispatch::handle(admin, request, ends).await;
    }
    let permits = match (request.method(), request.uri().path()) {
        (&Method::PUT, _) | (&Method::POST, "/add") => &admin.permits.uploads,
        _ => &admin.permits.requests,
    };
    match permits.try_acquire() {
        Ok(_permit) => dispatch::handle(admin, request, ends).await,
        Err(_) => busy(),
    }
}

/// Whether the request is a liveness or readiness probe.
fn is_probe<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && matches!(request.uri().path(), "/healthz" | "/readyz")
}

fn busy() -> Response<Body> {
    let detail = "too many other requests are in progress here; try again in a moment";
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// One connection of the admin listener.
#[derive(Debug, Default)]
pub(super) struct ConnectionActivity(AtomicUsize);

/// A request in progress, until dropped.
#[derive(Debug)]
pub(super) struct ActiveRequest<'a>(&'a ConnectionActivity);

impl ConnectionActivity {
    pub(super) fn begin(&self) -> ActiveRequest<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(self)
    }
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Evictable for ConnectionActivity {
    fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// No caller authenticates on this listener.
    fn has_credential(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_health_is_asked_by_probes() {
        let is_probe = |method: &str, path: &str| {
            is_probe(&Request::builder().method(method).uri(path).body(()).expect("a request"))
        };
        assert!(
            is_probe("GET", "/healthz") && is_probe("HEAD", "/readyz") && is_probe("GET", "/healthz?verbose")
        );
        assert!(
            !is_probe("GET", "/metrics") && !is_probe("POST", "/healthz") && !is_probe("GET", "/healthz/x")
        );
    }

    #[test]
    fn a_connection_waits_for_its_client_between_answers() {
        let talk = ConnectionActivity::default();
        assert!(talk.is_waiting());
        let answering = talk.begin();
        assert!(!talk.is_waiting());
        drop(answering);
        assert!(talk.is_waiting());
    }
}

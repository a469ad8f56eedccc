//! `/-/healthz` on the public listeners: whether this gateway serves, for the probes of proxies and
//! orchestrators.
//!
//! It is answered under any Host and without one, since probes send the address of the machine, and
//! says nothing but its status. The admin listener has more, for those who may reach it.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::Server;
use super::precheck;
use super::response::ErrorFormat;
use crate::base::body::{self, Body};

/// No tenant can have this path: `/-` belongs to the gateway.
pub(super) const PATH: &str = "/-/healthz";

/// Answers a request for [`PATH`].
pub(super) fn handle<B: http_body::Body>(server: &Server, request: &Request<B>) -> Response<Body> {
    match precheck::check_framing(request) {
        Ok(()) => respond(is_serving(server), request.method()),
        Err(error) => error.into_response(ErrorFormat::ProblemJson, request.version()),
    }
}

/// Whether this gateway serves: it has read its tenants once, and does not end.
fn is_serving(server: &Server) -> bool {
    !server.tasks.shutdown_signal().is_cancelled() && server.registry.load().is_initial_scan_done
}

fn respond(is_serving: bool, method: &Method) -> Response<Body> {
    let (status, text) = match (method, is_serving) {
        (&Method::GET | &Method::HEAD, true) => (StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, false) => (StatusCode::SERVICE_UNAVAILABLE, "not serving\n"),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n"),
    };
    let mut response = body::response(status, HeaderValue::from_static("text/plain; charset=utf-8"), text);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

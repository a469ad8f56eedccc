//! The endpoints of a tenant's authorization server. Each has a file with one function,
//! `handle(&AuthServer, Request, RequestMeta) -> Result<Response, Error>`.
//!
//! This file owns what all of them share: the methods that each takes, the deadline, the form of
//! errors, and CORS.

mod account;
mod authorize;
mod callback;
mod consent;
mod error;
mod introspect;
mod metadata;
mod register;
mod revoke;
mod token;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};

use self::error::Error;
use super::authorization_server::{AuthServer, RequestMeta};
use super::{login_page, response};
use crate::base::body::{self, Body};
use crate::routing::{DiscoveryDocument, OAuthEndpoint};

/// Clients give up after ten seconds.
const TIMEOUT: Duration = Duration::from_secs(9);

/// Answers a request to an endpoint, within the deadline.
pub async fn handle(
    server: &AuthServer,
    endpoint: OAuthEndpoint,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Response<Body> {
    let method = request.method().clone();
    let is_for_clients =
        matches!(endpoint, OAuthEndpoint::Token | OAuthEndpoint::Register | OAuthEndpoint::Revoke);
    if method == Method::OPTIONS && is_for_clients {
        return response::preflight();
    }
    let prefers_json = login_page::prefers_json(request.headers());
    // Boxed, so that the futures of tool calls, which are many, are not as large as this one.
    let answer = tokio::time::timeout(TIMEOUT, Box::pin(dispatch(server, endpoint, request, meta))).await;
    let answer = answer.unwrap_or_else(|_| {
        tracing::warn!(tenant = %server.tenant, request_id = meta.request_id, step = ?endpoint, "a step of a login took too long");
        Err(Error::unavailable("this took too long; try again"))
    });
    let response = answer.unwrap_or_else(|error| {
        error.log_page(server.tenant.as_str(), meta.request_id);
        error.into_response(Some(meta.request_id), prefers_json)
    });
    match is_for_clients {
        true => response::allow_all_origins(response),
        false => strip_body_of_head(&method, response),
    }
}

async fn dispatch(
    server: &AuthServer,
    endpoint: OAuthEndpoint,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, Error> {
    check_method(endpoint, request.method())?;
    match endpoint {
        OAuthEndpoint::Authorize => authorize::handle(server, request, meta).await,
        OAuthEndpoint::Consent => consent::handle(server, request, meta).await,
        OAuthEndpoint::Callback => callback::handle(server, request, meta).await,
        OAuthEndpoint::Account => account::handle(server, request, meta).await,
        OAuthEndpoint::Register => register::handle(server, request, meta).await,
        OAuthEndpoint::Token => token::handle(server, request, meta).await,
        OAuthEndpoint::Revoke => revoke::handle(server, request, meta).await,
        OAuthEndpoint::Introspect => introspect::handle(server, request, meta).await,
    }
}

fn check_method(endpoint: OAuthEndpoint, method: &Method) -> Result<(), Error> {
    let (taken, allow): (&[&str], _) = match endpoint {
        OAuthEndpoint::Authorize | OAuthEndpoint::Account => (&["GET", "HEAD", "POST"], "GET, POST"),
        OAuthEndpoint::Callback => (&["GET"], "GET"),
        OAuthEndpoint::Register => (&["POST"], "POST, OPTIONS"),
        OAuthEndpoint::Consent | OAuthEndpoint::Token | OAuthEndpoint::Revoke | OAuthEndpoint::Introspect => {
            (&["POST"], "POST")
        }
    };
    if taken.contains(&method.as_str()) { Ok(()) } else { Err(Error::MethodNotAllowed(allow)) }
}

/// Answers a request for one of the tenant's public documents, which pages of all origins may read.
pub async fn handle_discovery(
    server: &AuthServer,
    document: DiscoveryDocument,
    request: Request<Bytes>,
) -> Response<Body> {
    let method = request.method().clone();
    let answer = match method {
        Method::OPTIONS => return response::preflight(),
        Method::GET | Method::HEAD => metadata::handle(server, document, request).await,
        _ => Err(Error::MethodNotAllowed("GET, HEAD, OPTIONS")),
    };
    let response = answer.unwrap_or_else(|error| error.into_response(None, true));
    response::allow_all_origins(strip_body_of_head(&method, response))
}

/// Drops the body of a response to HEAD (RFC 9110 section 9.3.2).
fn strip_body_of_head(method: &Method, response: Response<Body>) -> Response<Body> {
    match *method {
        Method::HEAD => response.map(|_| body::empty()),
        _ => response,
    }
}

//! Plain HTTP beside TLS: answers a CA's HTTP-01 challenges (RFC 8555 section 8.3) and redirects
//! everything else to HTTPS.
//!
//! No tenant is ever served here. It redirects only to hosts of this gateway, so it is not an open
//! redirect. It answers challenges for the tokens of pending orders, whatever the Host.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::budgets::Attribution;
use super::request::ConnInfo;
use super::{Server, dispatch};
use crate::base::authority;
use crate::base::body::{self, Body};
use crate::base::linger;
use crate::certs::NO_CHALLENGE_TEXT;

const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";
/// Deadline of a connection: it carries one request and its answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Serves a connection until its one request is answered.
pub(super) async fn serve(server: Arc<Server>, stream: TcpStream, addr: SocketAddr, https_port: u16) {
    let Some(conn) =
        ConnInfo::from_stream(&stream, addr, Arc::default(), &server.live.load().trusted_proxies)
    else {
        return;
    };
    let is_unread = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        is_unread.store(!request.body().is_end_stream(), Ordering::Relaxed);
        let (server, conn) = (&server, &conn);
        async move {
            let mut response = handle(server, conn, &request, https_port).await;
            // The request body is not read, so the connection cannot be reused.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(DEADLINE)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    // How it ends is of no interest: the answer was one sentence.
    _ = tokio::time::timeout(DEADLINE, &mut connection).await;
    let stream = connection.into_parts().io.into_inner();
    if is_unread.into_inner()
        && let Some(lingerer) = server.budgets.linger(&Attribution::new(conn.addr.ip(), None))
    {
        linger::over(stream, || lingerer.count_in_network()).await;
    }
}

async fn handle(
    server: &Server,
    conn: &ConnInfo,
    request: &Request<Incoming>,
    https_port: u16,
) -> Response<Body> {
    match request.uri().path().strip_prefix(CHALLENGE_PATH) {
        Some(token) => answer_challenge(server, conn, request, token).await,
        None => redirect(server, conn, request, https_port),
    }
}

async fn answer_challenge(
    server: &Server,
    conn: &ConnInfo,
    request: &Request<Incoming>,
    token: &str,
) -> Response<Body> {
    let host = authority::only_host(request.headers());
    let answer = match &server.certificates {
        Some(certificates) => certificates.http01_response(host.as_deref(), token).await,
        None => None,
    };
    tracing::debug!(client.addr = %conn.addr, known = answer.is_some(), "the CA requested a challenge");
    match answer {
        Some(answer) => text(StatusCode::OK, answer),
        None => text(StatusCode::NOT_FOUND, NO_CHALLENGE_TEXT),
    }
}

fn redirect(
    server: &Server,
    conn: &ConnInfo,
    request: &Request<Incoming>,
    https_port: u16,
) -> Response<Body> {
    let Some(host) = own_host(server, conn, request) else {
        return text(StatusCode::MISDIRECTED_REQUEST, "this host is not served here");
    };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let port = if https_port == 443 { String::new() } else { format!(":{https_port}") };
    match HeaderValue::from_str(&format!("https://{host}{port}{target}")) {
        Ok(location) if target.starts_with('/') => {
            let mut response = text(StatusCode::PERMANENT_REDIRECT, "use https");
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        _ => text(StatusCode::BAD_REQUEST, "this address cannot be read"),
    }
}

/// Returns the host that the request names by its Host header alone, if it is served here.
fn own_host<'r>(server: &Server, conn: &ConnInfo, request: &'r Request<Incoming>) -> Option<Cow<'r, str>> {
    let host = authority::only_host(request.headers()).filter(|_| request.uri().host().is_none())?;
    dispatch::check_host(server, server.registry.load().router.main(), &host, conn).is_ok().then_some(host)
}

fn text(status: StatusCode, content: impl Into<bytes::Bytes>) -> Response<Body> {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = body::response(status, kind, content);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

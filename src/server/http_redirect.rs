//! Plain HTTP beside TLS: answers a CA's HTTP-01 challenges (RFC 8555 section 8.3) and redirects
//! everything else to HTTPS.
//!
//! No tenant is ever served here. It redirects only to hosts of this gateway, so it is not an open
//! redirect. It answers challenges for the tokens of pending orders, whatever the Host.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::budgets::Attribution;
use super::listener::{Listeners, accept_loop};
use super::request::{ConnInfo, Server};
use crate::base::body::{self, Body};
use crate::base::linger;
use crate::certs::NO_CHALLENGE_TEXT;

const CHALLENGE: &str = "/.well-known/acme-challenge/";
/// Deadline of a connection: it carries one request and its answer.
const DEADLINE: Duration = Duration::from_secs(10);

impl Server {
    /// Starts answering on the plain listeners. Redirects lead to the port `https`.
    pub fn serve_http_redirect(self: &Arc<Self>, listeners: Listeners, https: u16) {
        for socket in listeners.into_sockets() {
            let talk = move |edge, stream, peer, _| converse(edge, stream, peer, https);
            let accepting = accept_loop(Arc::clone(self), socket, "plain connection", talk);
            self.tasks.spawn("plain listener", self.tasks.supervise("plain listener", accepting));
        }
    }

    fn answer_plainly(&self, peer: &ConnInfo, request: &Request<Incoming>, https: u16) -> Response<Body> {
        let path = request.uri().path();
        if let Some(token) = path.strip_prefix(CHALLENGE) {
            let answer =
                self.certificates.as_ref().and_then(|certificates| certificates.http01_response(token));
            tracing::debug!(client.addr = %peer.addr, known = answer.is_some(), "asked for a challenge");
            return match answer {
                Some(answer) => text(StatusCode::OK, answer),
                None => text(StatusCode::NOT_FOUND, NO_CHALLENGE_TEXT),
            };
        }
        let Some(host) = host(request).filter(|host| self.is_ours(host, peer)) else {
            return text(StatusCode::MISDIRECTED_REQUEST, "this host is not served here");
        };
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let port = if https == 443 { String::new() } else { format!(":{https}") };
        match HeaderValue::from_str(&format!("https://{host}{port}{target}")) {
            Ok(location) if target.starts_with('/') => {
                let mut response = text(StatusCode::PERMANENT_REDIRECT, "use https");
                response.headers_mut().insert(header::LOCATION, location);
                response
            }
            _ => text(StatusCode::BAD_REQUEST, "this address cannot be read"),
        }
    }

    fn is_ours(&self, host: &str, peer: &ConnInfo) -> bool {
        self.hosts.is_gateway_on(host, peer.local_ip)
            || self.registry.load().tenant_hosts().any(|own| own.as_str() == host)
    }
}

async fn converse(edge: Arc<Server>, stream: TcpStream, addr: SocketAddr, https: u16) {
    let Some(peer) = ConnInfo::from_stream(&stream, addr) else { return };
    let is_unread = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        is_unread.store(!request.body().is_end_stream(), Ordering::Relaxed);
        let mut response = edge.answer_plainly(&peer, &request, https);
        // The request body is not read, so the connection cannot be reused.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        async { Ok::<_, Infallible>(response) }
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
        && let Some(place) = edge.budgets.linger(&Attribution::new(peer.addr.ip(), None))
    {
        linger::over(stream, || place.of_its_network()).await;
    }
}

/// Returns the host of the only Host header, in lower case and without port.
fn host(request: &Request<Incoming>) -> Option<String> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None, None) = (hosts.next(), hosts.next(), request.uri().host()) else { return None };
    let authority: http::uri::Authority = host.to_str().ok()?.parse().ok()?;
    let plain = request.method() != Method::CONNECT && !authority.as_str().contains('@');
    plain.then(|| authority.host().to_ascii_lowercase())
}

fn text(status: StatusCode, content: impl Into<bytes::Bytes>) -> Response<Body> {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = body::response(status, kind, content);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

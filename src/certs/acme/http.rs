//! The HTTP client for CAs, as instant-acme expects it.
//!
//! It adds what instant-acme lacks: timeouts, a limit on responses, the `Retry-After` of refusals,
//! and the status of responses that are not JSON (a proxy's page). Each attempt has its own
//! instance, so the last refusal it saw is its own.

use std::error::Error as StdError;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::SignedDuration;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::lease_clock::LeaseClock;
use crate::base::clock::{Clock, SystemClock};
use crate::base::dns::DnsResolver;
use crate::base::{headers, tls_client};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest response, in bytes; a chain has a few kilobytes.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// How many characters of a non-JSON response an error quotes.
const MAX_EXCERPT_CHARS: usize = 200;

type BoxError = Box<dyn StdError + Send + Sync>;
type ResponseFuture = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

/// A response that is not one of ACME.
#[derive(Debug, thiserror::Error)]
#[error("the CA answered {status}, but not with an ACME answer: {excerpt:?}")]
pub(super) struct NotAnAcmeResponse {
    pub(super) status: StatusCode,
    excerpt: String,
}

/// The CA did not respond in time.
#[derive(Debug, thiserror::Error)]
#[error("the CA did not answer within {} s", EXCHANGE_TIMEOUT.as_secs())]
pub(super) struct ExchangeTimeout;

/// Another gateway may order by now.
#[derive(Debug, thiserror::Error)]
#[error("the CA is not asked any more: this gateway was not heard of for too long, so another one may order")]
pub(super) struct LeaseOver;

/// The status of a refusal, and how long it asks to wait.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CaErrorResponse {
    pub(super) status: u16,
    pub(super) retry_after: Option<SignedDuration>,
}

/// The client of one attempt. Clones share the last refusal.
#[derive(Clone)]
pub(super) struct AcmeHttpClient {
    client: Client<AcmeConnector, Full<Bytes>>,
    last_error_response: Arc<Mutex<Option<CaErrorResponse>>>,
    /// Nothing is asked once it is over.
    lease: Option<LeaseClock>,
}

impl AcmeHttpClient {
    /// Creates a client that trusts only the certificates in `root`, or else those that the machine
    /// trusts.
    pub(super) fn new(root: Option<&Path>) -> Result<Self, crate::certs::Error> {
        let connector = AcmeConnector { tls: TlsConnector::from(Arc::new(tls_client_config(root)?)) };
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, last_error_response: Arc::default(), lease: None })
    }

    /// Asks the CA only while a lease is held.
    pub(super) fn under_lease(self, lease: LeaseClock) -> Self {
        Self { lease: Some(lease), ..self }
    }

    /// Returns the refusal in the last response, if it was one.
    pub(super) fn last_error_response(&self) -> Option<CaErrorResponse> {
        *self.last_error_response.lock().expect("no holder of this lock panics")
    }

    fn set_last_error_response(&self, refusal: Option<CaErrorResponse>) {
        *self.last_error_response.lock().expect("no holder of this lock panics") = refusal;
    }
}

impl HttpClient for AcmeHttpClient {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> ResponseFuture {
        let http = self.clone();
        Box::pin(async move {
            http.set_last_error_response(None);
            if http.lease.as_ref().is_some_and(|lease| !lease.is_running()) {
                return Err(Error::Other(Box::new(LeaseOver)));
            }
            let outcome = tokio::time::timeout(EXCHANGE_TIMEOUT, http.exchange(request)).await;
            outcome.unwrap_or_else(|_| Err(Error::Other(Box::new(ExchangeTimeout))))
        })
    }
}

impl AcmeHttpClient {
    async fn exchange(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await;
        let request = Request::from_parts(parts, Full::new(body.to_bytes()));
        let response = self.client.request(request).await.map_err(|error| Error::Other(Box::new(error)))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await.map_err(Error::Other)?.to_bytes();
        let status = parts.status;
        if status.is_client_error() || status.is_server_error() {
            self.set_last_error_response(Some(CaErrorResponse {
                status: status.as_u16(),
                retry_after: parse_retry_after(&parts.headers),
            }));
            // A response to HEAD has no body.
            if !body.is_empty() && serde_json::from_slice::<serde_json::Value>(&body).is_err() {
                let excerpt: String =
                    String::from_utf8_lossy(&body).chars().take(MAX_EXCERPT_CHARS).collect();
                return Err(Error::Other(Box::new(NotAnAcmeResponse { status, excerpt })));
            }
        }
        Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
    }
}

/// Returns how long the CA asks to wait. More than a century is not meant seriously.
fn parse_retry_after(headers: &http::HeaderMap) -> Option<SignedDuration> {
    let wait = headers::parse_retry_after(headers, SystemClock.now())?;
    SignedDuration::try_from(wait).ok().filter(|wait| wait.as_secs() <= u32::MAX.into())
}

/// Returns the TLS configuration for a CA's server.
fn tls_client_config(root: Option<&Path>) -> Result<rustls::ClientConfig, crate::certs::Error> {
    tls_client::config(root).map_err(describe)
}

/// Reads the certificates of a PEM file.
pub(super) fn read_root_certificates(path: &Path) -> Result<RootCertStore, crate::certs::Error> {
    tls_client::read_roots(path).map_err(describe)
}

fn describe(error: tls_client::Error) -> crate::certs::Error {
    crate::certs::Error(match error {
        tls_client::Error::NoRoots(_) => format!("no connection to a CA is possible: {error}"),
        tls_client::Error::File { .. } => format!("the CA's root certificate (acme_ca_root) {error}"),
    })
}

/// Opens TLS connections.
#[derive(Clone)]
struct AcmeConnector {
    tls: TlsConnector,
}

impl AcmeConnector {
    async fn connect(self, target: Uri) -> Result<TokioIo<AcmeStream>, BoxError> {
        let host = target.host().ok_or("the URL names no host")?.trim_matches(['[', ']']).to_owned();
        let port = target.port_u16().unwrap_or(443);
        let found = DnsResolver::global().lookup(&host).await?;
        let addresses: Vec<_> = found.iter().map(|&address| SocketAddr::new(address, port)).collect();
        let stream = TcpStream::connect(&addresses[..]).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from(host)?, stream).await?;
        Ok(TokioIo::new(AcmeStream(Box::new(stream))))
    }
}

impl Service<Uri> for AcmeConnector {
    type Response = TokioIo<AcmeStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let opening = self.clone().connect(target);
        Box::pin(async {
            let late = || Err(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()).into());
            tokio::time::timeout(CONNECT_TIMEOUT, opening).await.unwrap_or_else(|_| late())
        })
    }
}

/// An open connection.
#[derive(Debug)]
struct AcmeStream(Box<TlsStream<TcpStream>>);

impl Connection for AcmeStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for AcmeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for AcmeStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds_or_as_a_date() {
        let after = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, text.parse().expect("a value"));
            parse_retry_after(&headers)
        };
        assert_eq!(after("120"), Some(SignedDuration::from_secs(120)));
        assert!(after("Fri, 31 Dec 2100 23:59:59 GMT").expect("a date") > SignedDuration::from_hours(24));
        assert_eq!(after("soon"), None);
    }

    #[tokio::test]
    async fn a_lease_that_is_over_keeps_requests_from_the_ca() {
        let now = SystemClock.monotonic();
        let ask = async |end| {
            let lease = LeaseClock::new(SystemClock::shared(), Arc::new(Mutex::new(end)));
            let http = AcmeHttpClient::new(None).expect("a client").under_lease(lease);
            // Nobody listens there.
            let request = Request::get("https://127.0.0.1:1/").body(BodyWrapper::from(Vec::new()));
            http.request(request.expect("a request")).await.err().expect("refused").to_string()
        };
        assert!(ask(now).await.contains("not asked any more"), "{}", ask(now).await);
        let asked = ask(now + Duration::from_secs(60)).await;
        assert!(!asked.contains("not asked any more"), "{asked}");
    }

    #[test]
    fn a_root_that_cannot_be_used_names_its_setting() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("root.pem");
        std::fs::write(&path, "garbage").expect("written");
        for path in [path, folder.path().join("missing.pem")] {
            let error = read_root_certificates(&path).expect_err("unusable").to_string();
            assert!(error.contains("acme_ca_root"), "{error}");
        }
    }
}

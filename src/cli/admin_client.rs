//! The client of a running gateway's admin listener: one HTTP/1.1 exchange per request, with TLS or
//! without, each with a timeout.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::admin::GatewayInfo;
use crate::base::secret::Secret;
use crate::certs::CertificateStatus;
use crate::tenants::status::TenantStatus;

/// All characters but the unreserved ones of RFC 3986, so that a tenant's name is a single path
/// segment.
const NOT_UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a host, which may be an IPv6 address.
const NOT_HOST: AsciiSet = NOT_UNRESERVED.remove(b':');
/// The timeout of an optional request.
const OPTIONAL_TIMEOUT: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a change, which may wait for files to become stable and for the disk.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of a certificate order: slightly more than the gateway allows.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(320);
/// The maximum response size; the statuses of ten thousand tenants fit.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "no gateway answers on {0} ({1}); start one with `tenantd serve`, or give its address with --admin"
    )]
    Unreachable(SocketAddr, std::io::Error),
    #[error("the gateway on {0} did not answer in time")]
    Timeout(SocketAddr),
    #[error("the gateway on {0} has no tenant with that name; `tenantd tenants list` lists all of them")]
    NotFound(SocketAddr),
    #[error("the gateway on {0} answered {1}")]
    Status(SocketAddr, StatusCode),
    #[error("{0}")]
    Rejected(String, Vec<Value>),
    #[error("the admin token is no text that a header can have; check the file or TENANTD_ADMIN_TOKEN")]
    UnusableToken,
    #[error(
        "TLS with the gateway on {0} failed: {1}; check the name in --admin https://NAME:PORT, and give a private \
         authority's certificate with --admin-ca"
    )]
    Tls(SocketAddr, std::io::Error),
    #[error(
        "the server on {0} is not the admin listener of a gateway, or speaks TLS, which these settings do not say; give \
         the gateway's file with --config, or --admin https://NAME:PORT"
    )]
    NotAGateway(SocketAddr),
    #[error("the request could not be sent")]
    Runtime(#[source] std::io::Error),
}

/// The client of one admin listener.
#[derive(Debug, Clone)]
pub(super) struct AdminClient {
    address: SocketAddr,
    /// The Host header, if it is not the address.
    host: Option<String>,
    /// TLS, and the name that the certificate must have.
    tls: Option<(ServerName<'static>, Arc<rustls::ClientConfig>)>,
    token: Option<Secret>,
}

impl AdminClient {
    /// Creates a client for `address`; an unspecified address is replaced by loopback.
    pub(super) fn new(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { address: SocketAddr::new(ip, address.port()), host: None, tls: None, token: None }
    }

    /// Speaks TLS to a listener with a certificate for `name`.
    pub(super) fn with_tls(self, name: ServerName<'static>, config: rustls::ClientConfig) -> Self {
        let host = match &name {
            ServerName::DnsName(name) => Some(format!("{}:{}", name.as_ref(), self.address.port())),
            _ => None,
        };
        Self { tls: Some((name, Arc::new(config))), host, ..self }
    }

    /// Sends a token with each request.
    pub(super) fn with_token(self, token: Option<Secret>) -> Self {
        Self { token, ..self }
    }

    /// Checks that the gateway is alive.
    pub(super) fn health(&self) -> Result<(), Error> {
        self.get("/healthz").map(|_| ())
    }

    /// Returns the settings in force by their names, without secrets.
    pub(super) fn settings(&self) -> Result<Value, Error> {
        self.get_parsed("/api/settings")
    }

    /// Returns what a path is answered with, as text.
    pub(super) fn text(&self, path: &str) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.get(path)?).into_owned())
    }

    /// Returns whether the gateway is ready, and why not.
    pub(super) fn readiness(&self) -> Result<Value, Error> {
        // A gateway that is not ready answers 503 and says why.
        self.parse(&self.ask(Method::GET, "/readyz", Bytes::new(), READ_TIMEOUT)?.1)
    }

    /// Returns the gateway's self-description. The timeout is short, since no gateway may be
    /// running.
    pub(super) fn gateway_info(&self) -> Result<GatewayInfo, Error> {
        self.parse(&self.exchange(Method::GET, "/api/gateway", Bytes::new(), OPTIONAL_TIMEOUT)?)
    }

    /// Returns the status of all tenants.
    pub(super) fn tenants(&self) -> Result<Vec<TenantStatus>, Error> {
        self.get_parsed("/api/tenants")
    }

    /// Returns the status of one tenant, by name or by the stem of its files.
    pub(super) fn tenant(&self, name: &str) -> Result<TenantStatus, Error> {
        self.get_parsed(&tenant_path(name, ""))
    }

    /// Returns the status of all certificates.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateStatus>, Error> {
        self.get_parsed("/api/certs")
    }

    /// Sends a command and returns the gateway's response.
    pub(super) fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Error> {
        self.parse(&self.exchange(method, path, body, CHANGE_TIMEOUT)?)
    }

    /// Makes the gateway rescan all tenants.
    pub(super) fn reload(&self) -> Result<Value, Error> {
        self.send(Method::POST, "/-/reload", Bytes::new())
    }

    /// Makes the gateway copy its store; returns the path of the copy.
    pub(super) fn back_up(&self) -> Result<PathBuf, Error> {
        #[derive(serde::Deserialize)]
        struct Copied {
            path: PathBuf,
        }
        let copied: Copied =
            self.parse(&self.exchange(Method::POST, "/-/backup", Bytes::new(), CHANGE_TIMEOUT)?)?;
        Ok(copied.path)
    }

    /// Renews a certificate, or only tries whether that would work, and waits for the result.
    pub(super) fn renew_certificate(&self, name: &str, is_dry_run: bool) -> Result<(), Error> {
        let verb = if is_dry_run { "rehearse" } else { "renew" };
        let name = utf8_percent_encode(name, &NOT_HOST);
        self.exchange(Method::POST, &format!("/-/{verb}/{name}"), Bytes::new(), CERTIFICATE_TIMEOUT)
            .map(|_| ())
    }

    fn get(&self, path: &str) -> Result<Bytes, Error> {
        self.exchange(Method::GET, path, Bytes::new(), READ_TIMEOUT)
    }

    fn get_parsed<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.parse(&self.get(path)?)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, answer: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(answer).map_err(|_| Error::NotAGateway(self.address))
    }

    /// Sends one request. A refusal is returned in the gateway's words.
    fn exchange(&self, method: Method, path: &str, body: Bytes, timeout: Duration) -> Result<Bytes, Error> {
        let (status, body) = self.ask(method, path, body, timeout)?;
        accept(self.address, status, body)
    }

    /// Sends one request and returns whatever is answered.
    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), Error> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        runtime.block_on(async {
            let exchange = self.connect_and_exchange(method, path, body);
            tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(Error::Timeout(self.address)))
        })
    }
}

/// Returns the path `/api/tenants/NAME` followed by `rest`.
pub(super) fn tenant_path(name: &str, rest: &str) -> String {
    format!("/api/tenants/{}{rest}", encode_segment(name))
}

/// Returns the path for adding a file.
pub(super) fn file_path(name: &str, replace: bool) -> String {
    format!("/api/files/{}{}", encode_segment(name), if replace { "?replace=1" } else { "" })
}

/// Encodes a text as one path segment.
pub(super) fn encode_segment(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, &NOT_UNRESERVED)
}

impl AdminClient {
    async fn connect_and_exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Error> {
        let address = self.address;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.host.clone().unwrap_or_else(|| address.to_string()))
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Full::new(body)).map_err(|_| Error::UnusableToken)?;
        let stream = TcpStream::connect(address).await.map_err(|error| Error::Unreachable(address, error))?;
        match &self.tls {
            None => exchange(address, stream, request).await,
            Some((name, config)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let secured = connector.connect(name.clone(), stream).await;
                exchange(address, secured.map_err(|error| Error::Tls(address, error))?, request).await
            }
        }
    }
}

async fn exchange<S>(
    address: SocketAddr,
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let not_ours = |_| Error::NotAGateway(address);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(not_ours)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(not_ours)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        Ok((status, body.map_err(|_| Error::NotAGateway(address))?.to_bytes()))
    };
    // The connection is driven alongside the response; its result adds nothing to the response's.
    tokio::join!(answer, connection).0
}

/// Returns the body of a success, else what the gateway says of its refusal.
fn accept(address: SocketAddr, status: StatusCode, body: Bytes) -> Result<Bytes, Error> {
    match (status, body) {
        (StatusCode::OK, body) => Ok(body),
        (status, body) => Err(match (status, detail(&body)) {
            (StatusCode::NOT_FOUND, None) => Error::NotFound(address),
            (StatusCode::NOT_FOUND, Some((detail, _))) if detail.starts_with("no tenant") => {
                Error::NotFound(address)
            }
            (_, Some((detail, findings))) => Error::Rejected(detail, findings),
            (_, None) => Error::Status(address, status),
        }),
    }
}

/// Extracts the detail of a problem document (RFC 9457) and its findings, if any.
fn detail(body: &[u8]) -> Option<(String, Vec<Value>)> {
    let problem: Value = serde_json::from_slice(body).ok()?;
    let findings = problem.get("findings").and_then(Value::as_array).cloned().unwrap_or_default();
    Some((problem.get("detail")?.as_str()?.to_owned(), findings))
}

#[cfg(test)]
mod tests;

//! The client of a running gateway's admin listener: one plain HTTP/1.1 exchange per request, each
//! with a timeout.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::admin::GatewayInfo;
use crate::certs::CertificateStatus;
use crate::tenants::status::TenantStatus;

/// All characters but the unreserved ones of RFC 3986, so that a tenant's name is a single path
/// segment.
const NOT_UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a host, which may be an IPv6 address.
const NO_HOST: AsciiSet = NOT_UNRESERVED.remove(b':');
/// The timeout of an optional request.
const GLANCE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);
/// The timeout of a change, which may wait for files to become stable and for the disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// The timeout of a certificate order: slightly more than the gateway allows.
const ORDER: Duration = Duration::from_secs(320);
/// The maximum response size; the statuses of ten thousand tenants fit.
const LARGEST_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "no gateway answers on {0} ({1}); start one with `tenantd serve`, or give its address as --admin"
    )]
    Unreachable(SocketAddr, std::io::Error),
    #[error("the gateway on {0} did not answer in time")]
    Timeout(SocketAddr),
    #[error("the gateway on {0} has no tenant of that name; `tenantd tenants list` names them all")]
    NotFound(SocketAddr),
    #[error("the gateway on {0} answered {1}")]
    Status(SocketAddr, StatusCode),
    #[error("{0}")]
    Rejected(String, Vec<Value>),
    #[error("what answers on {0} is no admin listener of a gateway")]
    NotAGateway(SocketAddr),
    #[error("a question could not be put")]
    Runtime(#[source] std::io::Error),
}

/// The client of one admin listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct AdminClient {
    address: SocketAddr,
}

impl AdminClient {
    /// Creates a client for `address`; an unspecified address is replaced by loopback.
    pub(super) fn new(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { address: SocketAddr::new(ip, address.port()) }
    }

    /// Checks that the gateway is alive.
    pub(super) fn health(&self) -> Result<(), Error> {
        self.get("/healthz").map(|_| ())
    }

    /// Returns the gateway's self-description. The timeout is short, since no gateway may be
    /// running.
    pub(super) fn about(&self) -> Result<GatewayInfo, Error> {
        self.parsed(&self.ask(Method::GET, "/api/gateway", Bytes::new(), GLANCE)?)
    }

    /// Returns the status of all tenants.
    pub(super) fn tenants(&self) -> Result<Vec<TenantStatus>, Error> {
        self.json("/api/tenants")
    }

    /// Returns the status of one tenant, by name or by the stem of its files.
    pub(super) fn tenant(&self, name: &str) -> Result<TenantStatus, Error> {
        self.json(&Self::path_of(name, ""))
    }

    /// Sends a command and returns the gateway's response.
    pub(super) fn order(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Error> {
        self.parsed(&self.ask(method, path, body, PATIENCE)?)
    }

    /// Returns the path `/api/tenants/NAME` followed by `rest`.
    pub(super) fn path_of(name: &str, rest: &str) -> String {
        format!("/api/tenants/{}{rest}", encoded(name))
    }

    /// Encodes a text as a path segment.
    pub(super) fn encoded(text: &str) -> String {
        encoded(text).to_string()
    }

    /// Returns the path for adding a file.
    pub(super) fn path_of_file(name: &str, replace: bool) -> String {
        format!("/api/files/{}{}", encoded(name), if replace { "?replace=1" } else { "" })
    }

    /// Makes the gateway rescan all tenants.
    pub(super) fn reload(&self) -> Result<Value, Error> {
        self.order(Method::POST, "/-/reload", Bytes::new())
    }

    /// Makes the gateway copy its store; returns the path of the copy.
    pub(super) fn backup(&self) -> Result<std::path::PathBuf, Error> {
        #[derive(serde::Deserialize)]
        struct Copied {
            path: std::path::PathBuf,
        }
        let copied: Copied = self.parsed(&self.ask(Method::POST, "/-/backup", Bytes::new(), PATIENCE)?)?;
        Ok(copied.path)
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, answer: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(answer).map_err(|_| Error::NotAGateway(self.address))
    }

    /// Returns the status of all certificates.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateStatus>, Error> {
        self.json("/api/certs")
    }

    /// Renews a certificate, or rehearses that, and waits for the result.
    pub(super) fn certificate_order(&self, name: &str, rehearsal: bool) -> Result<(), Error> {
        let verb = if rehearsal { "rehearse" } else { "renew" };
        let name = percent_encoding::utf8_percent_encode(name, &NO_HOST);
        self.ask(Method::POST, &format!("/-/{verb}/{name}"), Bytes::new(), ORDER).map(|_| ())
    }

    fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.parsed(&self.get(path)?)
    }

    fn get(&self, path: &str) -> Result<Bytes, Error> {
        self.ask(Method::GET, path, Bytes::new(), DEADLINE)
    }

    /// Sends one request. A refusal is returned in the gateway's words.
    fn ask(&self, method: Method, path: &str, body: Bytes, deadline: Duration) -> Result<Bytes, Error> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        runtime.block_on(within(deadline, self.address, exchange(self.address, method, path, body)))
    }
}

async fn within<T>(
    deadline: Duration,
    address: SocketAddr,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(deadline, answer).await.unwrap_or(Err(Error::Timeout(address)))
}

async fn exchange(address: SocketAddr, method: Method, path: &str, body: Bytes) -> Result<Bytes, Error> {
    let not_ours = |_| Error::NotAGateway(address);
    let stream = TcpStream::connect(address).await.map_err(|error| Error::Unreachable(address, error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(not_ours)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .expect("a path of ours and an address are valid");
    let answer = async {
        let response = sender.send_request(request).await.map_err(not_ours)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_BYTES).collect().await;
        Ok((status, body.map_err(|_| Error::NotAGateway(address))?.to_bytes()))
    };
    // The connection is driven alongside the response; its result adds nothing to the response's.
    let (answer, _) = tokio::join!(answer, connection);
    match answer? {
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

fn encoded(name: &str) -> percent_encoding::PercentEncode<'_> {
    percent_encoding::utf8_percent_encode(name, &NOT_UNRESERVED)
}

#[cfg(test)]
mod tests;

//! Questions to a running gateway's admin listener: one plain HTTP/1.1 exchange each, within a deadline.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use tokio::net::TcpStream;

use crate::tenants::status::TenantStatus;

/// All but RFC 3986's unreserved characters: a tenant's name stands in the path as it is.
const NOT_UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const DEADLINE: Duration = Duration::from_secs(5);
/// The statuses of ten thousand tenants fit.
const LARGEST_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "no gateway answers on {0} ({1}); start one with `tenantd serve`, or give its address as --admin"
    )]
    Unreachable(SocketAddr, std::io::Error),
    #[error("the gateway on {0} did not answer within 5 s")]
    TooSlow(SocketAddr),
    #[error("the gateway on {0} has no tenant of that name; `tenantd tenants list` names them all")]
    NotFound(SocketAddr),
    #[error("the gateway on {0} answered {1}")]
    Refused(SocketAddr, StatusCode),
    #[error("{0}")]
    Said(String),
    #[error("what answers on {0} is no admin listener of a gateway")]
    NotOurs(SocketAddr),
    #[error("a question could not be put")]
    Runtime(#[source] std::io::Error),
}

/// A gateway's admin listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct AdminClient {
    address: SocketAddr,
}

impl AdminClient {
    /// For the listener at `address`; one that listens on every address is asked on loopback.
    pub(super) fn new(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { address: SocketAddr::new(ip, address.port()) }
    }

    /// Whether the gateway is well.
    pub(super) fn health(&self) -> Result<(), Error> {
        self.get("/healthz").map(|_| ())
    }

    /// All tenants.
    pub(super) fn tenants(&self) -> Result<Vec<TenantStatus>, Error> {
        self.json("/api/tenants")
    }

    /// One tenant, by name or stem.
    pub(super) fn tenant(&self, name: &str) -> Result<TenantStatus, Error> {
        let name = percent_encoding::utf8_percent_encode(name, &NOT_UNRESERVED);
        self.json(&format!("/api/tenants/{name}"))
    }

    /// Has the gateway copy its store; says where the copy is.
    pub(super) fn backup(&self) -> Result<std::path::PathBuf, Error> {
        #[derive(serde::Deserialize)]
        struct Copied {
            path: std::path::PathBuf,
        }
        let copied: Copied = self.parsed(&self.ask(Method::POST, "/-/backup", Bytes::new())?)?;
        Ok(copied.path)
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, answer: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(answer).map_err(|_| Error::NotOurs(self.address))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.parsed(&self.get(path)?)
    }

    fn get(&self, path: &str) -> Result<Bytes, Error> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// One exchange. What the gateway refuses comes back in its own words.
    fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Error> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        runtime.block_on(within_deadline(self.address, exchange(self.address, method, path, body)))
    }
}

async fn within_deadline<T>(
    address: SocketAddr,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(DEADLINE, answer).await.unwrap_or(Err(Error::TooSlow(address)))
}

async fn exchange(address: SocketAddr, method: Method, path: &str, body: Bytes) -> Result<Bytes, Error> {
    let not_ours = |_| Error::NotOurs(address);
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
        Ok((status, body.map_err(|_| Error::NotOurs(address))?.to_bytes()))
    };
    // The connection is driven beside the answer; how it ends says nothing that the answer doesn't.
    let (answer, _) = tokio::join!(answer, connection);
    match answer? {
        (StatusCode::OK, body) => Ok(body),
        (StatusCode::NOT_FOUND, _) => Err(Error::NotFound(address)),
        (status, body) => match detail(&body) {
            Some(detail) => Err(Error::Said(detail)),
            None => Err(Error::Refused(address, status)),
        },
    }
}

/// What a problem document (RFC 9457) says.
fn detail(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    problem.get("detail")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests;

//! The load: a fixed number of keep-alive TLS connections, each of which sends the next call as
//! soon as the previous one is answered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::backend::FIRST_ROW;

/// A protocol era of MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Era {
    /// 2025-11-25.
    Legacy,
    /// 2026-07-28: no handshake, routing headers and `_meta` with every request.
    Modern,
}

impl Era {
    pub(crate) const BOTH: [Self; 2] = [Self::Legacy, Self::Modern];

    fn version(self) -> &'static str {
        match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        }
    }

    /// Returns what this era adds to `params`.
    fn meta(self) -> &'static str {
        match self {
            Self::Legacy => "",
            Self::Modern => {
                r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#
            }
        }
    }
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version())
    }
}

/// One measurement, bounded by `calls` and by `patience`, whichever ends first.
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    /// Calls rotate over `/tenant-0/mcp` and so on.
    pub(crate) tenants: usize,
    /// Calls this path instead, and takes every answer.
    pub(crate) flooded: Option<&'a str>,
    /// The certificate to trust.
    pub(crate) root: &'a CertificateDer<'static>,
    /// The callers' access token.
    pub(crate) token: Option<&'a str>,
    pub(crate) era: Era,
    pub(crate) connections: usize,
    pub(crate) calls: usize,
    pub(crate) patience: Duration,
}

/// The result of a measurement.
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    /// The latency of each call, ascending.
    pub(crate) latencies: Vec<Duration>,
}

/// Runs a load to its end. Fails on the first answer that is not a good one.
pub(crate) fn run(load: &Load) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(drive(load))
}

async fn drive(load: &Load<'_>) -> Result<Outcome> {
    let connector = connector(load.root)?;
    let call = Arc::new(Call::new(load));
    let mut senders = Vec::new();
    for _ in 0..load.connections {
        senders.push(connect(load.address, &connector).await?);
    }
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for sender in senders {
        workers.spawn(call.clone().repeat(sender, begun + load.patience));
    }
    let mut latencies = Vec::with_capacity(load.calls);
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    let elapsed = begun.elapsed();
    latencies.sort_unstable();
    Ok(Outcome { elapsed, latencies })
}

pub(crate) fn connector(root: &CertificateDer<'static>) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(crate) async fn connect(
    address: SocketAddr,
    connector: &TlsConnector,
) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The one call that is repeated.
struct Call {
    request: http::request::Parts,
    paths: Vec<http::Uri>,
    meta: &'static str,
    next: AtomicUsize,
    takes_refusals: bool,
    calls: usize,
}

impl Call {
    fn new(load: &Load) -> Self {
        let path = |tenant| format!("/tenant-{tenant}/mcp").parse().expect("a path is a URI");
        let mut request = Request::post("/")
            .header("host", format!("localhost:{}", load.address.port()))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", load.era.version());
        if load.era == Era::Modern {
            request = request.header("mcp-method", "tools/call").header("mcp-name", "search");
        }
        if let Some(token) = load.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let (request, ()) = request.body(()).expect("its parts are written above").into_parts();
        Self {
            request,
            paths: match load.flooded {
                Some(path) => vec![path.parse().expect("a path is a URI")],
                None => (0..load.tenants).map(path).collect(),
            },
            takes_refusals: load.flooded.is_some(),
            meta: load.era.meta(),
            next: AtomicUsize::new(0),
            calls: load.calls,
        }
    }

    /// Calls until all calls are taken or `end` has come. Returns the latencies.
    async fn repeat(
        self: Arc<Self>,
        mut sender: SendRequest<Full<Bytes>>,
        end: Instant,
    ) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        loop {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let begun = Instant::now();
            if id >= self.calls || begun >= end {
                return Ok(latencies);
            }
            sender.ready().await?;
            let response = sender.send_request(self.request(id)).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            latencies.push(begun.elapsed());
            if !self.takes_refusals {
                check(id, status, &body)?;
            }
        }
    }

    fn request(&self, id: usize) -> Request<Full<Bytes>> {
        let meta = self.meta;
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"search","arguments":{{"query":"quarterly revenue by region","limit":10}}{meta}}}}}"#
        );
        let mut request = self.request.clone();
        request.uri = self.paths[id % self.paths.len()].clone();
        Request::from_parts(request, Full::from(body))
    }
}

/// Checks that an answer is the backend's, in both forms, and has the id of the request.
fn check(id: usize, status: StatusCode, body: &[u8]) -> Result<()> {
    let body = std::str::from_utf8(body).context("the answer is not UTF-8")?;
    let good = status == StatusCode::OK
        && body.contains(FIRST_ROW)
        && body.contains("\"structuredContent\"")
        && body.contains(&format!("\"id\":{id}"))
        && !body.contains("\"isError\":true");
    ensure!(good, "call {id} was answered with {status}: {body}");
    Ok(())
}

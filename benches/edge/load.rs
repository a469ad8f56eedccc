//! The load: handshakes and idle connections of our own client, and requests by `h2load`, which
//! speaks both protocols.

use std::fmt;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Concurrent handshakes.
const HANDSHAKERS: usize = 16;

/// A version of HTTP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

impl Http {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::One => b"http/1.1",
            Self::Two => b"h2",
        }
    }
}

impl fmt::Display for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "HTTP/1.1",
            Self::Two => "HTTP/2",
        })
    }
}

/// The one trusted certificate.
pub(crate) struct Trust(Arc<RootCertStore>);

impl Trust {
    pub(crate) fn new(certificate: CertificateDer<'static>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        Ok(Self(Arc::new(roots)))
    }

    /// Returns a connector without session resumption that offers `group`, and X25519 in addition
    /// to a hybrid group, for servers that lack it.
    fn connector(&self, group: NamedGroup, http: Http) -> Result<TlsConnector> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups.retain(|known| [group, NamedGroup::X25519].contains(&known.name()));
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.0))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![http.alpn().to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

async fn connect(connector: &TlsConnector, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(connector.connect(ServerName::try_from("localhost")?, stream).await?)
}

/// Makes this many full handshakes and closes each connection gracefully.
pub(crate) fn handshakes(trust: &Trust, address: SocketAddr, group: NamedGroup, count: usize) -> Result<()> {
    let connector = trust.connector(group, Http::One)?;
    let left = Arc::new(AtomicUsize::new(count));
    runtime()?.block_on(async {
        let mut workers = JoinSet::new();
        for _ in 0..HANDSHAKERS {
            workers.spawn(shake_hands(connector.clone(), address, Arc::clone(&left)));
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        Ok(())
    })
}

/// Makes handshakes one after another until `left` is zero.
async fn shake_hands(connector: TlsConnector, address: SocketAddr, left: Arc<AtomicUsize>) -> Result<()> {
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let mut stream = connect(&connector, address).await?;
        stream.shutdown().await?;
        // Waits for the server's `close_notify`; some servers send none.
        let _ended = stream.read(&mut [0; 64]).await;
    }
    Ok(())
}

/// Makes this many requests over keep-alive connections. Fails on the first response that is not a
/// success.
pub(crate) fn requests(
    address: SocketAddr,
    path: &str,
    http: Http,
    count: usize,
    connections: usize,
) -> Result<()> {
    let mut command = Command::new("h2load");
    command.args(["-n", &count.to_string(), "-c", &connections.to_string(), "-t", "1"]);
    match http {
        Http::One => command.arg("--h1"),
        Http::Two => command.args(["-m", "10"]),
    };
    let output = command.arg(format!("https://{address}{path}")).output();
    let output = output.context("h2load; install nghttp2-client (Debian)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains(&format!("status codes: {count} 2xx")), "not every answer was good:\n{text}");
    Ok(())
}

/// Returns the page from a server.
pub(crate) fn page(trust: &Trust, address: SocketAddr, path: &str) -> Result<Bytes> {
    let connector = trust.connector(NamedGroup::X25519, Http::One)?;
    runtime()?.block_on(async {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(connect(&connector, address).await?)).await?;
        tokio::spawn(connection);
        let answer = sender.send_request(request(address, path)?).await?;
        ensure!(answer.status() == StatusCode::OK, "{path} was answered with {}", answer.status());
        Ok(answer.into_body().collect().await?.to_bytes())
    })
}

fn request(address: SocketAddr, path: &str) -> Result<Request<Empty<Bytes>>> {
    let host = format!("localhost:{}", address.port());
    Ok(Request::get(format!("https://{host}{path}")).header("host", host).body(Empty::new())?)
}

/// Opens connections that have received one response and stay idle. They are tasks of the returned
/// runtime and end with it.
pub(crate) fn idle(
    trust: &Trust,
    address: SocketAddr,
    path: &str,
    http: Http,
    count: usize,
) -> Result<Runtime> {
    let connector = trust.connector(NamedGroup::X25519MLKEM768, http)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        for _ in 0..count {
            let stream = TokioIo::new(connect(&connector, address).await?);
            let request = request(address, path)?;
            let status = match http {
                Http::One => ask_one(stream, request).await?,
                Http::Two => ask_two(stream, request).await?,
            };
            ensure!(status == StatusCode::OK, "{path} was answered with {status}");
        }
        Ok(())
    })?;
    Ok(runtime)
}

type Stream = TokioIo<TlsStream<TcpStream>>;

async fn ask_one(stream: Stream, mut request: Request<Empty<Bytes>>) -> Result<StatusCode> {
    let (mut sender, connection) = http1::handshake(stream).await?;
    *request.uri_mut() = request.uri().path().parse()?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    answer.into_body().collect().await?;
    keep(sender);
    Ok(status)
}

async fn ask_two(stream: Stream, mut request: Request<Empty<Bytes>>) -> Result<StatusCode> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    request.headers_mut().remove("host");
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    answer.into_body().collect().await?;
    keep(sender);
    Ok(status)
}

/// Keeps a sender alive: hyper closes a connection when its sender is dropped.
fn keep(sender: impl Send + 'static) {
    tokio::spawn(async move {
        let _kept = sender;
        std::future::pending::<()>().await;
    });
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

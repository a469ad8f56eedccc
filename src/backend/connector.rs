//! Opens connections to backends, directly or through a proxy from the environment.
//!
//! The guard sits between resolving and connecting: the addresses that were judged are those that
//! are connected to, so DNS rebinding cannot get past it. A proxy is the operator's choice and may
//! be anywhere. For a target behind a proxy, an IP literal in the URL is judged here and a name is
//! left to the proxy; if the settings list backends, the name must be among them.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::address_guard::AddressGuard;
use super::meter::ConnectionMeter;
use super::proxies::Proxies;
use crate::base::dns::{self, DnsResolver};

/// The timeout for opening a connection, from name resolution to TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The timeout for opening a tunnel through a proxy. The rest of [`CONNECT_TIMEOUT`] is left for
/// the backend's TLS handshake in it, so that an error can say which of the two did not answer.
const TUNNEL_TIMEOUT: Duration = Duration::from_millis(2400);
/// The longest one of several addresses may take before the next is tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(1200);

/// The reasons why a connection could not be opened, as far as callers distinguish them.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("every address of the host is forbidden")]
    Forbidden,
    #[error("the host has no address: {0}")]
    NoAddress(#[from] dns::LookupError),
    #[error("the connection took longer than {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the URL names no host")]
    NoHost,
    #[error("the proxy opened no connection to the host")]
    Proxy(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the proxy requires a user name and a password, or other ones")]
    ProxyLogin,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ConnectError {
    fn from_proxy_error(fault: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let fault = fault.into();
        // A status of 407: the library's error has it only in its message.
        if fault.to_string().contains("authorization required") {
            Self::ProxyLogin
        } else {
            Self::Proxy(fault)
        }
    }
}

/// The connector of the pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct BackendConnector {
    guard: Arc<AddressGuard>,
    proxies: Arc<Proxies>,
    /// For proxies, and for backends over HTTP/1.1.
    http1: Arc<ClientConfig>,
    backend: Arc<ClientConfig>,
}

/// The destination of a connection.
struct ConnectTarget {
    host: String,
    port: u16,
    is_tls: bool,
}

impl BackendConnector {
    /// Creates a connector that speaks HTTP/1.1. `tls` defines which certificates are trusted.
    pub(super) fn new(guard: AddressGuard, tls: ClientConfig, proxies: Proxies) -> Self {
        let http1 = Arc::new(with_alpn(tls, &["http/1.1"]));
        Self { guard: Arc::new(guard), proxies: Arc::new(proxies), backend: http1.clone(), http1 }
    }

    /// Returns a connector that also offers HTTP/2 in ALPN.
    pub(super) fn with_http2(&self) -> Self {
        let backend = Arc::new(with_alpn((*self.http1).clone(), &["h2", "http/1.1"]));
        Self { backend, ..self.clone() }
    }

    pub(super) fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    async fn open(self, uri: Uri) -> Result<TokioIo<BackendStream>, ConnectError> {
        let target = ConnectTarget::from_uri(&uri)?;
        match self.proxies.proxy_for(&uri) {
            Some(proxy) => self.open_through(&proxy, uri, &target).await,
            None => {
                let stream = self.connect(&self.resolve_permitted(&target).await?).await?;
                self.finish_handshake(Box::new(stream), &target).await
            }
        }
        .map(TokioIo::new)
    }

    /// Connects through a proxy: in a tunnel if the backend uses TLS, else by forwarded requests.
    async fn open_through(
        self,
        proxy: &Intercept,
        uri: Uri,
        target: &ConnectTarget,
    ) -> Result<BackendStream, ConnectError> {
        if !self.guard.permits_proxying(&target.host, target.port) {
            return Err(ConnectError::Forbidden);
        }
        if !target.is_tls {
            let reached =
                self.connect_to_proxy(proxy.uri().clone()).await.map_err(ConnectError::from_proxy_error)?;
            return Ok(BackendStream { is_proxied: true, ..reached.into_inner() });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), ProxyConnector(self.clone()));
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let opened = tokio::time::timeout(TUNNEL_TIMEOUT, tunnel.call(uri)).await;
        let opened =
            opened.map_err(ConnectError::from_proxy_error)?.map_err(ConnectError::from_proxy_error)?;
        self.finish_handshake(Box::new(opened.into_inner()), target).await
    }

    /// Connects to the proxy itself; its address is the operator's and not checked.
    async fn connect_to_proxy(self, proxy: Uri) -> Result<TokioIo<BackendStream>, ConnectError> {
        let target = ConnectTarget::from_uri(&proxy)?;
        let stream = self.connect(&self.resolve(&target).await?).await?;
        let connector = Self { backend: self.http1.clone(), ..self };
        connector.finish_handshake(Box::new(stream), &target).await.map(TokioIo::new)
    }

    async fn finish_handshake(
        &self,
        stream: Box<dyn ByteStream>,
        target: &ConnectTarget,
    ) -> Result<BackendStream, ConnectError> {
        if !target.is_tls {
            return Ok(BackendStream::new(stream, false));
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| ConnectError::NoHost)?;
        let stream = TlsConnector::from(self.backend.clone()).connect(name, stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(BackendStream::new(Box::new(stream), is_http2))
    }

    /// Returns the permitted addresses of a host, in the resolver's order (RFC 6724).
    async fn resolve_permitted(&self, target: &ConnectTarget) -> Result<Vec<SocketAddr>, ConnectError> {
        if !self.guard.may_permit(&target.host) {
            return Err(ConnectError::Forbidden);
        }
        let found = self.resolve(target).await?.into_iter();
        let permitted: Vec<_> = found.filter(|&at| self.guard.permits(&target.host, at)).collect();
        if permitted.is_empty() { Err(ConnectError::Forbidden) } else { Ok(permitted) }
    }

    async fn resolve(&self, target: &ConnectTarget) -> Result<Vec<SocketAddr>, ConnectError> {
        let found = DnsResolver::global().lookup(&target.host).await?;
        Ok(found.iter().map(|&address| SocketAddr::new(address, target.port)).collect())
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
        let mut last = ConnectError::TimedOut;
        let timeout = if addresses.len() == 1 { CONNECT_TIMEOUT } else { ADDRESS_TIMEOUT };
        for &address in addresses {
            match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error.into(),
                Err(_) => last = ConnectError::TimedOut,
            }
        }
        Err(last)
    }
}

/// Returns the configuration with these ALPN protocols (RFC 7301).
fn with_alpn(mut tls: ClientConfig, protocols: &[&str]) -> ClientConfig {
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    tls
}

impl ConnectTarget {
    fn from_uri(uri: &Uri) -> Result<Self, ConnectError> {
        let host = uri.host().ok_or(ConnectError::NoHost)?.trim_matches(['[', ']']).to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { host, port, is_tls })
    }
}

type ConnectFuture = Pin<Box<dyn Future<Output = Result<TokioIo<BackendStream>, ConnectError>> + Send>>;

impl Service<Uri> for BackendConnector {
    type Response = TokioIo<BackendStream>;
    type Error = ConnectError;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let opening = self.clone().open(target);
        Box::pin(async {
            tokio::time::timeout(CONNECT_TIMEOUT, opening).await.unwrap_or(Err(ConnectError::TimedOut))
        })
    }
}

/// Connects to the proxy on behalf of a [`Tunnel`].
#[derive(Clone)]
struct ProxyConnector(BackendConnector);

impl Service<Uri> for ProxyConnector {
    type Response = TokioIo<BackendStream>;
    type Error = ConnectError;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        Box::pin(self.0.clone().connect_to_proxy(proxy))
    }
}

/// A byte stream: TCP, TLS over TCP, a tunnel through a proxy, or TLS within a tunnel.
trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// An open connection that meters its traffic.
pub(super) struct BackendStream {
    stream: Box<dyn ByteStream>,
    is_http2: bool,
    /// Whether a proxy reads the requests, which must then carry an absolute URI.
    is_proxied: bool,
    meter: Arc<ConnectionMeter>,
}

impl BackendStream {
    fn new(stream: Box<dyn ByteStream>, is_http2: bool) -> Self {
        let meter = if is_http2 { ConnectionMeter::multiplexed() } else { ConnectionMeter::exclusive() };
        Self { stream, is_http2, is_proxied: false, meter: Arc::new(meter) }
    }
}

impl fmt::Debug for BackendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendStream").field("is_http2", &self.is_http2).finish_non_exhaustive()
    }
}

impl Connection for BackendStream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_proxied).extra(self.meter.clone());
        if self.is_http2 { connected.negotiated_h2() } else { connected }
    }
}

impl AsyncRead for BackendStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        Poll::Ready(if read == 0 { Ok(()) } else { this.meter.on_read(read as u64) })
    }
}

impl AsyncWrite for BackendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.meter.on_write();
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.meter.on_write();
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Builds the TLS configuration, which trusts the machine's CA certificates (`SSL_CERT_FILE` and
/// `SSL_CERT_DIR` included).
pub(super) fn tls_config() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("aws-lc speaks TLS 1.2 and 1.3");
    match Verifier::new(provider) {
        Ok(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "this machine trusts no certificate authority, so no https backend can be reached; install \
                 CA certificates (Debian: ca-certificates) or set SSL_CERT_FILE"
            );
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    }
}

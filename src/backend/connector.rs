//! Opens connections: resolves, keeps only addresses that the [`AddressGuard`] permits, connects, and speaks TLS.
//!
//! The guard sits between resolving and connecting, so that no trick of the name system gets past it: what was judged
//! is what is connected to.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::guard::AddressGuard;

/// The longest a connection may take, from name to handshake.
const CONNECT: Duration = Duration::from_secs(3);
/// The longest one of several addresses may take before the next is tried.
const ONE_ADDRESS: Duration = Duration::from_millis(1200);
/// Names are resolved on the blocking pool, which a name server that hangs must not fill.
const LOOKUPS: usize = 64;

/// Why a connection could not be opened, where the caller cares.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFault {
    #[error("every address of the host is forbidden")]
    Forbidden,
    #[error("the host has no address")]
    NoAddress,
    #[error("the connection took longer than {} s", CONNECT.as_secs())]
    TimedOut,
    #[error("the URL names no host")]
    NoHost,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the pool asks for connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    guard: Arc<AddressGuard>,
    tls: TlsConnector,
    lookups: Arc<Semaphore>,
}

impl Connector {
    /// `tls` says whom to trust.
    pub(super) fn new(guard: AddressGuard, mut tls: rustls::ClientConfig) -> Self {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { guard: Arc::new(guard), tls: Arc::new(tls).into(), lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }

    async fn open(self, target: Uri) -> Result<TokioIo<Wire>, ConnectFault> {
        let host = target.host().ok_or(ConnectFault::NoHost)?.trim_matches(['[', ']']);
        let is_tls = target.scheme_str() == Some("https");
        let port = target.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = self.connect(&self.resolve(host, port).await?).await?;
        Ok(TokioIo::new(if is_tls { self.handshake(host, stream).await? } else { Wire::Plain(stream) }))
    }

    /// The addresses that are permitted, in the resolver's order (RFC 6724).
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectFault> {
        let _place = self.lookups.acquire().await;
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        if found.is_empty() {
            return Err(ConnectFault::NoAddress);
        }
        let permitted: Vec<_> = found.into_iter().filter(|&address| self.guard.permits(address)).collect();
        if permitted.is_empty() { Err(ConnectFault::Forbidden) } else { Ok(permitted) }
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectFault> {
        let mut last = ConnectFault::NoAddress;
        let patience = if addresses.len() == 1 { CONNECT } else { ONE_ADDRESS };
        for &address in addresses {
            match tokio::time::timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error.into(),
                Err(_) => last = ConnectFault::TimedOut,
            }
        }
        Err(last)
    }

    async fn handshake(&self, host: &str, stream: TcpStream) -> Result<Wire, ConnectFault> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectFault::NoHost)?;
        Ok(Wire::Tls(Box::new(self.tls.connect(name, stream).await?)))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = ConnectFault;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let opening = self.clone().open(target);
        Box::pin(async {
            tokio::time::timeout(CONNECT, opening).await.unwrap_or(Err(ConnectFault::TimedOut))
        })
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

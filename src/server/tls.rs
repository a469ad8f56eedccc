//! TLS: 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, certificates from a snapshot.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certs::Certificates;

/// The protocol that ALPN chose; without ALPN it is HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The one TLS configuration: made once, so that tickets survive every change of certificates.
pub(super) fn config(certificates: &Arc<Certificates>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(certificates.resolver());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A replayed tool call is a second call, so there is no 0-RTT.
    config.max_early_data_size = 0;
    match aws_lc_rs::Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => tracing::warn!(%error, "TLS session tickets are off"),
    }
    Arc::new(config)
}

/// Shakes hands before the deadline. The hello is read before the configuration is chosen, which is where ACME's
/// TLS-ALPN challenge (RFC 8737) branches off.
pub(super) async fn handshake<S>(
    stream: S,
    config: Arc<ServerConfig>,
    deadline: Duration,
) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let shake = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        hello.into_stream(config).await
    };
    tokio::time::timeout(deadline, shake).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// The protocol chosen in a finished handshake.
pub(super) fn protocol<S>(stream: &TlsStream<S>) -> Protocol {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    }
}

/// The name asked for, if any; clients that connect to an address send none.
pub(super) fn server_name<S>(stream: &TlsStream<S>) -> Option<Box<str>> {
    stream.get_ref().1.server_name().map(|name| name.to_ascii_lowercase().into())
}

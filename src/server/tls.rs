//! TLS: 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, certificates from a snapshot.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{Acceptor, ResolvesServerCert};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// The protocol that ALPN chose; without ALPN it is HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The one TLS configuration: made once, so that tickets survive every change of certificates.
pub(super) fn config(certificates: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(certificates);
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

#[cfg(test)]
mod tests {
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::duplex;
    use tokio_rustls::TlsConnector;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// A server's configuration and a client's that trusts it.
    fn configs() -> (Arc<ServerConfig>, ClientConfig) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let chain = vec![made.cert.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).expect("a root");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = CertifiedKey::from_der(chain, key, &provider).expect("a key that fits");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (config(Arc::new(SingleCertAndKey::from(key))), client)
    }

    async fn shaken(alpn: &[&[u8]]) -> (Protocol, Option<Box<str>>) {
        let (server, mut client) = configs();
        client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let (near, far) = duplex(1 << 16);
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(client));
        let (client, server) = tokio::join!(connector.connect(name, near), handshake(far, server, DEADLINE));
        client.expect("the client is satisfied");
        let server = server.expect("a handshake");
        (protocol(&server), server_name(&server))
    }

    #[tokio::test]
    async fn alpn_chooses_and_http1_is_for_those_without() {
        assert_eq!(shaken(&[b"h2", b"http/1.1"]).await.0, Protocol::Http2);
        assert_eq!(shaken(&[b"http/1.1"]).await.0, Protocol::Http1);
        assert_eq!(shaken(&[]).await, (Protocol::Http1, Some("localhost".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_cut_at_the_deadline() {
        let (_silent, far) = duplex(1 << 10);
        let cut = handshake(far, configs().0, DEADLINE).await.expect_err("nobody spoke");
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    }
}

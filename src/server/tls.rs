//! TLS 1.2 and 1.3 for HTTP/2 and HTTP/1.1 (chosen by ALPN), with certificates from a snapshot.

use std::io;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{Acceptor, ResolvesServerCert};
use rustls::{CipherSuite, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::certs::{ACME_TLS_ALPN, ChallengeServer};

/// The protocol negotiated by ALPN; HTTP/1.1 without ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Builds the TLS configuration. It is built once, so that session tickets survive every change of
/// certificates.
pub(super) fn server_config(certificates: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // The server's order of cipher suites wins, see `provider`.
    config.ignore_client_order = true;
    // One ticket suffices for a resumption; each costs an encryption and is sent to every client.
    config.send_tls13_tickets = 1;
    // No 0-RTT: a replayed tool call is a second call.
    config.max_early_data_size = 0;
    match aws_lc_rs::Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => tracing::warn!(%error, "TLS session tickets are off"),
    }
    Arc::new(config)
}

/// Returns the crypto provider with AES-128 preferred to AES-256: it is as safe for the lifetime of
/// a session, and processors have instructions for its SHA-256. SHA-384 of the AES-256 suites is an
/// eighth of the cost of a handshake.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !uses_aes_128(suite.suite()));
    provider
}

fn uses_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The outcome of a handshake.
pub(super) enum Handshake {
    /// The connection is ready for HTTP.
    Tls(Box<TlsStream<TcpStream>>),
    /// The client spoke plain HTTP and got an error that says to use HTTPS.
    PlainHttp(TcpStream),
    /// A CA validated its challenge (TLS-ALPN-01, RFC 8737). Such a connection has a TLS
    /// configuration of its own and never reaches HTTP.
    AcmeChallenge,
}

/// Performs the handshake. `nameless` has the certificate for clients that send no server name.
pub(super) async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    challenges: Option<ChallengeServer>,
    nameless: Option<Arc<dyn ResolvesServerCert>>,
) -> io::Result<Handshake> {
    if starts_with_http(&stream).await? {
        return advise_https(stream).await.map(Handshake::PlainHttp);
    }
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    if let Some(challenges) = challenges.filter(|_| is_acme_challenge(&hello)) {
        let name = hello.client_hello().server_name().map(str::to_owned);
        let mut stream = hello.into_stream(challenges.config_for(name.as_deref()).await).await?;
        return stream.shutdown().await.map(|()| Handshake::AcmeChallenge);
    }
    let config = match nameless.filter(|_| hello.client_hello().server_name().is_none()) {
        Some(resolver) => {
            let mut config = ServerConfig::clone(&config);
            config.cert_resolver = resolver;
            Arc::new(config)
        }
        None => config,
    };
    hello.into_stream(config).await.map(|stream| Handshake::Tls(Box::new(stream)))
}

fn is_acme_challenge(hello: &StartHandshake<TcpStream>) -> bool {
    hello
        .client_hello()
        .alpn()
        .is_some_and(|mut offered| offered.next() == Some(ACME_TLS_ALPN) && offered.next().is_none())
}

/// Peeks at the first byte: an HTTP method begins with a capital letter, a TLS handshake record
/// with 0x16.
async fn starts_with_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let peeked = stream.peek(&mut first).await?;
    Ok(peeked == 1 && first[0].is_ascii_uppercase())
}

/// Answers a plain HTTP request with the advice to use HTTPS.
async fn advise_https(mut stream: TcpStream) -> io::Result<TcpStream> {
    let document = concat!(
        r#"{"type":"about:blank","title":"Bad Request","status":400,"#,
        r#""detail":"this port speaks HTTPS; begin the address with https://"}"#
    );
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{document}",
        document.len()
    );
    stream.write_all(answer.as_bytes()).await.map(|()| stream)
}

/// Returns the protocol that ALPN chose in a finished handshake.
pub(super) fn negotiated_protocol<S>(stream: &TlsStream<S>) -> Protocol {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    }
}

/// Returns the server name from SNI in lower case; clients that connect to an address send none.
pub(super) fn server_name<S>(stream: &TlsStream<S>) -> Option<Box<str>> {
    stream.get_ref().1.server_name().map(|name| name.to_ascii_lowercase().into())
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConfig, HandshakeKind, NamedGroup, RootCertStore, SupportedCipherSuite};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Returns a server configuration and a client configuration that trusts it.
    pub(in crate::server) fn configs() -> (Arc<ServerConfig>, ClientConfig) {
        let (key, root) = certified_key();
        let client = trusting(&[root], aws_lc_rs::default_provider());
        (server_config(Arc::new(SingleCertAndKey::from(key))), client)
    }

    async fn shake_hands(alpn: &[&[u8]]) -> (Protocol, Option<Box<str>>) {
        let (server, mut client) = configs();
        client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let near =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (far, _) = listener.accept().await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(client));
        let (client, server) =
            tokio::join!(connector.connect(name, near), handshake(far, server, None, None));
        client.expect("the client is satisfied");
        let Handshake::Tls(server) = server.expect("a handshake") else { panic!("no TLS") };
        (negotiated_protocol(&server), server_name(&server))
    }

    #[tokio::test]
    async fn alpn_selects_the_protocol_and_http1_is_the_default() {
        assert_eq!(shake_hands(&[b"h2", b"http/1.1"]).await.0, Protocol::Http2);
        assert_eq!(shake_hands(&[b"http/1.1"]).await.0, Protocol::Http1);
        assert_eq!(shake_hands(&[]).await, (Protocol::Http1, Some("localhost".into())));
    }

    /// A resolver whose certificate the test replaces.
    #[derive(Debug)]
    struct SwappableResolver(std::sync::Mutex<Arc<CertifiedKey>>);

    impl ResolvesServerCert for SwappableResolver {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            self.0.lock().ok().map(|key| Arc::clone(&key))
        }
    }

    fn certified_key() -> (Arc<CertifiedKey>, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let der = made.cert.der().clone();
        let key = CertifiedKey::from_der(vec![der.clone()], key, &aws_lc_rs::default_provider());
        (Arc::new(key.expect("a key that fits")), der)
    }

    fn trusting(certificates: &[CertificateDer<'static>], provider: CryptoProvider) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        certificates.iter().for_each(|root| roots.add(root.clone()).expect("a root"));
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// Performs a handshake and reads one byte from the server, after which the tickets have
    /// arrived.
    async fn connect_pair(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let near =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (far, _) = listener.accept().await.expect("a connection");
        let connector = TlsConnector::from(Arc::clone(client));
        let name = ServerName::try_from("localhost").expect("a name");
        let (near, far) =
            tokio::join!(connector.connect(name, near), handshake(far, Arc::clone(server), None, None));
        let (mut near, Ok(Handshake::Tls(mut far))) = (near.expect("satisfied"), far) else {
            panic!("no TLS")
        };
        far.write_all(b"x").await.expect("sent");
        far.flush().await.expect("sent");
        near.read_exact(&mut [0]).await.expect("received");
        near
    }

    #[tokio::test]
    async fn capable_clients_get_a_post_quantum_key_exchange() {
        let (key, root) = certified_key();
        let server = server_config(Arc::new(SingleCertAndKey::from(key)));
        let mut classical = aws_lc_rs::default_provider();
        classical.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
        for (provider, group) in
            [(aws_lc_rs::default_provider(), NamedGroup::X25519MLKEM768), (classical, NamedGroup::X25519)]
        {
            let client = Arc::new(trusting(std::slice::from_ref(&root), provider));
            let agreed = connect_pair(&server, &client)
                .await
                .get_ref()
                .1
                .negotiated_key_exchange_group()
                .map(|kx| kx.name());
            assert_eq!(agreed, Some(group));
        }
    }

    #[tokio::test]
    async fn sessions_outlive_a_change_of_certificates() {
        let ((first, root), (second, other)) = (certified_key(), certified_key());
        let resolver = Arc::new(SwappableResolver(std::sync::Mutex::new(first)));
        let server = server_config(Arc::clone(&resolver) as _);
        let client = Arc::new(trusting(&[root, other], aws_lc_rs::default_provider()));
        assert_eq!(
            connect_pair(&server, &client).await.get_ref().1.handshake_kind(),
            Some(HandshakeKind::Full)
        );
        *resolver.0.lock().expect("not poisoned") = second;
        let resumed = connect_pair(&server, &client).await;
        assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }

    #[tokio::test]
    async fn the_cheaper_of_two_safe_suites_is_chosen_whatever_the_client_prefers() {
        let (key, root) = certified_key();
        let server = server_config(Arc::new(SingleCertAndKey::from(key)));
        let (aes_128, aes_256, chacha) = (
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        );
        for (offered, chosen) in [
            (vec![aes_256, aes_128, chacha], aes_128),
            (vec![chacha, aes_256], aes_256),
            (vec![chacha], chacha),
        ] {
            let mut provider = aws_lc_rs::default_provider();
            let place = |suite: &SupportedCipherSuite| offered.iter().position(|name| *name == suite.suite());
            provider.cipher_suites.retain(|suite| place(suite).is_some());
            provider.cipher_suites.sort_by_key(place);
            let client = Arc::new(trusting(std::slice::from_ref(&root), provider));
            let agreed = connect_pair(&server, &client).await.get_ref().1.negotiated_cipher_suite();
            assert_eq!(agreed.map(|suite| suite.suite()), Some(chosen), "of {offered:?}");
        }
    }

    #[tokio::test]
    async fn one_ticket_is_sent() {
        let (key, root) = certified_key();
        let server = server_config(Arc::new(SingleCertAndKey::from(key)));
        let client = Arc::new(trusting(&[root], aws_lc_rs::default_provider()));
        assert_eq!(connect_pair(&server, &client).await.get_ref().1.tls13_tickets_received(), 1);
    }

    #[test]
    fn tickets_are_short_lived_and_carry_no_early_data() {
        let (key, _) = certified_key();
        let config = server_config(Arc::new(SingleCertAndKey::from(key)));
        assert!(config.ticketer.enabled());
        // rustls generates a new ticket key every six hours and accepts the previous one for as
        // long again.
        assert_eq!(config.ticketer.lifetime(), 12 * 60 * 60);
        assert_eq!((config.max_early_data_size, config.send_half_rtt_data), (0, false));
    }
}

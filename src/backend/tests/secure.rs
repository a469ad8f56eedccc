//! Backends over TLS: which certificates are trusted, and HTTP/2 where it is offered.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::address_guard::AddressGuard;
use super::super::connector::BackendConnector;
use super::super::proxies::Proxies;
use super::*;
use crate::base::task::Tasks;

/// An https backend that reports the HTTP version of each request.
struct SecureBackend {
    address: SocketAddr,
    roots: rustls::RootCertStore,
    tasks: Tasks,
}

impl SecureBackend {
    async fn start(protocols: &[&str]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("they match");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let tasks = Tasks::new();
        tasks.spawn("secure backend", accept(listener, Arc::new(config).into(), tasks.clone()));
        Self { address, roots, tasks }
    }

    /// Asks over a pool that trusts these certificates.
    async fn ask(&self, roots: rustls::RootCertStore, host: &str, http2: bool) -> Result<Value, Error> {
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let allow = vec!["127.0.0.0/8".parse().expect("a network")];
        let guard = AddressGuard::new(AddressRules { allow, ..AddressRules::default() });
        let connector = BackendConnector::new(guard, tls, Proxies::default());
        let pool = Pool::with_connector(connector, SystemClock::shared(), Arc::new(Metrics::new()));
        let spec = search(&format!("https://{host}:{}/nlp-search", self.address.port()));
        let backend = BackendSpec {
            family: Family::Nlp,
            connection_id: None,
            context: Arc::new(spec.clone()),
            user_header: None,
            http2,
            data: Default::default(),
        };
        let client =
            BackendClient::new(pool, &backend, &LimitsSpec::default(), Duration::ZERO, Arc::default());
        let call = CallContext::internal(SystemClock.monotonic() + Duration::from_secs(10));
        client.call(&spec, &question(), &call).await.map(|answer| answer.document.to_value())
    }
}

impl Drop for SecureBackend {
    fn drop(&mut self) {
        self.tasks.abort_signal().cancel();
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, tasks: Tasks) {
    while let Ok((stream, _)) = listener.accept().await {
        let tls = tls.clone();
        tasks.spawn("secure connection", async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(say_version)).await;
        });
    }
}

async fn say_version(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = if request.version() == Version::HTTP_2 { "2" } else { "1" };
    Ok(Response::new(Full::new(Bytes::from_static(body.as_bytes()))))
}

#[tokio::test]
async fn http2_is_spoken_where_the_tenant_wants_it_and_the_backend_offers_it() {
    let expectations = [
        (&["h2", "http/1.1"][..], false, Ok(json!(1))),
        (&["h2", "http/1.1"], true, Ok(json!(2))),
        (&["http/1.1"], true, Ok(json!(1))),
        (&["h2"], true, Ok(json!(2))),
        (&["h2"], false, Err(Error::OnlyHttp2)),
    ];
    for (offered, wanted, answer) in expectations {
        let backend = SecureBackend::start(offered).await;
        let asked = backend.ask(backend.roots.clone(), "localhost", wanted).await;
        assert_eq!(asked, answer, "{offered:?}, wanted: {wanted}");
    }
}

#[tokio::test]
async fn a_certificate_of_nobody_or_of_another_is_not_trusted() {
    let backend = SecureBackend::start(&["http/1.1"]).await;
    let stranger = SecureBackend::start(&["http/1.1"]).await;
    assert_eq!(backend.ask(stranger.roots.clone(), "localhost", false).await, Err(Error::Untrusted));
    assert_eq!(backend.ask(backend.roots.clone(), "127.0.0.1", false).await, Err(Error::Untrusted));
}

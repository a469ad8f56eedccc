//! TLS on the admin listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ResolvesServerCert;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certs::{self, Certificates};
use crate::settings::AdminTls;

const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Returns the configuration that the settings ask for; `None` is plain HTTP.
///
/// # Errors
/// The files of the certificate cannot be used.
pub fn build(
    tls: Option<&AdminTls>,
    certificates: &Arc<Certificates>,
) -> Result<Option<Arc<ServerConfig>>, certs::Error> {
    let resolver = match tls {
        None | Some(AdminTls::Off) => return Ok(None),
        Some(AdminTls::Gateway) => certificates.resolver(),
        Some(AdminTls::Files { certificate, key }) => {
            certificates.file_resolver(certificate.clone(), key.clone())?
        }
    };
    Ok(Some(Arc::new(config(resolver))))
}

fn config(resolver: Arc<dyn ResolvesServerCert>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Performs the handshake.
///
/// # Errors
/// The client does not speak TLS, or is too slow.
pub(super) async fn accept(
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> io::Result<Box<TlsStream<TcpStream>>> {
    let handshake = TlsAcceptor::from(config).accept(stream);
    tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await?.map(Box::new)
}

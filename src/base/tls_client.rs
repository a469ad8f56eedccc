//! TLS configurations of clients in this process: whom they trust, and what they prove themselves
//! by.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine has no root certificates.
    #[error(
        "this machine trusts no certificate authority ({0}); install CA certificates (Debian: \
         ca-certificates) or set SSL_CERT_FILE"
    )]
    NoRoots(String),
    /// A file cannot be used.
    #[error("{} cannot be used: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What a client proves itself by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The PEM file with the chain.
    pub certificate_file: PathBuf,
    /// The PEM file with the private key.
    pub key_file: PathBuf,
}

/// Returns the configuration of a client that trusts only the certificates in `root`, or else
/// those that this machine trusts. Blocks.
///
/// # Errors
/// A file cannot be used, or this machine trusts nobody.
pub fn config(root: Option<&Path>) -> Result<ClientConfig, Error> {
    Ok(builder(root)?.with_no_client_auth())
}

/// Like [`config`], for a client that proves itself by a certificate. Blocks.
///
/// # Errors
/// A file cannot be used, or this machine trusts nobody.
pub fn config_with_identity(root: Option<&Path>, identity: &ClientIdentity) -> Result<ClientConfig, Error> {
    let chain = read_certificates(&identity.certificate_file)?;
    let key = PrivateKeyDer::from_pem_file(&identity.key_file)
        .map_err(|error| file_error(&identity.key_file, error))?;
    let config = builder(root)?.with_client_auth_cert(chain, key);
    config.map_err(|error| file_error(&identity.certificate_file, error))
}

/// Reads the certificates of a PEM file as roots. Blocks.
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub fn read_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| file_error(path, error))?;
    }
    Ok(roots)
}

fn builder(root: Option<&Path>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("aws-lc speaks TLS 1.2 and 1.3");
    if let Some(path) = root {
        return Ok(builder.with_root_certificates(read_roots(path)?));
    }
    let verifier = rustls_platform_verifier::Verifier::new(provider);
    let verifier = verifier.map_err(|error| Error::NoRoots(error.to_string()))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.map_err(|error| file_error(path, error))?;
    match certificates.is_empty() {
        true => Err(file_error(path, "it contains no certificate")),
        false => Ok(certificates),
    }
}

fn file_error(path: &Path, why: impl ToString) -> Error {
    Error::File { file: path.to_owned(), why: why.to_string() }
}

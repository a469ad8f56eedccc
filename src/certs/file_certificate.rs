//! A certificate from two files that an operator names, read again when they change.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Error;
use super::key_files::MAX_FILE_BYTES;
use super::server_certificate::{PemContents, ServerCertificate};
use crate::base::clock::Clock;
use crate::base::disk::{self, Stamp};
use crate::base::sync::lock;

/// Returns a resolver that serves the certificate of these PEM files to everybody.
///
/// # Errors
/// They cannot be read now, or do not fit each other. Later the last good pair is served.
pub(super) fn file_resolver(
    certificate: PathBuf,
    key: PathBuf,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn ResolvesServerCert>, Error> {
    let files = [certificate, key];
    let stamps = files.each_ref().map(|file| Stamp::of(file).ok());
    let current = Mutex::new((stamps, read(&files, clock.now())?));
    Ok(Arc::new(FileCertificate { files, clock, current }))
}

struct FileCertificate {
    files: [PathBuf; 2],
    clock: Arc<dyn Clock>,
    current: Mutex<([Option<Stamp>; 2], Arc<CertifiedKey>)>,
}

impl std::fmt::Debug for FileCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FileCertificate").field(&self.files[0]).finish()
    }
}

impl ResolvesServerCert for FileCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = lock(&self.current);
        // Two calls of the kernel for each of few connections.
        let stamps = self.files.each_ref().map(|file| Stamp::of(file).ok());
        if stamps != current.0 {
            current.0 = stamps;
            match read(&self.files, self.clock.now()) {
                Ok(key) => current.1 = key,
                Err(error) => tracing::warn!(
                    file = %self.files[0].display(), %error,
                    "the admin listener's certificate cannot be used; it goes on with the last one"
                ),
            }
        }
        Some(Arc::clone(&current.1))
    }
}

/// Reads a pair. One that has expired is served all the same: a client may still accept it.
fn read(files: &[PathBuf; 2], now: Timestamp) -> Result<Arc<CertifiedKey>, Error> {
    let [certificate, key] = files;
    let contents = |file: &PathBuf| {
        let bytes = disk::read(file, MAX_FILE_BYTES).map_err(|error| Error(error.to_string()));
        bytes.and_then(|bytes| PemContents::parse(&bytes)).map_err(|error| in_file(file, &error))
    };
    let (chain, keys) = (contents(certificate)?.chain, contents(key)?.keys);
    let first = keys.into_iter().next().ok_or_else(|| in_file(key, &"it contains no private key"))?;
    let pair = ServerCertificate::new(chain, first).map_err(|error| in_file(certificate, &error))?;
    if pair.not_after <= now {
        tracing::warn!(
            file = %certificate.display(), until = %pair.not_after,
            "the admin listener's certificate has expired, so clients refuse it; put a new one into its files"
        );
    }
    Ok(pair.certified_key)
}

fn in_file(file: &std::path::Path, error: &dyn std::fmt::Display) -> Error {
    Error(format!("the admin listener's file {} (admin_tls) cannot be used: {error}", file.display()))
}

//! The untrusted certificate for names without a certificate yet: generated in milliseconds and
//! kept in memory only.

use std::sync::Arc;

use jiff::Timestamp;

use crate::certs::Error;
use crate::certs::local_ca::{LOOPBACK_NAMES, LocalCa};
use crate::certs::server_certificate::ServerCertificate;

/// The most names it is for.
const MAX_NAMES: usize = 100;

/// Generated when it is first needed, and again when the names have changed.
#[derive(Debug, Default)]
pub(super) struct PlaceholderCertificate {
    cached: Option<Arc<ServerCertificate>>,
}

impl PlaceholderCertificate {
    /// Returns the certificate for these names and for loopback.
    pub(super) fn get_or_generate(
        &mut self,
        names: &[String],
        now: Timestamp,
    ) -> Result<Arc<ServerCertificate>, Error> {
        if let Some(certificate) = &self.cached {
            return Ok(certificate.clone());
        }
        let mut names: Vec<String> = names.iter().take(MAX_NAMES).cloned().collect();
        names.extend(LOOPBACK_NAMES.map(str::to_owned));
        names.sort();
        names.dedup();
        let pem = LocalCa::generate(now)?.issue(&names, now)?;
        let certificate = Arc::new(ServerCertificate {
            is_placeholder: true,
            ..ServerCertificate::from_pem(pem.as_bytes())?
        });
        self.cached = Some(certificate.clone());
        Ok(certificate)
    }

    /// Discards the certificate, because other names need one now.
    pub(super) fn invalidate(&mut self) {
        self.cached = None;
    }
}

//! The untrusted certificate for names without a certificate yet: generated in milliseconds and
//! kept in memory only.

use std::sync::Arc;

use jiff::Timestamp;

use crate::certs::Error;
use crate::certs::local_ca::{LOOPBACK, LocalCa};
use crate::certs::material::Material;

/// The most names it is for.
const NAMES: usize = 100;

/// Generated when it is first needed, and again when the names have changed.
#[derive(Debug, Default)]
pub(super) struct Bootstrap {
    made: Option<Arc<Material>>,
}

impl Bootstrap {
    /// Returns the certificate for these names and for loopback.
    pub(super) fn certificate(&mut self, names: &[String], now: Timestamp) -> Result<Arc<Material>, Error> {
        if let Some(made) = &self.made {
            return Ok(made.clone());
        }
        let mut names: Vec<String> = names.iter().take(NAMES).cloned().collect();
        names.extend(LOOPBACK.map(str::to_owned));
        names.sort();
        names.dedup();
        let pem = LocalCa::make(now)?.issue(&names, now)?;
        let made = Arc::new(Material { is_stopgap: true, ..Material::from_pem(pem.as_bytes())? });
        self.made = Some(made.clone());
        Ok(made)
    }

    /// Discards the certificate, because other names need one now.
    pub(super) fn renew(&mut self) {
        self.made = None;
    }
}

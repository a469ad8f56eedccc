//! Floor 2: certificates. Something is always served.

use std::path::Path;
use std::sync::Arc;

use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::settings::TlsMode;
use crate::spec::HostName;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The certificates in force: a snapshot that the TLS callback reads; ACME will be one more writer.
#[derive(Debug)]
pub struct Certificates {}

impl Certificates {
    /// Loads or makes what `mode` asks for; spawns the task that reloads manual files. `hosts` are the names wanted now.
    pub fn start(
        _mode: TlsMode,
        _folder: &Path,
        _hosts: Vec<HostName>,
        _clock: Arc<dyn Clock>,
        _tasks: &Tasks,
    ) -> Result<Arc<Self>, Error> {
        unimplemented!("owner: certs")
    }

    /// Says which names are wanted from now on (settings ∪ tenants' hosts).
    pub fn want(&self, _hosts: Vec<HostName>) {
        unimplemented!("owner: certs")
    }

    /// The resolver to put into the TLS configuration.
    pub fn resolver(self: &Arc<Self>) -> Arc<dyn rustls::server::ResolvesServerCert> {
        unimplemented!("owner: certs")
    }

    /// The names of the certificate that a SNI value would get, for the 421 rule.
    pub fn covers(&self, _sni: &str, _host: &str) -> bool {
        unimplemented!("owner: certs")
    }
}

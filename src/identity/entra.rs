//! The parts of the Entra client that all tenants share: the transport and the directories.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use url::Url;

use super::directory::EntraDirectory;
use super::transport::EntraTransport;
use crate::base::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// Entra as this gateway reaches it.
pub struct Entra {
    authority: Url,
    pub(super) transport: EntraTransport,
    /// By id, domain or audience. The tenants that use a directory own it.
    directories: Mutex<HashMap<Arc<str>, Weak<EntraDirectory>>>,
}

impl Entra {
    /// Creates the shared client. `authority` is the scheme and host of all directories, e.g.
    /// `https://login.microsoftonline.com`.
    pub fn new(authority: Url, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Arc<Self> {
        let transport = EntraTransport::new(authority.clone(), clock, metrics);
        Arc::new(Self { authority, transport, directories: Mutex::default() })
    }

    /// Returns the directory with this id, domain or audience; tenants that name the same one share
    /// it.
    pub(super) fn directory(&self, name: &Arc<str>) -> Arc<EntraDirectory> {
        let mut directories = self.directories.lock().expect("no holder of this lock panics");
        if let Some(directory) = directories.get(name).and_then(Weak::upgrade) {
            return directory;
        }
        // Entries whose tenants are gone are dropped only when the map would have to grow.
        if directories.len() == directories.capacity() {
            directories.retain(|_, directory| directory.strong_count() > 0);
        }
        let directory = Arc::new(EntraDirectory::new(Arc::clone(name)));
        directories.insert(Arc::clone(name), Arc::downgrade(&directory));
        directory
    }
}

impl fmt::Debug for Entra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entra({})", self.authority)
    }
}

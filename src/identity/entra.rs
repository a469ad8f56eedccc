//! What all tenants share of Entra: the way there, and the directories they look at.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use url::Url;

use super::directory::Directory;
use super::transport::Transport;
use crate::base::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// Entra as this gateway reaches it.
pub struct Entra {
    authority: Url,
    pub(super) transport: Transport,
    /// By id, domain or audience. Held by the tenants that use them.
    directories: Mutex<HashMap<Arc<str>, Weak<Directory>>>,
}

impl Entra {
    /// `authority` is the scheme and host of all directories, e.g. `https://login.microsoftonline.com`.
    pub fn new(authority: Url, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Arc<Self> {
        let transport = Transport::new(authority.clone(), clock, metrics);
        Arc::new(Self { authority, transport, directories: Mutex::default() })
    }

    /// The directory of this id, domain or audience: the same one for all tenants that have it.
    pub(super) fn directory(&self, name: &Arc<str>) -> Arc<Directory> {
        let mut directories = self.directories.lock().expect("no holder of this lock panics");
        if let Some(directory) = directories.get(name).and_then(Weak::upgrade) {
            return directory;
        }
        // Those of tenants that are gone go when there is no room left without growing.
        if directories.len() == directories.capacity() {
            directories.retain(|_, directory| directory.strong_count() > 0);
        }
        let directory = Arc::new(Directory::new(Arc::clone(name)));
        directories.insert(Arc::clone(name), Arc::downgrade(&directory));
        directory
    }
}

impl fmt::Debug for Entra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entra({})", self.authority)
    }
}

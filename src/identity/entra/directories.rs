//! Entra as this gateway reaches it: the transport and the directories that all tenants share.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use url::Url;

use super::BRAND;
use super::aadsts::DIRECTORY_UNKNOWN;
use crate::base::clock::Clock;
use crate::base::sync::lock_unpoisoned;
use crate::identity::oidc::discovery::{MetadataCache, MetadataSource};
use crate::identity::oidc::transport::ProviderTransport;
use crate::telemetry::metrics::Metrics;

/// The transport to Entra and the metadata of its directories.
pub(in crate::identity) struct EntraConnection {
    authority: Url,
    pub(super) transport: ProviderTransport,
    /// By id, domain or audience. The tenants that use a directory own it.
    directories: Mutex<HashMap<Arc<str>, Weak<MetadataCache>>>,
}

impl EntraConnection {
    /// Creates the shared client. `authority` is the scheme and host of all directories, e.g.
    /// `https://login.microsoftonline.com`.
    pub(in crate::identity) fn new(
        authority: Url,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let is_https = authority.scheme() == "https";
        let transport = ProviderTransport::new(&BRAND, is_https, clock, metrics);
        Arc::new(Self { authority, transport, directories: Mutex::default() })
    }

    /// Returns the URL of `path` in a directory.
    pub(super) fn url(&self, directory: &str, path: &str) -> Url {
        let mut url = self.authority.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(directory).extend(path.split('/'));
        }
        url
    }

    /// Returns the metadata of the directory with this id, domain or audience; tenants that name
    /// the same one share it.
    pub(super) fn metadata_cache(&self, name: &Arc<str>) -> Arc<MetadataCache> {
        let mut directories = lock_unpoisoned(&self.directories);
        if let Some(directory) = directories.get(name).and_then(Weak::upgrade) {
            return directory;
        }
        // Entries whose tenants are gone are dropped only when the map would have to grow.
        if directories.len() == directories.capacity() {
            directories.retain(|_, directory| directory.strong_count() > 0);
        }
        let directory = Arc::new(MetadataCache::new(MetadataSource {
            directory: Arc::clone(name),
            configuration: self.url(name, "v2.0/.well-known/openid-configuration"),
            keys: self.url(name, "discovery/v2.0/keys"),
            not_found: &DIRECTORY_UNKNOWN,
        }));
        directories.insert(Arc::clone(name), Arc::downgrade(&directory));
        directory
    }
}

impl fmt::Debug for EntraConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntraConnection({})", self.authority)
    }
}

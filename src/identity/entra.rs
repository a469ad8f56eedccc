//! What all tenants share of Entra: the way there, and what directories publish.

use std::sync::Arc;

use url::Url;

use crate::base::clock::Clock;

/// Entra as this gateway reaches it.
#[derive(Debug)]
pub struct Entra {
    authority: Url,
    #[expect(dead_code, reason = "keys age by it")]
    clock: Arc<dyn Clock>,
}

impl Entra {
    /// `authority` is the scheme and host of all directories, e.g. `https://login.microsoftonline.com`.
    pub fn new(authority: Url, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { authority, clock })
    }

    pub(super) fn authority(&self) -> &Url {
        &self.authority
    }
}

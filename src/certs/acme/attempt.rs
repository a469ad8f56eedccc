//! What one attempt at one certificate works with, what it brings, and why it fails.

use std::sync::Arc;

use super::account_locks::AccountLocks;
use super::fault;
use super::http::Http;
use super::store::Store;
use crate::base::clock::Clock;
use crate::certs::challenges::Challenges;
use crate::certs::material::Material;
use crate::certs::schedule::{Challenge, Failure};
use crate::settings;

/// What an attempt works with.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) name: String,
    pub(super) ca: settings::Ca,
    pub(super) acme: Arc<settings::Acme>,
    pub(super) store: Arc<Store>,
    pub(super) account_locks: Arc<AccountLocks>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether anything of ours listens for HTTP-01.
    pub(super) http01: bool,
    pub(super) purpose: Purpose,
}

/// What an attempt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A certificate to serve.
    Serve,
    /// To see at staging that the name is ours, before an order is placed for good.
    Prove,
    /// To show somebody whether it would work. Nothing is remembered of it.
    Show,
}

/// What an attempt brought.
#[derive(Debug)]
pub(super) struct Obtained {
    /// Key and chain.
    pub(super) pem: String,
    pub(super) material: Material,
    pub(super) challenge: Challenge,
}

/// Why an order came to nothing, where it matters what is tried next.
pub(super) enum Trouble {
    Failed(Failure),
    /// The CA doesn't know our account.
    NoAccount(Failure),
    /// The CA doesn't want to hear which certificate is replaced.
    Replaces(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Attempt {
    /// The client that this attempt speaks to the CA with.
    pub(super) fn http(&self) -> Result<Http, Failure> {
        Http::new(self.acme.ca_root.as_deref()).map_err(|error| fault::refused(error.to_string()))
    }

    /// Works with the folder, where blocking is fine.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> T {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.expect("the store does not panic")
    }
}

impl Trouble {
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) | Self::NoAccount(failure) | Self::Replaces(failure) => failure,
        }
    }
}

pub(super) fn word(way: Challenge) -> &'static str {
    match way {
        Challenge::TlsAlpn => "tls-alpn-01",
        Challenge::Http => "http-01",
    }
}

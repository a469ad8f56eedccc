//! One attempt at one certificate: its dependencies, its result, and why it fails.

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

/// The dependencies and parameters of an attempt.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) name: String,
    pub(super) ca: settings::Ca,
    pub(super) acme: Arc<settings::Acme>,
    pub(super) store: Arc<Store>,
    pub(super) account_locks: Arc<AccountLocks>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether a listener of this process can answer HTTP-01.
    pub(super) http01: bool,
    pub(super) purpose: Purpose,
}

/// The purpose of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To obtain a certificate to serve.
    Serve,
    /// To test at staging that the CA can validate the name, before a real order is placed.
    Prove,
    /// To show an operator whether an order would succeed. Nothing is remembered.
    Show,
}

/// The result of a successful attempt.
#[derive(Debug)]
pub(super) struct Obtained {
    /// PEM of key and chain.
    pub(super) pem: String,
    pub(super) material: Material,
    pub(super) challenge: Challenge,
}

/// Why an order failed, as far as it determines the next try.
pub(super) enum Trouble {
    Failed(Failure),
    /// The CA does not know the account.
    NoAccount(Failure),
    /// The CA refuses the `replaces` field (RFC 9773) of the order.
    Replaces(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Attempt {
    /// Creates the HTTP client for this attempt.
    pub(super) fn http(&self) -> Result<Http, Failure> {
        Http::new(self.acme.ca_root.as_deref()).map_err(|error| fault::refused(error.to_string()))
    }

    /// Runs `work` on the store in a thread that may block.
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

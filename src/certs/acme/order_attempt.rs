//! One attempt at one certificate: its dependencies, its result, and why it fails.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::RetryPolicy;

use super::account_locks::AccountLocks;
use super::certs_folder::CertsFolder;
use super::failure;
use super::http::AcmeHttpClient;
use crate::base::clock::Clock;
use crate::certs::challenges::ChallengeResponses;
use crate::certs::schedule::{ChallengeKind, IssuanceFailure, RenewalState};
use crate::certs::server_certificate::ServerCertificate;
use crate::settings;

/// How long a CA may take to validate a challenge, and to sign.
pub(super) const POLL_POLICY: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(100))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

/// The dependencies and parameters of an attempt.
#[derive(Clone)]
pub(super) struct OrderAttempt {
    pub(super) name: String,
    pub(super) ca: settings::Ca,
    pub(super) acme: Arc<settings::AcmeSettings>,
    pub(super) folder: Arc<CertsFolder>,
    pub(super) account_locks: Arc<AccountLocks>,
    pub(super) challenges: Arc<ChallengeResponses>,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether a listener of this process can answer HTTP-01.
    pub(super) is_http01_available: bool,
    pub(super) purpose: OrderPurpose,
}

/// The purpose of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrderPurpose {
    /// To obtain a certificate to serve.
    Serve,
    /// To test at staging that the CA can validate the name, before a real order is placed.
    Stage,
    /// To show an operator whether an order would succeed. Nothing is remembered.
    DryRun,
}

/// The result of a successful attempt.
#[derive(Debug)]
pub(super) struct ObtainedCertificate {
    /// PEM of key and chain.
    pub(super) pem: String,
    pub(super) certificate: ServerCertificate,
    pub(super) challenge: ChallengeKind,
}

/// Why an order failed, as far as it determines the next try.
pub(super) enum AttemptError {
    Failed(IssuanceFailure),
    /// The CA does not know the account.
    UnknownAccount(IssuanceFailure),
    /// The CA refuses the `replaces` field (RFC 9773) of the order.
    ReplacesRejected(IssuanceFailure),
}

impl From<IssuanceFailure> for AttemptError {
    fn from(failure: IssuanceFailure) -> Self {
        Self::Failed(failure)
    }
}

impl AttemptError {
    pub(super) fn into_failure(self) -> IssuanceFailure {
        match self {
            Self::Failed(failure) | Self::UnknownAccount(failure) | Self::ReplacesRejected(failure) => {
                failure
            }
        }
    }
}

impl OrderAttempt {
    /// Returns the same attempt at the CA's staging directory.
    pub(super) fn to_staging(&self) -> Self {
        Self { ca: self.ca.to_staging(), purpose: OrderPurpose::Stage, ..self.clone() }
    }

    /// Creates the HTTP client for this attempt.
    pub(super) fn new_http_client(&self) -> Result<AcmeHttpClient, IssuanceFailure> {
        AcmeHttpClient::new(self.acme.ca_root.as_deref())
            .map_err(|error| failure::new_refused(error.to_string()))
    }

    /// Runs `work` on the certs folder in a thread that may block.
    pub(super) async fn with_folder<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CertsFolder) -> T + Send + 'static,
    ) -> T {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || work(&folder)).await.expect("the folder's methods do not panic")
    }

    /// Writes what is remembered of the certificate. An order counts only once that is on disk.
    pub(super) async fn persist_renewal_state(&self, renewal: &RenewalState) -> Result<(), IssuanceFailure> {
        if self.purpose == OrderPurpose::DryRun {
            return Ok(());
        }
        let (name, renewal) = (self.name.clone(), renewal.clone());
        let written = self.with_folder(move |folder| folder.persist_renewal_state(&name, &renewal)).await;
        written.map_err(|error| failure::new_refused(format!("no certificate is ordered: {error}")))
    }
}

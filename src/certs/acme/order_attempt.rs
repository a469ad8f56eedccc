//! One attempt at one certificate: its dependencies, its result, and why it fails.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::RetryPolicy;

use super::account_locks::AccountLocks;
use super::certs_folder::CertsFolder;
use super::failure;
use super::http::AcmeHttpClient;
use super::lease::Lease;
use super::shared_order::SharedOrder;
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
    /// What other gateways see of it; `None` if this one shares no certificates.
    pub(super) shared: Option<SharedOrder>,
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
        let http = AcmeHttpClient::new(self.acme.ca_root.as_deref())
            .map_err(|error| failure::new_refused(error.to_string()))?;
        Ok(match self.lease() {
            Some(lease) => http.under_lease(lease.clock()),
            None => http,
        })
    }

    /// Returns the lease under which this is an order.
    pub(super) fn lease(&self) -> Option<&Arc<Lease>> {
        self.shared.as_ref().and_then(|shared| shared.lease.as_ref())
    }

    /// Makes sure that no other gateway may order, before a request that the CA counts.
    pub(super) async fn confirm_lease(&self) -> Result<(), IssuanceFailure> {
        match self.lease() {
            Some(lease) => lease.confirm().await,
            None => Ok(()),
        }
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
        if let Some(lease) = self.lease() {
            return lease.save_renewal(renewal).await;
        }
        let (name, renewal) = (self.name.clone(), renewal.clone());
        let written = self.with_folder(move |folder| folder.persist_renewal_state(&name, &renewal)).await;
        written.map_err(|error| failure::new_refused(format!("no certificate is ordered: {error}")))
    }

    /// Stores a certificate that was issued.
    pub(super) async fn persist_bundle(&self, obtained: &ObtainedCertificate) -> Result<(), IssuanceFailure> {
        let lease = self.lease();
        if let Some(lease) = lease {
            lease.save_bundle(&obtained.pem, obtained.certificate.not_before).await?;
        }
        let (name, pem) = (self.name.clone(), obtained.pem.clone());
        let written = self.with_folder(move |folder| folder.persist_bundle(&name, &pem)).await;
        match written {
            Err(error) if lease.is_some() => {
                tracing::error!(name = self.name, %error, "the certs folder has no copy of a certificate");
                Ok(())
            }
            written => written.map_err(|error| {
                failure::new_refused(format!("a certificate was issued but not stored: {error}"))
            }),
        }
    }
}

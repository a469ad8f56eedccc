//! The lease of a certificate that several gateways could order: one of them orders at a time.
//!
//! The holder extends the lease while it works, and asks the CA for nothing once its own clock says
//! that the lease is over, even if it was frozen meanwhile. What it writes names the fencing number,
//! so what a holder writes late changes nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::failure;
use super::lease_clock::LeaseClock;
use crate::base::clock::Clock;
use crate::base::sync::lock_unpoisoned;
use crate::certs::schedule::{FailureKind, IssuanceFailure, RenewalState};
use crate::store::{CERTIFICATE_LEASE_SECONDS, ClusterStore, LeaseClaim, SharedCertificate, auth};

/// How often a holder extends its lease.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(4);
/// How long before its end the holder stops, since its clock may run slower than the database's and
/// a request takes time to arrive.
const SAFETY_MARGIN: Duration = Duration::from_secs(3);

/// A lease that this gateway holds, or held.
pub(super) struct Lease {
    store: ClusterStore,
    claim: LeaseClaim,
    clock: Arc<dyn Clock>,
    end: Arc<Mutex<Instant>>,
}

impl Lease {
    /// Takes the lease for a name, if it is free. Returns it with what is shared about the
    /// certificate.
    pub(super) async fn take(
        store: &ClusterStore,
        name: &str,
        is_ordering: bool,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<(Self, SharedCertificate)>, auth::Error> {
        let end = lease_end(clock.monotonic());
        let taken = Box::pin(store.take_certificate(name, is_ordering)).await?;
        Ok(taken.map(|(claim, shared)| {
            let lease = Self {
                store: store.clone(),
                claim,
                clock: Arc::clone(clock),
                end: Arc::new(Mutex::new(end)),
            };
            (lease, shared)
        }))
    }

    pub(super) fn clock(&self) -> LeaseClock {
        LeaseClock::new(Arc::clone(&self.clock), Arc::clone(&self.end))
    }

    pub(super) fn claim(&self) -> &LeaseClaim {
        &self.claim
    }

    /// Extends the lease until that fails for good, and returns then.
    pub(super) async fn keep(&self) {
        let clock = self.clock();
        while clock.is_running() {
            tokio::time::sleep(EXTENSION_INTERVAL).await;
            match self.extend().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => tracing::debug!(name = self.claim.name(), %error, "a lease is not extended"),
            }
        }
        self.end();
    }

    /// Makes sure that the lease is held, before a request that a CA counts.
    pub(super) async fn confirm(&self) -> Result<(), IssuanceFailure> {
        let outcome = self.extend().await;
        self.require(outcome)
    }

    async fn extend(&self) -> Result<bool, auth::Error> {
        let end = lease_end(self.clock.monotonic());
        // A lease that this clock calls over stays over, whatever the database says.
        let is_held = self.clock().is_running() && Box::pin(self.store.extend_lease(&self.claim)).await?;
        let mut current = lock_unpoisoned(&self.end);
        if is_held && self.clock.monotonic() < *current {
            *current = end.max(*current);
            return Ok(true);
        }
        Ok(false)
    }

    fn end(&self) {
        *lock_unpoisoned(&self.end) = self.clock.monotonic();
    }

    pub(super) async fn save_renewal(&self, renewal: &RenewalState) -> Result<(), IssuanceFailure> {
        let text = serialize(renewal);
        let saved = Box::pin(self.store.save_renewal(&self.claim, &text)).await;
        self.require(saved)
    }

    pub(super) async fn save_pending_order(&self, order: Option<&[u8]>) -> Result<(), IssuanceFailure> {
        let saved = Box::pin(self.store.save_pending_order(&self.claim, order)).await;
        self.require(saved)
    }

    pub(super) async fn save_bundle(&self, pem: &str, not_before: Timestamp) -> Result<(), IssuanceFailure> {
        let saved = Box::pin(self.store.save_bundle(&self.claim, pem.as_bytes(), not_before)).await;
        self.require(saved)
    }

    /// Gives the lease back, with what is remembered now if that has changed. Returns whether it
    /// was still held.
    pub(super) async fn release(&self, renewal: Option<&RenewalState>) -> Result<bool, auth::Error> {
        let text = renewal.map(serialize);
        Box::pin(self.store.release_certificate(&self.claim, text.as_deref())).await
    }

    /// Turns the outcome of a write into a failure of the order, unless the lease is held.
    pub(super) fn require(&self, outcome: Result<bool, auth::Error>) -> Result<(), IssuanceFailure> {
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.end();
                Err(lost())
            }
            Err(error) => Err(unavailable(&error)),
        }
    }
}

/// Returns the time at which a lease ends for its holder that is taken or extended from `asked_at`
/// on.
fn lease_end(asked_at: Instant) -> Instant {
    let length = Duration::from_secs(CERTIFICATE_LEASE_SECONDS.unsigned_abs());
    asked_at + length.saturating_sub(SAFETY_MARGIN)
}

pub(super) fn serialize(renewal: &RenewalState) -> Vec<u8> {
    serde_json::to_vec(renewal).expect("plain data")
}

/// The failure of an order whose lease was lost.
pub(super) fn lost() -> IssuanceFailure {
    failure::new_refused("this gateway was not heard of for too long, so another one may order")
}

/// The failure of an order while the database is away.
pub(super) fn unavailable(error: &auth::Error) -> IssuanceFailure {
    IssuanceFailure::new(FailureKind::Unreachable, format!("the database that gateways share: {error}"))
}

#[cfg(test)]
mod tests;

//! The part of an order that other gateways see: its lease, its place at the CA, and the answers
//! that any of them gives to the CA's challenges.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lease::{self, Lease};
use super::pending_order::PendingOrder;
use crate::base::sync::lock_unpoisoned;
use crate::certs::schedule::IssuanceFailure;
use crate::store::{ClusterStore, SharedChallenge, SharedChallengeKind};

/// How long other gateways give an answer that its orderer does not remove, e.g. because it died.
const ANSWER_TIME: Duration = Duration::from_secs(600);

/// What an attempt shares with other gateways. Cheap to clone.
#[derive(Clone)]
pub(super) struct SharedOrder {
    pub(super) store: ClusterStore,
    /// `None` for a dry run, which changes nothing.
    pub(super) lease: Option<Arc<Lease>>,
    /// The order that the last holder of the lease left, until it is taken up.
    left_order: Arc<Mutex<Option<PendingOrder>>>,
    /// The seal of the account in use, by which it is forgotten.
    pub(super) account_seal: Arc<Mutex<Option<Vec<u8>>>>,
}

impl SharedOrder {
    pub(super) fn new(
        store: ClusterStore,
        lease: Option<Arc<Lease>>,
        left_order: Option<PendingOrder>,
    ) -> Self {
        Self { store, lease, left_order: Arc::new(Mutex::new(left_order)), account_seal: Arc::default() }
    }

    /// Takes the order that the last holder left at this CA; once.
    pub(super) fn take_left_order(&self, directory: &str) -> Option<PendingOrder> {
        lock_unpoisoned(&self.left_order).take().filter(|order| order.directory == directory)
    }

    /// Has all gateways answer a challenge.
    pub(super) async fn publish(&self, challenge: &SharedChallenge) -> Result<(), IssuanceFailure> {
        let claim = self.lease.as_ref().map(|lease| lease.claim());
        let published = Box::pin(self.store.publish_challenge(claim, challenge, ANSWER_TIME)).await;
        match &self.lease {
            Some(lease) => lease.require(published),
            None => published.map(drop).map_err(|error| lease::unavailable(&error)),
        }
    }

    /// Ends an answer. One that cannot be removed now runs out.
    pub(super) async fn remove(&self, kind: SharedChallengeKind, key: &str) {
        if let Err(error) = Box::pin(self.store.remove_challenge(kind, key)).await {
            tracing::debug!(%error, "the answer to a challenge stays until it runs out");
        }
    }
}

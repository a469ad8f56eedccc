//! Rotations of refresh tokens whose outcome the database did not tell, because it went away, hung or
//! lost the connection. Their clients got 503, and come back with the token that they have, perhaps
//! much later. A rotation that happened is therefore marked as soon as the database answers again:
//! its token may have reached nobody, so its predecessor counts until somebody has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::PostgresEngine;
use super::error::Error;
use super::value::Value;
use crate::base::clock::{Clock, SystemClock};
use crate::base::digest::Digest;
use crate::base::sync::lock_unpoisoned;
use crate::store::auth::grant::GrantId;
use crate::store::auth::incarnation::Incarnation;

/// How many are kept. Whoever's is not has the grace period.
const MAX_ROTATIONS: usize = 10_000;
/// How many are settled at a time.
const BATCH: usize = 200;
/// How long a statement that did not answer may still be on its way, in a proxy or a server that
/// hung.
const LATEST_ARRIVAL: Duration = Duration::from_secs(600);

/// The rotations, by their grant.
#[derive(Debug)]
pub(super) struct UncertainRotations {
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<GrantId, UncertainRotation>>,
}

#[derive(Debug, Clone)]
struct UncertainRotation {
    incarnation: Incarnation,
    /// The digest of the sealed payload, whose nonce shows who wrote it.
    payload: Digest,
    sent_at: Instant,
}

impl Default for UncertainRotations {
    fn default() -> Self {
        Self { clock: SystemClock::shared(), known: Mutex::default() }
    }
}

impl UncertainRotations {
    pub(super) fn insert(&self, incarnation: &Incarnation, id: GrantId, payload: &[u8]) {
        let rotation = UncertainRotation {
            incarnation: incarnation.clone(),
            payload: Digest::of(payload),
            sent_at: self.clock.monotonic(),
        };
        let mut known = lock_unpoisoned(&self.known);
        if known.len() < MAX_ROTATIONS {
            known.insert(id, rotation);
        }
    }

    fn find(&self, id: GrantId) -> Option<UncertainRotation> {
        lock_unpoisoned(&self.known).get(&id).cloned()
    }

    fn some(&self) -> Vec<(GrantId, UncertainRotation)> {
        let known = lock_unpoisoned(&self.known);
        known.iter().take(BATCH).map(|(id, rotation)| (*id, rotation.clone())).collect()
    }

    fn remove(&self, id: GrantId) {
        lock_unpoisoned(&self.known).remove(&id);
    }

    fn len(&self) -> usize {
        lock_unpoisoned(&self.known).len()
    }
}

impl PostgresEngine {
    pub(in crate::store) async fn settle_rotations(&self) -> usize {
        for (id, rotation) in self.uncertain_rotations.some() {
            // The next turn comes in seconds.
            if self.settle(id, &rotation).await.is_err() {
                break;
            }
        }
        self.uncertain_rotations.len()
    }

    /// Settles the rotation of a grant that somebody asks for, if its outcome is unknown.
    pub(super) async fn settle_rotation(&self, id: GrantId) -> Result<(), Error> {
        match self.uncertain_rotations.find(id) {
            Some(rotation) => self.settle(id, &rotation).await,
            None => Ok(()),
        }
    }

    async fn settle(&self, id: GrantId, rotation: &UncertainRotation) -> Result<(), Error> {
        const MARK: &str = "
            UPDATE tenantd.grants SET unconfirmed = true
            WHERE tenant = $1 AND incarnation = $2 AND id = $3 AND sha256(payload) = $4
            RETURNING id";
        let values = [
            Value::Text(rotation.incarnation.tenant()),
            Value::Bytes(rotation.incarnation.id_bytes()),
            Value::Bytes(&id.0),
            Value::Bytes(rotation.payload.as_bytes()),
        ];
        let is_marked = !self.link.query(MARK, &values).await?.is_empty();
        let age = self.uncertain_rotations.clock.monotonic().saturating_duration_since(rotation.sent_at);
        if is_marked || age > LATEST_ARRIVAL {
            self.uncertain_rotations.remove(id);
        }
        Ok(())
    }
}

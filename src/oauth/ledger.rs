//! What the authorization servers of all tenants share: the store and how it is asked, which access tokens are revoked,
//! which have been verified lately, and what deletes all that has expired.
//!
//! Whoever asks the store for a tenant asks with that tenant's name: no answer is about another's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::replay::Replay;
use super::revocations::Revocations;
use super::verified::Verified;
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::store::{self, GrantId, Revoked, Store};
use crate::telemetry::audit::Audit;

const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How often what the store could not take is offered to it again.
const AGAIN: Duration = Duration::from_secs(2);
/// How many rows of a kind are deleted at once, so that nobody waits long for the file.
const AT_ONCE: u32 = 500;

/// What all tenants' authorization servers share.
pub struct Ledger {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    pub(super) revocations: Revocations,
    pub(super) verified: Verified,
    pub(super) assertions: Replay,
    pub(super) audit: Audit,
    /// Grants whose refresh token is being replaced.
    busy: DashMap<GrantId, Arc<Mutex<()>>>,
}

/// Our own part fails. It says nothing about the caller's credentials, so no client may throw them away over it: 503, never 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway cannot reach its own records now")]
pub struct Unavailable;

impl Ledger {
    /// Reads what is revoked, and keeps house from then on.
    pub async fn start(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        audit: Audit,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, store::Error> {
        let asked = Arc::clone(&store);
        let reading = tokio::task::spawn_blocking(move || asked.revoked());
        let revoked = reading.await.expect("reading the store does not panic")?;
        let ledger = Arc::new(Self {
            store,
            clock,
            revocations: Revocations::default(),
            verified: Verified::default(),
            assertions: Replay::default(),
            audit,
            busy: DashMap::new(),
        });
        revoked.into_iter().for_each(|(tenant, revoked)| ledger.revocations.add(&tenant, revoked));
        let (kept, ended) = (Arc::clone(&ledger), tasks.soft().clone());
        let housekeeping = move || keep_house(Arc::clone(&kept), ended.clone());
        tasks.spawn("oauth housekeeping", tasks.supervised("oauth housekeeping", housekeeping));
        Ok(ledger)
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock that is never set.
    pub(super) fn monotonic(&self) -> Instant {
        self.clock.monotonic()
    }

    /// Asks the store, where blocking is fine. A failure is ours, and the log's.
    pub(super) async fn ask<T, Q>(&self, question: Q) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        Q: FnOnce(&Store) -> Result<T, store::Error> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let asking = tokio::task::spawn_blocking(move || question(&store));
        let answer = asking.await.map_err(|_panicked| Unavailable)?;
        answer.map_err(|error| {
            tracing::error!(%error, "the store cannot be used, so logins wait");
            Unavailable
        })
    }

    /// The turn of one asker at a grant; the others wait for it to be let go.
    pub(super) async fn turn(&self, grant: GrantId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(&self.busy.entry(grant).or_default());
        turn.lock_owned().await
    }

    async fn tidy(&self) {
        let now = self.now();
        self.revocations.tidy(now);
        self.assertions.tidy(now);
        self.busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        // Whatever fails is in the log already, and tried again in a minute.
        while let Ok(deleted) = self.ask(move |store| store.delete_expired(now, AT_ONCE)).await
            && deleted >= AT_ONCE as usize
        {}
    }

    /// Offers the store what it could not take. Where it did not take the last, something small is tried first.
    async fn write_again(&self) {
        let waiting = self.revocations.unwritten(AT_ONCE as usize);
        if waiting.is_empty() && self.store.is_writable() {
            return;
        }
        let store = Arc::clone(&self.store);
        let writing = tokio::task::spawn_blocking(move || {
            store.try_writing()?;
            let write = |(tenant, revoked): &(Arc<str>, Revoked)| store.revoke(tenant, *revoked);
            waiting.iter().try_for_each(write).map(|()| waiting)
        });
        // The first failure is in the log already.
        let Ok(Ok(written)) = writing.await else { return };
        for (tenant, revoked) in &written {
            self.revocations.is_written(tenant, revoked.subject);
        }
        tracing::info!(revocations = written.len(), "the store can be written again; what waited is kept");
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

async fn keep_house(ledger: Arc<Ledger>, ended: tokio_util::sync::CancellationToken) {
    let (mut beat, mut again) = (tokio::time::interval(HOUSEKEEPING), tokio::time::interval(AGAIN));
    loop {
        tokio::select! {
            // What waits would be forgotten with the process.
            () = ended.cancelled() => return ledger.write_again().await,
            _ = beat.tick() => ledger.tidy().await,
            _ = again.tick() => ledger.write_again().await,
        }
    }
}

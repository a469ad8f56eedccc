//! The state that the authorization servers of all tenants share: access to the store, the revoked
//! access tokens, the cache of verified ones, and the task that deletes what has expired.
//!
//! Every query for a tenant carries the tenant's name, so no answer is about another tenant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::error::Unavailable;
use super::lives::Lives;
use super::replay::Replay;
use super::revocations::Revocations;
use super::verified::Verified;
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::spec::TenantName;
use crate::store::{self, GrantId, Store};
use crate::telemetry::audit::Audit;

const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How often writes that failed are retried.
const AGAIN: Duration = Duration::from_secs(2);
/// The limit on rows deleted at once, so that the database is never locked for long.
const AT_ONCE: u32 = 500;

/// The state that the authorization servers of all tenants share.
pub struct Ledger {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    pub(super) lives: Lives,
    writing_lives: Mutex<()>,
    pub(super) revocations: Revocations,
    /// Tenants whose denied clients can no longer be identified.
    doubtful: Vec<Arc<str>>,
    pub(super) verified: Verified,
    pub(super) assertions: Replay,
    pub(super) audit: Audit,
    /// Grants whose refresh token is being rotated.
    busy: DashMap<GrantId, Arc<Mutex<()>>>,
}

impl Ledger {
    /// Loads lives and revocations from the store, and starts the housekeeping task.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn start(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        audit: Audit,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, store::Error> {
        let asked = Arc::clone(&store);
        let read = move || {
            asked.renew_lives();
            Ok::<_, store::Error>((asked.lives()?, asked.revoked()?, asked.doubtful_denials()?))
        };
        let reading = tokio::task::spawn_blocking(read);
        let (lives, revoked, doubtful) = reading.await.expect("reading the store does not panic")?;
        for tenant in &doubtful {
            tracing::error!(%tenant, "a client that an operator removed cannot be told from others any more, because the store was changed by somebody else: clients that registered themselves wait there; restore a backup");
        }
        let revocations = Revocations::default();
        if revoked.unreadable > 0 {
            tracing::error!(
                revocations = revoked.unreadable,
                "revocations in the store were changed by somebody else: every access token of before is refused, clients renew theirs"
            );
            revocations.refuse_all(clock.now());
        }
        for (life, revoked) in revoked.known {
            revocations.add(&life, revoked);
        }
        let ledger = Arc::new(Self {
            store,
            clock,
            lives: Lives::of(lives),
            writing_lives: Mutex::default(),
            revocations,
            doubtful,
            verified: Verified::default(),
            assertions: Replay::default(),
            audit,
            busy: DashMap::new(),
        });
        let (kept, ended) = (Arc::clone(&ledger), tasks.soft().clone());
        let housekeeping = move || keep_house(Arc::clone(&kept), ended.clone());
        tasks.spawn("oauth housekeeping", tasks.supervised("oauth housekeeping", housekeeping));
        Ok(ledger)
    }

    /// Returns the wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the time of the clock that is never set.
    pub(super) fn monotonic(&self) -> Instant {
        self.clock.monotonic()
    }

    /// Whether the tenant's denied clients can no longer be identified.
    pub(super) fn doubts_denials(&self, tenant: &str) -> bool {
        self.doubtful.iter().any(|doubtful| **doubtful == *tenant)
    }

    /// Prepares the publication of a tenant without login from the entry `stem`: ends the life that
    /// another entry had under this name. For a tenant with login, see
    /// [`Issuer::settle`](super::issuer::Issuer::settle).
    pub fn settle_without_login(&self, tenant: &TenantName, stem: &Arc<str>) {
        self.lives.settle(tenant, stem, None);
    }

    /// Ends the lives of all tenants of a removed entry, so that everything stored for their logins
    /// is deleted.
    pub fn end_lives(&self, stem: &str) {
        self.lives.end(stem);
    }

    /// Writes lives that began or ended to the store; returns whether the store has all of them.
    pub async fn write_lives(&self) -> bool {
        if !self.lives.is_behind() {
            return true;
        }
        let _one_at_a_time = self.writing_lives.lock().await;
        let turns = self.lives.unwritten();
        let count = turns.len();
        let written = self.ask(move |store| store.turn_lives(&turns)).await;
        if written.is_ok() {
            self.lives.are_written(count);
        }
        written.is_ok()
    }

    /// Runs a query of the store on the blocking pool. Logs a failure, which is an internal one.
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

    /// Waits until no other request is working on this grant, and locks it.
    pub(super) async fn turn(&self, grant: GrantId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(&self.busy.entry(grant).or_default());
        turn.lock_owned().await
    }

    async fn tidy(&self) {
        let now = self.now();
        self.revocations.tidy(now);
        self.assertions.tidy(now);
        self.busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        // A failure is logged already, and retried in a minute.
        while let Ok(deleted) = self.ask(move |store| store.delete_expired(now, AT_ONCE)).await
            && deleted >= AT_ONCE as usize
        {}
    }

    /// Writes what the store could not take before. If the last write failed, something small is
    /// written first as a probe.
    async fn write_again(&self) {
        let waiting = self.revocations.unwritten(AT_ONCE as usize);
        if waiting.is_empty() && !self.lives.is_behind() && self.store.is_writable() {
            return;
        }
        let store = Arc::clone(&self.store);
        let trying = tokio::task::spawn_blocking(move || {
            store.try_writing()?;
            waiting.iter().try_for_each(|(life, revoked)| store.revoke(life, *revoked))?;
            Ok::<_, store::Error>(waiting)
        });
        // The first failure is in the log already.
        let Ok(Ok(written)) = trying.await else { return };
        for (life, revoked) in &written {
            self.revocations.is_written(life, revoked.subject);
        }
        if self.write_lives().await {
            tracing::info!(
                revocations = written.len(),
                "the store can be written again; what waited is kept"
            );
        }
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
            // A last attempt: unwritten revocations and lives would be lost with the process.
            () = ended.cancelled() => return ledger.write_again().await,
            _ = beat.tick() => ledger.tidy().await,
            _ = again.tick() => ledger.write_again().await,
        }
    }
}
